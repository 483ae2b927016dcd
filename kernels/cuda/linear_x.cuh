// The prologue of linear_skinny where x lies in shared memory as a whole: as it is, or normalised
// with the bits of rmsNorm.
#ifndef VT_CUDA_LINEAR_X_CUH_
#define VT_CUDA_LINEAR_X_CUH_

#include "linear.cuh"

namespace vt {

/** Warps that normalise: twice or once those of rmsNorm. */
constexpr int kNormWarps = 8;
/** Rows and columns of which a norm in front is built: of more rows a kernel of its own is faster. */
constexpr int kMaxHeldNormRows = 2;
constexpr int kMaxHeldNormColumns = 4096;
/** Room for a row's groups. */
constexpr int kHeldGroups = kMaxHeldNormColumns / kGroupColumns;
/** Shared memory that x may take: two blocks are to fit on a multiprocessor. */
constexpr int kHeldLimit = 66 * 1024;

/** Where x lies: rows of `stride` bytes, zeros from `columns` to `padded`. */
struct HeldX {
  uint8_t* rows;
  int stride;
  int padded;
};

/** Bytes between rows: ldmatrix meets no bank twice. */
inline int held_stride(int k, int columns) {
  return (k + columns - 1) / columns * columns * 2 + 16;
}

/** x as it is, by the first `threads` threads. */
template <typename T>
__device__ __forceinline__ void hold_x(const VtCudaLinear& args, const HeldX& x, int threads) {
  for (int m = 0; m < args.m; m++) {
    const T* from = static_cast<const T*>(args.x) + static_cast<int64_t>(m) * args.x_stride;
    const uint32_t to = shared_address(x.rows) + m * x.stride;
    for (int i = threadIdx.x; i < x.padded / 8; i += threads) {
      const bool valid = i < args.k / 8;
      copy16_async(to + i * 16, valid ? from + i * 8 : from, valid);
    }
  }
  commit_copies();
  wait_copies<0>();
  sync_first(threads);
}

/** The weights that a thread multiplies with: those of its pieces, the same in every row. */
struct NormWeights {
  uint4 pieces[2];
};

template <typename T>
__device__ __forceinline__ NormWeights load_norm_weights(const VtCudaLinear& args) {
  NormWeights weights = {};
  const int tree = norm_threads(args.k);
#pragma unroll
  for (int p = 0; p < 2; p++) {
    const int i = threadIdx.x % tree + p * tree;
    if (i < args.k / 8) weights.pieces[p] = static_cast<const uint4*>(args.norm_weight)[i];
  }
  return weights;
}

/**
 * The normalised x, by kNormWarps warps; `sums` has room for kHeldGroups a row. Short code rather
 * than much at once: it runs once a kernel, and a warp waits for every line of it.
 */
template <typename T>
__device__ __forceinline__ void hold_normalised_x(const VtCudaLinear& args, const HeldX& x,
                                                  const NormWeights& weights, float* sums) {
  const bool halves = norm_threads(args.k) == 128;  // two rows at a time
  const int tree = halves ? 128 : 256;
  const int thread = threadIdx.x & (tree - 1);  // of the tree
  const int first_row = halves ? threadIdx.x >> 7 : 0;
  const int row_step = halves ? 2 : 1;
  const int pieces = args.k / 8;
  const int lane = threadIdx.x % 32;
  hold_x<T>(args, x, kNormWarps * 32);
#pragma unroll 1
  for (int m = first_row; m < args.m; m += row_step) {
#pragma unroll
    for (int p = 0; p < 2; p++) {
      if (p * tree >= pieces) break;
      const int i = thread + p * tree;
      float values[8] = {};
      if (i < pieces) load8(reinterpret_cast<const T*>(x.rows + m * x.stride + i * 16), values);
      const float sum = warp_sum(sum_of_squares(values));
      if (lane == 0) sums[m * kHeldGroups + i / 32] = sum;
    }
  }
  sync_first(kNormWarps * 32);
  // Lane m has the scale of row m.
  float scale = 0.0f;
  const int groups = (args.k + kGroupColumns - 1) / kGroupColumns;
#pragma unroll 1
  for (int m = 0; m < args.m; m++) {
    const float sum = sum_of_groups(sums + m * kHeldGroups, groups);
    if (lane == m) scale = norm_scale(sum, args.k, args.norm_eps);
  }
#pragma unroll 1
  for (int m = first_row; m < args.m; m += row_step) {
    const float row_scale = __shfl_sync(~0u, scale, m);
#pragma unroll
    for (int p = 0; p < 2; p++) {
      const int i = thread + p * tree;
      if (i >= pieces) continue;
      T* at = reinterpret_cast<T*>(x.rows + m * x.stride + i * 16);
      float values[8];
      float weight[8];
      load8(at, values);
      unpack8<T>(weights.pieces[p], weight);
      apply_norm(values, row_scale, weight);
      store8(at, values);
    }
  }
  sync_first(kNormWarps * 32);
}

}  // namespace vt

#endif  // VT_CUDA_LINEAR_X_CUH_
