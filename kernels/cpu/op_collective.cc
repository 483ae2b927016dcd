// allReduce and allGather: each thread works on its share of the result, from the parts of all
// ranks, in the order of ranks.
#include <algorithm>
#include <cstring>

#include "ops.h"

namespace vt {

namespace {

/// Every thread calls it, and goes on when all ranks have their x. False: the step is lost.
bool meet(const OpCall& call, const BoundOp& op) {
  StepState& step = call.step;
  if (step.ranks == nullptr) return true;
  if (call.thread == 0) {
    const BoundArg& x = op.args[1];
    step.ranks->meet({step.step, op.index, op_spec(op.id).name, step.checksum}, x.data,
                     static_cast<std::size_t>(op.num_rows(call) * x.columns));
  }
  step.pool->barrier();
  return !step.ranks->failed();
}

int num_ranks(const StepState& step) { return step.ranks == nullptr ? 1 : step.ranks->num_ranks(); }

const float* part(const StepState& step, const BoundOp& op, int rank) {
  return step.ranks == nullptr ? op.args[1].data : step.ranks->part(rank);
}

}  // namespace

void run_all_reduce(const OpCall& call, const BoundOp& op) {
  if (!meet(call, op)) return;
  constexpr std::int64_t stretch = 256;
  const std::int64_t n = op.args[0].columns, per_row = (n + stretch - 1) / stretch;
  const int ranks = num_ranks(call.step);
  const float* bias = op.args[2].data;
  const float* residual = op.args[3].data;
  const Range range = call.share_of(op.num_rows(call) * per_row);
  for (std::int64_t i = range.begin; i < range.end; i++) {
    const std::int64_t column = i % per_row * stretch, at = i / per_row * n + column;
    const std::int64_t count = std::min(stretch, n - column);
    float sum[stretch];
    const auto add = [&](const float* x) {
      for (std::int64_t j = 0; j < count; j++) sum[j] += x[j];
    };
    std::memcpy(sum, part(call.step, op, 0) + at, static_cast<std::size_t>(count) * sizeof(float));
    for (int rank = 1; rank < ranks; rank++) add(part(call.step, op, rank) + at);
    if (bias != nullptr) add(bias + column);
    if (residual != nullptr) add(residual + at);
    std::memcpy(op.args[0].data + at, sum, static_cast<std::size_t>(count) * sizeof(float));
  }
}

void run_all_gather(const OpCall& call, const BoundOp& op) {
  if (!meet(call, op)) return;
  const std::int64_t n = op.args[0].columns, width = op.args[1].columns;
  const int ranks = num_ranks(call.step);
  const Range range = call.share_of(op.num_rows(call) * static_cast<std::int64_t>(ranks));
  for (std::int64_t i = range.begin; i < range.end; i++) {
    const std::int64_t row = i / ranks, rank = i % ranks;
    const std::int64_t count = std::min(width, n - rank * width);
    if (count <= 0) continue;
    std::memcpy(op.args[0].data + row * n + rank * width,
                part(call.step, op, static_cast<int>(rank)) + row * width,
                static_cast<std::size_t>(count) * sizeof(float));
  }
}

}  // namespace vt
