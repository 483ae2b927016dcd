// Memory for attention's work lists and partial sums, and how a step's rows share it. A step whose
// rows have more work than there is room for is divided into groups of rows, one after another.
#pragma once

#include <cstdint>
#include <vector>

#include "../../host/batch.h"
#include "../../host/program.h"
#include "memory.h"
#include "step_arrays.h"

namespace vt {

struct AttentionShape {
  int num_heads, num_kv_heads, head_dim, window;
};

/// Consecutive rows of a step, with bounds of their work.
struct AttentionGroup {
  int row_begin, num_rows;
  int decode_work, prefill_work;
  /// Where its lists begin.
  std::int64_t decode_begin, prefill_begin;
  int index;
};

class AttentionRoom {
 public:
  AttentionRoom() = default;
  AttentionRoom(const AttentionShape& shape, const RowTableSizes& rows, int max_num_tokens,
                Ledger& ledger);

  const AttentionShape& shape() const { return shape_; }
  /// Into groups, none of which has more decode work than there is room for.
  void divide(const std::vector<BatchRow>& rows, std::vector<AttentionGroup>& groups) const;
  /// Any `num_rows` rows of one token, as far as there is room.
  AttentionGroup decode_group(int num_rows) const;
  /// A group without work that launches both kernels.
  AttentionGroup empty_group() const { return {0, 1, 1, 1, 0, 0, 0}; }

  /// The call that makes a group's work lists, without flags.
  VtCudaPlanAttention plan_of(const AttentionGroup& group, const StepArrays& arrays) const;
  void plan(const AttentionGroup& group, const StepArrays& arrays, int flags, void* stream) const;
  /// The fields of a call that are the room's.
  void describe(const AttentionGroup& group, VtCudaAttention& args) const;

 private:
  AttentionShape shape_{};
  int max_model_len_ = 0;
  /// VtCudaPrefill; rows (a query of a head) and queries that one of its works has at most.
  int prefill_ = 0, prefill_rows_ = 0, tile_queries_ = 0;
  /// Decode works that have room for partial sums at a time.
  int max_decode_work_ = 0;
  DeviceBuffer decode_lists_, prefill_lists_, counts_, scratch_, counters_;
};

}  // namespace vt
