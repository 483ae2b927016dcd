// sample: each thread takes whole rows of logits. Results are appended to the row table after the
// op, by the executor.
#include "ops.h"

namespace vt {

void sample_logits(const OpCall& call, std::int64_t index, const float* logits) {
  StepState& step = call.step;
  const LogitRow& logit_row = step.batch.logit_rows[index];
  const SampleInput input = {logits,
                             step.rows->sizes().vocab_size,
                             &step.rows->row(logit_row.row),
                             step.rows->tokens(logit_row.row),
                             logit_row.position,
                             logit_row.num_top};
  LogitResult& result = step.results[index];
  SamplerScratch& scratch = step.scratch[call.thread].sampler;
  if (logit_row.is_prompt)
    judge_prompt_token(*step.kernels, input, scratch, result);
  else
    sample_token(*step.kernels, input, scratch, result);
}

void run_sample(const OpCall& call, const BoundOp& op) {
  const Range range = call.share_of(call.num_logits);
  for (std::int64_t i = range.begin; i < range.end; i++)
    sample_logits(call, call.logit_begin + i, op.args[0].data + i * op.args[0].columns);
}

}  // namespace vt
