// A StepInput body as typed columns. Opening one checks the table against the body; what the values
// mean is checked by those who use them (row_table, batch).
#pragma once

#include <cstdint>
#include <vector>

#include "../step.h"

namespace vt {

template <typename T>
struct Column {
  const T* data = nullptr;
  std::int64_t count = 0;
  const T& operator[](std::int64_t i) const { return data[i]; }
};

class StepView {
 public:
  /// `table` holds byte offset and element count of each input column. Throws KernelError naming
  /// the column that does not lie within the body.
  StepView(const char* body, std::int64_t body_bytes, const std::int32_t* table,
           std::int64_t table_words);

  Column<std::int32_t> i32(StepInputColumn column) const { return typed<std::int32_t>(column); }
  Column<float> f32(StepInputColumn column) const { return typed<float>(column); }
  Column<std::uint64_t> u64(StepInputColumn column) const { return typed<std::uint64_t>(column); }
  std::int64_t count(StepInputColumn column) const { return counts_[static_cast<int>(column)]; }

 private:
  template <typename T>
  Column<T> typed(StepInputColumn column) const {
    const int i = static_cast<int>(column);
    return {reinterpret_cast<const T*>(body_ + offsets_[i]), counts_[i]};
  }

  const char* body_;
  std::int64_t offsets_[kNumStepInputColumns];
  std::int64_t counts_[kNumStepInputColumns];
};

}  // namespace vt
