// attention for rows with few queries: decode, and drafts to verify.
//
// What it computes: see attention.cuh. A work is a chunk of a row, or all chunks of it where there
// are rows enough, of one KV head: all queries of the row times the heads that share the KV head
// are the 16 rows of one m16 tile (num_queries * group <= 16).
//
// Launch: two persistent blocks a multiprocessor walk the work list; its length is read on the
// device, so one graph serves every length. Four copier warps fill a ring of 64-key tiles (those of
// K, then those of V for each 256 keys) as far ahead as it reaches, across works: they never wait
// for arithmetic, only for a free tile. Four other warps fold: warp w scores tile w, the maxima are
// exchanged, then each multiplies all weights with its quarter of head_dim, tile by tile in the
// order of the online softmax. A row of one work merges its chunks in registers and writes its
// output; the parts of others are merged ascending by the last of those that arrive at the row's
// counter: the blocks that finish a part of it, and, where there is much work, the block of its first
// part once more when it is through with its works. Without that, a block that falls behind finishes
// last in every row and merges them all, while its reads take microseconds under a stream of keys
// (measured: 551 us instead of 380 at batch 64, context 4096). Launches of few rows have clusters, which
// may merge among themselves: attention_decode_cluster.cuh. A block that has one short row, or one
// chunk of it, to itself takes another way: attention_decode_short.cuh.
#ifndef VT_CUDA_ATTENTION_DECODE_KERNEL_CUH_
#define VT_CUDA_ATTENTION_DECODE_KERNEL_CUH_

#include "attention_decode_short.cuh"

