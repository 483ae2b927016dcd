// What rmsNorm multiplies a row of bfloat16 with, by elementwise.cuh's tree but without its threads.
#pragma once

#include <cstdint>
#include <vector>

#include "elementwise.cuh"

/// Of `row` [columns]; epsilon 1e-5.
inline float scale_of(const std::uint16_t* row, int columns) {
  std::vector<float> nodes(columns);
  for (int i = 0; i < columns; i++) nodes[i] = vt::widen(row[i]) * vt::widen(row[i]);
  while (nodes.size() > 1) {
    if (nodes.size() % 2 != 0) nodes.push_back(0);
    for (std::size_t i = 0; i < nodes.size() / 2; i++) nodes[i] = nodes[2 * i] + nodes[2 * i + 1];
    nodes.resize(nodes.size() / 2);
  }
  return vt::norm_scale(nodes[0], columns, 1e-5f);
}
