#include "step_view.h"

#include "../check.h"

namespace vt {

StepView::StepView(const char* body, std::int64_t body_bytes, const std::int32_t* table,
                   std::int64_t table_words)
    : body_(body) {
  VT_CHECK(table_words == 2 * kNumStepInputColumns, "column table has %lld words, expected %d",
           static_cast<long long>(table_words), 2 * kNumStepInputColumns);
  for (int i = 0; i < kNumStepInputColumns; i++) {
    const ColumnSpec& spec = kStepInputColumns[i];
    offsets_[i] = table[2 * i];
    counts_[i] = table[2 * i + 1];
    VT_CHECK(offsets_[i] >= 0 && counts_[i] >= 0 && offsets_[i] % 8 == 0 &&
                 offsets_[i] + counts_[i] * element_bytes(spec.type) <= body_bytes,
             "column %s lies outside the body", spec.name);
  }
}

}  // namespace vt
