// allGather: the kernels' bodies. How ranks wait is group.cuh's business.
//
// What it computes: out[row] = x[row] of rank 0, x[row] of rank 1, ..; columns beyond out dropped.
//
// Launch: grid-stride over pairs of columns. One-shot: a thread first sends all its pairs to all
// others, then waits for theirs. Two-shot, for much: ranks meet, read what the others made where it
// lies, and meet again, so that x may be overwritten after the kernel.
#ifndef VT_CUDA_ALL_GATHER_CUH_
#define VT_CUDA_ALL_GATHER_CUH_

#include "group.cuh"

namespace vt {

struct AllGatherParams {
  VtCudaGroup group;
  VtCudaAllGather args;
};

/** Pair `i` of a part: its row and first column. */
struct PairPlace {
  int64_t row;
  int column;
};

__device__ __forceinline__ PairPlace pair_place(const VtCudaAllGather& args, int64_t i) {
  const int per_row = args.x_columns / 2;
  return {i / per_row, static_cast<int>(i % per_row) * 2};
}

__device__ __forceinline__ void put_pair(const VtCudaAllGather& args, int rank,
                                         const PairPlace& place, float first, float second) {
  const int64_t column = static_cast<int64_t>(rank) * args.x_columns + place.column;
  float* out = args.out + place.row * args.out_stride + column;
  if (column < args.out_columns) out[0] = first;
  if (column + 1 < args.out_columns) out[1] = second;
}

__device__ __forceinline__ void gather_one_shot(const AllGatherParams& params) {
  const VtCudaGroup& group = params.group;
  const VtCudaAllGather& args = params.args;
  start_next();
  const uint64_t epoch = epoch_of(group, args.ordinal);
  const uint32_t tag = tag_of(epoch);
  const int64_t num_pairs = static_cast<int64_t>(args.num_rows) * (args.x_columns / 2);
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  wait_for_previous();
  for (int64_t i = thread; i < num_pairs; i += step) {
    const PairPlace place = pair_place(args, i);
    const float* x = args.x + place.row * args.x_stride + place.column;
    const float first = x[0];
    const float second = x[1];
    const WordPair pair = {word_of(tag, first), word_of(tag, second)};
    for (int rank = 0; rank < group.num_ranks; rank++) {
      if (rank != group.rank) store_relaxed(inbox(group, rank, group.rank, epoch) + i, pair);
    }
    put_pair(args, group.rank, place, first, second);
  }
  Patience patience(group, epoch, args.op_index);
  bool lost = false;
  for (int64_t i = thread; i < num_pairs && !lost; i += step) {
    const PairPlace place = pair_place(args, i);
    for (int rank = 0; rank < group.num_ranks; rank++) {
      if (rank == group.rank) continue;
      const WordPair* from = inbox(group, group.rank, rank, epoch) + i;
      WordPair pair = load_relaxed(from);
      while (!lost && !has_tag(pair, tag)) {
        lost = patience.is_over(rank);
        pair = load_relaxed(from);
      }
      put_pair(args, rank, place, value_of(pair.first), value_of(pair.second));
    }
  }
  patience.over();
  clear_stale(group, epoch, num_pairs * 16);
}

__device__ __forceinline__ void gather_two_shot(const AllGatherParams& params) {
  const VtCudaGroup& group = params.group;
  const VtCudaAllGather& args = params.args;
  start_next();
  const uint64_t epoch = epoch_of(group, args.ordinal);
  const int quads = args.x_columns / 4;
  const int64_t count = static_cast<int64_t>(args.num_rows) * group.num_ranks * quads;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  wait_for_previous();
  const bool well = meet(group, 0, epoch, args.op_index);
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; well && i < count;
       i += step) {
    const int column = static_cast<int>(i % quads) * 4;
    const int rank = static_cast<int>(i / quads % group.num_ranks);
    const int64_t row = i / quads / group.num_ranks;
    const float* x = in_arena_of(group, rank, args.x + row * args.x_stride + column);
    const float4 values = load_relaxed(reinterpret_cast<const float4*>(x));
    put_pair(args, rank, {row, column}, values.x, values.y);
    put_pair(args, rank, {row, column + 2}, values.z, values.w);
  }
  meet(group, 1, epoch, args.op_index);
  clear_stale(group, epoch, 0);
}

}  // namespace vt

#endif  // VT_CUDA_ALL_GATHER_CUH_
