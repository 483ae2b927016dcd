// StepOutput's columns as one body, from the results of a step.
#pragma once

#include <cstdint>
#include <vector>

#include "ops.h"

namespace vt {

struct StepOutput {
  double step = 0;
  int num_top = 0;
  std::uint32_t hash = 0;
  double start_us = 0, end_us = 0;
  std::vector<char> body;
  /// Byte offset and element count of each output column.
  std::int32_t table[2 * kNumStepOutputColumns] = {};
};

/// Appends the sampled tokens to the row table, ends rows, and fills `output` but for its times.
/// `scheduled` is the step's column `row`.
void finish_step(const StepState& state, const Column<std::int32_t>& scheduled, RowTable& rows,
                 StepOutput& output);

}  // namespace vt
