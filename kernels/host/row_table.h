// The row table: one row per running request with its token history, block table and sampling
// parameters. The engine fills a row once; after that only new blocks arrive, and sampled tokens
// are appended, so that the next step, already queued, finds them. Where histories and block tables
// lie is the backend's affair.
#pragma once

#include <cstdint>
#include <vector>

#include "step_view.h"

namespace vt {

struct SamplingParams {
  float temperature, top_p, min_p;
  int top_k;
  float presence_penalty, frequency_penalty, repetition_penalty;
  std::uint64_t seed;
  int min_tokens;
  /// -1 = none
  int num_logprobs, num_prompt_logprobs;
  /// In place of the best ids, with each sampled token; empty = none.
  std::vector<std::int32_t> logprob_ids;
  std::vector<std::int32_t> stop_ids;
  std::vector<std::int32_t> bias_ids;
  std::vector<float> biases;
  std::vector<std::int32_t> allowed_ids;
  std::vector<std::int32_t> bad_word_lengths;
  std::vector<std::int32_t> bad_word_ids;
};

struct Row {
  bool filled = false;
  /// The request is known to have ended: steps that still name the row do nothing for it.
  bool finished = false;
  /// It ended because its logits were unfit: its later steps are flagged too.
  bool is_unfit = false;
  int num_tokens = 0;
  int num_prompt_tokens = 0;
  int max_num_tokens = 0;
  /// Entries of the block table that were ever set since the row was filled.
  int num_blocks = 0;
  SamplingParams params;
};

struct RowTableSizes {
  int num_rows, max_model_len, block_size, num_blocks, vocab_size;
  /// Alternatives that a row may ask for.
  int max_logprobs;

  /// One more than the longest history: the last token may still sample one.
  std::int64_t token_stride() const { return max_model_len + 1; }
  std::int64_t block_stride() const { return (max_model_len + block_size - 1) / block_size; }
  std::size_t token_bytes() const { return static_cast<std::size_t>(token_stride()) * num_rows * 4; }
  std::size_t block_bytes() const { return static_cast<std::size_t>(block_stride()) * num_rows * 4; }
};

class RowTable {
 public:
  /// `tokens` holds token_bytes(), `blocks` block_bytes(), zero.
  RowTable(const RowTableSizes& sizes, std::int32_t* tokens, std::int32_t* blocks);

  /// New rows, then block table entries, as a step brings them. Throws KernelError naming the
  /// column at fault.
  void apply(const StepView& step);

  const RowTableSizes& sizes() const { return sizes_; }
  void set_num_blocks(int num_blocks) { sizes_.num_blocks = num_blocks; }
  int num_rows() const { return sizes_.num_rows; }
  int block_size() const { return sizes_.block_size; }
  Row& row(int i) { return rows_[i]; }
  const Row& row(int i) const { return rows_[i]; }
  /// [num_tokens] of a row: prompt and generated ids.
  std::int32_t* tokens(int row) const { return tokens_ + row * sizes_.token_stride(); }
  /// [max blocks] of a row; 0 where no block was named.
  std::int32_t* blocks(int row) const { return blocks_ + row * sizes_.block_stride(); }
  /// Appends a sampled token and marks the row finished if the request ends with it, by the rule
  /// that the engine's update() uses.
  void append(int row, std::int32_t id);
  /// Counts a token whose id a device samples, appends and knows alone: the row is marked finished
  /// only where its length ends it.
  void expect(int row);

 private:
  void fill_rows(const StepView& step);
  void set_blocks(const StepView& step);
  bool is_at_end(const Row& row) const;

  RowTableSizes sizes_;
  std::vector<Row> rows_;
  std::int32_t *tokens_, *blocks_;
};

}  // namespace vt
