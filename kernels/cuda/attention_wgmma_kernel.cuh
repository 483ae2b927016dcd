// attention for rows with many queries, by Hopper's warpgroup instructions (see VtCudaPrefill).
//
// What it computes: see attention.cuh, the same bits as attention_prefill: wgmma m64nNk16 adds its
// 16 products to an accumulator as mma.sync does, and lays the accumulator out in the same way, so
// tile, fold and merge are the same code.
//
// Launch: persistent blocks of two or three warpgroups that fold, 64 rows each, and one that fetches;
// a work is 64 / group queries of a row for each of those that fold. Scores are wgmma of two shared
// operands, weights times values of registers and a shared one. The next tile's scores are computed
// beside the last tile's product with the values, and its softmax runs while that is under way.
// kTurns: the warpgroups issue by turns, so that one computes weights while another has the tensor
// cores; only the order of issue changes, never that of the arithmetic.
#ifndef VT_CUDA_ATTENTION_WGMMA_KERNEL_CUH_
#define VT_CUDA_ATTENTION_WGMMA_KERNEL_CUH_

#include "attention_wgmma.cuh"

namespace vt {

constexpr int kFirstTurn = 2;  // named barriers: 2 + warpgroup
constexpr int kTurnThreads = 2 * kWarpgroup;  // whose turn it is, and who had the last

/** A warpgroup's 64 rows: each lane has two of them, as in every attention kernel. */
template <typename T, int kDim, bool kTurns>
struct Folder {
  using L = WgmmaLayout<kDim>;
  using Ring = RingPlace<kDim>;
  static constexpr int kDimTiles = kDim / 8;

  const VtCudaAttention& args;
  const uint32_t base;
  uint8_t* const shared;
  const int group, warpgroup, warp, lane;
  const float c;
  RingPlace<kDim> keys, values;  // of scores, and of the product with values
  int turn = 0;                  // of the block's items

  // Of the item at hand.
  int position[2];
  int first_position;
  float m[2], l[2];
  float ended_m[2], ended_l[2];  // of the chunk that o belongs to, where s is of the next
  float alpha[2];
  float total_m[2], total_l[2];
  Scores s;
  uint32_t p[4][4];
  float o[kDimTiles][4];
  float total[kDimTiles][4];

  __device__ __forceinline__ Folder(const VtCudaAttention& a, uint8_t* block_shared)
      : args(a),
        base(shared_address(block_shared)),
        shared(block_shared),
        group(a.num_heads / a.num_kv_heads),
        warpgroup(__shfl_sync(~0u, threadIdx.x / kWarpgroup, 0)),
        warp(threadIdx.x % kWarpgroup / 32),
        lane(threadIdx.x % 32),
        c(a.scale * kLog2E) {
    if (kTurns && warpgroup == L::kFoldGroups - 1) arrive_named(kFirstTurn, kTurnThreads);
  }

  __device__ __forceinline__ void begin(const WgmmaItem<kDim>& item) {
    const int row0 = warpgroup * 64;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int q = (row0 + warp * 16 + lane / 4 + h * 8) / group;
      position[h] = q < item.queries ? item.position0 + q : -1;
      m[h] = total_m[h] = -INFINITY;
      l[h] = total_l[h] = 0.0f;
    }
    first_position = item.position0 + min(row0 / group, item.queries - 1);
#pragma unroll
    for (int d = 0; d < kDimTiles; d++) {
#pragma unroll
      for (int e = 0; e < 4; e++) o[d][e] = total[d][e] = 0.0f;
    }
  }

  /** Until it is this warpgroup's turn to issue; then the next one's. */
  __device__ __forceinline__ void take_turn() const {
    if (kTurns) sync_named(kFirstTurn + warpgroup, kTurnThreads);
  }
  __device__ __forceinline__ void pass_turn() const {
    const int next = warpgroup + 1 == L::kFoldGroups ? 0 : warpgroup + 1;
    if (kTurns) arrive_named(kFirstTurn + next, kTurnThreads);
  }

  __device__ __forceinline__ void release(uint32_t barrier) const {
    __syncwarp();
    if (lane == 0) barrier_arrive(barrier);
  }

  __device__ __forceinline__ void wait_tile() const {
    barrier_wait(Ring::full(base, keys.stage), keys.parity);
  }

