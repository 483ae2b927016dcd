// Ops that move rows: embedding and gatherLogitRows.
#include <algorithm>
#include <cstring>

#include "ops.h"

namespace vt {

void run_embedding(const OpCall& call, const BoundOp& op) {
  const BoundArg& out = op.args[0];
  const Range range = call.share_of(call.step.batch.num_tokens);
  const PackedMatrix& matrix = *op.args[1].matrix;
  for (std::int64_t t = range.begin; t < range.end; t++) {
    const int row = call.step.tokens.ids[t] - op.attr_int(0);
    float* to = out.data + t * out.columns;
    if (row >= 0 && row < matrix.n)
      matrix.read_row(row, to);
    else
      std::fill(to, to + out.columns, 0.0f);
  }
}

void run_gather_logit_rows(const OpCall& call, const BoundOp& op) {
  const BoundArg& out = op.args[0];
  const Range range = call.share_of(call.num_logits);
  for (std::int64_t i = range.begin; i < range.end; i++) {
    const LogitRow& row = call.step.batch.logit_rows[call.logit_begin + i];
    std::memcpy(out.data + i * out.columns, op.args[1].data + row.token * out.columns,
                static_cast<std::size_t>(out.columns) * sizeof(float));
  }
}

}  // namespace vt
