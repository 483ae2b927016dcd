// The host's side of allReduce: which way a call's parts travel, and how its rows are cut.
#include <algorithm>
#include <type_traits>

#include "all_reduce.cuh"
#include "group_check.h"
#include "linear_send.cuh"

namespace vt {
namespace {

/** Blocks of kMaxReduceThreads that a multiprocessor holds at once. */
template <int kPeers>
constexpr int kBlocksAtOnce = kPeers <= 3 ? 2 : 1;

template <typename T, int kPeers>
__global__ void __launch_bounds__(kMaxReduceThreads, kBlocksAtOnce<kPeers>)
    all_reduce_one_shot(const __grid_constant__ AllReduceParams params) {
  reduce_one_shot<T, kPeers>(params, block_shared<ReduceShared>());
}

template <typename T, int kPeers>
__global__ void __launch_bounds__(kMaxReduceThreads, kBlocksAtOnce<kPeers>)
    all_reduce_sent(const __grid_constant__ AllReduceParams params) {
  reduce_sent<T, kPeers>(params, block_shared<ReduceShared>());
}

template <typename T, int kPeers>
__global__ void __launch_bounds__(kMaxReduceThreads, kBlocksAtOnce<kPeers>)
    all_reduce_two_shot(const __grid_constant__ AllReduceParams params) {
  reduce_two_shot<T, kPeers>(params, block_shared<ReduceShared>());
}

/** What the second trip of two-shot costs, as bytes that cross the link meanwhile. */
constexpr int64_t kSecondTripBytes = 448 * 1024;

int pieces_each(int columns) {
  const int tree = norm_threads(columns);
  return (columns / 8 + tree - 1) / tree;
}

int threads_of(int columns, int split) {
  return norm_threads(columns) / split * pieces_each(columns);
}

int most_split(int columns) { return std::min(8, norm_threads(columns) / 32); }

/** The least split whose blocks are not too large. */
int least_split(int columns) {
  int split = 1;
  while (threads_of(columns, split) > kMaxReduceThreads) split *= 2;
  return split;
}

/** Blocks that run at once: clusters do not fill the chip's groups of multiprocessors. */
int room_of(const VtCudaGroup& group, int columns, int split) {
  const int at_once = group.num_ranks <= 4 ? kBlocksAtOnce<3> : kBlocksAtOnce<kMaxRanks - 1>;
  const int each = std::min(8, at_once * kMaxReduceThreads / threads_of(columns, split));
  return group.max_blocks * each / (split > 1 ? 2 : 1);
}

/** Most rows of a launch. */
int most_rows(const VtCudaGroup& group, int columns, bool one_shot) {
  // Of a slot: parts in f32; two-shot: of a row for each rank, its sum in 16 bits too.
  const int64_t fit = group.slot_bytes / (columns * (one_shot ? 4 : 6));
  const int split = least_split(columns);
  const int64_t most = one_shot ? std::min<int64_t>(fit, room_of(group, columns, split) / split)
                                : fit * group.num_ranks;
  return static_cast<int>(std::min<int64_t>(most, 1 << 20));
}

bool takes_one_shot(const VtCudaGroup& group, int num_rows, int columns, int way) {
  if (num_rows < group.num_ranks) return true;
  if (way != VT_CUDA_WAY_BY_SIZE) return way != VT_CUDA_WAY_TWO_SHOT;
  const int64_t values = static_cast<int64_t>(num_rows) * columns * (group.num_ranks - 1);
  return num_rows <= most_rows(group, columns, true) &&
         values * 4 - values * 6 / group.num_ranks <= kSecondTripBytes;
}

int check(const VtCudaAllReduce& a) {
  VT_REQUIRE(a.group != nullptr, "allReduce: no group");
  if (check_group("allReduce", *a.group) != 0) return -1;
  VT_REQUIRE(a.num_rows > 0 && a.columns > 0 && a.columns % 16 == 0 &&
                 a.columns <= kMaxNormColumns,
             "allReduce: %d rows of %d columns (a multiple of 16, at most %d)", a.num_rows,
             a.columns, kMaxNormColumns);
  VT_REQUIRE(a.dtype == VT_CUDA_F16 || a.dtype == VT_CUDA_BF16, "allReduce: dtype %d", a.dtype);
  VT_REQUIRE(aligned16(a.out, a.out_stride) && aligned16(a.x, a.x_stride) &&
                 aligned16(a.bias, 0) && aligned16(a.residual, a.residual_stride) &&
                 aligned16(a.norm_out, a.norm_stride) && aligned16(a.norm_weight, 0),
             "allReduce: rows must be 16-byte aligned");
  VT_REQUIRE(a.norm_out == nullptr || a.norm_weight != nullptr, "allReduce: no norm weight");
  VT_REQUIRE(a.x_stride >= a.columns && a.out_stride >= a.columns,
             "allReduce: a row stride is shorter than its row");
  return 0;
}

/** Few rows in short parts: up to two blocks a multiprocessor. */
int chosen_split(const VtCudaAllReduce& a, const VtCudaGroup& group, bool one_shot) {
  const int least = least_split(a.columns);
  const int most = most_split(a.columns);
  int split = std::max(least, std::min(a.split, most));
  while (one_shot && split > least && a.num_rows * split > room_of(group, a.columns, split))
    split /= 2;
  if (a.split != 0) return split;
  while (split < most && split * a.num_rows <= group.max_blocks &&
         2 * split * a.num_rows <= room_of(group, a.columns, 2 * split)) {
    split *= 2;
  }
  return split;
}

template <typename T, int kPeers>
int launch_reduce(AllReduceParams& params, bool one_shot, void* stream) {
  const VtCudaAllReduce& a = params.args;
  params.split = chosen_split(a, params.group, one_shot);
  const int room = room_of(params.group, a.columns, params.split) / params.split;
  const int clusters = one_shot ? a.num_rows : std::min(a.num_rows, room);
  VT_REQUIRE(clusters <= room, "allReduce: %d rows are too many for one shot", a.num_rows);
  const auto kernel = a.way == VT_CUDA_WAY_SENT ? all_reduce_sent<T, kPeers>
                      : one_shot                ? all_reduce_one_shot<T, kPeers>
                                                : all_reduce_two_shot<T, kPeers>;
  return launch_clusters("allReduce", kernel, params.split, dim3(clusters * params.split),
                         dim3(threads_of(a.columns, params.split)), 0, a.flags, stream, params);
}

template <typename T>
int launch_for(AllReduceParams& params, bool one_shot, void* stream) {
  const int ranks = params.group.num_ranks;
  return ranks <= 2   ? launch_reduce<T, 1>(params, one_shot, stream)
         : ranks <= 4 ? launch_reduce<T, 3>(params, one_shot, stream)
                      : launch_reduce<T, kMaxRanks - 1>(params, one_shot, stream);
}

template <typename T>
T* rows_from(T* first, int64_t row, int stride, int bytes) {
  if (first == nullptr) return nullptr;
  using Bytes = std::conditional_t<std::is_const_v<T>, const char, char>;
  return reinterpret_cast<T*>(reinterpret_cast<Bytes*>(first) + row * stride * bytes);
}

}  // namespace

bool may_be_sent(const VtCudaGroup& group, int num_rows, int columns) {
  return columns % 16 == 0 && columns <= kMaxNormColumns &&
         takes_one_shot(group, num_rows, columns, VT_CUDA_WAY_BY_SIZE) &&
         num_rows <= most_rows(group, columns, true);
}

}  // namespace vt

