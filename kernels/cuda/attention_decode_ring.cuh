// What lies in the shared memory of a block of decode attention, and the copier warps that fill its
// ring of tiles with keys, values and queries.
#ifndef VT_CUDA_ATTENTION_DECODE_RING_CUH_
#define VT_CUDA_ATTENTION_DECODE_RING_CUH_

#include "attention_decode.cuh"

namespace vt {

constexpr int kCopiers = 128;
constexpr int kWeightRow = kGroupKeys * 2 + 16;

/** Rows that a block remembers, at most; of more, the last to finish a part merges. */
constexpr int kMostLater = kFolders;

template <int kDim>
struct Layout {
  /** On a multiprocessor. */
  static constexpr int kBlocks = kDim <= 128 ? 2 : 1;
  static constexpr int kTileBytes = kTileKeys * kDim * 2;
  /** At least the four whose scores are computed side by side; sm_80 has room for no more. */
  static constexpr int kTiles = (kDim <= 128 ? 80 : VT_HAS_SM_90 ? 192 : 128) * 1024 / kTileBytes;
  /** Of queries: a group has two tiles or more, so that the ring reaches no further. */
  static constexpr int kTurns = (kTiles + 1) / 2;
  static constexpr int kQueryBytes = 16 * kDim * 2;
  static constexpr int kRing = 1024;                          // barriers before it
  static constexpr int kPartsFull = kRing - 8;                // a barrier
  static constexpr int kQuery = kRing + kTiles * kTileBytes;  // [kTurns]
  static constexpr int kWeights = kQuery + kTurns * kQueryBytes;
  static constexpr int kMaxima = kWeights + 16 * kWeightRow;  // f32 [2][4][16], by turns
  static constexpr int kSums = kMaxima + 2 * 4 * 16 * 4;      // f32 [4][16]
  static constexpr int kTold = kSums + 4 * 16 * 4;
  static constexpr int kLater = kTold + 16;  // [kMostLater]
  static constexpr int kBytes = kLater + kMostLater * 4;
  // By clusters, when a block has one group: parts of other blocks, where later queries would lie.
  static constexpr int kParts = kQuery + kQueryBytes;  // f32 [kPartRows][kDim]
  static constexpr int kPartSums = kLater;             // f32 [kPartRows][2]

  /** Of a launch: the host's kTiles are those of sm_90. */
  static int bytes() {
    const bool is_smaller = kDim > 128 && target() == Target::sm_80;
    return is_smaller ? kBytes - 2 * kTileBytes - kQueryBytes : kBytes;
  }

