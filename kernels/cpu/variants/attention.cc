// Attention over one chunk of keys for a few query rows of a KV head. Per tile of 64 keys: scores
// (a GEMM of the rows with K panels, one chain over the head dimension each), a masked online
// softmax, and the weighted values (a GEMM with V rows, one chain over the keys each). A key
// outside a row's range has weight exactly 0, so a row's bits do not depend on the rows beside it.
#include "../kernel_table.h"
#include "simd.h"

namespace vt {
namespace VT_VARIANT {

namespace {

/// Vectors of a group of 16 keys or 16 values.
constexpr int kVectors = kKeyPanel / kLanes;
constexpr float kLowest = -1e30f;

VT_INLINE const char* panel_at(const KvView& kv, const char* base, int panel) {
  const int64_t block = kv.block_table[panel / kv.panels_per_block];
  return base + block * kv.block_bytes + panel % kv.panels_per_block * kv.panel_bytes;
}

/// scores[r][0..16) of one K panel.
template <Dtype dtype, int rows>
VT_INLINE void score_panel(const AttentionArgs& a, const char* panel, float* scores) {
  vf acc[rows][kVectors];
  VT_UNROLL
  for (int r = 0; r < rows; r++) VT_UNROLL
  for (int v = 0; v < kVectors; v++) acc[r][v] = vzero();
  const float* q[rows];
  VT_UNROLL
  for (int r = 0; r < rows; r++) q[r] = a.q[r];
  for (int64_t d = 0; d < a.head_dim; d++) {
    vf keys[kVectors];
    VT_UNROLL
    for (int v = 0; v < kVectors; v++)
      keys[v] = vload_as<dtype>(panel + (d * kKeyPanel + v * kLanes) * dtype_bytes(dtype));
    VT_UNROLL
    for (int r = 0; r < rows; r++) {
      const vf broadcast = vset(q[r][d]);
      VT_UNROLL
      for (int v = 0; v < kVectors; v++) acc[r][v] = vfma(broadcast, keys[v], acc[r][v]);
    }
  }
  const vf scale = vset(a.scale);
  VT_UNROLL
  for (int r = 0; r < rows; r++) VT_UNROLL
  for (int v = 0; v < kVectors; v++)
    vstore(scores + r * kKeyTile + v * kLanes, vmul(acc[r][v], scale));
}

/// acc[r][column .. column + 16) += weights[r][j] * v[j] for the keys [from, to) of a tile.
template <Dtype dtype, int rows, int groups>
VT_INLINE void add_values(const AttentionArgs& a, const char* const* panels, const float* weights,
                          int from, int to, int column) {
  constexpr int width = groups * kVectors;
  vf acc[rows][width];
  VT_UNROLL
  for (int r = 0; r < rows; r++) VT_UNROLL
  for (int v = 0; v < width; v++) acc[r][v] = vload(a.acc + r * a.head_dim + column + v * kLanes);
  for (int j = from; j < to; j++) {
    const char* value =
        panels[j / kKeyPanel] +
        (static_cast<int64_t>(j % kKeyPanel) * a.head_dim + column) * dtype_bytes(dtype);
    vf x[width];
    VT_UNROLL
    for (int v = 0; v < width; v++) x[v] = vload_as<dtype>(value + v * kLanes * dtype_bytes(dtype));
    VT_UNROLL
    for (int r = 0; r < rows; r++) {
      const vf broadcast = vset(weights[r * kKeyTile + j]);
      VT_UNROLL
      for (int v = 0; v < width; v++) acc[r][v] = vfma(broadcast, x[v], acc[r][v]);
    }
  }
  VT_UNROLL
  for (int r = 0; r < rows; r++) VT_UNROLL
  for (int v = 0; v < width; v++) vstore(a.acc + r * a.head_dim + column + v * kLanes, acc[r][v]);
}

/// Masks the scores of a row outside [first, last), turns them into weights, rescales the row.
VT_INLINE void softmax_row(float* scores, int first, int last, int width, float& max, vf& sum,
                           float* acc, int head_dim) {
  const float minus_infinity = -__builtin_inff();
  for (int j = 0; j < first; j++) scores[j] = minus_infinity;
  for (int j = last; j < width; j++) scores[j] = minus_infinity;
  vf top = vset(max);
  for (int j = 0; j < width; j += kLanes) top = vmax(top, vload(scores + j));
  float new_max = hmax(top);
  if (!(new_max > kLowest)) new_max = new_max != new_max ? new_max : kLowest;
  const vf center = vset(new_max);
  // A weight below e^-87 is 0, as a masked one is.
  const vf floor = vset(-87.0f);
  vf tile_sum = vzero();
  for (int j = 0; j < width; j += kLanes) {
    const vf x = vsub(vload(scores + j), center);
    const vf weight = vselect_below(x, floor, vexp(x));
    vstore(scores + j, weight);
    tile_sum = vadd(tile_sum, weight);
  }
  const vf x = vsub(vset(max), center);
  const vf correction = vselect_below(x, floor, vexp(x));
  sum = vfma(sum, correction, tile_sum);
  for (int d = 0; d < head_dim; d += kLanes) vstore(acc + d, vmul(vload(acc + d), correction));
  max = new_max;
}

template <Dtype dtype, int rows>
void chunk(const AttentionArgs& a) {
  vf sums[rows];
  for (int r = 0; r < rows; r++) {
    a.max[r] = -__builtin_inff();
    sums[r] = vzero();
  }
  memset(a.acc, 0, sizeof(float) * static_cast<unsigned long>(rows * a.head_dim));
  int first = a.first[0], last = a.last[0];
  for (int r = 1; r < rows; r++) {
    if (a.first[r] < first) first = a.first[r];
    if (a.last[r] > last) last = a.last[r];
  }
  if (last > a.chunk_end) last = a.chunk_end;
  alignas(64) float scores[rows * kKeyTile];
  for (int begin = a.chunk_begin; begin < last; begin += kKeyTile) {
    if (begin + kKeyTile <= first) continue;
    const int from = first > begin ? first - begin : 0;
    const int to = last - begin < kKeyTile ? last - begin : kKeyTile;
    const char* values[kKeyTile / kKeyPanel];
    for (int panel = from / kKeyPanel; panel * kKeyPanel < to; panel++) {
      const int index = begin / kKeyPanel + panel;
      score_panel<dtype, rows>(a, panel_at(a.kv, a.kv.k, index), scores + panel * kKeyPanel);
      values[panel] = panel_at(a.kv, a.kv.v, index);
    }
    const int width = (to + kKeyPanel - 1) / kKeyPanel * kKeyPanel;
    for (int r = 0; r < rows; r++) {
      const int row_first = a.first[r] > begin ? a.first[r] - begin : 0;
      const int row_last = a.last[r] - begin;
      softmax_row(scores + r * kKeyTile, row_first < width ? row_first : width,
                  row_last < 0 ? 0 : row_last, width, a.max[r], sums[r], a.acc + r * a.head_dim,
                  a.head_dim);
    }
    constexpr int groups = kLanes == 16 ? 4 : kLanes == 8 && rows <= 3 ? 2 : 1;
    int column = 0;
    for (; column + groups * 16 <= a.head_dim; column += groups * 16)
      add_values<dtype, rows, groups>(a, values, scores, from, to, column);
    for (; column < a.head_dim; column += 16)
      add_values<dtype, rows, 1>(a, values, scores, from, to, column);
  }
  for (int r = 0; r < rows; r++) a.sum[r] = hsum(sums[r]);
}

template <Dtype dtype>
void chunk_as(const AttentionArgs& a) {
  switch (a.num_rows) {
    case 1:
      return chunk<dtype, 1>(a);
    case 2:
      return chunk<dtype, 2>(a);
    case 3:
      return chunk<dtype, 3>(a);
    case 4:
      return chunk<dtype, 4>(a);
    case 5:
      return chunk<dtype, 5>(a);
    case 6:
      return chunk<dtype, 6>(a);
  }
}

}  // namespace

void attention_chunk(const AttentionArgs& args);
void attention_chunk(const AttentionArgs& args) {
  if (args.kv.dtype == Dtype::f32) return chunk_as<Dtype::f32>(args);
  if (args.kv.dtype == Dtype::bf16) return chunk_as<Dtype::bf16>(args);
  chunk_as<Dtype::f16>(args);
}

void attention_merge(float* max, float* sum, float* acc, float chunk_max, float chunk_sum,
                     const float* chunk_acc, int head_dim);
void attention_merge(float* max, float* sum, float* acc, float chunk_max, float chunk_sum,
                     const float* chunk_acc, int head_dim) {
  if (chunk_sum == 0.0f) return;
  if (*sum == 0.0f) {
    *max = chunk_max;
    *sum = chunk_sum;
    memcpy(acc, chunk_acc, sizeof(float) * static_cast<unsigned long>(head_dim));
    return;
  }
  const float new_max = *max > chunk_max ? *max : chunk_max;
  const vf old_factor = vexp(vset(*max - new_max));
  const vf new_factor = vexp(vset(chunk_max - new_max));
  for (int d = 0; d < head_dim; d += kLanes)
    vstore(acc + d, vfma(vload(chunk_acc + d), new_factor, vmul(vload(acc + d), old_factor)));
  float factors[2 * kLanes];
  vstore(factors, old_factor);
  vstore(factors + kLanes, new_factor);
  *sum = *sum * factors[0] + chunk_sum * factors[kLanes];
  *max = new_max;
}

void attention_finish(const float* acc, float sum, float* out, int head_dim);
void attention_finish(const float* acc, float sum, float* out, int head_dim) {
  const vf divisor = vset(sum);
  for (int d = 0; d < head_dim; d += kLanes) vstore(out + d, vdiv(vload(acc + d), divisor));
}

}  // namespace VT_VARIANT
}  // namespace vt
