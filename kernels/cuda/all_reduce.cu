// The host's side of allReduce: which way a call's parts travel, and how its rows are cut.
#include <algorithm>

#include "all_reduce.cuh"
#include "group_check.h"

namespace vt {
namespace {

template <typename T, int kPeers>
__global__ void __launch_bounds__(kMaxReduceThreads)
    all_reduce_one_shot(const __grid_constant__ AllReduceParams params) {
  reduce_one_shot<T, kPeers>(params, block_shared<ReduceShared>());
}

template <typename T>
__global__ void __launch_bounds__(kMaxReduceThreads)
    all_reduce_two_shot(const __grid_constant__ AllReduceParams params) {
  reduce_two_shot<T>(params, block_shared<ReduceShared>());
}

constexpr int kMaxColumns = 16384;
/** Bytes of a part up to which it is sent to everybody at once; each rank sends it to all others. */
constexpr int64_t kOneShotBytes = 512 * 1024;
/** Blocks of a one-shot grid on a multiprocessor: of at most 128 threads, they fit beside others. */
constexpr int kSmallThreads = 128;
constexpr int kSmallBlocks = 4;

int pieces_each(int columns) {
  const int tree = norm_threads(columns);
  return (columns / 8 + tree - 1) / tree;
}

/** The least split whose blocks have at most `most` threads. */
int least_split(int columns, int most) {
  int split = 1;
  while (norm_threads(columns) / split * pieces_each(columns) > most) split *= 2;
  return split;
}

/** As many blocks a row as keep few rows in short parts, and the grid within one wave. */
int one_shot_split(const VtCudaAllReduce& a, int max_blocks) {
  const int most = std::min(8, norm_threads(a.columns) / 32);
  int split = least_split(a.columns, kMaxReduceThreads);
  while (split < most && 2 * split * a.num_rows <= max_blocks) split *= 2;
  return split;
}

int check(const VtCudaAllReduce& a) {
  VT_REQUIRE(a.group != nullptr, "allReduce: no group");
  if (check_group("allReduce", *a.group) != 0) return -1;
  VT_REQUIRE(a.num_rows > 0 && a.columns > 0 && a.columns % 16 == 0 && a.columns <= kMaxColumns,
             "allReduce: %d rows of %d columns (a multiple of 16, at most %d)", a.num_rows,
             a.columns, kMaxColumns);
  VT_REQUIRE(a.dtype == VT_CUDA_F16 || a.dtype == VT_CUDA_BF16, "allReduce: dtype %d", a.dtype);
  VT_REQUIRE(aligned16(a.out, a.out_stride) && aligned16(a.x, a.x_stride) &&
                 aligned16(a.bias, 0) && aligned16(a.residual, a.residual_stride) &&
                 aligned16(a.norm_out, a.norm_stride) && aligned16(a.norm_weight, 0) &&
                 aligned16(a.prefetch, 0) && a.prefetch_bytes % 16 == 0,
             "allReduce: rows must be 16-byte aligned");
  VT_REQUIRE(a.norm_out == nullptr || a.norm_weight != nullptr, "allReduce: no norm weight");
  VT_REQUIRE(a.x_stride >= a.columns && a.out_stride >= a.columns,
             "allReduce: a row stride is shorter than its row");
  return 0;
}

template <typename T>
int launch_one_shot(AllReduceParams& params, void* stream) {
  const VtCudaAllReduce& a = params.args;
  params.split = one_shot_split(a, params.group.max_blocks);
  params.row_blocks = a.num_rows * params.split;
  const int threads = norm_threads(a.columns) / params.split * pieces_each(a.columns);
  const int room = params.group.max_blocks * (threads <= kSmallThreads ? kSmallBlocks : 1);
  VT_REQUIRE(params.row_blocks <= room, "allReduce: %d rows are too many for one shot", a.num_rows);
  int blocks = params.row_blocks;
  if (a.prefetch != nullptr) {
    const int64_t pieces = (a.prefetch_bytes + kPrefetchBytes - 1) / kPrefetchBytes;
    const int idle = params.group.max_blocks - blocks;
    blocks += static_cast<int>(std::min<int64_t>(std::max(idle, 0), pieces)) / params.split *
              params.split;
  }
  const auto kernel = params.group.num_ranks <= 2   ? all_reduce_one_shot<T, 1>
                      : params.group.num_ranks <= 4 ? all_reduce_one_shot<T, 3>
                                                    : all_reduce_one_shot<T, kMaxRanks - 1>;
  return launch_clusters("allReduce", kernel, params.split, dim3(blocks), dim3(threads), 0, a.flags,
                         stream, params);
}

template <typename T>
int launch_two_shot(AllReduceParams& params, void* stream) {
  const VtCudaAllReduce& a = params.args;
  const int ranks = params.group.num_ranks;
  params.split = least_split(a.columns, kMaxReduceThreads);
  const int clusters = std::min((a.num_rows + ranks - 1) / ranks,
                                std::min(params.group.max_blocks, kMaxGroupBlocks) / params.split);
  params.row_blocks = clusters * params.split;
  const int threads = norm_threads(a.columns) / params.split * pieces_each(a.columns);
  return launch_clusters("allReduce", all_reduce_two_shot<T>, params.split, dim3(params.row_blocks),
                         dim3(threads), 0, a.flags, stream, params);
}

bool takes_one_shot(const VtCudaAllReduce& a) {
  if (a.way != VT_CUDA_WAY_BY_SIZE) return a.way == VT_CUDA_WAY_ONE_SHOT;
  const int64_t bytes = static_cast<int64_t>(a.num_rows) * a.columns * 4;
  return bytes * (a.group->num_ranks - 1) <= kOneShotBytes && bytes * 2 <= a.group->slot_bytes &&
         a.num_rows * least_split(a.columns, kMaxReduceThreads) <= a.group->max_blocks;
}

}  // namespace
}  // namespace vt

extern "C" int vt_cuda_all_reduce(const VtCudaAllReduce* args, void* stream) {
  using namespace vt;
  VT_REQUIRE(target() >= Target::sm_90, "allReduce needs GPUs of compute capability 9.0");
  if (check(*args) != 0) return -1;
  AllReduceParams params = {};
  params.group = *args->group;
  params.args = *args;
  const bool f16 = args->dtype == VT_CUDA_F16;
  if (takes_one_shot(*args)) {
    VT_REQUIRE(static_cast<int64_t>(args->num_rows) * args->columns * 8 <= params.group.slot_bytes,
               "allReduce: %d rows of %d columns do not fit the inbox", args->num_rows,
               args->columns);
    return f16 ? launch_one_shot<__half>(params, stream)
               : launch_one_shot<__nv_bfloat16>(params, stream);
  }
  return f16 ? launch_two_shot<__half>(params, stream)
             : launch_two_shot<__nv_bfloat16>(params, stream);
}
