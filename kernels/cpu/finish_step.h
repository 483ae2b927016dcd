// The end of a step: its results go to the row table and into the output.
#pragma once

#include "../host/step_output.h"
#include "ops.h"

namespace vt {

/// Appends the sampled tokens to the row table, ends rows, and fills `output` but for its times.
/// `scheduled` is the step's column `row`.
void finish_step(const StepState& state, const Column<std::int32_t>& scheduled, RowTable& rows,
                 StepOutput& output);

}  // namespace vt
