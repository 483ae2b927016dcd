#include "batch.h"

#include <algorithm>

#include "../check.h"

namespace vt {

using In = StepInputColumn;

BatchBuilder::BatchBuilder(const RowTable& table, const BatchLimits& limits)
    : table_(table), limits_(limits), seen_(table.num_rows(), 0) {}

void BatchBuilder::build(const StepView& step, std::int64_t num_tokens, Batch& batch) {
  const Column<std::int32_t> rows = step.i32(In::row), starts = step.i32(In::start),
                             counts = step.i32(In::count), flags = step.i32(In::flags);
  VT_CHECK(starts.count == rows.count && counts.count == rows.count && flags.count == rows.count,
           "columns row, start, count and flags differ in length");
  batch.num_scheduled = static_cast<int>(rows.count);
  batch.rows.clear();
  batch.num_tokens = 0;
  batch.logit_rows.clear();
  batch.num_top = batch.num_named = 0;
  step_++;
  std::int64_t total = 0;
  for (std::int64_t i = 0; i < rows.count; i++) {
    VT_CHECK(rows[i] >= 0 && rows[i] < table_.num_rows(), "column row: row %d of %d", rows[i],
             table_.num_rows());
    VT_CHECK(table_.row(rows[i]).filled, "column row: row %d is empty", rows[i]);
    VT_CHECK(seen_[rows[i]] != step_, "column row: row %d twice", rows[i]);
    seen_[rows[i]] = step_;
    VT_CHECK(counts[i] >= 1, "column count: %d tokens", counts[i]);
    VT_CHECK(starts[i] >= 0 && starts[i] <= limits_.max_model_len - counts[i],
             "column start: %d tokens from position %d, the longest row has %d", counts[i],
             starts[i], limits_.max_model_len);
    total += counts[i];
    VT_CHECK(total <= limits_.max_num_tokens, "column count: more than %d tokens",
             limits_.max_num_tokens);
    add_row(static_cast<int>(i), rows[i], starts[i], counts[i], flags[i], batch);
  }
  VT_CHECK(total == num_tokens, "numTokens is %lld, column count says %lld",
           static_cast<long long>(num_tokens), static_cast<long long>(total));
}

void BatchBuilder::add_row(int index, int row_index, int start, int count, int flags,
                           Batch& batch) {
  const Row& row = table_.row(row_index);
  if (row.finished) return;
  const int end = start + count;
  VT_CHECK(end <= row.num_tokens, "column count: tokens to %d, row %d knows %d", end, row_index,
           row.num_tokens);
  const bool sample = (flags & kStepFlagSample) != 0;
  VT_CHECK(!sample || end == row.num_tokens, "column flags: row %d samples at %d, it knows %d",
           row_index, end, row.num_tokens);
  if (limits_.has_kv_cache) check_blocks(row_index, start, end);
  const int token_begin = batch.num_tokens;
  batch.num_tokens += count;
  batch.rows.push_back({index, row_index, token_begin, count, start});
  const int vocab_size = table_.sizes().vocab_size;
  const int num_prompt_top = std::min(row.params.num_prompt_logprobs, vocab_size);
  if ((flags & kStepFlagPromptLogprobs) != 0 && row.params.num_prompt_logprobs >= 0) {
    for (int position = start; position < end && position + 1 < row.num_prompt_tokens; position++)
      batch.logit_rows.push_back({index, row_index, token_begin + position - start, position + 1,
                                  true, num_prompt_top, 0});
    batch.num_top = std::max(batch.num_top, num_prompt_top);
  }
  if (!sample) return;
  const int num_named = static_cast<int>(row.params.logprob_ids.size());
  const int num_top = num_named > 0 ? 0 : std::min(row.params.num_logprobs, vocab_size);
  batch.logit_rows.push_back(
      {index, row_index, token_begin + count - 1, end, false, num_top, num_named});
  batch.num_top = std::max(batch.num_top, num_top);
  batch.num_named = std::max(batch.num_named, num_named);
}

void BatchBuilder::check_blocks(int row, int start, int end) const {
  const int block_size = table_.block_size();
  const int first = limits_.window > 0 ? std::max(0, start - limits_.window + 1) : 0;
  const std::int32_t* blocks = table_.blocks(row);
  for (int i = first / block_size; i <= (end - 1) / block_size; i++)
    VT_CHECK(blocks[i] > 0, "column blockId: row %d has no block %d", row, i);
}

}  // namespace vt
