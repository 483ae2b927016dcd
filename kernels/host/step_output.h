// StepOutput's columns as one body, whatever made them.
#pragma once

#include <cstdint>
#include <vector>

#include "../step.h"

namespace vt {

struct StepOutput {
  double step = 0;
  std::uint32_t hash = 0;
  double start_us = 0, end_us = 0;
  std::vector<char> body;
  /// Byte offset and element count of each output column.
  std::int32_t table[2 * kNumStepOutputColumns] = {};
};

/// The columns of one kind of logprobs: of sampled tokens, or of prompt tokens.
struct LogprobColumns {
  std::vector<std::int32_t> index, position, rank, top_count, top_ids;
  std::vector<float> logprob, top_logprobs;

  void clear();
  /// One token: its place in the step's columns, and `num_alternatives` of them.
  void add(std::int32_t row_index, std::int32_t token_position, float token_logprob,
           std::int32_t token_rank, const std::int32_t* ids, const float* logprobs,
           int num_alternatives);
};

struct OutputColumns {
  /// [rows of the step], in its order.
  std::vector<std::int32_t> token_ids;
  std::vector<std::uint8_t> flags;
  LogprobColumns sampled, prompt;
};

/// Lays the columns out in output.body and output.table.
void pack_output(const OutputColumns& columns, StepOutput& output);

/// Hash of row table and sampled ids, by which the ranks of a step are compared: one row after
/// another.
class StepHash {
 public:
  void add(std::int32_t row, std::int32_t num_tokens, std::int32_t token_id) {
    fold(static_cast<std::uint32_t>(row));
    fold(static_cast<std::uint32_t>(num_tokens));
    fold(static_cast<std::uint32_t>(token_id));
  }
  std::uint32_t value() const { return value_; }

 private:
  void fold(std::uint32_t word) { value_ = (value_ ^ word) * 0x01000193u; }
  std::uint32_t value_ = 0x811c9dc5u;
};

}  // namespace vt
