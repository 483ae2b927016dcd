// allReduce, alone and with the norm of its sum: each thread works on its share of the result, from
// the parts of all ranks, in the order of ranks.
#include <algorithm>
#include <cstring>

#include "meeting.h"

namespace vt {

namespace {

constexpr std::int64_t kStretch = 256;

/// What is added up, and where the sum goes.
struct Sum {
  const BoundArg& out;
  const BoundArg& x;
  const float* bias;
  const float* residual;
};

/// Columns [column, column + kStretch) of a row, as many as there are.
void add_stretch(const StepState& step, const Sum& sum, std::int64_t row, std::int64_t column) {
  const std::int64_t n = sum.out.columns, at = row * n + column;
  const std::int64_t count = std::min(kStretch, n - column);
  const int ranks = num_ranks(step);
  float total[kStretch];
  const auto add = [&](const float* x) {
    for (std::int64_t j = 0; j < count; j++) total[j] += x[j];
  };
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(float);
  std::memcpy(total, part(step, sum.x.data, 0) + at, bytes);
  for (int rank = 1; rank < ranks; rank++) add(part(step, sum.x.data, rank) + at);
  if (sum.bias != nullptr) add(sum.bias + column);
  if (sum.residual != nullptr) add(sum.residual + at);
  std::memcpy(sum.out.data + at, total, bytes);
}

/// The thread's share of all stretches of all rows.
void add_share(const OpCall& call, const Sum& sum, int num_rows) {
  const std::int64_t per_row = (sum.out.columns + kStretch - 1) / kStretch;
  const Range range = call.share_of(num_rows * per_row);
  for (std::int64_t i = range.begin; i < range.end; i++)
    add_stretch(call.step, sum, i / per_row, i % per_row * kStretch);
}

}  // namespace

void run_all_reduce(const OpCall& call, const BoundOp& op) {
  const int num_rows = op.num_rows(call);
  if (!meet(call, op, op.args[1].data, num_rows * op.args[1].columns)) return;
  add_share(call, {op.args[0], op.args[1], op.args[2].data, op.args[3].data}, num_rows);
}

void run_all_reduce_residual_norm(const OpCall& call, const BoundOp& op) {
  const int num_rows = op.num_rows(call);
  if (!meet(call, op, op.args[2].data, num_rows * op.args[2].columns)) return;
  const Sum sum = {op.args[1], op.args[2], op.args[4].data, op.args[5].data};
  const std::int64_t n = sum.out.columns;
  // With a row for every thread a sum is normed while it is in the cache; else all threads add.
  const bool whole_rows = num_rows >= call.step.num_threads;
  if (!whole_rows) {
    add_share(call, sum, num_rows);
    call.step.pool->barrier();
  }
  const Range range = call.share_of(num_rows);
  for (std::int64_t i = range.begin; i < range.end; i++) {
    for (std::int64_t column = 0; whole_rows && column < n; column += kStretch)
      add_stretch(call.step, sum, i, column);
    call.step.kernels->rms_norm(sum.out.data + i * n, op.args[3].data, op.args[0].data + i * n,
                                static_cast<int>(n), static_cast<float>(op.attrs[0]));
  }
}

}  // namespace vt
