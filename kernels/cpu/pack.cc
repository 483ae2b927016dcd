#include "pack.h"

#include <algorithm>
#include <cstring>

#include "../check.h"
#include "float_formats.h"

namespace vt {

namespace {

/// Columns from num_columns on are zeros, which the panels are before.
struct PackRow {
  const char* data;
  std::int64_t num_columns;
  Dtype dtype;
};

struct PackJob {
  PackedMatrix* matrix;
  std::vector<PackRow> rows;  // [n]
  int num_threads;
};

/// Columns [begin, end) of one panel, `count` rows of which exist; `out` is its column `begin`.
template <typename Element>
void pack_same(const PackRow* rows, int count, int lanes, bool pairs, std::int64_t begin,
               std::int64_t end, Element* out) {
  const int size = 2 * lanes;
  for (int j = 0; j < count; j++) {
    const Element* row = reinterpret_cast<const Element*>(rows[j].data) + begin;
    Element* to = out + (pairs ? 2 * (j % lanes) + j / lanes : j);
    const std::int64_t length = std::min(end, rows[j].num_columns) - begin;
    for (std::int64_t i = 0; i < length; i++) {
      Element value;
      std::memcpy(&value, row + i, sizeof value);
      to[i * size] = value;
    }
  }
}

/// Stretches of k short enough that the panel's part and the rows' parts stay in the first cache.
constexpr std::int64_t kStretch = 256;

void pack_panel(const PackJob& job, int panel) {
  const PackedMatrix& m = *job.matrix;
  const int size = m.panel_size();
  const int first = panel * size;
  const int count = m.n - first < size ? m.n - first : size;
  char* out = m.data.data() + panel * m.panel_bytes();
  const int bytes = dtype_bytes(m.dtype);
  const PackRow* rows = job.rows.data() + first;
  bool same = true;
  for (int j = 0; j < count; j++) same = same && rows[j].dtype == m.dtype;
  for (std::int64_t begin = 0; begin < m.k; begin += kStretch) {
    const std::int64_t end = std::min<std::int64_t>(m.k, begin + kStretch);
    if (same) {
      char* to = out + begin * size * bytes;
      if (bytes == 2)
        pack_same(rows, count, m.lanes, m.dtype == Dtype::bf16, begin, end,
                  reinterpret_cast<std::uint16_t*>(to));
      else
        pack_same(rows, count, m.lanes, false, begin, end, reinterpret_cast<float*>(to));
      continue;
    }
    for (int j = 0; j < count; j++)
      for (std::int64_t i = begin; i < std::min(end, rows[j].num_columns); i++)
        store_float(m.data.data() + m.offset_of(first + j, i), m.dtype, 0,
                    load_float(rows[j].data, rows[j].dtype, i));
  }
}

}  // namespace

std::int64_t PackedMatrix::offset_of(int row, std::int64_t k_index) const {
  const int size = panel_size(), lane = row % size;
  const int at = dtype == Dtype::bf16 ? 2 * (lane % lanes) + lane / lanes : lane;
  return row / size * panel_bytes() + (k_index * size + at) * dtype_bytes(dtype);
}

void PackedMatrix::read_row(int row, float* out) const {
  const char* from = data.data() + offset_of(row, 0);
  const std::int64_t stride = panel_size() * dtype_bytes(dtype);
  for (std::int64_t i = 0; i < k; i++) out[i] = load_float(from + i * stride, dtype, 0);
}

PackedMatrix pack_matrix(Dtype dtype, std::int64_t n, std::int64_t k, int lanes,
                         const std::vector<WeightPart>& parts, ThreadPool& pool) {
  VT_CHECK(2 * lanes <= 64, "panels of %d outputs", 2 * lanes);
  PackedMatrix matrix{dtype, static_cast<int>(n), static_cast<int>(k), lanes, Pages()};
  // Kernels prefetch a little beyond the end.
  matrix.data =
      Pages(static_cast<std::size_t>(matrix.num_panels() * matrix.panel_bytes()) + 64, "weights");
  PackJob job{&matrix, {}, pool.num_threads()};
  for (const WeightPart& part : parts)
    for (std::int64_t row = 0; row < part.num_rows; row++)
      job.rows.push_back({part.data + row * part.row_bytes, part.num_columns, part.dtype});
  pool.run(
      [](void* argument, int thread) {
        const PackJob& job = *static_cast<PackJob*>(argument);
        const Range range = share(job.matrix->num_panels(), thread, job.num_threads);
        for (std::int64_t panel = range.begin; panel < range.end; panel++)
          pack_panel(job, static_cast<int>(panel));
      },
      &job);
  return matrix;
}

}  // namespace vt
