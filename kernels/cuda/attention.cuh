// What the attention kernels share, so that prefill and decode give the same bits: the tile, the
// softmax fold, the merge of chunks, and where a key lies in the cache.
//
// The arithmetic of one query head at position p, the same everywhere:
//   keys 0..p in tiles of 64 at absolute borders, tiles ascending inside a chunk of 256 positions
//   (2,048 beyond position 8,192) as one online softmax (m = running maximum of the raw scores,
//   c = scale * log2(e)):
//     s = q . k                  mma.sync chain over head_dim, ascending by 16
//     p = 2^(s c - m c)          f32; rounded to dtype for the product with V
//     l = l alpha + sum(p)       a lane's 16 keys of the tile ascending, then lanes 1 and 2 apart
//     o = o alpha + p V          mma.sync chain over the keys, ascending by 16
//   then the chunks merge ascending, and out = o / l, rounded once.
// A tile that is masked for a row leaves the row's m, l and o as they are, so it may be computed or
// not.
#ifndef VT_CUDA_ATTENTION_CUH_
#define VT_CUDA_ATTENTION_CUH_

#include <type_traits>

#include "common.cuh"

namespace vt {

constexpr int kTileKeys = 64;
constexpr float kLog2E = 1.4426950408889634f;

/** A part of a step's attention, as vt_cuda_plan_attention writes it; times num_kv_heads. */
struct alignas(16) AttentionWork {
  int row;
  int key_begin;  // decode: its keys, of one chunk, or of all; prefill: unused
  int first;      // decode: index of the row's first work; prefill: first query of the tile
  int count;      // decode: how many works the row has
  int seq_len;
  int query_start;
  int num_queries;
  int key_end;
};

/** Entry `index` of a list of works. */
__device__ __forceinline__ AttentionWork load_work(const int32_t* list, int index) {
  AttentionWork work;
  const int4* from = reinterpret_cast<const int4*>(list) + index * 2;
  reinterpret_cast<int4*>(&work)[0] = __ldcg(from);
  reinterpret_cast<int4*>(&work)[1] = __ldcg(from + 1);
  return work;
}

/**
 * Rows (queries times heads of a KV head, times chunks but the first) that the first block of a
 * cluster has room for.
 */
constexpr int kPartRows = 16;

/** Where the chunk that holds position p ends. */
__host__ __device__ __forceinline__ int chunk_end(int p) {
  return p < 8192 ? (p / 256 + 1) * 256 : (p / 2048 + 1) * 2048;
}

__device__ __forceinline__ float finite_maximum(float m) { return m == -INFINITY ? 0.0f : m; }

/** 2^((old - m) c): what a sum made under maximum `old` is worth under m >= old. */
__device__ __forceinline__ float rescale(float old, float m, float c) {
  return exp2_approx(__fmul_rn(__fsub_rn(old, finite_maximum(m)), c));
}

__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

__device__ __forceinline__ float quad_sum(float x) {
  x = __fadd_rn(x, __shfl_xor_sync(~0u, x, 1));
  return __fadd_rn(x, __shfl_xor_sync(~0u, x, 2));
}

/** Scores of 16 rows and 64 keys: s[j] holds keys 8 j .. 8 j + 7. */
using Scores = float[8][4];

/**
 * Where 16-byte piece `piece` of a row of kDim lies. Rows lie densely; pieces change places inside
 * a row, so that the same piece of 8 neighbouring rows (what ldmatrix reads at a time) meets no bank
 * twice: rows of a multiple of 128 bytes need all 8 orders, rows of 192 bytes 4, of 160 bytes 2.
 */
template <int kDim>
__device__ __forceinline__ uint32_t row_address(uint32_t base, int row, int piece) {
  constexpr int kPieces = kDim / 8;
  constexpr int kOrders = kPieces % 8 == 0 ? 8 : kPieces % 4 == 0 ? 4 : 2;
  static_assert(kDim % 16 == 0);
  return base + row * (kDim * 2) + ((piece ^ (row / (8 / kOrders) % kOrders)) << 4);
}

/** s = q k^T. `query`, `keys`: shared addresses of rows of kDim, swizzled (see row_address). */
template <typename T, int kDim>
__device__ __forceinline__ void score_tile(Scores& s, uint32_t query, uint32_t keys, int lane) {
#pragma unroll
  for (int j = 0; j < 8; j++) {
#pragma unroll
    for (int e = 0; e < 4; e++) s[j][e] = 0.0f;
  }
#pragma unroll
  for (int k = 0; k < kDim / 16; k++) {
    uint32_t a[4];
    ldmatrix4(a, row_address<kDim>(query, lane % 16, k * 2 + lane / 16));
#pragma unroll
    for (int j = 0; j < 4; j++) {
      uint32_t b[4];
      ldmatrix4(b,
                row_address<kDim>(keys, j * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
      mma<T>(s[2 * j], a, b[0], b[1]);
      mma<T>(s[2 * j + 1], a, b[2], b[3]);
    }
  }
}

/** Takes out keys outside (position - window, position] of each of the lane's two rows. */
__device__ __forceinline__ void mask_tile(Scores& s, int key0, const int (&position)[2], int window,
                                          int lane) {
#pragma unroll
  for (int j = 0; j < 8; j++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int key = key0 + j * 8 + lane % 4 * 2 + e % 2;
      const int p = position[e / 2];
      if (key > p || (window > 0 && key <= p - window)) s[j][e] = -INFINITY;
    }
  }
}

/** The largest score of each of the lane's two rows. */
__device__ __forceinline__ void tile_maximum(const Scores& s, float (&m)[2]) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    m[h] = fmaxf(s[0][h * 2], s[0][h * 2 + 1]);
#pragma unroll
    for (int j = 1; j < 8; j++) m[h] = fmaxf(m[h], fmaxf(s[j][h * 2], s[j][h * 2 + 1]));
    m[h] = quad_max(m[h]);
  }
}

