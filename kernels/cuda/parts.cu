// What follows a collective that a library carried: sums of parts, and parts side by side.
//
// What they compute: vt_cuda_parts.h. A sum is added in the order of parts, so it has the bits of
// allReduce, and its norm those of rmsNorm.
//
// Launch: sums a block a row, with the threads of rmsNorm's tree, 16 bytes of out a thread and
// step; joins grid-stride over the columns of out.
#include <algorithm>

#include "cluster.cuh"
#include "elementwise.cuh"
#include "peer_memory.cuh"
#include "vt_cuda_parts.h"

namespace vt {
namespace {

constexpr int kMaxThreads = 512;
constexpr int kMaxPieces = kMaxNormColumns / 8 / kMaxThreads;
constexpr int kJoinThreads = 256;

struct MarkParams {
  VtCudaMark mark;
};

/** By one thread of the grid, once what is in front has ended. */
__device__ __forceinline__ void write_mark(const VtCudaMark& mark) {
  if (mark.word == nullptr || blockIdx.x != 0 || threadIdx.x != 0) return;
  const uint64_t epoch = *mark.first_epoch + static_cast<uint64_t>(mark.ordinal);
  store_release(mark.word, epoch << 16 | static_cast<uint64_t>(mark.op_index));
}

__global__ void __launch_bounds__(32) mark_progress(const __grid_constant__ MarkParams params) {
  start_next();
  wait_for_previous();
  write_mark(params.mark);
}

struct RowSums {
  float groups[kMaxNormGroups];
};

/** Piece `i` of a row, as out holds it. */
template <typename T>
__device__ __forceinline__ void sum_piece(const VtCudaSumParts& args, int64_t row, int i,
                                          float (&sum)[8]) {
  const int64_t at = row * args.columns + i * 8;
  float more[8];
#pragma unroll 4
  for (int part = 0; part < args.num_parts; part++) {
    const float* from = part == args.own_part ? args.own : args.parts + part * args.part_stride;
    load8(from + at, more);
    if (part == 0) {
#pragma unroll
      for (int e = 0; e < 8; e++) sum[e] = more[e];
    } else {
      add8(sum, more);
    }
  }
  if (args.bias != nullptr) {
    load8(static_cast<const T*>(args.bias) + i * 8, more);
    add8(sum, more);
  }
  if (args.residual != nullptr) {
    load8(static_cast<const T*>(args.residual) + row * args.residual_stride + i * 8, more);
    add8(sum, more);
  }
  uint4 packed;
  store8(reinterpret_cast<T*>(&packed), sum);
  unpack8<T>(packed, sum);
  *reinterpret_cast<uint4*>(static_cast<T*>(args.out) + row * args.out_stride + i * 8) = packed;
}

template <typename T>
__global__ void __launch_bounds__(kMaxThreads)
    sum_parts(const __grid_constant__ VtCudaSumParts args) {
  RowSums& shared = block_shared<RowSums>();
  start_next();
  wait_for_previous();
  write_mark(args.mark);
  const int64_t row = blockIdx.x;
  const int pieces = args.columns / 8;
  float values[kMaxPieces][8];
#pragma unroll
  for (int p = 0; p < kMaxPieces; p++) {
    const int i = threadIdx.x + p * blockDim.x;
    if (i < pieces) sum_piece<T>(args, row, i, values[p]);
  }
  if (args.norm_out == nullptr) return;
#pragma unroll
  for (int p = 0; p < kMaxPieces; p++) {
    if (p * static_cast<int>(blockDim.x) >= pieces) break;
    const int i = threadIdx.x + p * blockDim.x;
    const float sum = warp_sum(i < pieces ? sum_of_squares(values[p]) : 0.0f);
    if (threadIdx.x % 32 == 0) shared.groups[i / 32] = sum;
  }
  __syncthreads();
  const int groups = (args.columns + kGroupColumns - 1) / kGroupColumns;
  const float scale = norm_scale(sum_of_groups(shared.groups, groups), args.columns, args.eps);
#pragma unroll
  for (int p = 0; p < kMaxPieces; p++) {
    const int i = threadIdx.x + p * blockDim.x;
    if (i >= pieces) break;
    float weight[8];
    load8(static_cast<const T*>(args.norm_weight) + i * 8, weight);
    apply_norm(values[p], scale, weight);
    store8(static_cast<T*>(args.norm_out) + row * args.norm_stride + i * 8, values[p]);
  }
}

__global__ void __launch_bounds__(kJoinThreads)
    join_parts(const __grid_constant__ VtCudaJoinParts args) {
  start_next();
  wait_for_previous();
  write_mark(args.mark);
  const int64_t count = static_cast<int64_t>(args.num_rows) * args.out_columns;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    const int64_t row = i / args.out_columns;
    const int column = static_cast<int>(i % args.out_columns);
    const int part = column / args.columns;
    const int64_t from = (static_cast<int64_t>(part) * args.num_rows + row) * args.columns;
    args.out[row * args.out_stride + column] = args.parts[from + column % args.columns];
  }
}

int check(const VtCudaSumParts& a) {
  VT_REQUIRE(a.num_rows > 0 && a.columns > 0 && a.columns % 8 == 0 &&
                 a.columns <= kMaxNormColumns,
             "sumParts: %d rows of %d columns (a multiple of 8, at most %d)", a.num_rows, a.columns,
             kMaxNormColumns);
  VT_REQUIRE(a.dtype == VT_CUDA_F16 || a.dtype == VT_CUDA_BF16, "sumParts: dtype %d", a.dtype);
  VT_REQUIRE(a.num_parts > 0 && a.own_part < a.num_parts && (a.own_part < 0 || a.own != nullptr) &&
                 a.part_stride % 4 == 0,
             "sumParts: %d parts %lld apart, part %d lies elsewhere", a.num_parts,
             static_cast<long long>(a.part_stride), a.own_part);
  VT_REQUIRE(aligned16(a.out, a.out_stride) && aligned16(a.parts, 0) && aligned16(a.own, 0) &&
                 aligned16(a.bias, 0) && aligned16(a.residual, a.residual_stride) &&
                 aligned16(a.norm_out, a.norm_stride) && aligned16(a.norm_weight, 0),
             "sumParts: rows must be 16-byte aligned");
  VT_REQUIRE(a.norm_out == nullptr || a.norm_weight != nullptr, "sumParts: no norm weight");
  return 0;
}

}  // namespace
}  // namespace vt

