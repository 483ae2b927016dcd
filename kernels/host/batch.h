// What a step computes, built from its columns and the row table: the rows that have work, where
// their tokens lie, and the rows of logits that are wanted. Rows that have ended are left out and
// keep only their place in the output.
#pragma once

#include <cstdint>
#include <vector>

#include "row_table.h"

namespace vt {

/// One scheduled row that has work.
struct BatchRow {
  /// Place in the step's columns.
  int index;
  int row;
  /// First token of it in the step's token arrays, and how many.
  int token_begin, count;
  /// Position of its first token.
  int start;
};

struct LogitRow {
  /// Place in the step's columns.
  int index;
  int row;
  /// Token of the step whose logits these are.
  int token;
  /// Position of the token that these logits make or judge.
  int position;
  /// Judges a prompt token; otherwise makes the next one.
  bool is_prompt;
  /// Alternatives to return with its logprob, if it has one: the best ids, or those that the row
  /// names.
  int num_top, num_named;
};

struct Batch {
  /// Rows named by the step, with or without work.
  int num_scheduled = 0;
  std::vector<BatchRow> rows;
  int num_tokens = 0;
  std::vector<LogitRow> logit_rows;
  /// Longest list of best ids that a row asked for, and longest list of ids that one named.
  int num_top = 0, num_named = 0;
};

struct BatchLimits {
  int max_num_tokens, max_model_len, window;
  bool has_kv_cache;
};

class BatchBuilder {
 public:
  BatchBuilder(const RowTable& table, const BatchLimits& limits);
  /// Checks everything the ops will index by. Throws KernelError naming the column at fault.
  void build(const StepView& step, std::int64_t num_tokens, Batch& batch);

 private:
  void add_row(int index, int row, int start, int count, int flags, Batch& batch);
  void check_blocks(int row, int start, int end) const;

  const RowTable& table_;
  const BatchLimits limits_;
  /// [rows] number of the step that last named the row.
  std::vector<std::uint64_t> seen_;
  std::uint64_t step_ = 0;
};

}  // namespace vt
