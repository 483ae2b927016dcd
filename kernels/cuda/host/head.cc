// The linear of logits with sample behind it: tokens of rows that need the greatest logit alone are
// found at the linear's end, and their logits never written. The bits are those of the ops launched
// one by one.
#include <algorithm>

#include "launch_error.h"
#include "launches.h"

namespace vt {

namespace {

/// Whether the last two ops are logits and the tokens from them.
bool ends_with_head(const Program& program) {
  const std::size_t count = program.ops.size();
  if (count < 2) return false;
  const OpRecord &linear = program.ops[count - 2], &sample = program.ops[count - 1];
  return linear.id == OpId::linear && sample.id == OpId::sample && linear.args[0] == sample.args[0];
}

}  // namespace

void Launches::bind_head(Ledger& ledger) {
  if (!ends_with_head(program_)) return;
  const std::int64_t rows = std::min<std::int64_t>(program_.max_num_logits, VT_CUDA_MAX_BEST_ROWS);
  best_ids_ = {rows * VT_CUDA_MAX_BEST * sizeof(std::uint64_t), "activations", ledger};
}

bool Launches::may_find_best(int num_rows) const {
  if (best_ids_.bytes() == 0) return false;
  const StepShape shape;
  Call call{shape, nullptr, 0};
  call.num_logits = std::min(num_rows, program_.max_num_logits);
  const VtCudaLinear args = linear_args(program_.ops[program_.ops.size() - 2], call);
  return vt_cuda_linear_num_best(&args) > 0;
}

int Launches::run_head(std::size_t index, const Call& call) const {
  if (best_ids_.bytes() == 0 || !call.shape.kinds.finds_best()) return 0;
  VtCudaLinear args = linear_args(program_.ops[index], call);
  VtCudaSample sampler = sample_args(operand(program_.ops[index + 1], 0, call), call);
  sampler.num_best = vt_cuda_linear_num_best(&args);
  if (sampler.num_best == 0) return 0;
  sampler.best = best_ids_.as<std::uint64_t>();
  args.flags = sampler.flags = early(call.shape, call.flags);
  VT_LAUNCH(vt_cuda_linear_for_sample(&args, &sampler, call.stream));
  VT_LAUNCH(vt_cuda_sample(&sampler, call.stream));
  return 2;
}

}  // namespace vt
