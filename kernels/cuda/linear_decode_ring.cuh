// The ring of stages of linear_decode: how the blocks of a cluster fill it, and fold what is in it.
//
// Blocks of a cluster share what they fetch by multicast, stage by stage in turn: kAlongX of them the
// weight's rows, kAlongN the rows of x. A warp fetches stages of 64 columns, the weight's part of the
// first ones while the kernel in front is still at work; warpgroups fold them.
#ifndef VT_CUDA_LINEAR_DECODE_RING_CUH_
#define VT_CUDA_LINEAR_DECODE_RING_CUH_

#include "linear_decode_tile.cuh"

namespace vt {

struct DecodeParams {
  VtCudaLinear args;
  CUtensorMap x, weight;
};

/** Blocks of the cluster from `first` on, `step` apart, as a mask. */
template <int kCount>
__device__ __forceinline__ unsigned ranks_from(int first, int step) {
  unsigned ranks = 0;
#pragma unroll
  for (int i = 0; i < kCount; i++) ranks |= 1u << (first + i * step);
  return ranks;
}

/** One thread: the block's turns of all stages. */
template <typename F>
__device__ __forceinline__ void fetch(const DecodeParams& params, const DecodeTile<F>& tile) {
  const uint64_t keep = evict_last_policy();
  const uint64_t once = evict_first_policy();
  const unsigned weight_ranks = ranks_from<F::kAlongX>(tile.rank_n * F::kAlongX, 1);
  const unsigned x_ranks = ranks_from<F::kAlongN>(tile.rank_x, F::kAlongX);
  const auto fetch_weight = [&](int stage, int chunk) {
    if (chunk % F::kAlongX != tile.rank_x) return;
    copy_box_to(weight_ranks, tile.weight_of(stage), &params.weight,
                {chunk * kPanelColumns, tile.n0, 0, 0}, tile.full(stage), once);
  };
  const auto fetch_x = [&](int stage, int chunk) {
    if (chunk % F::kAlongN != tile.rank_n) return;
    copy_box_to(x_ranks, tile.x_of(stage), &params.x, {chunk * kPanelColumns, tile.m0, 0, 0},
                tile.full(stage), keep);
  };
  const int ahead = min(tile.chunks, F::kStages);
  for (int i = 0; i < ahead; i++) {
    barrier_expect(tile.full(i), F::kStageBytes);
    fetch_weight(i, i);
  }
  wait_for_previous();
  for (int i = 0; i < ahead; i++) fetch_x(i, i);
  int stage = 0;
  int parity = 0;
  for (int chunk = ahead; chunk < tile.chunks; chunk++) {
    // Of all peers: what this block fetches goes to each of them.
    barrier_wait(tile.empty(stage), parity);
    barrier_expect(tile.full(stage), F::kStageBytes);
    fetch_weight(stage, chunk);
    fetch_x(stage, chunk);
    if (++stage == F::kStages) stage = 0, parity ^= 1;
  }
}

/** The products of all stages. */
template <typename T, typename F>
__device__ __forceinline__ void fold(const DecodeTile<F>& tile, DecodeSums<F>& sum, int lane) {
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane < F::kPeers) {
      barrier_arrive_in_cluster(address_in(tile.empty(stage), tile.peer_rank(lane)));
    }
  };
  // A number that all lanes have, so that descriptors are made of numbers that all have.
  const int warpgroup = F::kOuter == 64 ? 0 : __shfl_sync(~0u, threadIdx.x / 128, 0);
  int stage = 0;
  int parity = 0;
  int last_stage = 0;
  for (int chunk = 0; chunk < tile.chunks; chunk++) {
    barrier_wait(tile.full(stage), parity);
    keep(sum);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kPanelColumns / 16; k++) {
      const uint32_t outer = F::kOfX ? tile.x_of(stage) : tile.weight_of(stage);
      const uint32_t inner = F::kOfX ? tile.weight_of(stage) : tile.x_of(stage);
      wgmma<T>(sum, along_k(outer + warpgroup * 64 * kPanelRowBytes, F::kOuter, k),
               along_k(inner, F::kInner, k), k > 0 || chunk > 0);
    }
    wgmma_commit();
    wgmma_wait<1>();
    // Where it is filled again.
    if (chunk > 0 && chunk - 1 + F::kStages < tile.chunks) release(last_stage);
    last_stage = stage;
    if (++stage == F::kStages) stage = 0, parity ^= 1;
  }
  wgmma_wait<0>();
  keep(sum);
}

}  // namespace vt

#endif  // VT_CUDA_LINEAR_DECODE_RING_CUH_
