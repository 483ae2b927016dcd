// What becomes of a tile of sums of linear_wgmma: the ends of linear_epilogue.cuh. What is written
// goes by way of the warp's place in shared memory, 16 rows of 128 columns at a time, and from there
// in pieces of 16 bytes, so that rows are written in long runs. siluAndMul joins sums that lie in
// one lane; the halves of a rope head meet in that place, rounded, as a pair of pieces. The code is
// short, which counts where it runs once a tile and is cold each time. Knows nothing of stages and
// warpgroups.
#ifndef VT_CUDA_LINEAR_WGMMA_ENDS_CUH_
#define VT_CUDA_LINEAR_WGMMA_ENDS_CUH_

#include "linear.cuh"
#include "wgmma_ptx.cuh"

namespace vt {

/** Of a tile of 8 kTiles columns: sum[j][2 h + e] is row h, column 8 j + lane % 4 * 2 + e. */
template <int kTiles>
using TileSums = float[kTiles][4];
/** A tile ends in two runs of half its columns, at most 128. */
constexpr int kRuns = 2;
/** A warp's place: rows of a run's columns, whose 16-byte piece i lies at i ^ (row % 8). */
constexpr int kEndRowBytes = 256;
constexpr int kEndBytes = 16 * kEndRowBytes;

struct Pieces {
  float first[8], second[8];
};

template <typename T>
__device__ __forceinline__ float2 load_pair(const void* from, int64_t at) {
  return unpack2<T>(__ldcg(reinterpret_cast<const uint32_t*>(static_cast<const T*>(from) + at)));
}

template <typename T>
__device__ __forceinline__ void store_pair(void* to, int64_t at, float first, float second) {
  *reinterpret_cast<uint32_t*>(static_cast<T*>(to) + at) = pack2<T>(first, second);
}

/** The sums of row h at tile j with the bias of columns n, n + 1. */
template <typename T, int kTiles>
__device__ __forceinline__ float2 biased(const VtCudaLinear& args, const TileSums<kTiles>& sum,
                                         int j, int h, int n) {
  float2 pair = make_float2(sum[j][h * 2], sum[j][h * 2 + 1]);
  if (args.bias != nullptr) {
    const float2 bias = load_pair<T>(args.bias, n);
    pair.x = __fadd_rn(pair.x, bias.x);
    pair.y = __fadd_rn(pair.y, bias.y);
  }
  return pair;
}

__device__ __forceinline__ uint32_t piece_address(uint32_t place, int row, int piece) {
  return place + row * kEndRowBytes + ((piece ^ (row % 8)) << 4);
}

/** The sums of a run of the tile from column n0 on, rounded into the warp's place. */
template <typename T, int kTiles>
__device__ __forceinline__ void place_run(const VtCudaLinear& args, const TileSums<kTiles>& sum,
                                          int run, int n0, uint32_t place, int lane) {
  constexpr int kRunTiles = kTiles / kRuns;
#pragma unroll
  for (int h = 0; h < 2; h++) {
#pragma unroll
    for (int i = 0; i < kRunTiles; i++) {
      const int j = run * kRunTiles + i;
      const int n = min(n0 + j * 8, args.n - 8) + lane % 4 * 2;
      const float2 pair = biased<T, kTiles>(args, sum, j, h, n);
      store_shared(piece_address(place, lane / 4 + h * 8, i) + lane % 4 * 4,
                   pack2<T>(pair.x, pair.y));
    }
  }
  __syncwarp();
}

template <typename T>
__device__ __forceinline__ void load_pieces(Pieces& values, uint32_t place, int row, int first,
                                            int second) {
  const uint4 a = load_shared(piece_address(place, row, first));
  const uint4 b = load_shared(piece_address(place, row, second));
  const uint32_t words[2][4] = {{a.x, a.y, a.z, a.w}, {b.x, b.y, b.z, b.w}};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 x = unpack2<T>(words[0][i]);
    const float2 y = unpack2<T>(words[1][i]);
    values.first[2 * i] = x.x;
    values.first[2 * i + 1] = x.y;
    values.second[2 * i] = y.x;
    values.second[2 * i + 1] = y.y;
  }
}