namespace vt {

/**
 * Whether all others have arrived that a row's merge waits for: each of its works, when its part is
 * written; and unless `at_once` the block of its first work, when that has no more works.
 */
__device__ __forceinline__ bool arrive(const VtCudaAttention& args, const AttentionWork& work,
                                       int kv_head, bool at_once) {
  const uint32_t others = work.count - (at_once ? 1 : 0);
  // Wraps to 0 with the last, ready for the next layer.
  return count_and_wrap(args.counters + work.row * args.num_kv_heads + kv_head, others) == others;
}

template <typename T, int kDim, bool kClusters>
__global__ void __launch_bounds__(kFolders + kCopiers, Layout<kDim>::kBlocks)
    attention_decode(const __grid_constant__ VtCudaAttention args) {
  using L = Layout<kDim>;
  // n8 tiles of a warp's part of head_dim; the last warp's may be fewer, and it computes its last
  // again instead.
  constexpr int kDimTiles = (kDim / 8 + 3) / 4;
  constexpr bool kEven = kDimTiles * 32 == kDim;
  uint8_t* shared = reinterpret_cast<uint8_t*>(dynamic_shared());
  const uint32_t base = shared_address(shared);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  start_next();
  if (threadIdx.x == 0) {
    for (int t = 0; t < L::kTiles; t++) {
      barrier_init(base + t * 8, kCopiers);
      barrier_init(base + (L::kTiles + t) * 8, kFolders / 32);
    }
    barrier_init(base + L::kPartsFull, 1);
    fence_barrier_init();
  }
  __syncthreads();
  constexpr bool has_cluster = kClusters;
  if (has_cluster) cluster_arrive_relaxed();
  const bool early = (args.flags & VT_CUDA_EARLY_READS) != 0;
  if (!early) wait_for_previous();
  const Walk walk(args, has_cluster);
  Group first;  // read once: every launch waits for it
  walk.start(first);
  if constexpr (Short<kDim>::kBuilt) {
    AttentionWork& work = first.work;
    const int group = args.num_heads / args.num_kv_heads;
    // A block has no more than one item.
    const bool alone = walk.num_items <= static_cast<int>(gridDim.x);
    if (first.item < walk.num_items && alone && is_short<kDim>(work, group)) {
      const int kv_head = first.item % args.num_kv_heads;
      const int chunks = walk.by_clusters ? num_chunks(work) : 1;
      if (has_cluster) {
        if (chunks > 1 && cluster_rank() == 0 && threadIdx.x == 0) {
          expect_parts<kDim>(work, group, base);
        }
        cluster_wait();
      }
      // All works of a row go to the block of the first.
      if (work.count > 1) {
        if (first.item / args.num_kv_heads != work.first) {
          if (early) wait_for_previous();
          return;
        }
        work.key_end = work.seq_len;
      }
      // In line: behind a call it is faster alone, and slower between the kernels of a layer.
      attend_short<T, kDim>(short_work<T, kDim>(
          args, work, kv_head, walk.by_clusters ? cluster_rank() : 0, chunks, early));
      return;
    }
  }
  if (warp >= kFolders / 32) {
    if (has_cluster) cluster_wait();
    copy_all<T, kDim>(args, walk, base, warp - kFolders / 32, lane, early, first);
    return;
  }

  // Tile d of this warp's part, as a piece of a row of V.
  const auto piece_of = [&](int d) {
    return kEven ? warp * kDimTiles + d : min(warp * kDimTiles + d, kDim / 8 - 1);
  };
  float* sums = reinterpret_cast<float*>(shared + L::kSums);
  int* told = reinterpret_cast<int*>(shared + L::kTold);  // by thread 0
  int* later = reinterpret_cast<int*>(shared + L::kLater);
  const int group = args.num_heads / args.num_kv_heads;
  const float c = args.scale * kLog2E;
  float m[2] = {-INFINITY, -INFINITY};
  float l[2] = {0.0f, 0.0f};
  float o[kDimTiles][4] = {};
  // Of the chunks before, where a work has several.
  float total_m[2] = {-INFINITY, -INFINITY};
  float total_l[2] = {0.0f, 0.0f};
  float total[kDimTiles][4] = {};
  // Of few works the last one to arrive had best merge; of many it would be the same block in every row.
  const bool at_once = walk.num_items <= 2 * static_cast<int>(gridDim.x);
  int num_later = 0;  // rows that this block may have to merge at its end
  Group current = first;
  if (has_cluster) {
    if (walk.by_clusters && cluster_rank() == 0 && threadIdx.x == 0 &&
        current.item < walk.num_items) {
      expect_parts<kDim>(current.work, group, base);
    }
    cluster_wait();
  }
  if (early) wait_for_previous();
  int tile = 0;  // the ring's tile of this group's first keys
  int parity = 0;
  int turn = 0;  // of queries
  int half = 0;  // of maxima
  for (; current.item < walk.num_items; half ^= 1) {
    Group next = current;
    walk.advance(next);
    const AttentionWork& work = current.work;
    const int key_end = walk.end(current);
    const int tiles = walk.num_tiles(current);
    const int rows = work.num_queries * group;
    const int kv_head = current.item % args.num_kv_heads;
    int position[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int r = lane / 4 + h * 8;
      position[h] = r < rows ? work.seq_len - work.num_queries + r / group : -1;
    }
    float* maxima = reinterpret_cast<float*>(shared + L::kMaxima) + half * 64;
    // Tile t of the group's, first K, then V, is `tile + t` of the ring.
    const auto ring_tile = [&](int t) {
      return tile + t >= 2 * L::kTiles ? tile + t - 2 * L::kTiles
             : tile + t >= L::kTiles   ? tile + t - L::kTiles
                                       : tile + t;
    };
    const auto ring_parity = [&](int t) {
      return tile + t >= 2 * L::kTiles ? parity : tile + t >= L::kTiles ? parity ^ 1 : parity;
    };

    Scores s;
    barrier_wait(base + tile * 8, parity);  // the queries come with the first tile
    if (warp < tiles) {
      const int at = ring_tile(warp);
      barrier_wait(base + at * 8, ring_parity(warp));
      score_tile<T, kDim>(s, base + L::kQuery + turn * L::kQueryBytes,
                          base + L::kRing + at * L::kTileBytes, lane);
      const int key = current.key + warp * kTileKeys;
      if (args.window > 0 || key + kTileKeys > work.seq_len - work.num_queries + 1) {
        mask_tile(s, key, position, args.window, lane);
      }
      float tile_m[2];
      tile_maximum(s, tile_m);
      if (lane % 4 == 0) {
        maxima[warp * 16 + lane / 4] = tile_m[0];
        maxima[warp * 16 + lane / 4 + 8] = tile_m[1];
      }
    }
    sync_first<kFolders>();
    __syncwarp();
    if (lane == 0) {
      for (int t = 0; t < tiles; t++) barrier_arrive(base + (L::kTiles + ring_tile(t)) * 8);
    }
    __syncwarp();
    if (warp < tiles) {
      float tile_m[2];
      float tile_sum[2];
#pragma unroll
      for (int h = 0; h < 2; h++) {
        tile_m[h] = m[h];
#pragma unroll
        for (int t = 0; t < 4; t++) {
          const float other = maxima[t * 16 + lane / 4 + h * 8];
          if (t <= warp) tile_m[h] = fmaxf(tile_m[h], other);
        }
      }
      tile_weights(s, tile_m, c, tile_sum);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        if (lane % 4 == 0) sums[warp * 16 + lane / 4 + h * 8] = tile_sum[h];
        uint8_t* to = shared + L::kWeights + (lane / 4 + h * 8) * kWeightRow +
                      (warp * kTileKeys + lane % 4 * 2) * 2;
#pragma unroll
        for (int j = 0; j < 8; j++) {
          *reinterpret_cast<uint32_t*>(to + j * 16) = pack2<T>(s[j][h * 2], s[j][h * 2 + 1]);
        }
      }
    }
    sync_first<kFolders>();
    for (int t = 0; t < tiles; t++) {
      const int at = ring_tile(tiles + t);
      float alpha[2];
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int r = lane / 4 + h * 8;
        const float tile_m = fmaxf(m[h], maxima[t * 16 + r]);
        alpha[h] = rescale(m[h], tile_m, c);
        l[h] = __fmaf_rn(l[h], alpha[h], sums[t * 16 + r]);
        m[h] = tile_m;
      }
      barrier_wait(base + at * 8, ring_parity(tiles + t));
      rescale_values(o, alpha);
      const uint32_t values = base + L::kRing + at * L::kTileBytes;
      [[maybe_unused]] uint32_t odd[4];
#pragma unroll
      for (int k = 0; k < 4; k++) {
        uint32_t a[4];
        ldmatrix4(a, base + L::kWeights + lane % 16 * kWeightRow +
                         (t * kTileKeys + k * 16 + lane / 16 * 8) * 2);
#pragma unroll
        for (int d = 0; d < kDimTiles / 2; d++) {
          uint32_t b[4];
          ldmatrix4_trans(b, row_address<kDim>(values, k * 16 + lane % 16,
                                               piece_of(d * 2 + lane / 16)));
          mma<T>(o[2 * d], a, b[0], b[1]);
          mma<T>(o[2 * d + 1], a, b[2], b[3]);
        }
        if constexpr (kDimTiles % 2 == 1) {
          // One tile is left: of the keys of two products at a time.
          if (k % 2 == 0) {
            ldmatrix4_trans(odd, row_address<kDim>(values, k * 16 + lane, piece_of(kDimTiles - 1)));
          }
          mma<T>(o[kDimTiles - 1], a, odd[k % 2 * 2], odd[k % 2 * 2 + 1]);
        }
      }
      __syncwarp();
      if (lane == 0) barrier_arrive(base + (L::kTiles + at) * 8);
    }
    parity = ring_parity(2 * tiles);
    tile = ring_tile(2 * tiles);
    if (++turn == L::kTurns) turn = 0;