extern "C" int vt_cuda_mark(const VtCudaMark* mark, int32_t flags, void* stream) {
  using namespace vt;
  return launch("mark", mark_progress, dim3(1), dim3(32), 0, flags, stream, MarkParams{*mark});
}

extern "C" int vt_cuda_sum_parts(const VtCudaSumParts* args, void* stream) {
  using namespace vt;
  if (check(*args) != 0) return -1;
  return launch(
      "sumParts", args->dtype == VT_CUDA_F16 ? sum_parts<__half> : sum_parts<__nv_bfloat16>,
      dim3(args->num_rows), dim3(norm_threads(args->columns)), 0, args->flags, stream, *args);
}

extern "C" int vt_cuda_join_parts(const VtCudaJoinParts* args, void* stream) {
  using namespace vt;
  const VtCudaJoinParts& a = *args;
  VT_REQUIRE(a.num_parts > 0 && a.num_rows > 0 && a.columns > 0 && a.out_columns > 0 &&
                 a.out_columns <= static_cast<int64_t>(a.num_parts) * a.columns &&
                 a.out_stride >= a.out_columns,
             "joinParts: %d rows of %d columns from %d parts to %d", a.num_rows, a.columns,
             a.num_parts, a.out_columns);
  const int64_t count = static_cast<int64_t>(a.num_rows) * a.out_columns;
  const int64_t blocks = (count + kJoinThreads - 1) / kJoinThreads;
  return launch("joinParts", join_parts, dim3(static_cast<int>(std::min<int64_t>(blocks, 4096))),
                dim3(kJoinThreads), 0, a.flags, stream, a);
}
