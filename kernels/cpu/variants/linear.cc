// linear: register tiles of up to kMaxRows rows by one or more weight panels, each output one chain
// of fused multiply-adds over k ascending. Every tile shape gives an output the same bits, so the
// shape is chosen by the number of rows alone: many panels for one row (enough chains to hide the
// latency, several streams for the prefetchers), many rows for one panel (the weight is widened
// once for all of them).
#include "../kernel_table.h"
#include "simd.h"

namespace vt {
namespace VT_VARIANT {

namespace {

constexpr int kPanel = 2 * kLanes;
constexpr int kMaxRows = kLanes == 16 ? 12 : 6;
/// Bytes of x that stay in the second-level cache while the panels pass by.
constexpr int64_t kRowBlockBytes = 256 * 1024;

struct Epilogue {
  const float* bias;
  const float* residual;
  float* out;
  int64_t stride;
  int n;
};

/// Adds bias and residual to one panel of one row and stores what lies within n.
VT_INLINE void store_panel(const Epilogue& e, int64_t row, int column, vf low, vf high) {
  const int64_t at = row * e.stride + column;
  if (column + kPanel <= e.n) {
    if (e.bias) {
      low = vadd(low, vload(e.bias + column));
      high = vadd(high, vload(e.bias + column + kLanes));
    }
    if (e.residual) {
      low = vadd(low, vload(e.residual + at));
      high = vadd(high, vload(e.residual + at + kLanes));
    }
    vstore(e.out + at, low);
    vstore(e.out + at + kLanes, high);
    return;
  }
  float values[kPanel];
  vstore(values, low);
  vstore(values + kLanes, high);
  for (int i = 0; column + i < e.n; i++) {
    float value = values[i];
    if (e.bias) value = value + e.bias[column + i];
    if (e.residual) value = value + e.residual[at + i];
    e.out[at + i] = value;
  }
}

template <Dtype dtype, int rows, int panels>
void tile(const LinearArgs& a, const Epilogue& e, int row, int panel, bool prefetch_next) {
  const int64_t k_bytes = kPanel * dtype_bytes(dtype);
  const int64_t panel_bytes = k_bytes * a.k;
  const char* w = a.panels + panel * panel_bytes;
  const float* x[rows];
  VT_UNROLL
  for (int r = 0; r < rows; r++) x[r] = a.x + (row + r) * a.x_stride;
  // The next group of panels, so that its first use does not wait for memory.
  const int64_t ahead = prefetch_next ? panels * panel_bytes : 0;
  vf acc[rows][2 * panels];
  VT_UNROLL
  for (int r = 0; r < rows; r++) VT_UNROLL
  for (int p = 0; p < 2 * panels; p++) acc[r][p] = vzero();
  for (int64_t k = 0; k < a.k; k++) {
    vf b[2 * panels];
    VT_UNROLL
    for (int p = 0; p < panels; p++) {
      const char* at = w + p * panel_bytes + k * k_bytes;
      vload_panel<dtype>(at, b[2 * p], b[2 * p + 1]);
      __builtin_prefetch(at + ahead);
    }
    VT_UNROLL
    for (int r = 0; r < rows; r++) {
      const vf broadcast = vset(x[r][k]);
      VT_UNROLL
      for (int p = 0; p < 2 * panels; p++) acc[r][p] = vfma(broadcast, b[p], acc[r][p]);
    }
  }
  VT_UNROLL
  for (int r = 0; r < rows; r++) VT_UNROLL
  for (int p = 0; p < panels; p++)
    store_panel(e, row + r, (panel + p) * kPanel, acc[r][2 * p], acc[r][2 * p + 1]);
}

template <Dtype dtype, int panels>
void few_rows(const LinearArgs& a, const Epilogue& e, int panel, bool next) {
  switch (a.m) {
    case 1:
      return tile<dtype, 1, panels>(a, e, 0, panel, next);
    case 2:
      return tile<dtype, 2, panels>(a, e, 0, panel, next);
    case 3:
      if constexpr (panels <= 2 || kLanes == 16)
        return tile<dtype, 3, panels>(a, e, 0, panel, next);
  }
}

template <Dtype dtype>
void one_panel(const LinearArgs& a, const Epilogue& e, int row, int rows, int panel, bool next) {
  switch (rows) {
    case 1:
      return tile<dtype, 1, 1>(a, e, row, panel, next);
    case 2:
      return tile<dtype, 2, 1>(a, e, row, panel, next);
    case 3:
      return tile<dtype, 3, 1>(a, e, row, panel, next);
    case 4:
      return tile<dtype, 4, 1>(a, e, row, panel, next);
    case 5:
      return tile<dtype, 5, 1>(a, e, row, panel, next);
    case 6:
      return tile<dtype, 6, 1>(a, e, row, panel, next);
  }
  if constexpr (kMaxRows > 6) {
    switch (rows) {
      case 7:
        return tile<dtype, 7, 1>(a, e, row, panel, next);
      case 8:
        return tile<dtype, 8, 1>(a, e, row, panel, next);
      case 9:
        return tile<dtype, 9, 1>(a, e, row, panel, next);
      case 10:
        return tile<dtype, 10, 1>(a, e, row, panel, next);
      case 11:
        return tile<dtype, 11, 1>(a, e, row, panel, next);
      case 12:
        return tile<dtype, 12, 1>(a, e, row, panel, next);
    }
  }
}

template <Dtype dtype>
void linear_as(const LinearArgs& a) {
  const Epilogue e = {a.bias, a.residual, a.out, a.out_stride, a.n};
  const int end = a.panel_end;
  int panel = a.panel_begin;
  if (a.m <= 3) {
    const int wide = a.m == 1 ? 4 : 2;
    for (; panel + wide <= end; panel += wide) {
      const bool next = panel + 2 * wide <= end;
      if (wide == 4)
        few_rows<dtype, 4>(a, e, panel, next);
      else
        few_rows<dtype, 2>(a, e, panel, next);
    }
    for (; panel < end; panel++) few_rows<dtype, 1>(a, e, panel, false);
    return;
  }
  int64_t block = kRowBlockBytes / (a.k * 4) / kMaxRows * kMaxRows;
  if (block < 4 * kMaxRows) block = 4 * kMaxRows;
  for (int row_begin = 0; row_begin < a.m; row_begin += static_cast<int>(block)) {
    const int rows = a.m - row_begin < block ? a.m - row_begin : static_cast<int>(block);
    const int tiles = (rows + kMaxRows - 1) / kMaxRows;
    for (panel = a.panel_begin; panel < end; panel++) {
      for (int t = 0; t < tiles; t++) {
        const int from = rows * t / tiles, to = rows * (t + 1) / tiles;
        const bool next = t == tiles - 1 && panel + 1 < end;
        one_panel<dtype>(a, e, row_begin + from, to - from, panel, next);
      }
    }
  }
}

}  // namespace

void linear(const LinearArgs& args);
void linear(const LinearArgs& args) {
  switch (args.dtype) {
    case Dtype::f32:
      return linear_as<Dtype::f32>(args);
    case Dtype::bf16:
      return linear_as<Dtype::bf16>(args);
    default:
      return linear_as<Dtype::f16>(args);
  }
}

}  // namespace VT_VARIANT
}  // namespace vt
