// The program's weights as the CPU keeps them: matrices packed (pack.h), vectors widened to f32.
#pragma once

#include <vector>

#include "pack.h"
#include "../host/program.h"

namespace vt {

struct Weights {
  /// By index of the program's weights; the one that does not apply is empty.
  std::vector<PackedMatrix> matrices;
  std::vector<std::vector<float>> vectors;

  std::size_t bytes() const;
};

/// Checks the parts' sizes against the program and copies them.
Weights load_weights(const Program& program, const std::vector<std::vector<WeightPart>>& parts,
                     int lanes, ThreadPool& pool);

}  // namespace vt
