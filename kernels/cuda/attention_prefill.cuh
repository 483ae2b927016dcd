// attention for rows with many queries: prompts and their chunks.
//
// What it computes: see attention.cuh. A work is a tile of 64 / group queries of a row; times the
// heads that share a KV head they are up to 64 rows, 16 a warp.
//
// Launch: persistent blocks of 4 warps walk the work list, one (work, KV head) at a time. Tiles of
// 64 keys and values come through two stages of cp.async that all warps share; each warp folds them
// for its 16 rows alone, so warps meet only at the stages. A chunk's sums and the total stay in
// registers. Above head_dim 128 they would not: two warps then have the same rows and scores, and
// half of the values' columns each.
#ifndef VT_CUDA_ATTENTION_PREFILL_CUH_
#define VT_CUDA_ATTENTION_PREFILL_CUH_

#include "attention.cuh"

namespace vt {

constexpr int kPrefillRows = 64;

template <int kDim>
struct PrefillLayout {
  /** Warps of the same rows, and blocks on a multiprocessor. */
  static constexpr int kParts = kDim <= 128 ? 1 : 2;
  static constexpr int kBlocks = 3 - kParts;
  static constexpr int kThreads = kPrefillRows / 16 * kParts * 32;
  static constexpr int kTileBytes = kTileKeys * kDim * 2;
  static constexpr int kQuery = 0;
  static constexpr int kStages = kPrefillRows * kDim * 2;
  static constexpr int kBytes = kStages + 4 * kTileBytes;
};

template <typename T, int kDim>
__global__ void __launch_bounds__(PrefillLayout<kDim>::kThreads, PrefillLayout<kDim>::kBlocks)
    attention_prefill(const __grid_constant__ VtCudaAttention args) {
  using L = PrefillLayout<kDim>;
  constexpr int kDimTiles = kDim / 8 / L::kParts;
  constexpr int kPieces = kDim / 8;
  extern __shared__ __align__(1024) uint8_t shared[];
  const uint32_t base = shared_address(shared);
  const int warp = threadIdx.x / 32 % (kPrefillRows / 16);
  const int part = L::kParts == 1 ? 0 : threadIdx.x / (kPrefillRows * 2);
  const int lane = threadIdx.x % 32;
  const int group = args.num_heads / args.num_kv_heads;
  const int tile_queries = kPrefillRows / group;
  const float c = args.scale * kLog2E;
  const int offset_mask = args.block_size - 1;
  const int block_shift = 31 - __clz(args.block_size);

  start_next();
  wait_for_previous();
  const int num_items = args.work_counts[1] * args.num_kv_heads;
  const uint64_t policy = evict_last_policy();

  for (int item = blockIdx.x; item < num_items; item += gridDim.x) {
    const int kv_head = item % args.num_kv_heads;
    const AttentionWork work = load_work(args.prefill_work, item / args.num_kv_heads);
    const int query0 = work.first;
    const int queries = min(tile_queries, work.num_queries - query0);
    const int position0 = work.seq_len - work.num_queries + query0;
    const int32_t* blocks =
        args.block_tables + static_cast<int64_t>(work.row) * args.max_num_blocks;

    int position[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int q = (warp * 16 + lane / 4 + h * 8) / group;
      position[h] = q < queries ? position0 + q : -1;
    }
    const int warp_first = position0 + min(warp * 16 / group, queries - 1);
    const int warp_last = position0 + min((warp * 16 + 15) / group, queries - 1);
    const int tile_begin = args.window > 0 ? max(0, position0 - args.window + 1) / kTileKeys : 0;
    const int tile_end = (position0 + queries - 1) / kTileKeys + 1;

    const auto copy_tile = [&](int tile) {
      // Warp w copies keys and values 16 w .. ; or keys, and the other warp of its rows values.
      const int key = tile * kTileKeys + warp * 16;
      const uint32_t to = base + L::kStages + tile % 2 * 2 * L::kTileBytes;
      const int block = key < work.seq_len ? __ldcg(blocks + (key >> block_shift)) : 0;
#pragma unroll
      for (int of_v = part; of_v < 2; of_v += L::kParts) {
        copy_keys<T, kDim>(args, to + of_v * L::kTileBytes, warp * 16, block, key & offset_mask,
                           of_v, kv_head, work.seq_len - key, lane, policy);
      }
    };
    __syncthreads();  // the item before has read its queries and tiles
    for (int i = threadIdx.x; i < kPrefillRows * kPieces; i += L::kThreads) {
      const int r = i / kPieces;
      const int q = r / group;
      const T* from = static_cast<const T*>(args.qkv);
      if (q < queries) {
        from += static_cast<int64_t>(work.query_start + query0 + q) * args.qkv_stride +
                (kv_head * group + r % group) * kDim + i % kPieces * 8;
      }
      copy16_async(row_address<kDim>(base + L::kQuery, r, i % kPieces), from, q < queries);
    }
    copy_tile(tile_begin);
    commit_copies();

    float m[2] = {-INFINITY, -INFINITY};
    float l[2] = {0.0f, 0.0f};
    float o[kDimTiles][4] = {};
    float total_m[2] = {-INFINITY, -INFINITY};
    float total_l[2] = {0.0f, 0.0f};
    float total[kDimTiles][4] = {};
    for (int tile = tile_begin; tile < tile_end; tile++) {
      if (tile + 1 < tile_end) copy_tile(tile + 1);
      commit_copies();
      wait_copies<1>();
      __syncthreads();
      const int key0 = tile * kTileKeys;
      const uint32_t keys = base + L::kStages + tile % 2 * 2 * L::kTileBytes;
      const uint32_t values = keys + L::kTileBytes;
      if (key0 <= warp_last) {
        Scores s;
        score_tile<T, kDim>(s, base + L::kQuery + warp * 16 * kDim * 2, keys, lane);
        if (key0 + kTileKeys > warp_first || args.window > 0) {
          mask_tile(s, key0, position, args.window, lane);
        }
        float tile_m[2];
        float tile_sum[2];
        tile_maximum(s, tile_m);
#pragma unroll
        for (int h = 0; h < 2; h++) tile_m[h] = fmaxf(m[h], tile_m[h]);
        tile_weights(s, tile_m, c, tile_sum);
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const float alpha = rescale(m[h], tile_m[h], c);
          l[h] = __fmaf_rn(l[h], alpha, tile_sum[h]);
          m[h] = tile_m[h];
#pragma unroll
          for (int d = 0; d < kDimTiles; d++) {
            o[d][h * 2] = __fmul_rn(o[d][h * 2], alpha);
            o[d][h * 2 + 1] = __fmul_rn(o[d][h * 2 + 1], alpha);
          }
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
          const uint32_t a[4] = {pack2<T>(s[2 * k][0], s[2 * k][1]),
                                 pack2<T>(s[2 * k][2], s[2 * k][3]),
                                 pack2<T>(s[2 * k + 1][0], s[2 * k + 1][1]),
                                 pack2<T>(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
          for (int d = 0; d < kDimTiles / 2; d++) {
            uint32_t b[4];
            ldmatrix4_trans(b, row_address<kDim>(values, k * 16 + lane % 16,
                                                 part * kDimTiles + d * 2 + lane / 16));
            mma<T>(o[2 * d], a, b[0], b[1]);
            mma<T>(o[2 * d + 1], a, b[2], b[3]);
          }
        }
      }
      if (chunk_end(key0) == key0 + kTileKeys || tile + 1 == tile_end) {
        merge_chunk(total_m, total_l, total, m, l, o, c);
#pragma unroll
        for (int h = 0; h < 2; h++) m[h] = -INFINITY, l[h] = 0.0f;
#pragma unroll
        for (int d = 0; d < kDimTiles; d++) {
#pragma unroll
          for (int e = 0; e < 4; e++) o[d][e] = 0.0f;
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int r = warp * 16 + lane / 4 + h * 8;
      if (r / group >= queries) continue;
      const int64_t token = work.query_start + query0 + r / group;
      T* out = static_cast<T*>(args.out) + token * args.out_stride +
               (kv_head * group + r % group) * kDim;
      const float inverse = __frcp_rn(total_l[h]);
#pragma unroll
      for (int d = 0; d < kDimTiles; d++) {
        *reinterpret_cast<uint32_t*>(out + (part * kDimTiles + d) * 8 + lane % 4 * 2) =
            pack2<T>(__fmul_rn(total[d][h * 2], inverse), __fmul_rn(total[d][h * 2 + 1], inverse));
      }
    }
  }
}

template <typename T, int kDim>
int launch_prefill(const VtCudaAttention& args, void* stream) {
  constexpr int kBytes = PrefillLayout<kDim>::kBytes;
  const int items = args.max_prefill_work * args.num_kv_heads;
  return launch("attention", attention_prefill<T, kDim>,
                dim3(min(items, num_multiprocessors() * PrefillLayout<kDim>::kBlocks)),
                dim3(PrefillLayout<kDim>::kThreads), kBytes, args.flags, stream, args);
}

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_PREFILL_CUH_
