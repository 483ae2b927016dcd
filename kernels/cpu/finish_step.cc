#include "finish_step.h"

namespace vt {

void finish_step(const StepState& state, const Column<std::int32_t>& scheduled, RowTable& rows,
                 StepOutput& output) {
  const Batch& batch = state.batch;
  OutputColumns columns;
  columns.token_ids.assign(batch.num_scheduled, -1);
  columns.flags.assign(batch.num_scheduled, 0);
  for (int i = 0; i < batch.num_scheduled; i++)
    if (rows.row(scheduled[i]).is_unfit) columns.flags[i] = kRowFlagNan;
  for (std::size_t i = 0; i < batch.logit_rows.size(); i++) {
    const LogitRow& row = batch.logit_rows[i];
    const LogitResult& result = state.results[i];
    if (result.is_nan) columns.flags[row.index] |= kRowFlagNan;
    if (result.has_logprob)
      (row.is_prompt ? columns.prompt : columns.sampled)
          .add(row.index, row.position, result.logprob, result.rank, result.top_ids.data(),
               result.top_logprobs.data(), static_cast<int>(result.top_ids.size()));
    if (!row.is_prompt) columns.token_ids[row.index] = result.id;
  }
  StepHash hash;
  for (int i = 0; i < batch.num_scheduled; i++) {
    const std::int32_t row = scheduled[i];
    std::int32_t& token_id = columns.token_ids[i];
    // A request with unfit logits ends here, whatever this step sampled for it.
    if (columns.flags[i] & kRowFlagNan) {
      token_id = -1;
      rows.row(row).finished = rows.row(row).is_unfit = true;
    } else if (token_id >= 0) {
      rows.append(row, token_id);
    }
    hash.add(row, rows.row(row).num_tokens, token_id);
  }
  output.hash = hash.value();
  pack_output(columns, output);
}

}  // namespace vt