  static_assert(kTiles >= 4 && 2 * kTiles * 8 <= kPartsFull);
  static_assert(!VT_HAS_SM_90 || (kTurns - 1) * kQueryBytes >= kPartRows * kDim * 4);
  static_assert(kMostLater >= 2 * kPartRows);
};

/**
 * The copier warps: warp w moves keys 16 w .. of every tile. `early`: the kernel in front may not
 * have finished; what it does not write is fetched before the wait for it.
 */
template <typename T, int kDim>
__device__ __forceinline__ void copy_all(const VtCudaAttention& args, const Walk& walk,
                                         uint32_t base, int warp, int lane, bool early,
                                         const Group& first) {
  using L = Layout<kDim>;
  constexpr int kPieces = kDim / 8;
  const int group = args.num_heads / args.num_kv_heads;
  const int offset_mask = args.block_size - 1;
  const int block_shift = 31 - __clz(args.block_size);
  const uint64_t policy = evict_first_policy();
  // Lane t < 4 reads the block of the warp's keys of tile t.
  const auto read_block = [&](const Group& g) {
    const int key = g.key + lane * kTileKeys + warp * 16;
    if (g.item >= walk.num_items || lane >= 4 || key >= walk.end(g)) return 0;
    return __ldcg(args.block_tables + static_cast<int64_t>(g.work.row) * args.max_num_blocks +
                  (key >> block_shift));
  };
  // Tile `tile` of a group's keys or values into the ring's `place`.
  const auto copy_tile = [&](const Group& g, int kv_head, int block, int tile, int of_v,
                             int place) {
    const int key = g.key + tile * kTileKeys + warp * 16;
    copy_keys<T, kDim>(args, base + L::kRing + place * L::kTileBytes, warp * 16, block,
                       key & offset_mask, of_v, kv_head, walk.end(g) - key, lane, policy);
  };
  // Row r of the m16 tile is head r % group of query r / group. A warp copies four.
  constexpr int kQueryCopies = (4 * kPieces + 31) / 32;
  const auto query_row = [&](int i) { return warp * 4 + (lane + i * 32) / kPieces; };
  const auto query_from = [&](const Group& g, int kv_head, int i) {
    const int r = query_row(i);
    if (lane + i * 32 >= 4 * kPieces || r >= g.work.num_queries * group) return int64_t{-1};
    return static_cast<int64_t>(g.work.query_start + r / group) * args.qkv_stride +
           (kv_head * group + r % group) * kDim + (lane + i * 32) % kPieces * 8;
  };
  const auto copy_query = [&](int i, int64_t from, int turn) {
    if (lane + i * 32 >= 4 * kPieces) return;
    copy16_async(row_address<kDim>(base + L::kQuery + turn * L::kQueryBytes, query_row(i),
                                   (lane + i * 32) % kPieces),
                 static_cast<const T*>(args.qkv) + max(from, int64_t{0}), from >= 0);
  };
  Group current = first;
  int blocks = read_block(current);
  uint32_t fetched = 0;  // of the first group's tiles, and its queries
  constexpr uint32_t kQueries = 1u << 31;
  if (early && current.item < walk.num_items) {
    const int old_keys = current.work.seq_len - current.work.num_queries;
    const int kv_head = current.item % args.num_kv_heads;
    const int tiles = walk.num_tiles(current);
    uint32_t late = 0;  // tiles whose keys the kernel in front writes
#pragma unroll 1
    for (int t = 0; t < 2 * tiles; t++) {
      const int of_v = t >= tiles ? 1 : 0;
      const int at = t - of_v * tiles;
      const int block = __shfl_sync(~0u, blocks, at);
      const int key = current.key + at * kTileKeys + warp * 16;
      const int end = min(key + 16, walk.end(current));
      const bool is_late = key < end && end > old_keys;
      if (t >= L::kTiles) {
        if (key < end && !is_late) {
          prefetch_keys<T, kDim>(args, block, key & offset_mask, of_v, kv_head, lane);
        }
      } else if (is_late) {
        late |= 1u << t;
      } else {
        copy_tile(current, kv_head, block, at, of_v, t);
        fetched |= 1u << t;
      }
    }
    // What is left to do when the queries are there is worked out before.
    int64_t query[kQueryCopies];
#pragma unroll
    for (int i = 0; i < kQueryCopies; i++) query[i] = query_from(current, kv_head, i);
    wait_for_previous();
#pragma unroll
    for (int i = 0; i < kQueryCopies; i++) copy_query(i, query[i], 0);
    fetched |= late | kQueries;
    for (; late != 0; late &= late - 1) {
      const int t = __ffs(late) - 1;
      const int of_v = t >= tiles ? 1 : 0;
      copy_tile(current, kv_head, __shfl_sync(~0u, blocks, t - of_v * tiles), t - of_v * tiles,
                of_v, t);
    }
  } else if (early) {
    wait_for_previous();
  }
  int tile = 0;
  int parity = 1;
  for (int turn = 0; current.item < walk.num_items; turn = turn + 1 < L::kTurns ? turn + 1 : 0) {
    Group next = current;
    walk.advance(next);
    const int next_blocks = read_block(next);
    const int kv_head = current.item % args.num_kv_heads;
    const int tiles = walk.num_tiles(current);
#pragma unroll 1
    for (int of_v = 0; of_v < 2; of_v++) {
#pragma unroll 1
      for (int t = 0; t < tiles; t++) {
        const int block = __shfl_sync(~0u, blocks, t);
        barrier_wait(base + (L::kTiles + tile) * 8, parity);
        if ((fetched >> (of_v * tiles + t) & 1) == 0) {
          copy_tile(current, kv_head, block, t, of_v, tile);
        }
        if (of_v == 0 && t == 0 && (fetched & kQueries) == 0) {
#pragma unroll
          for (int i = 0; i < kQueryCopies; i++) {
            copy_query(i, query_from(current, kv_head, i), turn);
          }
        }
        barrier_arrive_after_copies(base + tile * 8);
        if (++tile == L::kTiles) tile = 0, parity ^= 1;
      }
    }
    current = next;
    blocks = next_blocks;
    fetched = 0;
  }
}

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_DECODE_RING_CUH_
