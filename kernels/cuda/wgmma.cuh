// Where wgmma's operands lie in shared memory. A panel is a run of rows of 64 elements (128 bytes)
// from a multiple of 1,024 bytes on; the 16-byte piece i of row r lies at place i ^ (r % 8), as the
// copy engine's 128-byte swizzle leaves it. A matrix with more than 64 columns is several panels,
// one behind another.
#ifndef VT_CUDA_WGMMA_CUH_
#define VT_CUDA_WGMMA_CUH_

#include "wgmma_ptx.cuh"

namespace vt {

constexpr int kPanelColumns = 64;
constexpr int kPanelRowBytes = 128;
/** Eight rows: what the swizzle repeats after. */
constexpr int kPanelAtomBytes = 1024;

/** Bytes from the start of a panel to 16-byte piece `piece` of `row`. */
__host__ __device__ constexpr int panel_offset(int row, int piece) {
  return row * kPanelRowBytes + ((piece ^ (row % 8)) << 4);
}

/** Offset of 16-byte piece `piece` of `row` in a matrix of panels of `rows` rows. */
__host__ __device__ constexpr int panels_offset(int rows, int row, int piece) {
  return piece / 8 * (rows * kPanelRowBytes) + panel_offset(row, piece % 8);
}

/**
 * A descriptor of shared memory with the 128-byte swizzle. Rows along k: `stride` is from 8 rows to
 * the next 8, and `leading` is unused. Rows along n: `stride` is from 8 k to the next 8, `leading`
 * from 64 columns of n to the next 64.
 */
__host__ __device__ constexpr uint64_t wgmma_descriptor(uint32_t address, int leading, int stride) {
  return static_cast<uint64_t>(address >> 4 & 0x3fff) |
         static_cast<uint64_t>(leading >> 4 & 0x3fff) << 16 |
         static_cast<uint64_t>(stride >> 4 & 0x3fff) << 32 | uint64_t{1} << 62;
}

/**
 * Rows along k: columns 16 k .. of 64 and more rows from `address`, the start of an atom. What k
 * adds to the address never carries out of its field, so that it is one constant.
 */
__host__ __device__ constexpr uint64_t along_k(uint32_t address, int panel_rows, int k) {
  return wgmma_descriptor(address, 16, kPanelAtomBytes) +
         ((k / 4 * (panel_rows * kPanelRowBytes) + k % 4 * 32) >> 4);
}

/** Rows along n: rows 16 k .. of panels of `panel_rows` rows, all their columns. */
__host__ __device__ constexpr uint64_t along_n(uint32_t address, int panel_rows, int k) {
  return wgmma_descriptor(address, panel_rows * kPanelRowBytes, kPanelAtomBytes) +
         (k * 16 * kPanelRowBytes >> 4);
}

/** For the copy engine: rows of 2-byte elements, of which it brings `box_rows` of a panel at once. */
inline int make_panel_map(CUtensorMap* map, const void* data, int rows, int columns, int stride,
                          int box_rows) {
  const int64_t row_bytes = static_cast<int64_t>(stride) * 2;
  return make_tensor_map(map, data, {columns, rows, 1, 1},
                         {row_bytes, row_bytes * rows, row_bytes * rows},
                         {kPanelColumns, box_rows, 1, 1});
}

}  // namespace vt

#endif  // VT_CUDA_WGMMA_CUH_
