// allGather: the kernel's body. How ranks wait is group.cuh's business.
//
// What it computes: out[row] = x[row] of rank 0, x[row] of rank 1, ..; columns beyond out dropped.
//
// Launch: grid-stride over fours of columns. A thread first sends all its fours to all others, then
// waits for theirs.
#ifndef VT_CUDA_ALL_GATHER_CUH_
#define VT_CUDA_ALL_GATHER_CUH_

#include "group.cuh"

namespace vt {

struct AllGatherParams {
  VtCudaGroup group;
  VtCudaAllGather args;
};

__device__ __forceinline__ void put_four(const VtCudaAllGather& args, int rank, int64_t row,
                                         int column, const uint4& values) {
  const int64_t first = static_cast<int64_t>(rank) * args.x_columns + column;
  float* out = args.out + row * args.out_stride + first;
  const uint32_t bits[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
  for (int e = 0; e < 4; e++) {
    if (first + e < args.out_columns) out[e] = __uint_as_float(bits[e]);
  }
}

__device__ __forceinline__ void gather(const AllGatherParams& params) {
  const VtCudaGroup& group = params.group;
  const VtCudaAllGather& args = params.args;
  start_next();
  const uint64_t epoch = epoch_of(group, args.ordinal);
  const int per_row = args.x_columns / 4;
  const int64_t count = static_cast<int64_t>(args.num_rows) * per_row;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  wait_for_previous();
  for (int64_t i = thread; i < count; i += step) {
    const int64_t row = i / per_row;
    const int column = static_cast<int>(i % per_row) * 4;
    const uint4 values = *reinterpret_cast<const uint4*>(args.x + row * args.x_stride + column);
    for (int p = 0; p + 1 < group.num_ranks; p++) {
      send(inbox(group, peer_of(group, p), group.rank, epoch) + i, values);
    }
    put_four(args, group.rank, row, column, values);
  }
  Patience patience(group, epoch, args.op_index);
  for (int64_t i = thread; i < count; i += step) {
    for (int p = 0; p + 1 < group.num_ranks; p++) {
      const int rank = peer_of(group, p);
      const uint4 values = take(inbox(group, group.rank, rank, epoch) + i, rank, patience);
      put_four(args, rank, i / per_row, static_cast<int>(i % per_row) * 4, values);
    }
  }
}

}  // namespace vt

#endif  // VT_CUDA_ALL_GATHER_CUH_