    if (chunk_end(work.key_begin) < work.key_end &&
        (walk.ends_item(current) || chunk_end(current.key) == key_end)) {
      // A chunk of several ends.
      merge_chunk(total_m, total_l, total, m, l, o, c);
#pragma unroll
      for (int h = 0; h < 2; h++) m[h] = -INFINITY, l[h] = 0.0f;
#pragma unroll
      for (int d = 0; d < kDimTiles; d++) {
#pragma unroll
        for (int e = 0; e < 4; e++) o[d][e] = 0.0f;
      }
      if (walk.ends_item(current)) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
          l[h] = total_l[h];
          total_m[h] = -INFINITY;
          total_l[h] = 0.0f;
        }
#pragma unroll
        for (int d = 0; d < kDimTiles; d++) {
#pragma unroll
          for (int e = 0; e < 4; e++) {
            o[d][e] = total[d][e];
            total[d][e] = 0.0f;
          }
        }
      }
    }
    if (walk.by_clusters) {
      const Folded<kDim, kDimTiles> folded = {m, l, o, rows, warp, lane};
      if (cluster_rank() > 0) {
        folded.send(cluster_rank(), base);
        return;
      }
      const int chunks = num_chunks(work);
      if (chunks > 1) folded.merge(chunks, c, shared, base);
    }
    if (walk.ends_item(current)) {
      float* part =
          static_cast<float*>(args.scratch) + static_cast<int64_t>(current.item) * 16 * (kDim + 2);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int r = lane / 4 + h * 8;
        if (r >= rows) continue;
        const int query = position[h] - (work.seq_len - work.num_queries);  // r / group
        T* out = static_cast<T*>(args.out) +
                 static_cast<int64_t>(work.query_start + query) * args.out_stride +
                 (kv_head * group + r - query * group) * kDim;
        const float inverse = __frcp_rn(l[h]);
#pragma unroll
        for (int d = 0; d < kDimTiles; d++) {
          const int column = (warp * kDimTiles + d) * 8 + lane % 4 * 2;
          if (!kEven && column >= kDim) continue;
          if (work.count == 1) {
            *reinterpret_cast<uint32_t*>(out + column) =
                pack2<T>(__fmul_rn(o[d][h * 2], inverse), __fmul_rn(o[d][h * 2 + 1], inverse));
          } else {
            __stcg(reinterpret_cast<float2*>(part + r * kDim + column),
                   make_float2(o[d][h * 2], o[d][h * 2 + 1]));
          }
        }
        if (work.count > 1 && warp == 0 && lane % 4 == 0) {
          __stcg(reinterpret_cast<float2*>(part + 16 * kDim + r * 2), make_float2(m[h], l[h]));
        }
      }
      if (work.count > 1) {
        const bool is_first = !at_once && work.first == current.item / args.num_kv_heads;
        sync_first<kFolders>();
        if (threadIdx.x == 0) {
          bool is_last = arrive(args, work, kv_head, at_once);
          if (is_first && num_later < kMostLater) later[num_later] = current.item;
          if (is_first && num_later >= kMostLater) is_last = arrive(args, work, kv_head, at_once);
          *told = is_last;
        }
        if (is_first && num_later < kMostLater) num_later++;
        sync_first<kFolders>();
        if (*told != 0) merge_parts<T, kDim, 2>(args, work, kv_head, c);
      }
