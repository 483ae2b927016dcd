#include "weights.h"

#include "../check.h"
#include "float_formats.h"

namespace vt {

namespace {

std::vector<float> load_vector(const std::vector<WeightPart>& parts) {
  std::vector<float> values;
  for (const WeightPart& part : parts)
    for (std::int64_t row = 0; row < part.num_rows; row++)
      for (std::int64_t i = 0; i < part.num_columns; i++)
        values.push_back(load_float(part.data + row * part.row_bytes, part.dtype, i));
  return values;
}

void check_parts(const WeightSpec& spec, const std::vector<WeightPart>& parts, std::size_t index) {
  std::int64_t rows = 0, elements = 0;
  for (const WeightPart& part : parts) {
    VT_CHECK(part.dtype == Dtype::f32 || part.dtype == Dtype::f16 || part.dtype == Dtype::bf16,
             "weight %zu: parts in %s are not supported on cpu yet", index, dtype_name(part.dtype));
    VT_CHECK(spec.columns == 0 || part.num_columns <= spec.columns,
             "weight %zu: a part has %lld columns, expected %lld at most", index,
             static_cast<long long>(part.num_columns), static_cast<long long>(spec.columns));
    rows += part.num_rows;
    elements += part.num_rows * part.num_columns;
  }
  const std::int64_t actual = spec.columns == 0 ? elements : rows;
  VT_CHECK(actual == spec.rows, "weight %zu: its parts have %lld rows, expected %lld", index,
           static_cast<long long>(actual), static_cast<long long>(spec.rows));
}

}  // namespace

std::size_t Weights::bytes() const {
  std::size_t total = 0;
  for (const PackedMatrix& matrix : matrices) total += matrix.data.bytes();
  for (const std::vector<float>& vector : vectors) total += vector.size() * sizeof(float);
  return total;
}

Weights load_weights(const Program& program, const std::vector<std::vector<WeightPart>>& parts,
                     int lanes, ThreadPool& pool) {
  VT_CHECK(parts.size() == program.weights.size(), "%zu weights given, the program has %zu",
           parts.size(), program.weights.size());
  Weights weights;
  for (std::size_t i = 0; i < parts.size(); i++) {
    const WeightSpec& spec = program.weights[i];
    check_parts(spec, parts[i], i);
    weights.matrices.push_back(spec.columns == 0 ? PackedMatrix{}
                                                 : pack_matrix(spec.dtype, spec.rows, spec.columns,
                                                               lanes, parts[i], pool));
    weights.vectors.push_back(spec.columns == 0 ? load_vector(parts[i]) : std::vector<float>());
  }
  return weights;
}

}  // namespace vt
