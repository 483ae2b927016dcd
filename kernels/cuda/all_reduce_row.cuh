// A row of allReduce as a cluster of blocks works on it: which thread has which piece, bias and
// residual, and rmsNorm with the bits of rms_norm.cu. Knows nothing of other ranks.
//
// A row is a cluster of `split` blocks; each has an equal share of the warps of rmsNorm's tree, and
// a thread for each of their pieces of 8 columns. Where a tree's thread has several pieces, they
// are different threads here, which hand its sum on in shared memory.
#ifndef VT_CUDA_ALL_REDUCE_ROW_CUH_
#define VT_CUDA_ALL_REDUCE_ROW_CUH_

#include "cluster.cuh"
#include "elementwise.cuh"
#include "vt_cuda_collective.h"

namespace vt {

constexpr int kMaxReduceThreads = 512;

/** Sums of the tree's warps, of two rows in turn, and what its threads hand on. */
struct ReduceShared {
  float warps[2][16];
  float chain[kMaxReduceThreads];
  /** Of the blocks of a cluster: count down the bytes of `warps`. */
  uint64_t barriers[2];
};

/** Which piece of a row a thread has. */
struct RowShare {
  int split;
  int member;  // of the tree, in this block
  int turn;    // the member's pieces come in turns
  int num_turns;
  int warp;    // of the whole tree
  int piece;   // -1: none
};

__device__ __forceinline__ RowShare share_of(int columns, int split) {
  const int whole = norm_threads(columns);
  const int tree = whole / split;
  RowShare share;
  share.split = split;
  share.member = threadIdx.x % tree;
  share.turn = threadIdx.x / tree;
  share.num_turns = blockDim.x / tree;
  const int first = static_cast<int>(blockIdx.x) % split * tree;
  share.warp = (first + share.member) / 32;
  const int piece = first + share.member + share.turn * whole;
  share.piece = piece < columns / 8 ? piece : -1;
  return share;
}

/** Before a block writes to another's shared memory that one must have begun: arrive, then wait. */
__device__ __forceinline__ void cluster_begin(const RowShare& share, ReduceShared& shared) {
  if (share.split == 1) return;
  if (threadIdx.x == 0) {
    barrier_init(shared_address(&shared.barriers[0]), 1);
    barrier_init(shared_address(&shared.barriers[1]), 1);
    fence_barrier_init();
  }
  cluster_arrive();
}

__device__ __forceinline__ void cluster_begun(const RowShare& share) {
  if (share.split > 1) cluster_wait();
}

/** Bias and norm weight of a thread's piece. */
struct ReduceWeights {
  uint4 bias, norm;
};

__device__ __forceinline__ ReduceWeights load_weights(const VtCudaAllReduce& args, int piece) {
  ReduceWeights weights = {};
  if (piece < 0) return weights;
  if (args.bias != nullptr) weights.bias = static_cast<const uint4*>(args.bias)[piece];
  if (args.norm_out != nullptr) weights.norm = static_cast<const uint4*>(args.norm_weight)[piece];
  return weights;
}

template <typename T>
__device__ __forceinline__ uint4* piece_of(void* rows, int64_t row, int stride, int piece) {
  return reinterpret_cast<uint4*>(static_cast<T*>(rows) + row * stride + piece * 8);
}

template <typename T>
__device__ __forceinline__ uint4 load_residual(const VtCudaAllReduce& args, int64_t row,
                                               int piece) {
  if (args.residual == nullptr) return {};
  return __ldcg(piece_of<T>(const_cast<void*>(args.residual), row, args.residual_stride, piece));
}

__device__ __forceinline__ void add8(float (&sum)[8], const float (&more)[8]) {
#pragma unroll
  for (int e = 0; e < 8; e++) sum[e] = __fadd_rn(sum[e], more[e]);
}

/** Bias and residual; then `sum` is what out holds, which is returned as its bytes. */
template <typename T>
__device__ __forceinline__ uint4 finish_sum(const VtCudaAllReduce& args,
                                            const ReduceWeights& weights, const uint4& residual,
                                            float (&sum)[8]) {
  float more[8];
  if (args.bias != nullptr) {
    load8(reinterpret_cast<const T*>(&weights.bias), more);
    add8(sum, more);
  }
  if (args.residual != nullptr) {
    load8(reinterpret_cast<const T*>(&residual), more);
    add8(sum, more);
  }
  uint4 packed;
  store8(reinterpret_cast<T*>(&packed), sum);
  load8(reinterpret_cast<const T*>(&packed), sum);
  return packed;
}

/**
 * norm_out of a row, whose columns are `values`; every thread of the cluster calls it, `turn`
 * counting up from 0. `all_here` is called when all threads of the row have their columns.
 */
template <typename T, typename F>
__device__ __forceinline__ void normalise(const VtCudaAllReduce& args, const RowShare& share,
                                          ReduceShared& shared, int turn, int64_t row,
                                          const ReduceWeights& weights, float (&values)[8],
                                          const F& all_here) {
  if (args.norm_out == nullptr) return;
  float sum = 0.0f;
  for (int t = 0; t < share.num_turns; t++) {
    if (t > 0) __syncthreads();
    if (t != share.turn) continue;
    if (t > 0) sum = shared.chain[share.member];
    if (share.piece >= 0) sum = sum_of_squares(values, sum);
    shared.chain[share.member] = sum;
  }
  const int num_warps = norm_threads(args.columns) / 32;
  const uint32_t barrier = shared_address(&shared.barriers[turn % 2]);
  if (share.turn == share.num_turns - 1) {
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) {
      float* mine = &shared.warps[turn % 2][share.warp];
      if (share.split == 1) *mine = sum;
      for (int block = 0; share.split > 1 && block < share.split; block++)
        send_in_cluster(block, mine, sum, barrier);
    }
  }
  if (share.split == 1) {
    __syncthreads();
  } else {
    // No fence, unlike a barrier of the cluster: that would wait for what was sent to other ranks.
    if (threadIdx.x == 0) barrier_expect(barrier, num_warps * static_cast<int>(sizeof(float)));
    barrier_wait(barrier, turn / 2 % 2);
  }
  all_here();
  float total = 0.0f;
  for (int w = 0; w < num_warps; w++) total = __fadd_rn(total, shared.warps[turn % 2][w]);
  if (share.piece < 0) return;
  const float scale = norm_scale(total, args.columns, args.eps);
  float weight[8];
  load8(reinterpret_cast<const T*>(&weights.norm), weight);
  apply_norm(values, scale, weight);
  store8(reinterpret_cast<T*>(piece_of<T>(args.norm_out, row, args.norm_stride, share.piece)),
         values);
}

template <typename T>
__device__ __forceinline__ void normalise(const VtCudaAllReduce& args, const RowShare& share,
                                          ReduceShared& shared, int turn, int64_t row,
                                          const ReduceWeights& weights, float (&values)[8]) {
  normalise<T>(args, share, shared, turn, row, weights, values, [] {});
}

}  // namespace vt

#endif  // VT_CUDA_ALL_REDUCE_ROW_CUH_
