// What the ops read of every token of a step: its id, its position, and where its key and value go.
#pragma once

#include <cstdint>
#include <vector>

#include "../host/batch.h"

namespace vt {

struct TokenInputs {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> positions;
  /// block * blockSize + offset
  std::vector<std::int64_t> slots;

  void build(const Batch& batch, const RowTable& table);
};

}  // namespace vt
