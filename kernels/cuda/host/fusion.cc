// Which neighbours of a program one launch does together: a norm before a linear, siluAndMul or
// ropeAndCache after it, q and k norms in ropeAndCache, ropeCosSin beside embedding; and which linear
// sends its sums to the other ranks itself. The bits are those of the ops launched one by one; what
// lies between two ops that are one is not written.
#include "launch_error.h"
#include "launches.h"

namespace vt {

namespace {

/// Rows of the gate and up weights must alternate by this many.
constexpr int kEpilogueInterleave = 8;

struct Range {
  const char *begin, *end;
};

Range range_of(const void* data, std::int64_t rows, std::int64_t stride, std::int64_t columns,
               int element_bytes) {
  const char* begin = static_cast<const char*>(data);
  return {begin, begin + ((rows - 1) * stride + columns) * element_bytes};
}

/// Whether a linear would write what it reads: the arena may have placed an output where what is read
/// now was no longer needed.
bool overlaps(const VtCudaLinear& args, std::int64_t out_columns) {
  const int out_bytes = args.out_dtype == VT_CUDA_F32 ? 4 : 2;
  const Range x = range_of(args.x, args.m, args.x_stride, args.k, 2);
  const Range out = range_of(args.out, args.m, args.out_stride, out_columns, out_bytes);
  return x.begin < out.end && out.begin < x.end;
}

bool is_all_reduce(const OpRecord& op) {
  return op.id == OpId::all_reduce || op.id == OpId::all_reduce_residual_norm;
}

/// The argument that is added up.
int part_of(const OpRecord& op) {
  return op.args[op.id == OpId::all_reduce_residual_norm ? 2 : 1];
}

bool reads(const OpRecord& op, int buffer) {
  const OpSpec& spec = op_spec(op.id);
  for (int i = 0; i < spec.num_args; i++)
    if (op.args[i] == buffer && (spec.args[i].role == Role::in || spec.args[i].role == Role::inout))
      return true;
  return false;
}

}  // namespace

void Launches::find_links() {
  links_.assign(program_.ops.size(), false);
  for (std::size_t i = 0; i + 1 < program_.ops.size(); i++) links_[i] = feeds_next_alone(i);
}

bool Launches::feeds_next_alone(std::size_t index) const {
  const OpRecord &op = program_.ops[index], &next = program_.ops[index + 1];
  const int buffer = op.args[0];
  if (op.id == OpId::rope_cos_sin) {
    // Neither reads what the other writes.
    return next.id == OpId::embedding &&
           program_.buffers[next.args[0]].dtype == program_.weights[next.args[1]].dtype;
  } else if (op.id == OpId::rms_norm) {
    if (next.id != OpId::linear || next.args[1] != buffer || next.args[4] == buffer) return false;
  } else if (op.id == OpId::linear && next.id == OpId::silu_and_mul) {
    if (next.args[1] != buffer || op.args[4] >= 0 ||
        program_.weights[op.args[2]].interleave != kEpilogueInterleave)
      return false;
  } else if (op.id == OpId::linear && is_all_reduce(next)) {
    if (part_of(next) != buffer) return false;
  } else if ((op.id == OpId::linear || op.id == OpId::head_rms_norm) &&
             next.id == OpId::rope_and_cache) {
    // In place: attention reads the queries where they are, and nothing reads keys and values.
    const OpRecord* reader = index + 2 < program_.ops.size() ? &program_.ops[index + 2] : nullptr;
    return next.args[0] == buffer && (op.id != OpId::linear || op.args[4] < 0) &&
           (op.id != OpId::linear ||
            (reader != nullptr && reader->id == OpId::attention && reader->args[1] == buffer));
  } else {
    return false;
  }
  for (std::size_t i = index + 2; i < program_.ops.size(); i++) {
    if (reads(program_.ops[i], buffer)) return false;
    if (program_.ops[i].args[0] == buffer) return true;
  }
  return true;
}

int Launches::run_fused(std::size_t index, std::size_t end, const Call& call) const {
  const OpRecord& op = program_.ops[index];
  if (index + 1 >= end) return 0;
  if (late_[index]) return run_late_norm(index, call);
  if (late_[index + 1] && op.id == OpId::linear) return run_squares(index, call);
  if (makes_logits(index)) return run_head(index, call);
  if (!links_[index]) return 0;
  if (op.id == OpId::rms_norm) {
    const bool epilogue =
        index + 2 < end && links_[index + 1] && !is_all_reduce(program_.ops[index + 2]);
    if (epilogue && try_fused_linear(index + 1, true, true, call)) return 3;
    return try_fused_linear(index + 1, true, false, call) ? 2 : 0;
  }
  if (op.id == OpId::linear && is_all_reduce(program_.ops[index + 1]))
    return try_sending_linear(index, call) ? 2 : 0;
  if (op.id == OpId::linear) return try_fused_linear(index, false, true, call) ? 2 : 0;
  if (op.id == OpId::rope_cos_sin) {
    const VtCudaGather args = embedding_args(program_.ops[index + 1], call);
    const VtCudaRopeCosSin angles = angle_args(op, call);
    VT_LAUNCH(vt_cuda_embedding_and_angles(&args, &angles, call.stream));
    return 2;
  }
  VtCudaRopeAndCache args = rope_args(program_.ops[index + 1], call);
  args.q_weight = operand(op, 1, call).data;
  args.k_weight = operand(op, 2, call).data;
  args.eps = static_cast<float>(op.attrs[3]);
  args.ahead = keys_ahead(op, call);
  VT_LAUNCH(vt_cuda_rope_and_cache(&args, call.stream));
  return 2;
}

bool Launches::try_fused_linear(std::size_t index, bool norm, bool epilogue,
                                const Call& call) const {
  const OpRecord& op = program_.ops[index];
  VtCudaLinear args = linear_args(op, call);
  if (norm) {
    const OpRecord& before = program_.ops[index - 1];
    const Operand x = operand(before, 1, call);
    args.x = x.data;
    args.x_stride = x.stride;
    args.norm_weight = operand(before, 2, call).data;
    args.norm_eps = static_cast<float>(before.attrs[0]);
  }
  if (epilogue ? !add_epilogue(program_.ops[index + 1], args, call) : overlaps(args, args.n))
    return false;
  if (vt_cuda_linear_fuses(&args) == 0) return false;
  VT_LAUNCH(vt_cuda_linear(&args, call.stream));
  return true;
}

bool Launches::add_epilogue(const OpRecord& after, VtCudaLinear& args, const Call& call) const {
  if (after.id == OpId::silu_and_mul) {
    const Operand out = operand(after, 0, call);
    args.out = out.data;
    args.out_stride = out.stride;
    args.epilogue = VT_CUDA_SILU_AND_MUL;
    return !overlaps(args, args.n / 2);
  }
  const VtCudaRopeAndCache rope = rope_args(after, call);
  args.epilogue = VT_CUDA_ROPE_AND_CACHE;
  args.cos_sin = rope.cos_sin;
  args.slots = rope.slots;
  args.kv_cache = rope.kv_cache;
  args.num_layers = rope.num_layers;
  args.layer = rope.layer;
  args.block_size = rope.block_size;
  args.num_heads = rope.num_heads;
  args.num_kv_heads = rope.num_kv_heads;
  args.head_dim = rope.head_dim;
  return !overlaps(args, args.n);
}

}  // namespace vt
