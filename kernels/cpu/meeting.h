// How an op meets the other ranks: by thread 0, for all threads of the step.
#pragma once

#include "ops.h"

namespace vt {

inline int num_ranks(const StepState& step) {
  return step.ranks == nullptr ? 1 : step.ranks->num_ranks();
}

/// Every thread calls it, and goes on when all ranks have the first `count` numbers of `arg`.
/// False: the step is lost.
inline bool meet(const OpCall& call, const BoundOp& op, const BoundArg& arg, std::int64_t count) {
  StepState& step = call.step;
  if (step.ranks == nullptr) return true;
  if (call.thread == 0)
    step.ranks->meet({step.step, op.index, op_spec(op.id).name, step.checksum}, arg.data,
                     static_cast<std::size_t>(count));
  step.pool->barrier();
  return !step.ranks->failed();
}

/// What a rank has at the place where the last meeting was.
inline const float* part(const StepState& step, const BoundArg& arg, int rank) {
  return step.ranks == nullptr ? arg.data : step.ranks->part(rank);
}

}  // namespace vt
