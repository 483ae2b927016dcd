// What the parts of prefill attention with wgmma share: where things lie in shared memory, how a
// block walks the work list, and the warpgroup that fetches.
//
// The ring holds kStages tiles of keys and kStages of values by turns: slot 2 t is the keys of
// stage t, 2 t + 1 its values. A slot's barrier `full` counts the fetching threads, `empty` the
// warps that have read it. The queries of an item come with its first keys; a barrier of their own says when
// their place is free again.
#ifndef VT_CUDA_ATTENTION_WGMMA_CUH_
#define VT_CUDA_ATTENTION_WGMMA_CUH_

#include "attention.cuh"
#include "wgmma.cuh"

namespace vt {

constexpr int kWarpgroup = 128;
/** Warpgroups that fold, of 64 rows each: queries times the heads that share a KV head. */
constexpr int kFoldGroups = 2;
constexpr int kWgmmaRows = 64 * kFoldGroups;
constexpr int kWgmmaThreads = kWarpgroup * (kFoldGroups + 1);

template <int kDim>
struct WgmmaLayout {
  static constexpr int kStages = kDim == 128 ? 4 : 6;
  static constexpr int kSlots = 2 * kStages;
  /** A fetching thread's copies lag behind by at most this many slots before it says they came. */
  static constexpr int kLag = kSlots / 2;
  static constexpr int kTileBytes = kTileKeys * kDim * 2;
  static constexpr int kQueryBytes = kWgmmaRows * kDim * 2;
  static constexpr int kQueryFree = 2 * kSlots * 8;  // full [kSlots], empty [kSlots] before it
  static constexpr int kQuery = 1024;
  static constexpr int kRing = kQuery + kQueryBytes;
  static constexpr int kOut = kRing + kSlots * kTileBytes;
  static constexpr int kBytes = kOut + kQueryBytes;

  static_assert(kQueryFree + 8 <= kQuery && kBytes <= 227 * 1024);
  // Slot n waits until slot n - kSlots was read, which may need three more to have been announced.
  static_assert(kLag <= kSlots - 4);
};

/** A place in the ring, and the parity of its barriers there. */
template <int kDim>
struct RingPlace {
  int stage = 0;
  int parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage == WgmmaLayout<kDim>::kStages) stage = 0, parity ^= 1;
  }
  __device__ __forceinline__ static uint32_t full(uint32_t base, int slot) {
    return base + slot * 8;
  }
  __device__ __forceinline__ static uint32_t empty(uint32_t base, int slot) {
    return base + (WgmmaLayout<kDim>::kSlots + slot) * 8;
  }
  __device__ __forceinline__ static uint32_t tile(uint32_t base, int slot) {
    return base + WgmmaLayout<kDim>::kRing + slot * WgmmaLayout<kDim>::kTileBytes;
  }
};

/** A work of one KV head, by warpgroup uniform. */
struct WgmmaItem {
  AttentionWork work;
  int kv_head;
  int queries;    // of the work's tile
  int position0;  // of its first query
  int tile_begin, tile_end;

  __device__ __forceinline__ WgmmaItem(const VtCudaAttention& args, int item, int group) {
    kv_head = item % args.num_kv_heads;
    const int4* entry =
        reinterpret_cast<const int4*>(args.prefill_work) + item / args.num_kv_heads * 2;
    reinterpret_cast<int4*>(&work)[0] = __ldcg(entry);
    reinterpret_cast<int4*>(&work)[1] = __ldcg(entry + 1);
    queries = min(kWgmmaRows / group, work.num_queries - work.first);
    position0 = work.seq_len - work.num_queries + work.first;
    tile_begin = args.window > 0 ? max(0, position0 - args.window + 1) / kTileKeys : 0;
    tile_end = (position0 + queries - 1) / kTileKeys + 1;
  }
};

/**
 * Item of a block's turn `turn`: there and back again, so that with items in falling order every
 * block gets as much. May be beyond the last; a later turn may not be.
 */
__device__ __forceinline__ int item_of_turn(int turn) {
  return turn * gridDim.x + (turn % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x);
}

/** The fetching warpgroup: warp w moves keys and values 16 w .. of every tile. */
template <typename T, int kDim>
struct Fetcher {
  using L = WgmmaLayout<kDim>;
  using Ring = RingPlace<kDim>;
  static constexpr int kPieces = kDim / 8;
  static constexpr int kRowsAtOnce = 32 / kPieces;

