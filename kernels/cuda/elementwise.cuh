// The arithmetic of rmsNorm, rope and silu, written once: the kernels of these ops and the fused
// ends of linear share it, so that they give the same bits. Knows nothing of threads' shares, but
// for how the summation tree of rmsNorm lies over warps.
//
// The sum of squares of a row is the full binary tree over its columns, zeros behind the last: a
// node is the sum of two neighbours. So it depends on the row alone, any aligned group of 8, 16, ..
// columns is a node whoever adds it up, and a wider row has the same nodes.
#ifndef VT_CUDA_ELEMENTWISE_CUH_
#define VT_CUDA_ELEMENTWISE_CUH_

#include "common.cuh"

namespace vt {

/** Most columns of a row. */
constexpr int kMaxNormColumns = 16384;
/** Columns that a warp has at once, a piece of 8 a lane: a node of the tree. */
constexpr int kGroupColumns = 256;
constexpr int kMaxNormGroups = kMaxNormColumns / kGroupColumns;

/**
 * Threads of rmsNorm: one has the 16-byte pieces thread, thread + threads, .., so that warp w has
 * the groups w, w + warps, ..
 */
__host__ __device__ __forceinline__ constexpr int norm_threads(int columns) {
  return columns <= 1024 ? 128 : columns <= 4096 ? 256 : 512;
}

/** The node above `kCount` neighbours. */
template <int kCount>
__device__ __forceinline__ float tree_sum(const float* nodes) {
  if constexpr (kCount == 1) {
    return nodes[0];
  } else {
    return __fadd_rn(tree_sum<kCount / 2>(nodes), tree_sum<kCount / 2>(nodes + kCount / 2));
  }
}

__device__ __forceinline__ float sum_of_squares(const float (&values)[8]) {
  float squares[8];
#pragma unroll
  for (int e = 0; e < 8; e++) squares[e] = __fmul_rn(values[e], values[e]);
  return tree_sum<8>(squares);
}

/** The node above those of `kLanes` lanes, `kStep` apart, in all of them. */
template <int kLanes = 32, int kStep = 1>
__device__ __forceinline__ float warp_sum(float sum) {
#pragma unroll
  for (int d = kStep; d < kLanes * kStep; d *= 2) {
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, d));
  }
  return sum;
}

/** The sum of a row from those of its groups; a whole warp calls it. */
__device__ __forceinline__ float sum_of_groups(const float* groups, int count) {
  const int lane = threadIdx.x % 32;
  // Of few groups lanes have the same ones.
  const int group = count <= 8 ? lane % 8 : lane;
  float sum = warp_sum<8>(group < count ? groups[group] : 0.0f);
  if (count <= 8) return sum;
  sum = warp_sum<4, 8>(sum);
  if (count > 32)
    sum = __fadd_rn(sum, warp_sum(lane + 32 < count ? groups[lane + 32] : 0.0f));
  return sum;
}

/** 1 / sqrt(mean + eps) of a sum of squares. */
__device__ __forceinline__ float norm_scale(float sum, int columns, float eps) {
  return __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(sum, static_cast<float>(columns)), eps)));
}

/** values *= scale * weight, each product rounded. */
__device__ __forceinline__ void apply_norm(float (&values)[8], float scale,
                                           const float (&weight)[8]) {
#pragma unroll
  for (int e = 0; e < 8; e++) values[e] = __fmul_rn(__fmul_rn(values[e], scale), weight[e]);
}

/** Eight values of a row whose norm's scale comes late, as memory would hold them: `row_scale`. */
template <typename T>
__device__ __forceinline__ uint4 scaled8(const uint4& words, float scale) {
  float values[8];
  unpack8<T>(words, values);
#pragma unroll
  for (int e = 0; e < 8; e++) values[e] = __fmul_rn(values[e], scale);
  uint4 result;
  store8(reinterpret_cast<T*>(&result), values);
  return result;
}

inline int check_angles(const VtCudaRopeCosSin& args) {
  VT_REQUIRE(args.num_tokens > 0 && args.head_dim > 0 && args.head_dim % 2 == 0,
             "ropeCosSin: %d tokens, head_dim %d", args.num_tokens, args.head_dim);
  return 0;
}

