// The rings of a step's inputs and results in pinned memory, and the device arrays that its kernels
// build: who writes and reads a slot on the host's side.
#pragma once

#include <atomic>
#include <cstdint>

#include "../../host/batch.h"
#include "memory.h"
#include "rows.h"
#include "step_arrays.h"

namespace vt {

/// The host's view of a finished step's slot.
struct StepResults {
  const std::int32_t* token_ids;   ///< [rows that had work]
  const std::uint8_t* row_flags;   ///< [rows that had work]
  const float* logprobs;           ///< [rows of logits]
  const std::int32_t* ranks;       ///< [rows of logits]; 0 = none
  const std::int32_t* top_ids;     ///< [rows of logits][num_top]
  const float* top_logprobs;       ///< [rows of logits][num_top]
  const float* named_logprobs;     ///< [rows of the row table][num_named]
  std::uint64_t start_ns, end_ns;  ///< on the device's clock
};

class StepBuffers {
 public:
  /// `max_logprobs`: alternatives that there is room for, a row of logits.
  StepBuffers(int max_num_seqs, int max_num_tokens, int max_logprobs, int num_slots,
              Ledger& ledger);

  /// Fills the fields of `arrays` that are not the row table's.
  void describe(StepArrays& arrays) const;
  /// Fills the step's slot, and tells `rows` which block table entries the device gets.
  void write(std::uint64_t step_index, const Batch& batch, bool has_logprobs, Rows& rows,
             std::uint64_t first_epoch);
  bool is_done(std::uint64_t step_index) const;
  StepResults results(std::uint64_t step_index) const;

 private:
  char* input_slot(std::uint64_t step_index) const;
  const char* result_slot(std::uint64_t step_index) const;

  SlotLayout layout_{};
  PinnedBuffer inputs_, results_;
  const std::size_t max_rows_, max_tokens_, max_logprobs_;
  /// One allocation for the small arrays, cut up by describe().
  DeviceBuffer arrays_;
};

}  // namespace vt
