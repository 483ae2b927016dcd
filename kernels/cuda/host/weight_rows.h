// Kernels that write rows of a weight where they belong: converted from a part's dtype, or made up.
#pragma once

#include <cstdint>

#include "../../host/program.h"

namespace vt {

/// A weight on the device. A vector has `rows` elements, one column and stride 1.
struct WeightPlace {
  void* data;
  Dtype dtype;
  std::int64_t rows, columns, stride;
  /// 0, or n: gate and up rows alternate in groups of n.
  std::int64_t interleave;
};

/// Writes rows [first_row, first_row + num_rows) in the checkpoint's order; `source` is
/// [num_rows][columns] of `dtype`, 16-byte aligned, and may be pinned host memory. Values are
/// rounded to nearest even.
void place_rows(const WeightPlace& weight, std::int64_t first_row, std::int64_t num_rows,
                const void* source, Dtype dtype, void* stream);

/// Uniform in +-sqrt(3 / columns) from seed, `index` of the weight, row and column; a vector is 1.
void make_up_weight(const WeightPlace& weight, std::int64_t seed, int index, void* stream);

}  // namespace vt
