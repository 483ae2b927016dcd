// rmsNorm with a late scale between two linears of few rows, without a kernel of its own: the linear
// in front writes its output times the norm's weight, and the sum of squares of every 8 columns of
// its output; in the one behind a warp beside those that multiply folds a row's sums into its scale,
// which the sums of products need only at their end. The tree is rms_norm.cu's.
#ifndef VT_CUDA_LINEAR_LATE_CUH_
#define VT_CUDA_LINEAR_LATE_CUH_

#include "linear_epilogue.cuh"

namespace vt {

/** Most rows and columns that have squares. */
constexpr int kMostSquareRows = VT_CUDA_SQUARES_ROWS;
constexpr int kMostSquareColumns = VT_CUDA_SQUARES * 8;
/** Sums that are one load of a warp, four a lane, and such loads that are under way at once. */
constexpr int kLateGroup = 128;
constexpr int kLateLoads = 8;
/** Most warps that fold. */
constexpr int kMostFolders = 4;

/** Loads for a row of `k` columns: 1, 2 or 4. */
__host__ __device__ __forceinline__ int late_loads(int k) {
  return k <= 8 * kLateGroup ? 1 : k <= 16 * kLateGroup ? 2 : 4;
}

/**
 * scales[m] = the scale of row m, for all rows, by the warps that fold, of which this is the
 * `folder`-th: from x_squares, or as row_scale has them.
 */
__device__ __forceinline__ void fetch_scales(const VtCudaLinear& args, float* scales, int folder,
                                             int folders) {
  const int lane = threadIdx.x % 32;
  if (args.x_squares == nullptr) {
    for (int m = folder * 32 + lane; m < args.m; m += folders * 32)
      scales[m] = __ldcg(args.row_scale + m);
    return;
  }
  const int pieces = args.k / 8;
  const int loads = late_loads(args.k);
  const int log_loads = loads >> 1;  // 1, 2, 4
  const int rows_at_once = kLateLoads >> log_loads;
#pragma unroll 1
  for (int first = folder * rows_at_once; first < args.m; first += folders * rows_at_once) {
    float nodes[kLateLoads];
    float4 fours[kLateLoads];
#pragma unroll
    for (int i = 0; i < kLateLoads; i++) {
      const int row = first + (i >> log_loads);
      const int piece = (i & (loads - 1)) * kLateGroup + lane * 4;
      const float* from = args.x_squares + row * VT_CUDA_SQUARES + piece;
      fours[i] = row < args.m && piece < pieces ? __ldcg(reinterpret_cast<const float4*>(from))
                                                : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      // k is a multiple of 16: the last four may be two.
      if (piece + 2 >= pieces) fours[i].z = fours[i].w = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kLateLoads; i++) {
      nodes[i] = __fadd_rn(__fadd_rn(fours[i].x, fours[i].y), __fadd_rn(fours[i].z, fours[i].w));
    }
    // Lanes add their neighbours' nodes up and halve what they care for: lane l has load l % 8.
#pragma unroll
    for (int d = 1; d < kLateLoads; d *= 2) {
      const bool odd = (lane & d) != 0;
#pragma unroll
      for (int i = 0; i < kLateLoads / 2 / d; i++) {
        const float kept = odd ? nodes[2 * i + 1] : nodes[2 * i];
        const float given = odd ? nodes[2 * i] : nodes[2 * i + 1];
        nodes[i] = __fadd_rn(kept, __shfl_xor_sync(~0u, given, d));
      }
    }
    float sum = warp_sum<32 / kLateLoads, kLateLoads>(nodes[0]);
    if (log_loads > 0) sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 1));
    if (log_loads > 1) sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 2));
    const int row = first + (lane >> log_loads);
    if (lane < kLateLoads && row < args.m)
      scales[row] = norm_scale(sum, args.k, args.norm_eps);
  }
}

/** Sums of products as memory would hold them, times the row's scale. */
template <typename T>
__device__ __forceinline__ float2 scaled_sums(float2 sums, float scale) {
  return make_float2(__fmul_rn(to_f32(from_f32<T>(sums.x)), scale),
                     __fmul_rn(to_f32(from_f32<T>(sums.y)), scale));
}

/** The norm's weight at a place. */
template <typename T>
struct Gain {
  T of_first, of_second;
};

template <typename T>
__device__ __forceinline__ Gain<T> fetch_gain(const VtCudaLinear& args, const Place& place) {
  Gain<T> gain = {};
  const T* weight = static_cast<const T*>(args.out_gain);
  if (place.n[0] < args.n) gain.of_first = weight[place.n[0]];
  if (place.n[1] < args.n) gain.of_second = weight[place.n[1]];
  return gain;
}

/**
 * Row m of a unit from its sums, and what the norm behind it needs. Each unit has so little to do
 * here that what counts is how few instructions there are to be fetched. The whole warp calls it.
 */
template <typename T, bool kWide>
__device__ __forceinline__ void write_late(const VtCudaLinear& args, const Place& place, int unit,
                                           const Gain<T>& gain, const RowAhead& row, int m,
                                           float2 sums, bool pairs) {
  const int lane = threadIdx.x % 32;
  const float2 out = unpack2<T>(pack2<T>(__fadd_rn(sums.x, row.of_first),
                                         __fadd_rn(sums.y, row.of_second)));
  if (m < args.m) {
    store_outputs<T, kWide>(args, place, m, out.x, out.y, pairs);
    VtCudaLinear also = args;
    also.out = args.gained;
    also.out_stride = args.gained_stride;
    store_outputs<T, kWide>(also, place, m, __fmul_rn(out.x, to_f32(gain.of_first)),
                            __fmul_rn(out.y, to_f32(gain.of_second)), pairs);
  }
  const float first = __fmul_rn(out.x, out.x), second = __fmul_rn(out.y, out.y);
  float* squares = args.out_squares + m * VT_CUDA_SQUARES;
  if constexpr (kWide) {
    // Of neighbours 4 lanes apart one goes on with the first 8 columns, one with the second.
    const bool is_second = (lane & 4) != 0;
    const float given = __shfl_xor_sync(~0u, is_second ? first : second, 4);
    const float sum = warp_sum<4, 8>(__fadd_rn(is_second ? second : first, given));
    const int piece = unit * 2 + lane / 4;
    if (lane < 8 && m < args.m && piece < args.n / 8) squares[piece] = sum;
  } else {
    const float sum = warp_sum<4>(__fadd_rn(first, second));
    if (lane % 4 == 0 && m < args.m) squares[unit] = sum;
  }
}

}  // namespace vt

#endif  // VT_CUDA_LINEAR_LATE_CUH_
