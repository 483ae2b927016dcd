// rmsNorm and headRmsNorm: a row, or a head, is one thread's.
#include "ops.h"

namespace vt {

void run_rms_norm(const OpCall& call, const BoundOp& op) {
  const std::int64_t n = op.args[0].columns;
  const Range range = call.share_of(op.num_rows(call));
  for (std::int64_t i = range.begin; i < range.end; i++)
    call.step.kernels->rms_norm(op.args[1].data + i * n, op.args[2].data, op.args[0].data + i * n,
                                static_cast<int>(n), static_cast<float>(op.attrs[0]));
}

void run_head_rms_norm(const OpCall& call, const BoundOp& op) {
  const int num_heads = op.attr_int(0), num_kv_heads = op.attr_int(1), head_dim = op.attr_int(2);
  const int normed = num_heads + num_kv_heads;
  const Range range = call.share_of(static_cast<std::int64_t>(op.num_rows(call)) * normed);
  for (std::int64_t i = range.begin; i < range.end; i++) {
    const std::int64_t head = i % normed;
    float* x = op.args[0].data + i / normed * op.args[0].columns + head * head_dim;
    call.step.kernels->rms_norm(x, op.args[head < num_heads ? 1 : 2].data, x, head_dim,
                                static_cast<float>(op.attrs[3]));
  }
}

}  // namespace vt
