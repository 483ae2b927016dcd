// A block's part of linear_decode: which rows of x and of the weight it has, where its stages lie,
// and what becomes of its sums. They lie with the weight's rows along lanes, and rows of x are
// written in pieces of 16 bytes, so they pass through shared memory: as f32, or, where gate and up
// have met in a lane, as rounded outputs that stmatrix turns round. Knows nothing of fetching and
// folding.
#ifndef VT_CUDA_LINEAR_DECODE_TILE_CUH_
#define VT_CUDA_LINEAR_DECODE_TILE_CUH_

#include "cluster.cuh"
#include "linear.cuh"
#include "wgmma.cuh"

namespace vt {

/**
 * Rows of the weight and of x of a block, how many blocks of a cluster share its weight and its rows
 * of x, and KiB of shared memory. A warpgroup has 64 rows of the weight and all of x; with kOfX 64
 * of x and all of the weight.
 */
template <int kWeightRows_, int kRows_, int kAlongX_, int kAlongN_, int kRoomKiB = 112,
          bool kOfX_ = false>
struct DecodeForm {
  static constexpr int kWeightRows = kWeightRows_, kRows = kRows_;
  static constexpr int kAlongX = kAlongX_, kAlongN = kAlongN_;
  static constexpr bool kOfX = kOfX_;
  static constexpr int kCluster = kAlongX * kAlongN;
  /** Blocks that this one shares something with, itself among them. */
  static constexpr int kPeers = kAlongX + kAlongN - 1;
  /** Rows that warpgroups divide, 64 each, and those that each has all of. */
  static constexpr int kOuter = kOfX ? kRows : kWeightRows;
  static constexpr int kInner = kOfX ? kWeightRows : kRows;
  static constexpr int kFolders = kOuter / 64 * 128;
  static constexpr int kWeightBytes = kWeightRows * kPanelRowBytes;
  static constexpr int kStageBytes = kWeightBytes + kRows * kPanelRowBytes;
  /** So that the next kernel's block lies beside this one. */
  static constexpr int kRoom = kRoomKiB * 1024;
  static constexpr int kRing = 1024;
  static constexpr int kEmptyBarriers = 128;  // behind `full`
  static constexpr int kScales = 256;         // behind `empty`
  static constexpr int kStages = (kRoom - kRing) / kStageBytes;
  static constexpr int kBytes = kRing + kStages * kStageBytes;
  /** The sums of a row of x, f32; rows lie 4 banks apart. */
  static constexpr int kSumRowBytes = kWeightRows * 4 + 16;
  /** Whether it may be asked for f32: forms of large weights, and no others, which are shorter so. */
  static constexpr bool kWritesF32 = kRoomKiB > 112 || kAlongX == 1;
  /** A row of sums in pieces of 8, and how many of them a thread writes. */
  static constexpr int kPieces = kWeightRows / 8;
  static constexpr int kPiecesOfThread = (kRows * kPieces + kFolders - 1) / kFolders;
  /** With siluAndMul rows have half as many pieces; eight of them lie in other banks. */
  static constexpr int kJoinedPieces = kPieces / 2;
  static constexpr int kJoinedRowBytes = kJoinedPieces * 16 + 16;
  static_assert(kStages * 8 <= kEmptyBarriers && kStages * kStageBytes >= kRows * kSumRowBytes);
  static_assert(kScales + kRows * 4 <= kRing && kOuter % 64 == 0);
  static_assert(kCluster > 1 && kCluster <= 16 && kRows % 8 == 0);
};

template <typename F>
struct DecodeTile {
  const VtCudaLinear& args;
  uint32_t base;
  /** Among the blocks that share its weight, and among those that share its rows of x. */
  int rank_x, rank_n;
  int m0, n0;
  int chunks;

  __device__ __forceinline__ DecodeTile(const VtCudaLinear& a, uint32_t shared_base)
      : args(a), base(shared_base), chunks((a.k + kPanelColumns - 1) / kPanelColumns) {
    const int rank = cluster_rank();
    rank_x = rank % F::kAlongX;
    rank_n = rank / F::kAlongX;
    const int of_n = F::kWeightRows * F::kAlongN;
    const int along_n = (a.n + of_n - 1) / of_n;
    const int cluster = blockIdx.x / F::kCluster;
    n0 = (cluster % along_n * F::kAlongN + rank_n) * F::kWeightRows;
    m0 = (cluster / along_n * F::kAlongX + rank_x) * F::kRows;
  }

