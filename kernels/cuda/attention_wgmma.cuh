// What the parts of prefill attention with wgmma share: where things lie in shared memory, the items
// that a block works on, and the warpgroup that fetches.
//
// The ring holds kStages tiles, keys and values beside each other. A stage's barrier `full` counts
// the fetching threads, `empty` the warps that have read it. Two places hold the queries of items by
// turns: they come with the item's first tile, and a barrier a place says when it is free again.
//
// Items are dealt out as blocks become free, longest first within a row, through the third of the
// work counts; which block computes an item changes no bit of it. The first fetching thread is the
// clerk: it asks for the next items and announces them to the block.
#ifndef VT_CUDA_ATTENTION_WGMMA_CUH_
#define VT_CUDA_ATTENTION_WGMMA_CUH_

#include "attention.cuh"
#include "wgmma.cuh"

namespace vt {

constexpr int kWarpgroup = 128;
/** Places for announced items: nobody still reads the fourth last when the clerk writes a next. */
constexpr int kItemPlaces = 4;

template <int kDim>
struct WgmmaLayout {
  /** Warpgroups that fold, of 64 rows each: queries times the heads that share a KV head. */
  static constexpr int kFoldGroups = kDim == 64 ? 3 : 2;
  static constexpr int kFoldThreads = kFoldGroups * kWarpgroup;
  static constexpr int kThreads = kFoldThreads + kWarpgroup;
  static constexpr int kRows = 64 * kFoldGroups;
  static constexpr int kFoldRegisters = kFoldGroups == 3 ? 152 : 224;

  static constexpr int kStages = kDim == 128 ? 4 : 6;
  /** A fetching thread's copies lag behind by at most this many tiles before it says they came. */
  static constexpr int kLag = kStages / 2;
  static constexpr int kTileBytes = kTileKeys * kDim * 2;
  static constexpr int kStageBytes = 2 * kTileBytes;
  static constexpr int kQueryBytes = kRows * kDim * 2;
  // Barriers: full [kStages], empty [kStages] before these.
  static constexpr int kQueryFree = 2 * kStages * 8;          // [2]
  static constexpr int kAnnounced = kQueryFree + 2 * 8;       // [kItemPlaces]
  static constexpr int kItems = kAnnounced + kItemPlaces * 8;  // [kItemPlaces] of 48 bytes
  static constexpr int kQuery = 1024;
  static constexpr int kRing = kQuery + 2 * kQueryBytes;
  static constexpr int kOut = kRing + kStages * kStageBytes;
  static constexpr int kBytes = kOut + kQueryBytes;

  static_assert(kItems % 16 == 0 && kItems + kItemPlaces * 48 <= kQuery && kBytes <= 227 * 1024);
  // Tile n waits until tile n - kStages was read, which may need one more to have been announced.
  static_assert(kLag <= kStages - 2);
};

/** A place in the ring, and the parity of its barriers there. */
template <int kDim>
struct RingPlace {
  int stage = 0;
  int parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage == WgmmaLayout<kDim>::kStages) stage = 0, parity ^= 1;
  }
  __device__ __forceinline__ static uint32_t full(uint32_t base, int stage) {
    return base + stage * 8;
  }
  __device__ __forceinline__ static uint32_t empty(uint32_t base, int stage) {
    return base + (WgmmaLayout<kDim>::kStages + stage) * 8;
  }
  __device__ __forceinline__ static uint32_t keys(uint32_t base, int stage) {
    return base + WgmmaLayout<kDim>::kRing + stage * WgmmaLayout<kDim>::kStageBytes;
  }
  __device__ __forceinline__ static uint32_t values(uint32_t base, int stage) {
    return keys(base, stage) + WgmmaLayout<kDim>::kTileBytes;
  }
};

/** An item as the clerk announces it: a work of one KV head; the end of all where kv_head < 0. */
struct alignas(16) AnnouncedItem {
  AttentionWork work;
  int kv_head;
};

/** The item that a block works on, by warp uniform. */
template <int kDim>
struct WgmmaItem {
  AttentionWork work;
  int kv_head;
  int queries;    // of the work's tile
  int position0;  // of its first query
  int tile_begin, tile_end;

