// A row of allReduce as a cluster of blocks works on it: which thread has which piece, bias and
// residual, and rmsNorm with the bits of rms_norm.cu. Knows nothing of other ranks.
//
// A row is a cluster of `split` blocks; each has an equal share of rmsNorm's warps, and a thread for
// each of their pieces of 8 columns: where a thread of rmsNorm has several, they are different
// threads here. So a warp has a group of the tree.
#ifndef VT_CUDA_ALL_REDUCE_ROW_CUH_
#define VT_CUDA_ALL_REDUCE_ROW_CUH_

#include "cluster.cuh"
#include "elementwise.cuh"
#include "vt_cuda_collective.h"

namespace vt {

constexpr int kMaxReduceThreads = 512;

/** Sums of a row's groups, of two rows in turn. */
struct ReduceShared {
  float groups[2][kMaxNormGroups];
  /** Of the blocks of a cluster: count down the bytes of `groups`. */
  uint64_t barriers[2];
};

/** Which piece of a row a thread has. */
struct RowShare {
  int split;
  int group;       // of the row
  int num_groups;  // with those behind the row's last column, which are 0
  int piece;       // -1: none
};

__device__ __forceinline__ RowShare share_of(int columns, int split) {
  const int whole = norm_threads(columns);
  const int tree = whole / split;
  RowShare share;
  share.split = split;
  const int first = static_cast<int>(blockIdx.x) % split * tree;
  const int piece = first + threadIdx.x % tree + threadIdx.x / tree * whole;
  share.group = piece / 32;
  share.num_groups = blockDim.x * split / 32;
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

/** Bias and residual; then `sum` is what out holds, which is returned as its bytes. */
template <typename T>
__device__ __forceinline__ uint4 finish_sum(const VtCudaAllReduce& args,
                                            const ReduceWeights& weights, const uint4& residual,
                                            float (&sum)[8]) {
  float more[8];
  if (args.bias != nullptr) {
    unpack8<T>(weights.bias, more);
    add8(sum, more);
  }
  if (args.residual != nullptr) {
    unpack8<T>(residual, more);
    add8(sum, more);
  }
  uint4 packed;
  store8(reinterpret_cast<T*>(&packed), sum);
  unpack8<T>(packed, sum);
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
  const float sum = warp_sum(share.piece >= 0 ? sum_of_squares(values) : 0.0f);
  const uint32_t barrier = shared_address(&shared.barriers[turn % 2]);
  if (threadIdx.x % 32 == 0) {
    float* mine = &shared.groups[turn % 2][share.group];
    if (share.split == 1) *mine = sum;
    for (int block = 0; share.split > 1 && block < share.split; block++)
      send_in_cluster(block, mine, sum, barrier);
  }
  if (share.split == 1) {
    __syncthreads();
  } else {
    // No fence, unlike a barrier of the cluster: that would wait for what was sent to other ranks.
    if (threadIdx.x == 0)
      barrier_expect(barrier, share.num_groups * static_cast<int>(sizeof(float)));
    barrier_wait(barrier, turn / 2 % 2);
  }
  all_here();
  const float total = sum_of_groups(shared.groups[turn % 2], share.num_groups);
  if (share.piece < 0) return;
  const float scale = norm_scale(total, args.columns, args.eps);
  float weight[8];
  unpack8<T>(weights.norm, weight);
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
