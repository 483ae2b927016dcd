// The host's side of allGather: as many rows a launch as an inbox holds.
#include <algorithm>

#include "all_gather.cuh"
#include "group_check.h"

namespace vt {
namespace {

constexpr int kThreads = 512;

__global__ void __launch_bounds__(kThreads, 2)
    all_gather(const __grid_constant__ AllGatherParams params) {
  gather(params);
}

int check(const VtCudaAllGather& a) {
  VT_REQUIRE(a.group != nullptr, "allGather: no group");
  if (check_group("allGather", *a.group) != 0) return -1;
  VT_REQUIRE(a.num_rows > 0 && a.x_columns > 0 && a.x_columns % 4 == 0 && a.out_columns > 0 &&
                 a.out_columns <= static_cast<int64_t>(a.group->num_ranks) * a.x_columns,
             "allGather: %d rows of %d columns (a multiple of 4) from %d ranks to %d", a.num_rows,
             a.x_columns, a.group->num_ranks, a.out_columns);
  VT_REQUIRE(a.x_stride >= a.x_columns && a.out_stride >= a.out_columns,
             "allGather: a row stride is shorter than its row");
  VT_REQUIRE(a.x_stride % 4 == 0 && reinterpret_cast<uintptr_t>(a.x) % 16 == 0,
             "allGather: rows must be 16-byte aligned");
  VT_REQUIRE(a.x_columns * int64_t{4} <= a.group->slot_bytes,
             "allGather: a row of %d columns does not fit the inbox", a.x_columns);
  return 0;
}

int most_rows(const VtCudaGroup& group, int x_columns) {
  return static_cast<int>(std::min<int64_t>(group.slot_bytes / (x_columns * int64_t{4}), 1 << 20));
}

}  // namespace
}  // namespace vt

extern "C" int vt_cuda_all_gather(const VtCudaAllGather* args, void* stream) {
  using namespace vt;
  if (check(*args) != 0) return -1;
  AllGatherParams params = {};
  params.group = *args->group;
  const int most = most_rows(params.group, args->x_columns);
  for (int first = 0; first < args->num_rows; first += most) {
    VtCudaAllGather& a = params.args;
    a = *args;
    a.num_rows = std::min(most, args->num_rows - first);
    a.ordinal += first / most;
    a.x += static_cast<int64_t>(first) * a.x_stride;
    a.out += static_cast<int64_t>(first) * a.out_stride;
    const int64_t threads = static_cast<int64_t>(a.num_rows) * a.x_columns / 4;
    const int blocks = static_cast<int>(
        std::min<int64_t>((threads + kThreads - 1) / kThreads, 2 * params.group.max_blocks));
    const int result = launch("allGather", all_gather, dim3(blocks), dim3(kThreads), 0, a.flags,
                              stream, params);
    if (result != 0) return result;
  }
  return 0;
}

extern "C" int vt_cuda_all_gather_epochs(const VtCudaGroup* group, int32_t num_rows,
                                         int32_t x_columns) {
  const int most = std::max(1, vt::most_rows(*group, x_columns));
  return (num_rows + most - 1) / most;
}
