// How an op meets the other ranks: by thread 0, for all threads of the step.
#pragma once

#include "ops.h"

namespace vt {

inline int num_ranks(const StepState& step) {
  return step.ranks == nullptr ? 1 : step.ranks->num_ranks();
}

/// Every thread calls it, and goes on when all ranks have their `count` numbers at `data`. False:
/// the step is lost.
inline bool meet(const OpCall& call, const BoundOp& op, const float* data, std::int64_t count) {
  StepState& step = call.step;
  if (step.ranks == nullptr) return true;
  if (call.thread == 0) {
    step.ranks->meet({step.step, op.index, op_spec(op.id).name, step.checksum}, data,
                     static_cast<std::size_t>(count));
    step.shown_bytes += count * static_cast<std::int64_t>(sizeof(float));
  }
  step.pool->barrier();
  return !step.ranks->failed();
}

/// What a rank has where this one has `own`, the data of the last meeting.
inline const float* part(const StepState& step, const float* own, int rank) {
  return step.ranks == nullptr ? own : step.ranks->part(rank);
}

}  // namespace vt
