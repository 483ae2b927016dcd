// siluAndMul: rows and columns are divided in stretches of a cache line's floats, since in decode
// there are few rows.
#include <algorithm>

#include "ops.h"

namespace vt {

void run_silu_and_mul(const OpCall& call, const BoundOp& op) {
  constexpr std::int64_t stretch = 64;
  const std::int64_t n = op.args[0].columns, per_row = (n + stretch - 1) / stretch;
  const Range range = call.share_of(op.num_rows(call) * per_row);
  for (std::int64_t i = range.begin; i < range.end;) {
    const std::int64_t row = i / per_row, begin = i % per_row * stretch;
    const std::int64_t last = std::min(range.end - row * per_row, per_row);
    const std::int64_t end = std::min(last * stretch, n);
    const float* gate = op.args[1].data + row * 2 * n;
    call.step.kernels->silu_and_mul(gate + begin, gate + n + begin,
                                    op.args[0].data + row * n + begin,
                                    static_cast<int>(end - begin));
    i = (row + 1) * per_row;
  }
}

}  // namespace vt