extern "C" int vt_cuda_all_reduce(const VtCudaAllReduce* args, void* stream) {
  using namespace vt;
  VT_REQUIRE(target() >= Target::sm_90, "allReduce needs GPUs of compute capability 9.0");
  if (check(*args) != 0) return -1;
  const bool one_shot =
      takes_one_shot(*args->group, args->num_rows, args->columns, args->way);
  const int most = most_rows(*args->group, args->columns, one_shot);
  VT_REQUIRE(most > 0, "allReduce: a row of %d columns does not fit the inbox", args->columns);
  VT_REQUIRE(args->way != VT_CUDA_WAY_SENT || args->num_rows <= most,
             "allReduce: %d rows that a linear has sent, at most %d fit", args->num_rows, most);
  AllReduceParams params = {};
  params.group = *args->group;
  for (int first = 0; first < args->num_rows; first += most) {
    VtCudaAllReduce& a = params.args;
    a = *args;
    a.num_rows = std::min(most, args->num_rows - first);
    a.ordinal += first / most;
    a.x = rows_from(a.x, first, a.x_stride, 4);
    a.out = rows_from(a.out, first, a.out_stride, 2);
    a.residual = rows_from(a.residual, first, a.residual_stride, 2);
    a.norm_out = rows_from(a.norm_out, first, a.norm_stride, 2);
    const bool in_one = one_shot || a.num_rows < params.group.num_ranks;
    const int result = a.dtype == VT_CUDA_F16
                           ? launch_for<__half>(params, in_one, stream)
                           : launch_for<__nv_bfloat16>(params, in_one, stream);
    if (result != 0) return result;
  }
  return 0;
}

extern "C" int vt_cuda_all_reduce_epochs(const VtCudaGroup* group, int32_t num_rows,
                                         int32_t columns, int32_t way) {
  using namespace vt;
  const bool one_shot = takes_one_shot(*group, num_rows, columns, way);
  const int most = std::max(1, most_rows(*group, columns, one_shot));
  return (num_rows + most - 1) / most;
}