  /** s = q k^T begins, of a tile that has come. */
  __device__ __forceinline__ void issue_scores() {
    const uint32_t query = base + L::kQuery + turn % 2 * L::kQueryBytes + warpgroup * 64 * kPanelRowBytes;
    const uint32_t tile = Ring::keys(base, keys.stage);
    keep(s);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kDim / 16; k++) {
      wgmma<T>(s, along_k(query, L::kRows, k), along_k(tile, kTileKeys, k), k > 0);
    }
    wgmma_commit();
    keys.advance();
  }

  /** s is there; with the item's last tile its queries are free. */
  __device__ __forceinline__ void end_scores(bool last) {
    keep(s);
    if (last) release(base + L::kQueryFree + turn % 2 * 8);
  }

  /** o = (fresh ? 0 : o) + p v begins. */
  __device__ __forceinline__ void issue_values(bool fresh) {
    const uint32_t tile = Ring::values(base, values.stage);
    keep(o);
    keep(p);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++) {
      wgmma_rows_of_k<T>(o, p[k], along_n(tile, kTileKeys, k), k > 0 || !fresh);
    }
    wgmma_commit();
  }

  /** o is there, and the tile is read. */
  __device__ __forceinline__ void end_values() {
    wgmma_wait<0>();
    keep(o);
    keep(p);
    release(Ring::empty(base, values.stage));
    values.advance();
  }

  /** s becomes weights under the new maximum; alpha is what o is worth under it. */
  __device__ __forceinline__ void weigh(int tile) {
    const int key0 = tile * kTileKeys;
    if (key0 + kTileKeys > first_position || args.window > 0) {
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
      alpha[h] = rescale(m[h], tile_m[h], c);
      l[h] = __fmaf_rn(l[h], alpha[h], tile_sum[h]);
      m[h] = tile_m[h];
    }
  }

  __device__ __forceinline__ void pack() {
#pragma unroll
    for (int k = 0; k < 4; k++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float* pair = &s[2 * k + i / 2][i % 2 * 2];
        p[k][i] = pack2<T>(pair[0], pair[1]);
      }
    }
  }

  __device__ __forceinline__ void forget_chunk() {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      ended_m[h] = m[h];
      ended_l[h] = l[h];
      m[h] = -INFINITY;
      l[h] = 0.0f;
    }
  }

  /** Of a tile behind the item's first: see chunk_end(). */
  __device__ __forceinline__ static bool starts_chunk(int tile) {
    return (tile & (tile > 8192 / kTileKeys ? 2048 / kTileKeys - 1 : 256 / kTileKeys - 1)) == 0;
  }

  /** What o needs before the product of p is added. `fresh`: p begins a chunk, of which there was
   * one before unless `first`. */
  __device__ __forceinline__ void settle(bool first, bool fresh) {
    if (!fresh) {
      rescale_values(o, alpha);
    } else if (!first) {
      merge_chunk(total_m, total_l, total, ended_m, ended_l, o, c);
    }
  }

  /** A tile's scores beside the values of the tile before. */
  __device__ __forceinline__ void fold(const WgmmaItem<kDim>& item) {
    wait_tile();
    take_turn();
    issue_scores();
    pass_turn();
    wgmma_wait<0>();
    int tile = item.tile_begin;
    end_scores(tile + 1 == item.tile_end);
    weigh(tile);
    pack();
    bool first = true;  // of the tile whose weights are in p
    bool fresh = true;
    if (++tile < item.tile_end) wait_tile();
    while (tile < item.tile_end) {
      take_turn();
      issue_scores();
      settle(first, fresh);
      issue_values(fresh);
      pass_turn();
      wgmma_wait<1>();
      end_scores(tile + 1 == item.tile_end);
      first = false;
      fresh = starts_chunk(tile);
      if (fresh) forget_chunk();
      weigh(tile);
      keep(s);
      // A branch: without one the assembler puts the weights behind the wait for the product.
      if (++tile < item.tile_end) wait_tile();
      end_values();
      pack();
    }
    settle(first, fresh);
    issue_values(fresh);
    end_values();
    merge_chunk(total_m, total_l, total, m, l, o, c);
  }

  /** total / l to the output, by way of shared memory, so that rows are written whole. */
  __device__ __forceinline__ void write(const WgmmaItem<kDim>& item) const {
    constexpr int kRowBytes = kDim * 2;
    constexpr int kPieces = kDim / 8;
    uint8_t* mine = shared + L::kOut + (warpgroup * 4 + warp) * 16 * kRowBytes;
    __syncwarp();  // the item before has been read
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int r = lane / 4 + h * 8;
      const float inverse = __frcp_rn(total_l[h]);
#pragma unroll
      for (int d = 0; d < kDimTiles; d++) {
        *reinterpret_cast<uint32_t*>(mine + r * kRowBytes + ((d ^ (r % 8)) << 4) + lane % 4 * 4) =
            pack2<T>(__fmul_rn(total[d][h * 2], inverse), __fmul_rn(total[d][h * 2 + 1], inverse));
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kPieces / 2; i++) {
      const int r = (i * 32 + lane) / kPieces;
      const int piece = lane % kPieces;
      const int row = warpgroup * 64 + warp * 16 + r;
      const int q = row / group;
      if (q >= item.queries) continue;
      const int64_t token = item.work.query_start + item.work.first + q;
      T* out = static_cast<T*>(args.out) + token * args.out_stride +
               (item.kv_head * group + row - q * group) * kDim;
      reinterpret_cast<uint4*>(out)[piece] =
          *reinterpret_cast<const uint4*>(mine + r * kRowBytes + ((piece ^ (r % 8)) << 4));
    }
  }
};

