// sampleSharded: rows of logits of which every rank has some columns. Each thread takes whole rows.
#include <algorithm>
#include <cstring>

#include "meeting.h"

namespace vt {

namespace {

/// Row `row` of the logits, from all ranks.
void gather_row(const StepState& step, const BoundArg& x, std::int64_t row,
                std::vector<float>& logits) {
  const std::int64_t n = static_cast<std::int64_t>(logits.size()), width = x.columns;
  for (std::int64_t begin = 0; begin < n; begin += width)
    std::memcpy(logits.data() + begin,
                part(step, x, static_cast<int>(begin / width)) + row * width,
                static_cast<std::size_t>(std::min(width, n - begin)) * sizeof(float));
}

}  // namespace

void run_sample_sharded(const OpCall& call, const BoundOp& op) {
  StepState& step = call.step;
  const BoundArg& x = op.args[1];
  if (!meet(call, op, x, call.num_logits * x.columns)) return;
  std::vector<float>& logits = step.scratch[call.thread].logits;
  logits.resize(step.rows->sizes().vocab_size);
  const Range range = call.share_of(call.num_logits);
  for (std::int64_t i = range.begin; i < range.end; i++) {
    gather_row(step, x, i, logits);
    sample_logits(call, call.logit_begin + i, logits.data());
  }
}

}  // namespace vt
