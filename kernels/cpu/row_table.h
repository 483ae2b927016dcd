// The row table: one row per running request with its token history, block table and sampling
// parameters. The engine fills a row once; after that only new blocks arrive, and sampled tokens
// are appended here, so that the next step, already queued, finds them.
#pragma once

#include <cstdint>
#include <vector>

#include "pages.h"
#include "../host/step_view.h"

namespace vt {

struct SamplingParams {
  float temperature, top_p, min_p;
  int top_k;
  float presence_penalty, frequency_penalty, repetition_penalty;
  std::uint64_t seed;
  int min_tokens;
  /// -1 = none
  int num_logprobs, num_prompt_logprobs;
  std::vector<std::int32_t> stop_ids;
  std::vector<std::int32_t> bias_ids;
  std::vector<float> biases;
  std::vector<std::int32_t> allowed_ids;
  std::vector<std::int32_t> bad_word_lengths;
  std::vector<std::int32_t> bad_word_ids;
};

struct Row {
  bool filled = false;
  /// The device saw the request end: steps that still name the row do nothing for it.
  bool finished = false;
  int num_tokens = 0;
  int num_prompt_tokens = 0;
  int max_num_tokens = 0;
  /// Entries of the block table that were ever set since the row was filled.
  int num_blocks = 0;
  SamplingParams params;
};

class RowTable {
 public:
  RowTable(int num_rows, int max_model_len, int block_size, int num_blocks, int vocab_size);

  /// New rows, then block table entries, as a step brings them. Throws KernelError naming the
  /// column at fault.
  void apply(const StepView& step);

  int num_rows() const { return static_cast<int>(rows_.size()); }
  int block_size() const { return block_size_; }
  Row& row(int i) { return rows_[i]; }
  const Row& row(int i) const { return rows_[i]; }
  /// [num_tokens] of a row: prompt and generated ids.
  std::int32_t* tokens(int row) const { return tokens_.as<std::int32_t>() + row * token_stride_; }
  /// [max blocks] of a row; 0 where no block was named.
  std::int32_t* blocks(int row) const { return blocks_.as<std::int32_t>() + row * block_stride_; }
  /// Appends a sampled token and marks the row finished if the request ends with it, by the rule
  /// that the engine's update() uses.
  void append(int row, std::int32_t id);
  std::size_t bytes() const { return tokens_.bytes() + blocks_.bytes(); }

 private:
  void fill_rows(const StepView& step);
  void set_blocks(const StepView& step);

  const int max_model_len_, block_size_, num_blocks_, vocab_size_;
  /// One more than the longest history: the last token may still sample one.
  const std::int64_t token_stride_, block_stride_;
  std::vector<Row> rows_;
  Pages tokens_, blocks_;
};

}  // namespace vt
