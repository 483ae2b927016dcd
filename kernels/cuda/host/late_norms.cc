// rmsNorms whose scale comes late (vt_cuda.h): which they are, decided once by the program, and the
// launches of one with the linear behind it and what reads that. A row's bits are the same for every
// number of rows; who computes the scale is not: the linear in front and this one, or the norm's own
// kernel.
#include "launch_error.h"
#include "launches.h"

namespace vt {

bool Launches::is_late(std::size_t norm) const {
  const std::vector<OpRecord>& ops = program_.ops;
  // Its linear, and what reads that, stand behind it.
  if (ops[norm].id != OpId::rms_norm || norm + 2 >= first_logit_op_ || !links_[norm]) return false;
  const OpRecord &linear = ops[norm + 1], &reader = ops[norm + 2];
  if (linear.args[3] >= 0 || linear.args[4] >= 0) return false;
  for (const int buffer : {ops[norm].args[0], ops[norm].args[1], linear.args[0]})
    if (program_.buffers[buffer].dtype != Dtype::bf16) return false;
  if (reader.id == OpId::head_rms_norm)
    return reader.args[0] == linear.args[0] && links_[norm + 2] &&
           ops[norm + 3].id == OpId::rope_and_cache;
  return links_[norm + 1] &&
         (reader.id == OpId::silu_and_mul || reader.id == OpId::rope_and_cache);
}

void Launches::find_late_norms(Ledger& ledger) {
  const std::vector<OpRecord>& ops = program_.ops;
  late_.assign(ops.size(), false);
  for (const OpRecord& op : ops)
    if (is_collective(op)) return;
  std::int64_t columns = 0;
  for (std::size_t i = 0; i < ops.size(); i++) {
    late_[i] = is_late(i);
    if (late_[i]) columns = std::max(columns, this->columns(ops[i], 0));
  }
  if (columns == 0) return;
  constexpr std::size_t kRows = VT_CUDA_SQUARES_ROWS;
  scales_ = {program_.max_num_tokens * sizeof(float), "activations", ledger};
  gained_ = {kRows * columns * dtype_bytes(Dtype::bf16), "activations", ledger};
  squares_ = {kRows * VT_CUDA_SQUARES * sizeof(float), "activations", ledger};
}

template <typename Args>
void Launches::ask_for_squares(const OpRecord& norm, Args& args, const Call& call) const {
  args.out_gain = operand(norm, 2, call).data;
  args.gained = gained_.as<void>();
  args.gained_stride = static_cast<int>(columns(norm, 1));
  args.out_squares = squares_.as<float>();
}

void Launches::take_squares(const OpRecord& norm, VtCudaLinear& args) const {
  args.x = gained_.as<void>();
  args.x_stride = args.k;
  args.x_squares = squares_.as<float>();
  args.norm_eps = static_cast<float>(norm.attrs[0]);
}

bool Launches::has_squares(std::size_t norm, const Call& call) const {
  if (norm == 0 || !late_[norm]) return false;
  const OpRecord &front = program_.ops[norm - 1], &op = program_.ops[norm];
  if (front.args[0] != op.args[1]) return false;
  VtCudaLinear takes = linear_args(program_.ops[norm + 1], call);
  take_squares(op, takes);
  if (vt_cuda_linear_fuses(&takes) == 0) return false;
  if (front.id == OpId::embedding)
    return program_.weights[front.args[1]].dtype == Dtype::bf16;
  if (front.id != OpId::linear) return false;
  VtCudaLinear gives = linear_args(front, call);
  ask_for_squares(op, gives, call);
  return vt_cuda_linear_fuses(&gives) != 0;
}

void Launches::add_squares(const OpRecord& embedding, VtCudaGather& args, const Call& call) const {
  const std::size_t norm = index_of(embedding) + 1;
  if (norm < program_.ops.size() && has_squares(norm, call))
    ask_for_squares(program_.ops[norm], args, call);
}

int Launches::run_squares(std::size_t index, const Call& call) const {
  if (index + 1 >= first_logit_op_ || !has_squares(index + 1, call)) return 0;
  VtCudaLinear args = linear_args(program_.ops[index], call);
  ask_for_squares(program_.ops[index + 1], args, call);
  VT_LAUNCH(vt_cuda_linear(&args, call.stream));
  return 1;
}

int Launches::run_late_norm(std::size_t index, const Call& call) const {
  const OpRecord &norm = program_.ops[index], &linear = program_.ops[index + 1];
  const OpRecord& reader = program_.ops[index + 2];
  const bool by_squares = has_squares(index, call);
  VtCudaLinear args = linear_args(linear, call);
  if (by_squares) {
    take_squares(norm, args);
  } else {
    rms_norm(norm, call, scales_.as<float>());
    args.row_scale = scales_.as<float>();
  }
  if (reader.id != OpId::head_rms_norm) {
    VtCudaLinear fused = args;
    if (add_epilogue(reader, fused, call) && vt_cuda_linear_fuses(&fused) != 0) {
      VT_LAUNCH(vt_cuda_linear(&fused, call.stream));
      return 3;
    }
  }
  Call behind = call;
  if (by_squares) {
    VT_LAUNCH(vt_cuda_linear(&args, call.stream));
  } else {
    behind.row_scale = scales_.as<float>();
    if (const int done = run_by_parts(index + 1, behind); done > 0) return 1 + done;
    run_op(linear, behind);
  }
  if (const int done = run_fused(index + 2, first_logit_op_, behind); done > 0) return 2 + done;
  run_op(reader, behind);
  return 3;
}

}  // namespace vt
