#include "token_inputs.h"

namespace vt {

void TokenInputs::build(const Batch& batch, const RowTable& table) {
  ids.clear();
  positions.clear();
  slots.clear();
  const int block_size = table.block_size();
  for (const BatchRow& row : batch.rows) {
    const std::int32_t* tokens = table.tokens(row.row);
    const std::int32_t* blocks = table.blocks(row.row);
    const int end = row.start + row.count;
    ids.insert(ids.end(), tokens + row.start, tokens + end);
    for (int position = row.start; position < end; position++) {
      positions.push_back(position);
      slots.push_back(static_cast<std::int64_t>(blocks[position / block_size]) * block_size +
                      position % block_size);
    }
  }
}

}  // namespace vt