/** s becomes p = 2^(s c - m c); sum[h] the sum over the tile of each row. */
__device__ __forceinline__ void tile_weights(Scores& s, const float (&m)[2], float c,
                                             float (&sum)[2]) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const float shift = __fmul_rn(finite_maximum(m[h]), c);
#pragma unroll
    for (int j = 0; j < 8; j++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const float p = exp2_approx(__fmaf_rn(s[j][h * 2 + e], c, -shift));
        s[j][h * 2 + e] = p;
        sum[h] = j == 0 && e == 0 ? p : __fadd_rn(sum[h], p);
      }
    }
    sum[h] = quad_sum(sum[h]);
  }
}

/** What sums of values are worth under a new maximum. */
template <int kTiles>
__device__ __forceinline__ void rescale_values(float (&o)[kTiles][4], const float (&alpha)[2]) {
#pragma unroll
  for (int d = 0; d < kTiles; d++) {
#pragma unroll
    for (int e = 0; e < 4; e++) o[d][e] = __fmul_rn(o[d][e], alpha[e / 2]);
  }
}

/** One chunk into the total: (m, l, o) and (chunk_m, chunk_l, chunk_o) become factors. */
struct Merge {
  float of_total;
  float of_chunk;
};

__device__ __forceinline__ Merge merge_sums(float& m, float& l, float chunk_m, float chunk_l,
                                            float c) {
  const float both = fmaxf(m, chunk_m);
  const Merge merge = {rescale(m, both, c), rescale(chunk_m, both, c)};
  l = __fmaf_rn(l, merge.of_total, __fmul_rn(chunk_l, merge.of_chunk));
  m = both;
  return merge;
}

__device__ __forceinline__ float merge_value(float total, float chunk, Merge merge) {
  return __fmaf_rn(total, merge.of_total, __fmul_rn(chunk, merge.of_chunk));
}

/**
 * What a lane has of a chunk into the total, both its rows, n8 tile by tile: (m, l, o) as they are
 * after the chunk's last tile.
 */
template <int kTiles>
__device__ __forceinline__ void merge_chunk(float (&total_m)[2], float (&total_l)[2],
                                            float (&total)[kTiles][4], const float (&m)[2],
                                            const float (&l)[2], const float (&o)[kTiles][4],
                                            float c) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const Merge merge = merge_sums(total_m[h], total_l[h], m[h], l[h], c);
#pragma unroll
    for (int d = 0; d < kTiles; d++) {
#pragma unroll
      for (int e = h * 2; e < h * 2 + 2; e++) {
        total[d][e] = merge_value(total[d][e], o[d][e], merge);
      }
    }
  }
}

/** Element offset of the keys (or values) of `block` for a layer and KV head. */
__device__ __forceinline__ int64_t cache_offset(const VtCudaAttention& args, int block, int of_v,
                                                int kv_head) {
  return ((static_cast<int64_t>(block) * args.num_layers + args.layer) * 2 + of_v) *
             args.num_kv_heads * args.block_size * args.head_dim +
         static_cast<int64_t>(kv_head) * args.block_size * args.head_dim;
}

/**
 * Begins to copy 16 keys (or values) to shared rows row0.. of `tile`, by one warp: `block` holds
 * them from position `offset` on. Rows at `num_valid` and beyond become zeros.
 */
template <typename T, int kDim>
__device__ __forceinline__ void copy_keys(const VtCudaAttention& args, uint32_t tile, int row0,
                                          int block, int offset, int of_v, int kv_head,
                                          int num_valid, int lane, uint64_t policy) {
  constexpr int kPieces = kDim / 8;
  const T* from = static_cast<const T*>(args.kv_cache) + cache_offset(args, block, of_v, kv_head) +
                  offset * kDim + lane * 8;
#pragma unroll
  for (int i = 0; i < kPieces / 2; i++) {
    const int piece = i * 32 + lane;  // of the 16 rows, which lie densely
    const int r = piece / kPieces;
    copy16_async(row_address<kDim>(tile, row0 + r, piece - r * kPieces), from + i * 256,
                 r < num_valid, policy);
  }
}

/** Of what copy_keys would copy, all 16 keys: to the L2 cache alone. */
template <typename T, int kDim>
__device__ __forceinline__ void prefetch_keys(const VtCudaAttention& args, int block, int offset,
                                              int of_v, int kv_head, int lane) {
  const T* from = static_cast<const T*>(args.kv_cache) + cache_offset(args, block, of_v, kv_head) +
                  offset * kDim;
  for (int i = lane * 64; i < 16 * kDim; i += 32 * 64) prefetch_line(from + i);
}

/** The kernels of one head_dim and dtype, in a file of their own: attention_<head_dim>_<dtype>.cu. */
template <typename T, int kDim>
struct AttentionKernels {
  static int decode(const VtCudaAttention& args, void* stream);
  static int prefill(const VtCudaAttention& args, void* stream);
  /** For head_dim 64 and 128. */
  static int wgmma(const VtCudaAttention& args, void* stream);
};

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_CUH_
