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

/// A rectangle of a tensor: rows from first_row on, and columns from first_column on, as many as
/// the weight has.
struct MadeUpPart {
  std::int64_t first_row, first_column, num_rows;
  std::int64_t tensor_columns, tensor_rows;
};

/// Rows of the weight from `row` on, as that part of a tensor: uniform in +-sqrt(3 /
/// tensor_columns) from seed, `tensor`, and row and column in the tensor; a vector is 1; rows
/// and columns beyond the tensor's last are 0.
void make_up_rows(const WeightPlace& weight, std::int64_t row, const MadeUpPart& part,
                  std::int64_t seed, std::uint32_t tensor, void* stream);

}  // namespace vt
