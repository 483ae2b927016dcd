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
  static constexpr int kQuery = kRing + kTiles * kTileBytes;  // [kTurns]
  static constexpr int kWeights = kQuery + kTurns * kQueryBytes;
  static constexpr int kMaxima = kWeights + 16 * kWeightRow;  // f32 [2][4][16], by turns
  static constexpr int kSums = kMaxima + 2 * 4 * 16 * 4;      // f32 [4][16]
  static constexpr int kTold = kSums + 4 * 16 * 4;
  static constexpr int kLater = kTold + 16;  // [kMostLater]
  static constexpr int kBytes = kLater + kMostLater * 4;

  /** Of a launch: the host's kTiles are those of sm_90. */
  static int bytes() {
    const bool is_smaller = kDim > 128 && target() == Target::sm_80;
    return is_smaller ? kBytes - 2 * kTileBytes - kQueryBytes : kBytes;
  }

  static_assert(kTiles >= 4 && 2 * kTiles * 8 <= kRing);
};

/**
 * The copier warps: warp w moves keys 16 w .. of every tile. `early`: the kernel in front may not
 * have finished; what it does not write is fetched before the wait for it.
 */
template <typename T, int kDim>
__device__ __forceinline__ void copy_all(const VtCudaAttention& args, const Walk& walk,
                                         uint32_t base, int warp, int lane, bool early) {
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
  Group current;
  current.round = 0;
  walk.begin(current, blockIdx.x);
  int blocks = read_block(current);
  uint32_t fetched = 0;  // of the first group's tiles
  if (early) {
    if (current.item < walk.num_items) {
      const int old_keys = current.work.seq_len - current.work.num_queries;
      const int tiles = walk.num_tiles(current);
#pragma unroll 1
      for (int t = 0; t < min(L::kTiles, 2 * tiles); t++) {
        const int of_v = t >= tiles ? 1 : 0;
        const int at = t - of_v * tiles;
        const int key = current.key + at * kTileKeys + warp * 16;
        const int end = min(key + 16, walk.end(current));
        if (key >= end || end > old_keys) continue;
        copy_keys<T, kDim>(args, base + L::kRing + t * L::kTileBytes, warp * 16,
                           __shfl_sync(~0u, blocks, at), key & offset_mask, of_v,
                           current.item % args.num_kv_heads, end - key, lane, policy);
        fetched |= 1u << t;
      }
    }
    wait_for_previous();
  }
  int tile = 0;
  int parity = 1;
  for (int turn = 0; current.item < walk.num_items; turn = turn + 1 < L::kTurns ? turn + 1 : 0) {
    Group next = current;
    walk.advance(next);
    const int next_blocks = read_block(next);
    const int kv_head = current.item % args.num_kv_heads;
    const int key_end = walk.end(current);
    const int tiles = walk.num_tiles(current);
#pragma unroll 1
    for (int of_v = 0; of_v < 2; of_v++) {
#pragma unroll 1
      for (int t = 0; t < tiles; t++) {
        const int block = __shfl_sync(~0u, blocks, t);
        barrier_wait(base + (L::kTiles + tile) * 8, parity);
        if ((fetched >> (of_v * tiles + t) & 1) == 0) {
          const int key = current.key + t * kTileKeys + warp * 16;
          copy_keys<T, kDim>(args, base + L::kRing + tile * L::kTileBytes, warp * 16, block,
                             key & offset_mask, of_v, kv_head, key_end - key, lane, policy);
        }
        if (of_v == 0 && t == 0) {
          // Row r of the m16 tile is head r % group of query r / group.
#pragma unroll
          for (int i = lane; i < 4 * kPieces; i += 32) {
            const int r = warp * 4 + i / kPieces;
            const bool valid = r < current.work.num_queries * group;
            const T* from = static_cast<const T*>(args.qkv);
            if (valid) {
              from += static_cast<int64_t>(current.work.query_start + r / group) * args.qkv_stride +
                      (kv_head * group + r % group) * kDim + i % kPieces * 8;
            }
            copy16_async(
                row_address<kDim>(base + L::kQuery + turn * L::kQueryBytes, r, i % kPieces), from,
                valid);
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
