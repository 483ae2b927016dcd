// The linear of logits with the sampler behind it, of one GPU or of a rank: tokens of rows that need
// the greatest logit alone are found at the linear's end, and their logits never written. The bits
// are those of the ops launched one by one.
#include <algorithm>

#include "launch_error.h"
#include "launches.h"

namespace vt {

bool Launches::makes_logits(std::size_t index) const {
  const OpRecord &linear = program_.ops[index], &sampler = program_.ops[index + 1];
  if (linear.id != OpId::linear) return false;
  return (sampler.id == OpId::sample && sampler.args[0] == linear.args[0]) ||
         (sampler.id == OpId::sample_sharded && sampler.args[1] == linear.args[0]);
}

void Launches::bind_head(Ledger& ledger) {
  const std::size_t count = program_.ops.size();
  if (count < 2 || !makes_logits(count - 2)) return;
  // A rank's ids are then whole groups of eight columns. Where logits are gathered, all are needed.
  if (program_.vocab_size % 8 != 0 || (ranks_ != nullptr && !ranks_->tells_rows())) return;
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
  Call with_best = call;
  with_best.num_best = vt_cuda_linear_num_best(&args);
  if (with_best.num_best == 0) return 0;
  VtCudaSample sampler = sample_args({nullptr, 0}, with_best);
  const std::int64_t first_id = std::int64_t{group_.rank} * args.n;
  sampler.vocab_size =
      static_cast<int>(std::clamp<std::int64_t>(program_.vocab_size - first_id, 0, args.n));
  args.flags = early(call.shape, call.flags);
  VT_LAUNCH(vt_cuda_linear_for_sample(&args, &sampler, call.stream));
  run_op(program_.ops[index + 1], with_best);
  return 2;
}

}  // namespace vt