/** kPieces of each of the place's rows, to columns of the output from n0 on, of which it has n. */
template <typename T, int kPieces>
__device__ __forceinline__ void write_rows(const VtCudaLinear& args, int m0, int n0, int n,
                                           uint32_t place, int lane) {
#pragma unroll
  for (int i = 0; i < kPieces / 2; i++) {
    const int r = (i * 32 + lane) / kPieces;
    const int piece = (i * 32 + lane) % kPieces;
    if (m0 + r >= args.m || n0 + piece * 8 >= n) continue;
    *reinterpret_cast<uint4*>(static_cast<T*>(args.out) +
                              static_cast<int64_t>(m0 + r) * args.out_stride + n0 + piece * 8) =
        load_shared(piece_address(place, r, piece));
  }
}

/** The sums of row h whose norm's scale comes late, as memory would hold them; without a bias. */
template <typename T>
__device__ __forceinline__ float2 scaled(const float (&sum)[4], int h, float scale) {
  const float2 pair = rounded<T>(make_float2(sum[h * 2], sum[h * 2 + 1]));
  return rounded<T>(make_float2(__fmul_rn(pair.x, scale), __fmul_rn(pair.y, scale)));
}

/** row_scale of a lane's rows lane / 4 and lane / 4 + 8 of a warp's, where there is one. */
using RowScales = float[2];

/** Asks for them: where products are under way yet, nothing waits. */
__device__ __forceinline__ void load_scales(const VtCudaLinear& args, RowScales& scales, int m0,
                                            int lane) {
  if (args.row_scale == nullptr) return;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    scales[h] = __ldcg(args.row_scale + min(m0 + lane / 4 + h * 8, args.m - 1));
  }
}

/**
 * siluAndMul: a lane has gate and up of its columns, so that only what it makes of them goes by way
 * of the warp's place, where a row of the tile's has room.
 */
template <typename T, bool kScaled, int kTiles>
__device__ __forceinline__ void end_silu(const VtCudaLinear& args, const TileSums<kTiles>& sum,
                                         const RowScales& scales, int m0, int n0, uint32_t place,
                                         int lane) {
  constexpr int kPieces = kTiles / 2;
#pragma unroll
  for (int i = 0; i < kPieces; i++) {
    const int n = min(n0 + i * 16, args.n - 16) + lane % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float2 gate, up;
      if constexpr (kScaled) {
        gate = scaled<T>(sum[2 * i], h, scales[h]);
        up = scaled<T>(sum[2 * i + 1], h, scales[h]);
      } else {
        gate = rounded<T>(biased<T, kTiles>(args, sum, 2 * i, h, n));
        up = rounded<T>(biased<T, kTiles>(args, sum, 2 * i + 1, h, n + 8));
      }
      store_shared(piece_address(place, lane / 4 + h * 8, i) + lane % 4 * 4,
                   pack2<T>(silu_times(gate.x, up.x), silu_times(gate.y, up.y)));
    }
  }
  __syncwarp();
  write_rows<T, kPieces>(args, m0, n0 / 2, args.n / 2, place, lane);
  __syncwarp();
}

