// What the copy engine brings linear_skinny, by a warp's cp.async instead, for targets without one:
// the same boxes in the same places.
#ifndef VT_CUDA_LINEAR_SKINNY_COPY_CUH_
#define VT_CUDA_LINEAR_SKINNY_COPY_CUH_

#include "linear.cuh"

namespace vt {

/**
 * Columns column0 .. of `num_rows` rows (a multiple of 8), in groups of 64 columns: 16-byte piece i
 * of row r of a group lies at place i ^ (r % 8) of its 128 bytes. `row_of(r)` says which row of
 * `tensor` row r is, or -1 for zeros; zeros from column k on too.
 */
template <typename T, int kColumns, typename RowOf>
__device__ __forceinline__ void copy_rows(uint32_t to, int num_rows, const void* tensor,
                                          int64_t stride, int column0, int k, int lane,
                                          uint64_t policy, RowOf row_of) {
  const int piece = lane % 8;
  for (int r = lane / 8; r < num_rows; r += 4) {
    const int row = row_of(r);
    const T* from = static_cast<const T*>(tensor) + (row < 0 ? 0 : row * stride);
    const uint32_t place = to + r * 128 + ((piece ^ (r % 8)) << 4);
#pragma unroll
    for (int group = 0; group < kColumns / 64; group++) {
      const int column = column0 + group * 64 + piece * 8;
      const bool valid = row >= 0 && column < k;
      copy16_async(place + group * num_rows * 128, valid ? from + column : from, valid, policy);
    }
  }
}

/** A stage's part of unit `unit` of the weight. */
template <typename T, bool kWide, int kColumns>
__device__ __forceinline__ void copy_unit(const VtCudaLinear& args, uint32_t to, int unit,
                                          int column0, int lane, uint64_t policy) {
  constexpr int kRows = kWide ? 16 : 8;
  const int per_head = args.head_dim / 16;
  const bool halves = kWide && args.epilogue == VT_CUDA_ROPE_AND_CACHE;
  copy_rows<T, kColumns>(
      to, kRows, args.weight, args.weight_stride, column0, args.k, lane, policy, [&](int r) {
        // With rope 8 rows of the first half of a head, and their partners in the second.
        const int n = halves ? unit / per_head * args.head_dim + unit % per_head * 8 + r % 8 +
                                   r / 8 * (args.head_dim / 2)
                             : unit * kRows + r;
        return n < args.n ? n : -1;
      });
}

/** A stage's part of x. */
template <typename T, int kColumns>
__device__ __forceinline__ void copy_x(const VtCudaLinear& args, uint32_t to, int num_rows,
                                       int column0, int lane, uint64_t policy) {
  copy_rows<T, kColumns>(to, num_rows, args.x, args.x_stride, column0, args.k, lane, policy,
                         [&](int r) { return r < args.m ? r : -1; });
}

}  // namespace vt

#endif  // VT_CUDA_LINEAR_SKINNY_COPY_CUH_