  const VtCudaAttention& args;
  const uint32_t base;
  const int warp, lane;
  const uint64_t policy = evict_last_policy();
  const int offset_mask, block_shift;
  /** The next slot, the parity of its `empty`, and how many copied slots were not announced. */
  int slot = 0;
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
        block_shift(shift) {}

  /** Says that the oldest `count` of the pending slots have come, which is so. */
  __device__ __forceinline__ void announce(int count) {
    fence_async_proxy();
    for (; count > 0; count--, pending--) {
      const int oldest = slot - pending;
      barrier_arrive(Ring::full(base, oldest < 0 ? oldest + L::kSlots : oldest));
    }
  }

  /** Whoever waits must have announced all that is on its way: others may wait for it. */
  __device__ __forceinline__ void wait_free(uint32_t barrier, int barrier_parity) {
    if (__all_sync(~0u, barrier_ready(barrier, barrier_parity))) return;
    wait_copies<0>();
    announce(pending);
    barrier_wait(barrier, barrier_parity);
  }

  __device__ __forceinline__ void wait_slot() { wait_free(Ring::empty(base, slot), parity); }

  __device__ __forceinline__ void end_slot() {
    commit_copies();
    pending++;
    if (++slot == L::kSlots) slot = 0, parity ^= 1;
    if (pending <= L::kLag) return;
    wait_copies<L::kLag>();
    announce(1);
  }

  /** Row r of the queries is head r % group of query r / group. */
  __device__ __forceinline__ void copy_queries(const WgmmaItem& item, int group) const {
    for (int i = warp * 32 + lane; i < kWgmmaRows * kPieces; i += kWarpgroup) {
      const int r = i / kPieces;
      const int q = r / group;
      const bool valid = q < item.queries;
      const T* from = static_cast<const T*>(args.qkv);
      if (valid) {
        from +=
            static_cast<int64_t>(item.work.query_start + item.work.first + q) * args.qkv_stride +
            (item.kv_head * group + r - q * group) * kDim + i % kPieces * 8;
      }
      copy16_async(base + L::kQuery + panels_offset(kWgmmaRows, r, i % kPieces), from, valid);
    }
  }

  /** `block` holds the warp's 16 keys from `key` on; those at seq_len and beyond become zeros. */
  __device__ __forceinline__ void copy_rows(const WgmmaItem& item, int block, int key,
                                            int of_v) const {
    const T* from = static_cast<const T*>(args.kv_cache) +
                    cache_offset(args, block, of_v, item.kv_head) + (key & offset_mask) * kDim +
                    lane * 8;
    const uint32_t tile = Ring::tile(base, slot);
#pragma unroll
    for (int i = 0; i < 16 / kRowsAtOnce; i++) {
      const int r = i * kRowsAtOnce + lane / kPieces;
      copy16_async(tile + panels_offset(kTileKeys, warp * 16 + r, lane % kPieces), from + i * 256,
                   key + r < item.work.seq_len, policy);
    }
  }

  __device__ __forceinline__ void copy_item(const WgmmaItem& item, int group, int query_parity) {
    const int32_t* table =
        args.block_tables + static_cast<int64_t>(item.work.row) * args.max_num_blocks;
    int blocks = 0;  // lane i: of the i-th of 32 tiles
    for (int tile = item.tile_begin; tile < item.tile_end; tile++) {
      const int ahead = (tile - item.tile_begin) % 32;
      if (ahead == 0) {
        const int key = (tile + lane) * kTileKeys + warp * 16;
        blocks = key < item.work.seq_len ? __ldcg(table + (key >> block_shift)) : 0;
      }
      const int block = __shfl_sync(~0u, blocks, ahead);
      const int key = tile * kTileKeys + warp * 16;
      if (tile == item.tile_begin) {
        wait_free(base + L::kQueryFree, query_parity);
        copy_queries(item, group);
      }
      wait_slot();
      copy_rows(item, block, key, 0);
      end_slot();
      wait_slot();
      copy_rows(item, block, key, 1);
      end_slot();
    }
  }

  __device__ __forceinline__ void end() {
    wait_copies<0>();
    announce(pending);
  }
};

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_WGMMA_CUH_