/** head_dim 64 or 128. */
template <typename T, int kRunPieces>
__device__ __forceinline__ void write_rope(const VtCudaLinear& args, int m0, int n0,
                                           uint32_t place, int lane) {
  const int half = args.head_dim / 2;
#pragma unroll 1
  for (int i = lane; i < 16 * kRunPieces / 2; i += 32) {
    const int m = m0 + i / (kRunPieces / 2);
    const int column = i % (kRunPieces / 2) * 8;  // among the first halves of the run's heads
    const int in_run = column / half * args.head_dim + column % half;
    const int n = n0 + in_run;
    if (m >= args.m || n >= args.n) continue;
    Pieces values;
    load_pieces<T>(values, place, i / (kRunPieces / 2), in_run / 8, (in_run + half) / 8);
    const int head = n / args.head_dim;
    const int kv_head = head - args.num_heads;  // K heads, then V heads
    const int in_head = n - head * args.head_dim;
    if (kv_head < args.num_kv_heads) {
      const float* angles = args.cos_sin + static_cast<int64_t>(m) * args.head_dim + in_head;
#pragma unroll
      for (int e = 0; e < 8; e += 2) {
        const float2 cosine = __ldcg(reinterpret_cast<const float2*>(angles + e));
        const float2 sine = __ldcg(reinterpret_cast<const float2*>(angles + half + e));
        rotate(values.first[e], values.second[e], cosine.x, sine.x);
        rotate(values.first[e + 1], values.second[e + 1], cosine.y, sine.y);
      }
    }
    T* to = static_cast<T*>(args.out) + static_cast<int64_t>(m) * args.out_stride + n;
    if (kv_head >= 0) {
      const int slot = __ldcg(args.slots + m);
      if (slot < 0) continue;
      to = static_cast<T*>(args.kv_cache) +
           slot_offset(slot, args.block_size, args.num_layers, args.layer, args.num_kv_heads,
                       args.head_dim) +
           static_cast<int64_t>(kv_head) * args.block_size * args.head_dim + in_head;
    }
    store8(to, values.first);
    store8(to + half, values.second);
  }
}

/** With a residual, or f32 output: from registers, since nothing may be rounded before. */
template <typename T, int kTiles>
__device__ __forceinline__ void end_f32(const VtCudaLinear& args, const TileSums<kTiles>& sum,
                                        int m0, int n0, int lane) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int m = m0 + lane / 4 + h * 8;
    if (m >= args.m) continue;
#pragma unroll
    for (int j = 0; j < kTiles; j++) {
      const int n = n0 + j * 8 + lane % 4 * 2;
      if (n >= args.n) continue;
      float2 pair = biased<T, kTiles>(args, sum, j, h, n);
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
}

/** A warp's 16 rows from m0 on, columns n0..; `place`: its kEndBytes. */
template <typename T, int kTiles>
__device__ __forceinline__ void end_tile(const VtCudaLinear& args, const TileSums<kTiles>& sum,
                                         const RowScales& scales, int m0, int n0, uint32_t place,
                                         int lane) {
  constexpr int kRunPieces = kTiles / kRuns;
  static_assert(kTiles % kRuns == 0 && kRunPieces * 16 <= kEndRowBytes);
  if (args.residual != nullptr || args.out_dtype == VT_CUDA_F32) {
    end_f32<T, kTiles>(args, sum, m0, n0, lane);
    return;
  }
  if (args.epilogue == VT_CUDA_SILU_AND_MUL) {
    if (args.row_scale != nullptr) {
      end_silu<T, true>(args, sum, scales, m0, n0, place, lane);
    } else {
      end_silu<T, false>(args, sum, scales, m0, n0, place, lane);
    }
    return;
  }
#pragma unroll
  for (int run = 0; run < kRuns; run++) {
    place_run<T, kTiles>(args, sum, run, n0, place, lane);
    const int n = n0 + run * kRunPieces * 8;
    if (args.epilogue == VT_CUDA_ROPE_AND_CACHE) {
      // A run of 128 columns is whole heads; launch_wgmma takes no other tile for it.
      if constexpr (kRunPieces == 16) write_rope<T, kRunPieces>(args, m0, n, place, lane);
    } else {
      write_rows<T, kRunPieces>(args, m0, n, args.n, place, lane);
    }
    __syncwarp();
  }
}

}  // namespace vt

#endif  // VT_CUDA_LINEAR_WGMMA_ENDS_CUH_
