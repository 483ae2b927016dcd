// What rmsNorm multiplies a row of bfloat16 with, by elementwise.cuh's tree but without its threads.
#pragma once

#include <cstdint>
#include <vector>

#include "elementwise.cuh"

/// Of `row` [columns], which is a multiple of 8; epsilon 1e-5.
inline float scale_of(const std::uint16_t* row, int columns) {
  const int threads = vt::norm_threads(columns);
  std::vector<float> sums(threads);
  for (int piece = 0; piece < columns / 8; piece++)
    for (int e = 0; e < 8; e++) {
      const float value = vt::widen(row[piece * 8 + e]);
      sums[piece % threads] += value * value;
    }
  float total = 0;
  for (int warp = 0; warp < threads; warp += 32) {
    for (int d = 16; d > 0; d /= 2)
      for (int lane = 0; lane < d; lane++) sums[warp + lane] += sums[warp + lane + d];
    total += sums[warp];
  }
  return vt::norm_scale(total, columns, 1e-5f);
}
