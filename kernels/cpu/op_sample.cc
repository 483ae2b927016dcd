// sample: each thread takes whole rows of logits. Results are appended to the row table after the
// op, by the executor.
#include "ops.h"

namespace vt {

void run_sample(const OpCall& call, const BoundOp& op) {
  StepState& step = call.step;
  const int vocab_size = static_cast<int>(op.args[0].columns);
  const Range range = call.share_of(call.num_logits);
  for (std::int64_t i = range.begin; i < range.end; i++) {
    const LogitRow& logit_row = step.batch.logit_rows[call.logit_begin + i];
    const SampleInput input = {
        op.args[0].data + i * vocab_size, vocab_size,         &step.rows->row(logit_row.row),
        step.rows->tokens(logit_row.row), logit_row.position, step.batch.num_top};
    LogitResult& result = step.results[call.logit_begin + i];
    SamplerScratch& scratch = step.scratch[call.thread].sampler;
    if (logit_row.is_prompt)
      judge_prompt_token(*step.kernels, input, scratch, result);
    else
      sample_token(*step.kernels, input, scratch, result);
  }
}

}  // namespace vt
