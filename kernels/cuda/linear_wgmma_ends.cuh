// What becomes of a tile of sums of linear_wgmma: the ends of linear_epilogue.cuh, for lanes that
// have pairs of neighbouring columns. What an epilogue joins lies in one lane: gate and up 8
// columns apart, the halves of a rope pair head_dim / 2.
#ifndef VT_CUDA_LINEAR_WGMMA_ENDS_CUH_
#define VT_CUDA_LINEAR_WGMMA_ENDS_CUH_

#include "linear.cuh"

namespace vt {

/** Columns of a tile, and of sums: sum[j][2 h + e] is row h, column 8 j + lane % 4 * 2 + e. */
constexpr int kEndColumns = 256;
using TileSums = float[kEndColumns / 8][4];

template <typename T>
__device__ __forceinline__ float2 load_pair(const void* from, int64_t at) {
  return unpack2<T>(__ldcg(reinterpret_cast<const uint32_t*>(static_cast<const T*>(from) + at)));
}

template <typename T>
__device__ __forceinline__ void store_pair(void* to, int64_t at, float first, float second) {
  *reinterpret_cast<uint32_t*>(static_cast<T*>(to) + at) = pack2<T>(first, second);
}

/** The sums of row h at tile j with the bias of columns n, n + 1. */
template <typename T>
__device__ __forceinline__ float2 biased(const VtCudaLinear& args, const TileSums& sum, int j,
                                         int h, int n) {
  float2 pair = make_float2(sum[j][h * 2], sum[j][h * 2 + 1]);
  if (args.bias != nullptr) {
    const float2 bias = load_pair<T>(args.bias, n);
    pair.x = __fadd_rn(pair.x, bias.x);
    pair.y = __fadd_rn(pair.y, bias.y);
  }
  return pair;
}

/** The same, rounded as between two ops. */
template <typename T>
__device__ __forceinline__ float2 rounded(const VtCudaLinear& args, const TileSums& sum, int j,
                                          int h, int n) {
  const float2 pair = biased<T>(args, sum, j, h, n);
  return unpack2<T>(pack2<T>(pair.x, pair.y));
}

template <typename T>
__device__ __forceinline__ void end_plain(const VtCudaLinear& args, const TileSums& sum, int h,
                                          int m, int n0) {
#pragma unroll
  for (int j = 0; j < kEndColumns / 8; j++) {
    const int n = n0 + j * 8;
    if (n >= args.n) continue;
    float2 pair = biased<T>(args, sum, j, h, n);
    if (args.residual != nullptr) {
      const float2 residual =
          load_pair<T>(args.residual, static_cast<int64_t>(m) * args.residual_stride + n);
      pair.x = __fadd_rn(pair.x, residual.x);
      pair.y = __fadd_rn(pair.y, residual.y);
    }
    const int64_t at = static_cast<int64_t>(m) * args.out_stride + n;
    if (args.out_dtype == VT_CUDA_F32) {
      *reinterpret_cast<float2*>(static_cast<float*>(args.out) + at) = pair;
    } else {
      store_pair<T>(args.out, at, pair.x, pair.y);
    }
  }
}

template <typename T>
__device__ __forceinline__ void end_silu(const VtCudaLinear& args, const TileSums& sum, int h,
                                         int m, int n0) {
#pragma unroll
  for (int j = 0; j < kEndColumns / 8; j += 2) {
    const int n = n0 + j * 8;
    if (n >= args.n) continue;
    const float2 gate = rounded<T>(args, sum, j, h, n);
    const float2 up = rounded<T>(args, sum, j + 1, h, n + 8);
    store_pair<T>(args.out, static_cast<int64_t>(m) * args.out_stride + n / 16 * 8 + n % 8,
                  silu_times(gate.x, up.x), silu_times(gate.y, up.y));
  }
}

template <typename T, int kHeadDim>
__device__ __forceinline__ void end_rope(const VtCudaLinear& args, const TileSums& sum, int h,
                                         int m, int n0, int slot) {
  constexpr int kHalf = kHeadDim / 2;
  const float* angles = args.cos_sin + static_cast<int64_t>(m) * kHeadDim + n0 % 8;
#pragma unroll
  for (int head0 = 0; head0 < kEndColumns; head0 += kHeadDim) {
    const int n = n0 + head0;
    if (n >= args.n) continue;
    const int head = n / kHeadDim;
    const int kv_head = head - args.num_heads;  // K heads, then V heads
#pragma unroll
    for (int column = 0; column < kHalf; column += 8) {
      const int j = (head0 + column) / 8;
      float2 first = rounded<T>(args, sum, j, h, n + column);
      float2 second = rounded<T>(args, sum, j + kHalf / 8, h, n + column + kHalf);
      if (kv_head < args.num_kv_heads) {
        const float2 cosine = __ldcg(reinterpret_cast<const float2*>(angles + column));
        const float2 sine = __ldcg(reinterpret_cast<const float2*>(angles + column + kHalf));
        rotate(first.x, second.x, cosine.x, sine.x);
        rotate(first.y, second.y, cosine.y, sine.y);
      }
      if (kv_head < 0) {
        const int64_t at = static_cast<int64_t>(m) * args.out_stride + n + column;
        store_pair<T>(args.out, at, first.x, first.y);
        store_pair<T>(args.out, at + kHalf, second.x, second.y);
      } else if (slot >= 0) {
        const int64_t at =
            slot_offset(slot, args.block_size, args.num_layers, args.layer, args.num_kv_heads,
                        kHeadDim) +
            static_cast<int64_t>(kv_head) * args.block_size * kHeadDim + n0 % 8 + column;
        store_pair<T>(args.kv_cache, at, first.x, first.y);
        store_pair<T>(args.kv_cache, at + kHalf, second.x, second.y);
      }
    }
  }
}

/** A lane's rows m and m + 8 from column n0 + its own pair on. */
template <typename T>
__device__ __forceinline__ void end_tile(const VtCudaLinear& args, const TileSums& sum, int m,
                                         int n0) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int row = m + h * 8;
    if (row >= args.m) continue;
    if (args.epilogue == VT_CUDA_SILU_AND_MUL) {
      end_silu<T>(args, sum, h, row, n0);
    } else if (args.epilogue == VT_CUDA_ROPE_AND_CACHE) {
      const int slot = __ldcg(args.slots + row);
      if (args.head_dim == 64) {
        end_rope<T, 64>(args, sum, h, row, n0, slot);
      } else {
        end_rope<T, 128>(args, sum, h, row, n0, slot);
      }
    } else {
      end_plain<T>(args, sum, h, row, n0);
    }
  }
}

}  // namespace vt

#endif  // VT_CUDA_LINEAR_WGMMA_ENDS_CUH_