#pragma unroll
      for (int h = 0; h < 2; h++) m[h] = -INFINITY, l[h] = 0.0f;
#pragma unroll
      for (int d = 0; d < kDimTiles; d++) {
#pragma unroll
        for (int e = 0; e < 4; e++) o[d][e] = 0.0f;
      }
    }
    current = next;
  }
  if (num_later == 0) return;
  if (static_cast<int>(threadIdx.x) < num_later) {
    const int item = later[threadIdx.x];
    walk.begin(current, item);
    const bool is_last = arrive(args, current.work, item % args.num_kv_heads, at_once);
    if (!is_last) later[threadIdx.x] = -1;
  }
  sync_first<kFolders>();
  for (int i = 0; i < num_later; i++) {
    if (later[i] < 0) continue;
    walk.begin(current, later[i]);
    merge_parts<T, kDim, 8>(args, current.work, current.item % args.num_kv_heads, c);
  }
}

template <typename T, int kDim>
int launch_decode(const VtCudaAttention& args, void* stream) {
  const int items = args.max_decode_work * args.num_kv_heads;
  const int blocks = num_multiprocessors() * Layout<kDim>::kBlocks;
  // One on each multiprocessor at least: where there is none, two of the next kernel's come to lie,
  // and elsewhere none. On an H100 that costs the small linears behind heads of 64 more than it gives.
  const int grid = min(kDim >= 128 ? max(items, num_multiprocessors()) : items, blocks);
  const dim3 threads(kFolders + kCopiers);
  const int bytes = Layout<kDim>::bytes();
  if constexpr (kDim > 64) {
    const int cluster = args.decode_cluster;
    if (cluster > 1) {
      return launch_clusters("attention", attention_decode<T, kDim, true>, cluster,
                             dim3((grid + cluster - 1) / cluster * cluster), threads, bytes,
                             args.flags, stream, args);
    }
  }
  return launch("attention", attention_decode<T, kDim, false>, dim3(grid), threads, bytes,
                args.flags, stream, args);
}

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_DECODE_KERNEL_CUH_