template <typename T, int kDim, bool kTurns>
__global__ void __launch_bounds__(WgmmaLayout<kDim>::kThreads, 1)
    attention_wgmma(const __grid_constant__ VtCudaAttention args) {
#if VT_HAS_WGMMA
  using L = WgmmaLayout<kDim>;
  using Ring = RingPlace<kDim>;
  extern __shared__ __align__(1024) uint8_t shared[];
  const uint32_t base = shared_address(shared);
  const int group = args.num_heads / args.num_kv_heads;
  start_next();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < L::kStages; stage++) {
      barrier_init(Ring::full(base, stage), kWarpgroup);
      barrier_init(Ring::empty(base, stage), L::kFoldThreads / 32);
    }
    for (int i = 0; i < 2; i++) barrier_init(base + L::kQueryFree + i * 8, L::kFoldThreads / 32);
    for (int i = 0; i < kItemPlaces; i++) barrier_init(base + L::kAnnounced + i * 8, 1);
    fence_barrier_init();
  }
  __syncthreads();
  WgmmaItem<kDim> item;
  if (threadIdx.x >= L::kFoldThreads) {
    fewer_registers<56>();
    wait_for_previous();
    const int thread = threadIdx.x - L::kFoldThreads;
    Clerk<kDim> clerk(args, shared, base, __ldcg(args.work_counts + 1) * args.num_kv_heads);
    if (thread == 0) {
      clerk.ask();
      clerk.announce();
    }
    Fetcher<T, kDim> fetcher(args, base, thread, 31 - __clz(args.block_size));
    for (int turn = 0; item.read(args, shared, base, turn, group); turn++) {
      fetcher.copy_item(item, group, turn, clerk, thread == 0);
    }
    fetcher.end();
  } else {
    more_registers<L::kFoldRegisters>();
    wait_for_previous();
    Folder<T, kDim, kTurns> folder(args, shared);
    for (; item.read(args, shared, base, folder.turn, group); folder.turn++) {
      folder.begin(item);
      folder.fold(item);
      folder.write(item);
    }
  }
#endif
}

template <typename T, int kDim>
int launch_wgmma(const VtCudaAttention& args, void* stream) {
  const auto kernel = args.prefill == VT_CUDA_PREFILL_OVERLAP ? attention_wgmma<T, kDim, false>
                                                              : attention_wgmma<T, kDim, true>;
  using L = WgmmaLayout<kDim>;
  const int items = args.max_prefill_work * args.num_kv_heads;
  return launch("attention", kernel, dim3(min(items, num_multiprocessors())), dim3(L::kThreads),
                L::kBytes, args.flags, stream, args);
}

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_WGMMA_KERNEL_CUH_