/** ropeCosSin of one token, by `threads` threads. */
__device__ __forceinline__ void put_angles(const VtCudaRopeCosSin& args, int token, int position,
                                           int thread, int threads) {
  const int half = args.head_dim / 2;
  float* out = args.out + static_cast<int64_t>(token) * args.head_dim;
  for (int i = thread; i < half; i += threads) {
    const float angle = __fmul_rn(static_cast<float>(position), args.inv_freq[i]);
    out[i] = __fmul_rn(cosf(angle), args.factor);
    out[half + i] = __fmul_rn(sinf(angle), args.factor);
  }
}

/** 16 bytes, piece `piece`, of the row that embedding has for `id`. */
__device__ __forceinline__ uint4 gathered(const VtCudaGather& args, int id, int piece) {
  const int64_t from = static_cast<int64_t>(id) - args.first_index;
  if (from < 0 || from >= args.num_source_rows) return make_uint4(0, 0, 0, 0);
  const uint16_t* row = static_cast<const uint16_t*>(args.source) + from * args.source_stride;
  return reinterpret_cast<const uint4*>(row)[piece];
}

/** Puts piece `piece` of row `row` of the embedding where it belongs. */
__device__ __forceinline__ void put_gathered(const VtCudaGather& args, int row, int piece,
                                             const uint4& words) {
  const auto place = [&](void* rows, int stride) {
    return reinterpret_cast<uint4*>(static_cast<uint16_t*>(rows) +
                                    static_cast<int64_t>(row) * stride) +
           piece;
  };
  *place(args.out, args.out_stride) = words;
  if (args.out_gain == nullptr) return;
  using T = __nv_bfloat16;
  float values[8];
  float gain[8];
  unpack8<T>(words, values);
  load8(static_cast<const T*>(args.out_gain) + piece * 8, gain);
  args.out_squares[row * VT_CUDA_SQUARES + piece] = sum_of_squares(values);
#pragma unroll
  for (int e = 0; e < 8; e++) values[e] = __fmul_rn(values[e], gain[e]);
  store8(reinterpret_cast<T*>(place(args.gained, args.gained_stride)), values);
}

inline int check_gained(const VtCudaGather& args) {
  VT_REQUIRE(args.out_gain == nullptr ||
                 (args.num_rows <= VT_CUDA_SQUARES_ROWS && args.columns <= 8 * VT_CUDA_SQUARES &&
                  args.dtype == VT_CUDA_BF16 && args.out_dtype == VT_CUDA_BF16 &&
                  aligned16(args.out_gain, 0) && aligned16(args.gained, args.gained_stride)),
             "embedding: squares of %d rows of %d columns (at most %d and %d), dtype %d",
             args.num_rows, args.columns, VT_CUDA_SQUARES_ROWS, 8 * VT_CUDA_SQUARES, args.dtype);
  return 0;
}

/** (a, b) turned by the angle of (cos, sin). */
__device__ __forceinline__ void rotate(float& a, float& b, float cos, float sin) {
  const float x = a;
  a = __fsub_rn(__fmul_rn(x, cos), __fmul_rn(b, sin));
  b = __fadd_rn(__fmul_rn(b, cos), __fmul_rn(x, sin));
}

/** a of rotate, from a, b and the negative sine, or b, from b, a and the sine: the same bits. */
__device__ __forceinline__ float rotated(float x, float other, float cos, float sin) {
  return __fadd_rn(__fmul_rn(x, cos), __fmul_rn(other, sin));
}

/**
 * silu(gate) * up; silu(x) = x / (1 + exp(-x)), with the hardware's 2^x and 1/x: off by at most
 * 1e-5 of it, and six instructions instead of nearly thirty.
 */
__device__ __forceinline__ float silu_times(float gate, float up) {
  const float e = exp2_approx(__fmul_rn(gate, -1.4426950408889634f));
  return __fmul_rn(__fmul_rn(gate, rcp_approx(__fadd_rn(1.0f, e))), up);
}

/** Element offset of the first key of a slot, head 0; its value lies `num_kv_heads` heads on. */
__device__ __forceinline__ int64_t slot_offset(int slot, int block_size, int num_layers, int layer,
                                               int num_kv_heads, int head_dim) {
  const int64_t head_size = static_cast<int64_t>(block_size) * head_dim;
  return (static_cast<int64_t>(slot / block_size) * num_layers + layer) * 2 * num_kv_heads *
             head_size +
         slot % block_size * head_dim;
}

}  // namespace vt

#endif  // VT_CUDA_ELEMENTWISE_CUH_
