// The host's side of allGather: which way a call's parts travel.
#include <algorithm>

#include "all_gather.cuh"
#include "group_check.h"

namespace vt {
namespace {

constexpr int kThreads = 256;
/** Bytes of a part up to which it is sent to everybody at once. */
constexpr int64_t kOneShotBytes = 64 * 1024;

__global__ void __launch_bounds__(kThreads)
    all_gather_one_shot(const __grid_constant__ AllGatherParams params) {
  gather_one_shot(params);
}

__global__ void __launch_bounds__(kThreads)
    all_gather_two_shot(const __grid_constant__ AllGatherParams params) {
  gather_two_shot(params);
}

int check(const VtCudaAllGather& a) {
  VT_REQUIRE(a.group != nullptr, "allGather: no group");
  if (check_group("allGather", *a.group) != 0) return -1;
  VT_REQUIRE(a.num_rows > 0 && a.x_columns > 0 && a.x_columns % 2 == 0 && a.out_columns > 0 &&
                 a.out_columns <= static_cast<int64_t>(a.group->num_ranks) * a.x_columns,
             "allGather: %d rows of %d columns (even) from %d ranks to %d", a.num_rows, a.x_columns,
             a.group->num_ranks, a.out_columns);
  VT_REQUIRE(a.x_stride >= a.x_columns && a.out_stride >= a.out_columns,
             "allGather: a row stride is shorter than its row");
  return 0;
}

bool takes_one_shot(const VtCudaAllGather& a) {
  const int64_t bytes = static_cast<int64_t>(a.num_rows) * a.x_columns * 4;
  const bool quads = a.x_columns % 4 == 0 && a.x_stride % 4 == 0 &&
                     reinterpret_cast<uintptr_t>(a.x) % 16 == 0;
  if (a.way != VT_CUDA_WAY_BY_SIZE) return a.way == VT_CUDA_WAY_ONE_SHOT;
  return !quads || (bytes <= kOneShotBytes && bytes * 2 <= a.group->slot_bytes);
}

}  // namespace
}  // namespace vt

extern "C" int vt_cuda_all_gather(const VtCudaAllGather* args, void* stream) {
  using namespace vt;
  if (check(*args) != 0) return -1;
  AllGatherParams params = {};
  params.group = *args->group;
  params.args = *args;
  const int64_t count = static_cast<int64_t>(args->num_rows) * args->x_columns;
  const bool one_shot = takes_one_shot(*args);
  VT_REQUIRE(!one_shot || count * 8 <= params.group.slot_bytes,
             "allGather: %d rows of %d columns do not fit the inbox", args->num_rows,
             args->x_columns);
  const int64_t threads = one_shot ? count / 2 : count * params.group.num_ranks / 4;
  const int64_t most = std::min(params.group.max_blocks, kMaxGroupBlocks);
  const int blocks =
      static_cast<int>(std::clamp<int64_t>((threads + kThreads - 1) / kThreads, 1, most));
  return launch("allGather", one_shot ? all_gather_one_shot : all_gather_two_shot, dim3(blocks),
                dim3(kThreads), 0, args->flags, stream, params);
}