  /** The block's `turn`-th, once it is announced; false if there is none. */
  __device__ __forceinline__ bool read(const VtCudaAttention& args, const uint8_t* shared,
                                       uint32_t base, int turn, int group) {
    using L = WgmmaLayout<kDim>;
    const int place = turn % kItemPlaces;
    barrier_wait(base + L::kAnnounced + place * 8, turn / kItemPlaces & 1);
    const auto* from = reinterpret_cast<const AnnouncedItem*>(shared + L::kItems) + place;
    kv_head = from->kv_head;
    if (kv_head < 0) return false;
    work = from->work;
    queries = min(L::kRows / group, work.num_queries - work.first);
    position0 = work.seq_len - work.num_queries + work.first;
    tile_begin = args.window > 0 ? max(0, position0 - args.window + 1) / kTileKeys : 0;
    tile_end = (position0 + queries - 1) / kTileKeys + 1;
    return true;
  }
};

/** One thread of a block: which items it gets. */
template <int kDim>
struct Clerk {
  using L = WgmmaLayout<kDim>;

  const VtCudaAttention& args;
  uint8_t* const shared;
  const uint32_t base;
  const int num_items;
  /** The item to announce next, which may be beyond the last, and the one behind it. */
  int next, behind;
  int turn = 0;
  int4 entry[2];

  __device__ __forceinline__ Clerk(const VtCudaAttention& a, uint8_t* block_shared,
                                   uint32_t shared_base, int items)
      : args(a),
        shared(block_shared),
        base(shared_base),
        num_items(items),
        next(blockIdx.x) {}

  /** Asks for the entry of the next item, and for the one behind it. */
  __device__ __forceinline__ void ask() {
    behind = next;
    if (next >= num_items) return;
    const int4* from =
        reinterpret_cast<const int4*>(args.prefill_work) + next / args.num_kv_heads * 2;
    entry[0] = __ldcg(from);
    entry[1] = __ldcg(from + 1);
    const int dealt = atomicAdd(args.work_counts + 2, 1);
    // Every block asks until it gets nothing: one question an item.
    if (dealt == num_items - 1) args.work_counts[2] = 0;
    behind = gridDim.x + dealt;
  }

  __device__ __forceinline__ void announce() {
    const int place = turn++ % kItemPlaces;
    auto* to = reinterpret_cast<AnnouncedItem*>(shared + L::kItems) + place;
    if (next < num_items) {
      reinterpret_cast<int4*>(&to->work)[0] = entry[0];
      reinterpret_cast<int4*>(&to->work)[1] = entry[1];
    }
    to->kv_head = next < num_items ? next % args.num_kv_heads : -1;
    barrier_arrive(base + L::kAnnounced + place * 8);
    next = behind;
  }
};

/** The fetching warpgroup: warp w moves keys and values 16 w .. of every tile. */
template <typename T, int kDim>
struct Fetcher {
  using L = WgmmaLayout<kDim>;
  using Ring = RingPlace<kDim>;
  static constexpr int kPieces = kDim / 8;
  static constexpr int kRowsAtOnce = 32 / kPieces;
  /** Copies after which a lane's place repeats, 8 rows on. */
  static constexpr int kPeriod = 8 / kRowsAtOnce;

  const VtCudaAttention& args;
  const uint32_t base;
  const int warp, lane;
  const uint64_t policy = evict_last_policy();
  const int offset_mask, block_shift;
  const int64_t block_elements;  // from a block of the cache to the next
  const int value_elements;      // from its keys to its values
  uint32_t place[kPeriod];       // of the lane's pieces in a tile
  /** The next stage, the parity of its `empty`, and how many copied tiles were not announced. */
  int stage = 0;
  int parity = 1;
  int pending = 0;

  /** block_size is 1 << shift. */
  __device__ __forceinline__ Fetcher(const VtCudaAttention& a, uint32_t shared_base, int thread,
                                     int shift)
      : args(a),
        base(shared_base),
        warp(thread / 32),
        lane(thread % 32),
        offset_mask(a.block_size - 1),
        block_shift(shift),
        block_elements(cache_offset(a, 1, 0, 0) - cache_offset(a, 0, 0, 0)),
        value_elements(static_cast<int>(cache_offset(a, 0, 1, 0) - cache_offset(a, 0, 0, 0))) {
#pragma unroll
    for (int i = 0; i < kPeriod; i++) {
      place[i] =
          panels_offset(kTileKeys, warp * 16 + i * kRowsAtOnce + lane / kPieces, lane % kPieces);
    }
  }

