// Weight matrices as linear reads them: panels of 2 * lanes outputs, each panel holding its
// outputs' weights k after k, so that one k is one or two vectors and a panel is one stream.
//   f32, f16: [panel][k][2 * lanes] in order of outputs
//   bf16:     [panel][k][lanes] words of 32 bits, output j in the low half and lanes + j in the
//   high
//             one: a shift and a mask widen both
// Outputs beyond the last are 0.
#pragma once

#include <cstdint>
#include <vector>

#include "../dtype.h"
#include "pages.h"
#include "thread_pool.h"

namespace vt {

/// Rows of one checkpoint tensor, or a range of their columns; a matrix's columns beyond are zeros.
struct WeightPart {
  Dtype dtype;
  std::int64_t num_rows, num_columns;
  /// From the begin of a row to that of the next.
  std::int64_t row_bytes;
  const char* data;
};

struct PackedMatrix {
  Dtype dtype;
  int n, k;
  int lanes;
  Pages data;

  int panel_size() const { return 2 * lanes; }
  int num_panels() const { return (n + panel_size() - 1) / panel_size(); }
  std::int64_t panel_bytes() const {
    return static_cast<std::int64_t>(panel_size()) * k * dtype_bytes(dtype);
  }
  /// Byte offset of element [row][k] within the matrix.
  std::int64_t offset_of(int row, std::int64_t k_index) const;
  /// Row `row` (k elements), widened.
  void read_row(int row, float* out) const;
};

/// Packs rows [0, n) of the parts, one after another; values are converted where dtypes differ.
PackedMatrix pack_matrix(Dtype dtype, std::int64_t n, std::int64_t k, int lanes,
                         const std::vector<WeightPart>& parts, ThreadPool& pool);

}  // namespace vt
