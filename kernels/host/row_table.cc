#include "row_table.h"

#include <algorithm>
#include <cstring>

#include "../check.h"

namespace vt {

using In = StepInputColumn;

namespace {

const char* name_of(In column) { return kStepInputColumns[static_cast<int>(column)].name; }

/// Takes the next `count` elements of a column that holds runs, one for each new row.
template <typename T>
class Runs {
 public:
  Runs(In id, Column<T> column) : id_(id), column_(column) {}
  const T* take(std::int64_t count, In of) {
    VT_CHECK(count >= 0, "column %s is negative", name_of(of));
    VT_CHECK(taken_ + count <= column_.count, "column %s is shorter than %s says", name_of(id_),
             name_of(of));
    const T* run = column_.data + taken_;
    taken_ += count;
    return run;
  }
  void check_end() const {
    VT_CHECK(taken_ == column_.count, "column %s has %lld elements too many", name_of(id_),
             static_cast<long long>(column_.count - taken_));
  }

 private:
  In id_;
  Column<T> column_;
  std::int64_t taken_ = 0;
};

/// Columns with one element for each new row.
constexpr In kPerRow[] = {In::newNumTokens,
                          In::newNumPromptTokens,
                          In::newTemperature,
                          In::newTopP,
                          In::newTopK,
                          In::newMinP,
                          In::newPresencePenalty,
                          In::newFrequencyPenalty,
                          In::newRepetitionPenalty,
                          In::newSeed,
                          In::newMinTokens,
                          In::newMaxNumTokens,
                          In::newNumLogprobs,
                          In::newNumPromptLogprobs,
                          In::newNumLogprobIds,
                          In::newNumStopIds,
                          In::newNumLogitBias,
                          In::newNumAllowedIds,
                          In::newNumBadWords};

void check_finite(float value, In column) {
  VT_CHECK(value - value == 0, "column %s is not finite", name_of(column));
}

SamplingParams scalars(const StepView& step, std::int64_t i, int max_logprobs) {
  SamplingParams p{};
  p.temperature = step.f32(In::newTemperature)[i];
  p.top_p = step.f32(In::newTopP)[i];
  p.top_k = step.i32(In::newTopK)[i];
  p.min_p = step.f32(In::newMinP)[i];
  p.presence_penalty = step.f32(In::newPresencePenalty)[i];
  p.frequency_penalty = step.f32(In::newFrequencyPenalty)[i];
  p.repetition_penalty = step.f32(In::newRepetitionPenalty)[i];
  p.seed = step.u64(In::newSeed)[i];
  p.min_tokens = step.i32(In::newMinTokens)[i];
  p.num_logprobs = step.i32(In::newNumLogprobs)[i];
  p.num_prompt_logprobs = step.i32(In::newNumPromptLogprobs)[i];
  check_finite(p.temperature, In::newTemperature);
  check_finite(p.top_p, In::newTopP);
  check_finite(p.min_p, In::newMinP);
  check_finite(p.presence_penalty, In::newPresencePenalty);
  check_finite(p.frequency_penalty, In::newFrequencyPenalty);
  check_finite(p.repetition_penalty, In::newRepetitionPenalty);
  VT_CHECK(p.temperature >= 0, "column newTemperature is negative");
  VT_CHECK(p.repetition_penalty > 0, "column newRepetitionPenalty is not positive");
  VT_CHECK(p.num_logprobs <= max_logprobs, "column newNumLogprobs is above %d", max_logprobs);
  VT_CHECK(p.num_prompt_logprobs <= max_logprobs, "column newNumPromptLogprobs is above %d",
           max_logprobs);
  VT_CHECK(step.i32(In::newNumLogprobIds)[i] <= kMaxLogprobIds,
           "column newNumLogprobIds is above %d", kMaxLogprobIds);
  return p;
}

}  // namespace

RowTable::RowTable(const RowTableSizes& sizes, std::int32_t* tokens, std::int32_t* blocks)
    : sizes_(sizes), rows_(sizes.num_rows), tokens_(tokens), blocks_(blocks) {}

void RowTable::apply(const StepView& step) {
  fill_rows(step);
  set_blocks(step);
}

void RowTable::fill_rows(const StepView& step) {
  const Column<std::int32_t> new_row = step.i32(In::newRow);
  for (In column : kPerRow)
    VT_CHECK(step.count(column) == new_row.count, "column %s has %lld elements, newRow has %lld",
             name_of(column), static_cast<long long>(step.count(column)),
             static_cast<long long>(new_row.count));
  Runs<std::int32_t> tokens(In::newTokenIds, step.i32(In::newTokenIds));
  Runs<std::int32_t> logprob_ids(In::logprobIds, step.i32(In::logprobIds));
  Runs<std::int32_t> stop_ids(In::stopIds, step.i32(In::stopIds));
  Runs<std::int32_t> bias_ids(In::logitBiasIds, step.i32(In::logitBiasIds));
  Runs<float> biases(In::logitBias, step.f32(In::logitBias));
  Runs<std::int32_t> allowed(In::allowedIds, step.i32(In::allowedIds));
  Runs<std::int32_t> word_lengths(In::badWordLength, step.i32(In::badWordLength));
  Runs<std::int32_t> word_ids(In::badWordIds, step.i32(In::badWordIds));
  for (std::int64_t i = 0; i < new_row.count; i++) {
    const std::int32_t r = new_row[i];
    VT_CHECK(r >= 0 && r < num_rows(), "column newRow: row %d of %d", r, num_rows());
    Row row;
    row.filled = true;
    row.num_tokens = step.i32(In::newNumTokens)[i];
    row.num_prompt_tokens = step.i32(In::newNumPromptTokens)[i];
    row.max_num_tokens = step.i32(In::newMaxNumTokens)[i];
    VT_CHECK(row.num_tokens >= 1 && row.num_tokens <= sizes_.max_model_len,
             "column newNumTokens: %d tokens, the longest row has %d", row.num_tokens,
             sizes_.max_model_len);
    VT_CHECK(row.num_prompt_tokens >= 1 && row.num_prompt_tokens <= row.num_tokens,
             "column newNumPromptTokens: %d of %d tokens", row.num_prompt_tokens, row.num_tokens);
    const std::int32_t* ids = tokens.take(row.num_tokens, In::newNumTokens);
    for (int t = 0; t < row.num_tokens; t++)
      VT_CHECK(ids[t] >= 0 && ids[t] < sizes_.vocab_size, "column newTokenIds: id %d of %d", ids[t],
               sizes_.vocab_size);
    row.params = scalars(step, i, sizes_.max_logprobs);
    const auto assign = [i, &step](auto& to, auto& runs, In count) {
      const std::int32_t n = step.i32(count)[i];
      const auto* run = runs.take(n, count);
      to.assign(run, run + n);
    };
    assign(row.params.logprob_ids, logprob_ids, In::newNumLogprobIds);
    for (const std::int32_t id : row.params.logprob_ids)
      VT_CHECK(id >= 0 && id < sizes_.vocab_size, "column logprobIds: id %d of %d", id,
               sizes_.vocab_size);
    assign(row.params.stop_ids, stop_ids, In::newNumStopIds);
    assign(row.params.bias_ids, bias_ids, In::newNumLogitBias);
    assign(row.params.biases, biases, In::newNumLogitBias);
    assign(row.params.allowed_ids, allowed, In::newNumAllowedIds);
    assign(row.params.bad_word_lengths, word_lengths, In::newNumBadWords);
    for (const std::int32_t length : row.params.bad_word_lengths) {
      VT_CHECK(length >= 1, "column badWordLength: a word of %d ids", length);
      const std::int32_t* run = word_ids.take(length, In::badWordLength);
      row.params.bad_word_ids.insert(row.params.bad_word_ids.end(), run, run + length);
    }
    std::fill_n(blocks(r), rows_[r].num_blocks, 0);
    std::copy_n(ids, row.num_tokens, this->tokens(r));
    rows_[r] = std::move(row);
  }
  tokens.check_end();
  logprob_ids.check_end();
  stop_ids.check_end();
  bias_ids.check_end();
  biases.check_end();
  allowed.check_end();
  word_lengths.check_end();
  word_ids.check_end();
}

void RowTable::set_blocks(const StepView& step) {
  const Column<std::int32_t> rows = step.i32(In::blockRow), indices = step.i32(In::blockIndex),
                             ids = step.i32(In::blockId);
  VT_CHECK(indices.count == rows.count && ids.count == rows.count,
           "columns blockRow, blockIndex and blockId differ in length");
  for (std::int64_t i = 0; i < rows.count; i++) {
    VT_CHECK(rows[i] >= 0 && rows[i] < num_rows(), "column blockRow: row %d of %d", rows[i],
             num_rows());
    VT_CHECK(rows_[rows[i]].filled, "column blockRow: row %d is empty", rows[i]);
    VT_CHECK(indices[i] >= 0 && indices[i] < sizes_.block_stride(), "column blockIndex: entry %d of %lld",
             indices[i], static_cast<long long>(sizes_.block_stride()));
    VT_CHECK(ids[i] >= 0 && ids[i] < sizes_.num_blocks, "column blockId: block %d of %d", ids[i],
             sizes_.num_blocks);
    blocks(rows[i])[indices[i]] = ids[i];
    rows_[rows[i]].num_blocks = std::max(rows_[rows[i]].num_blocks, indices[i] + 1);
  }
}

void RowTable::append(int index, std::int32_t id) {
  Row& row = rows_[index];
  tokens(index)[row.num_tokens++] = id;
  const int num_generated = row.num_tokens - row.num_prompt_tokens;
  const std::vector<std::int32_t>& stops = row.params.stop_ids;
  const bool stops_here = num_generated >= row.params.min_tokens &&
                          std::find(stops.begin(), stops.end(), id) != stops.end();
  if (stops_here || is_at_end(row)) row.finished = true;
}

void RowTable::expect(int index) {
  Row& row = rows_[index];
  row.num_tokens++;
  if (is_at_end(row)) row.finished = true;
}

bool RowTable::is_at_end(const Row& row) const {
  return row.num_tokens >= row.max_num_tokens || row.num_tokens >= sizes_.max_model_len;
}

}  // namespace vt