  /** Says that the oldest `count` of the pending tiles have come, which is so. */
  __device__ __forceinline__ void announce(int count) {
    fence_async_proxy();
    for (; count > 0; count--, pending--) {
      const int oldest = stage - pending;
      barrier_arrive(Ring::full(base, oldest < 0 ? oldest + L::kStages : oldest));
    }
  }

  /** Whoever waits must have announced all that is on its way: others may wait for it. */
  __device__ __forceinline__ void wait_free(uint32_t barrier, int barrier_parity) {
    if (__all_sync(~0u, barrier_ready(barrier, barrier_parity))) return;
    wait_copies<0>();
    announce(pending);
    barrier_wait(barrier, barrier_parity);
  }

  __device__ __forceinline__ void end_tile() {
    commit_copies();
    pending++;
    if (++stage == L::kStages) stage = 0, parity ^= 1;
    if (pending <= L::kLag) return;
    wait_copies<L::kLag>();
    announce(1);
  }

  /** Row r of the queries is head r % group of query r / group. */
  __device__ __forceinline__ void copy_queries(const WgmmaItem<kDim>& item, int group,
                                               uint32_t query) const {
    const T* first =
        static_cast<const T*>(args.qkv) +
        static_cast<int64_t>(item.work.query_start + item.work.first) * args.qkv_stride +
        item.kv_head * group * kDim;
    for (int i = warp * 32 + lane; i < L::kRows * kPieces; i += kWarpgroup) {
      const int r = i / kPieces;
      const int q = r / group;
      const bool valid = q < item.queries;
      const T* from = first;
      if (valid) {
        from += static_cast<int64_t>(q) * args.qkv_stride + (r - q * group) * kDim +
                i % kPieces * 8;
      }
      copy16_async(query + panels_offset(L::kRows, r, i % kPieces), from, valid);
    }
  }

  /** Rows at `num_valid` and beyond become zeros. */
  __device__ __forceinline__ void copy_rows(const T* from, uint32_t tile, int num_valid) const {
#pragma unroll
    for (int i = 0; i < 16 / kRowsAtOnce; i++) {
      copy16_async(tile + place[i % kPeriod] + i / kPeriod * 8 * kPanelRowBytes, from + i * 256,
                   i * kRowsAtOnce < num_valid, policy);
    }
  }

  /** The item's tiles; the first clerk announces the next item meanwhile. */
  __device__ __forceinline__ void copy_item(const WgmmaItem<kDim>& item, int group, int turn,
                                            Clerk<kDim>& clerk, bool is_clerk) {
    const int32_t* table =
        args.block_tables + static_cast<int64_t>(item.work.row) * args.max_num_blocks;
    const T* cache = static_cast<const T*>(args.kv_cache) +
                     cache_offset(args, 0, 0, item.kv_head) + lane * 8;
    if (is_clerk) clerk.ask();
    int blocks = 0;  // lane i: of the i-th of 32 tiles
    for (int tile = item.tile_begin; tile < item.tile_end; tile++) {
      const int ahead = (tile - item.tile_begin) % 32;
      const int key = tile * kTileKeys + warp * 16;
      if (ahead == 0) {
        const int lanes = key + lane * kTileKeys;
        blocks = lanes < item.work.seq_len ? __ldcg(table + (lanes >> block_shift)) : 0;
      }
      const bool first = tile == item.tile_begin;
      if (first) {
        wait_free(base + L::kQueryFree + turn % 2 * 8, (turn / 2 & 1) ^ 1);
        copy_queries(item, group, base + L::kQuery + turn % 2 * L::kQueryBytes);
      }
      wait_free(Ring::empty(base, stage), parity);
      const int block = __shfl_sync(~0u, blocks, ahead);
      const T* keys = cache + block * block_elements + (key & offset_mask) * kDim;
      const int num_valid = item.work.seq_len - key - lane / kPieces;
      copy_rows(keys, Ring::keys(base, stage), num_valid);
      copy_rows(keys + value_elements, Ring::values(base, stage), num_valid);
      end_tile();
      if (first && is_clerk) clerk.announce();
    }
  }

  __device__ __forceinline__ void end() {
    wait_copies<0>();
    announce(pending);
  }
};

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_WGMMA_CUH_
