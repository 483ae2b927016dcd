// Checks of a VtCudaGroup that every collective's launcher makes.
#ifndef VT_CUDA_GROUP_CHECK_H_
#define VT_CUDA_GROUP_CHECK_H_

#include "error.h"
#include "vt_cuda_collective.h"

namespace vt {

inline int check_group(const char* op, const VtCudaGroup& group) {
  VT_REQUIRE(group.num_ranks >= 2 && group.num_ranks <= VT_CUDA_MAX_RANKS && group.rank >= 0 &&
                 group.rank < group.num_ranks,
             "%s: rank %d of %d (2 to %d)", op, group.rank, group.num_ranks, VT_CUDA_MAX_RANKS);
  VT_REQUIRE(group.max_blocks > 0 && group.slot_bytes > 0 && group.slot_bytes % 64 == 0 &&
                 group.timeout_ns > 0,
             "%s: %d blocks, slots of %lld bytes, %llu ns", op, group.max_blocks,
             static_cast<long long>(group.slot_bytes),
             static_cast<unsigned long long>(group.timeout_ns));
  VT_REQUIRE(group.first_epoch != nullptr && group.report != nullptr, "%s: half a group", op);
  for (int rank = 0; rank < group.num_ranks; rank++)
    VT_REQUIRE(group.boards[rank] != nullptr,
               "%s: rank %d has no memory", op, rank);
  return 0;
}

}  // namespace vt

#endif  // VT_CUDA_GROUP_CHECK_H_
