// linear: threads divide the weight's panels; every row of the step passes by each panel, so that a
// weight is read once however many rows there are.
#include "ops.h"

namespace vt {

void run_linear(const OpCall& call, const BoundOp& op) {
  const PackedMatrix& matrix = *op.args[2].matrix;
  const int rows = op.num_rows(call);
  const Range range = call.share_of(matrix.num_panels());
  if (rows == 0 || range.begin == range.end) return;
  LinearArgs args;
  args.x = op.args[1].data;
  args.x_stride = matrix.k;
  args.m = rows;
  args.panels = matrix.data.data();
  args.dtype = matrix.dtype;
  args.k = matrix.k;
  args.n = matrix.n;
  args.panel_begin = static_cast<int>(range.begin);
  args.panel_end = static_cast<int>(range.end);
  args.bias = op.args[3].data;
  args.residual = op.args[4].data;
  args.out = op.args[0].data;
  args.out_stride = op.args[0].columns;
  call.step.kernels->linear(args);
}

}  // namespace vt