  __device__ __forceinline__ uint32_t full(int stage) const { return base + stage * 8; }
  __device__ __forceinline__ uint32_t empty(int stage) const {
    return base + F::kEmptyBarriers + stage * 8;
  }
  __device__ __forceinline__ uint32_t weight_of(int stage) const {
    return base + F::kRing + stage * F::kStageBytes;
  }
  __device__ __forceinline__ uint32_t x_of(int stage) const {
    return weight_of(stage) + F::kWeightBytes;
  }
  /** Where the sums of a row of x are placed: in the ring, once the block has read it. */
  __device__ __forceinline__ uint32_t sums_of(int row) const {
    return base + F::kRing + row * F::kSumRowBytes;
  }
  /** And what siluAndMul makes of them. */
  __device__ __forceinline__ uint32_t joined_of(int row, int piece) const {
    return base + F::kRing + row * F::kJoinedRowBytes + piece * 16;
  }
  /** The scale of a row of x, f32. */
  __device__ __forceinline__ uint32_t scale_of(int row) const {
    return base + F::kScales + row * 4;
  }
  /** Lane `peer` < kPeers: the rank of that peer. */
  __device__ __forceinline__ int peer_rank(int peer) const {
    if (peer < F::kAlongX) return rank_n * F::kAlongX + peer;
    const int other = peer - F::kAlongX;
    return (other < rank_n ? other : other + 1) * F::kAlongX + rank_x;
  }
};

/**
 * sum[j][2 h + e]: row lane / 4 + 8 h of the warp's 16 of the weight, row 8 j + lane % 4 * 2 + e of
 * x; with kOfX the other way round.
 */
template <typename F>
using DecodeSums = float[F::kInner / 8][4];

template <typename F>
__device__ __forceinline__ void place_sums(const DecodeTile<F>& tile, const DecodeSums<F>& sum,
                                           int warp, int lane) {
  const int outer = warp * 16 + lane / 4;
#pragma unroll
  for (int j = 0; j < F::kInner / 8; j++) {
    const int inner = j * 8 + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if constexpr (F::kOfX) {
        store_shared(tile.sums_of(outer + i * 8) + inner * 4,
                     make_float2(sum[j][i * 2], sum[j][i * 2 + 1]));
      } else {
        const uint32_t to = tile.sums_of(inner + i) + outer * 4;
        store_shared(to, __float_as_uint(sum[j][i]));
        store_shared(to + 8 * 4, __float_as_uint(sum[j][2 + i]));
      }
    }
  }
}

__device__ __forceinline__ void load_sums(float (&sums)[8], uint32_t address) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const uint4 words = load_shared(address + i * 16);
    sums[i * 4] = __uint_as_float(words.x);
    sums[i * 4 + 1] = __uint_as_float(words.y);
    sums[i * 4 + 2] = __uint_as_float(words.z);
    sums[i * 4 + 3] = __uint_as_float(words.w);
  }
}

/**
 * row_scale of the block's rows, where there is one, to where all of it find it; a barrier comes
 * behind. Before the products: what is held beside their sums is more than it costs here.
 */
template <typename F>
__device__ __forceinline__ void put_scales(const DecodeTile<F>& tile) {
  const VtCudaLinear& args = tile.args;
  if (args.row_scale == nullptr) return;
#pragma unroll
  for (int i = 0; i < (F::kRows + F::kFolders - 1) / F::kFolders; i++) {
    const int row = threadIdx.x + i * F::kFolders;
    if (row >= F::kRows) return;
    const float scale = __ldcg(args.row_scale + min(tile.m0 + row, args.m - 1));
    store_shared(tile.scale_of(row), __float_as_uint(scale));
  }
}

/** The scales of `row`, an even one, and the next. */
template <typename F>
__device__ __forceinline__ float2 scales_of(const DecodeTile<F>& tile, int row) {
  const uint4 four = load_shared(tile.scale_of(row & ~3));
  const bool second = (row & 2) != 0;
  return make_float2(__uint_as_float(second ? four.z : four.x),
                     __uint_as_float(second ? four.w : four.y));
}

/** siluAndMul of a lane's column, of the rows of x that tile j of its sums has there. */
template <typename T, bool kScaled, typename F>
__device__ __forceinline__ uint32_t joined(const DecodeTile<F>& tile, const DecodeSums<F>& sum,
                                           int j) {
  // Between two ops there is a rounding.
  float2 gate = rounded<T>(make_float2(sum[j][0], sum[j][1]));
  float2 up = rounded<T>(make_float2(sum[j][2], sum[j][3]));
  if constexpr (kScaled) {
    const float2 scales = scales_of(tile, j * 8 + threadIdx.x % 4 * 2);
    gate = rounded<T>(make_float2(__fmul_rn(gate.x, scales.x), __fmul_rn(gate.y, scales.y)));
    up = rounded<T>(make_float2(__fmul_rn(up.x, scales.x), __fmul_rn(up.y, scales.y)));
  }
  return pack2<T>(silu_times(gate.x, up.x), silu_times(gate.y, up.y));
}

/** With siluAndMul a warp has a piece of each row. */
template <typename T, bool kScaled, typename F>
__device__ __forceinline__ void write_silu(const DecodeTile<F>& tile, const DecodeSums<F>& sum) {
  const VtCudaLinear& args = tile.args;
  constexpr int kTiles = F::kRows / 8;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < kTiles; j += 2) {
    const int next = min(j + 1, kTiles - 1);
    const uint32_t first = joined<T, kScaled>(tile, sum, j);
    const uint32_t second = next == j ? first : joined<T, kScaled>(tile, sum, next);
    const int row = (lane / 8 % 2 == 0 ? j : next) * 8 + lane % 8;
    store_matrix2_trans(tile.joined_of(row, threadIdx.x / 32), first, second);
  }
  sync_first<F::kFolders>();
  constexpr int kPieces = F::kJoinedPieces;
  constexpr int kRowsAtOnce = F::kFolders / kPieces;
  const int piece = threadIdx.x % kPieces;
  if (tile.n0 + piece * 16 >= args.n) return;
#pragma unroll
  for (int i = 0; i < (F::kRows + kRowsAtOnce - 1) / kRowsAtOnce; i++) {
    const int row = threadIdx.x / kPieces + i * kRowsAtOnce;
    if (row >= F::kRows || tile.m0 + row >= args.m) break;
    T* to = static_cast<T*>(args.out) + static_cast<int64_t>(tile.m0 + row) * args.out_stride +
            tile.n0 / 2 + piece * 8;
    *reinterpret_cast<uint4*>(to) = load_shared(tile.joined_of(row, piece));
  }
}

/** What a thread's pieces have added, where there is a residual. */
template <typename F>
using DecodeResidual = uint4[F::kPiecesOfThread];

/** The row of x and the first column of a thread's piece i; row -1 where the launch has none. */
template <typename F>
__device__ __forceinline__ int2 place_of_piece(const DecodeTile<F>& tile, int i) {
  // Where a thread has the same columns in all rows, they are not worked out for each.
  constexpr bool kSameColumns = F::kFolders % F::kPieces == 0;
  const int thread = static_cast<int>(threadIdx.x);
  const int piece = kSameColumns ? thread : i * F::kFolders + thread;
  const int row = piece / F::kPieces + (kSameColumns ? i * (F::kFolders / F::kPieces) : 0);
  const int column = piece % F::kPieces * 8;
  const bool inside =
      row < F::kRows && tile.m0 + row < tile.args.m && tile.n0 + column < tile.args.n;
  return make_int2(inside ? row : -1, column);
}

template <typename T, typename F>
__device__ __forceinline__ void load_residual(const DecodeTile<F>& tile,
                                              DecodeResidual<F>& residual) {
  const VtCudaLinear& args = tile.args;
  if (args.residual == nullptr) return;
#pragma unroll
  for (int i = 0; i < F::kPiecesOfThread; i++) {
    const int2 place = place_of_piece(tile, i);
    if (place.x < 0) continue;
    residual[i] = *reinterpret_cast<const uint4*>(
        static_cast<const T*>(args.residual) +
        static_cast<int64_t>(tile.m0 + place.x) * args.residual_stride + tile.n0 + place.y);
  }
}

template <typename T, typename F>
__device__ __forceinline__ void write_plain(const DecodeTile<F>& tile,
                                            const DecodeResidual<F>& residual) {
  const VtCudaLinear& args = tile.args;
#pragma unroll
  for (int i = 0; i < F::kPiecesOfThread; i++) {
    const int2 place = place_of_piece(tile, i);
    if (place.x < 0) continue;
    float out[8];
    load_sums(out, tile.sums_of(place.x) + place.y * 4);
    if (args.residual != nullptr) {
      float more[8];
      unpack8<T>(residual[i], more);
      add8(out, more);
    }
    const int64_t at =
        static_cast<int64_t>(tile.m0 + place.x) * args.out_stride + tile.n0 + place.y;
    if (F::kWritesF32 && args.out_dtype == VT_CUDA_F32) {
      float4* to = reinterpret_cast<float4*>(static_cast<float*>(args.out) + at);
      to[0] = make_float4(out[0], out[1], out[2], out[3]);
      to[1] = make_float4(out[4], out[5], out[6], out[7]);
    } else {
      store8(static_cast<T*>(args.out) + at, out);
    }
  }
}

}  // namespace vt

#endif  // VT_CUDA_LINEAR_DECODE_TILE_CUH_
