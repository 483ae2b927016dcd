// Each op of the table as its call of vt_cuda.h. Shapes were checked when the program was parsed;
// what a kernel does not take, its call says by name.
#include "launch_error.h"
#include "launches.h"

namespace vt {

VtCudaGather Launches::embedding_args(const OpRecord& op, const Call& call) const {
  const Operand out = operand(op, 0, call), weight = operand(op, 1, call);
  VtCudaGather args{};
  args.out = out.data;
  args.source = weight.data;
  args.index = arrays_.token_ids;
  args.num_rows = call.shape.num_tokens;
  args.columns = static_cast<int>(columns(op, 0));
  args.num_source_rows = static_cast<int>(program_.weights[op.args[1]].rows);
  args.out_stride = out.stride;
  args.source_stride = weight.stride;
  args.first_index = op.attr_int(0);
  args.dtype = static_cast<int>(program_.weights[op.args[1]].dtype);
  args.out_dtype = dtype(op, 0);
  args.flags = call.flags;
  add_squares(op, args, call);
  return args;
}

void Launches::embedding(const OpRecord& op, const Call& call) const {
  const VtCudaGather args = embedding_args(op, call);
  VT_LAUNCH(vt_cuda_embedding(&args, call.stream));
}

VtCudaRopeCosSin Launches::angle_args(const OpRecord& op, const Call& call) const {
  VtCudaRopeCosSin args{};
  args.out = reinterpret_cast<float*>(operand(op, 0, call).data);
  args.inv_freq = reinterpret_cast<const float*>(operand(op, 1, call).data);
  args.positions = arrays_.positions;
  args.num_tokens = call.shape.num_tokens;
  args.head_dim = static_cast<int>(columns(op, 0));
  args.factor = static_cast<float>(op.attrs[0]);
  args.flags = call.flags;
  return args;
}

void Launches::rope_cos_sin(const OpRecord& op, const Call& call) const {
  const VtCudaRopeCosSin args = angle_args(op, call);
  VT_LAUNCH(vt_cuda_rope_cos_sin(&args, call.stream));
}

void Launches::rms_norm(const OpRecord& op, const Call& call, float* scales) const {
  const Operand out = operand(op, 0, call), x = operand(op, 1, call);
  VtCudaRmsNorm args{};
  args.out = out.data;
  args.x = x.data;
  args.weight = operand(op, 2, call).data;
  args.num_rows = num_rows(op, call);
  args.columns = static_cast<int>(columns(op, 0));
  args.out_stride = out.stride;
  args.x_stride = x.stride;
  args.scales = scales;
  args.eps = static_cast<float>(op.attrs[0]);
  args.dtype = dtype(op, 0);
  args.flags = call.flags;
  args.ahead = keys_ahead(op, call);
  VT_LAUNCH(vt_cuda_rms_norm(&args, call.stream));
}

VtCudaLinear Launches::linear_args(const OpRecord& op, const Call& call) const {
  const Operand out = operand(op, 0, call), x = operand(op, 1, call);
  const Operand weight = operand(op, 2, call), residual = operand(op, 4, call);
  VtCudaLinear args{};
  args.out = out.data;
  args.x = x.data;
  args.weight = weight.data;
  args.bias = operand(op, 3, call).data;
  args.residual = residual.data;
  args.m = num_rows(op, call);
  args.n = static_cast<int>(columns(op, 0));
  args.k = static_cast<int>(columns(op, 1));
  args.out_stride = out.stride;
  args.x_stride = x.stride;
  args.weight_stride = weight.stride;
  args.residual_stride = residual.stride;
  args.dtype = dtype(op, 1);
  args.out_dtype = dtype(op, 0);
  args.large = large_;
  args.flags = call.flags | VT_CUDA_APART;
  return args;
}

void Launches::linear(const OpRecord& op, const Call& call) const {
  VT_LAUNCH(linears_.linear(linear_args(op, call), call.stream));
}

void Launches::head_rms_norm(const OpRecord& op, const Call& call) const {
  const Operand qkv = operand(op, 0, call);
  VtCudaHeadRmsNorm args{};
  args.qkv = qkv.data;
  args.q_weight = operand(op, 1, call).data;
  args.k_weight = operand(op, 2, call).data;
  args.num_tokens = call.shape.num_tokens;
  args.num_heads = op.attr_int(0);
  args.num_kv_heads = op.attr_int(1);
  args.head_dim = op.attr_int(2);
  args.qkv_stride = qkv.stride;
  args.eps = static_cast<float>(op.attrs[3]);
  args.dtype = dtype(op, 0);
  args.flags = call.flags;
  VT_LAUNCH(vt_cuda_head_rms_norm(&args, call.stream));
}

VtCudaRopeAndCache Launches::rope_args(const OpRecord& op, const Call& call) const {
  const Operand qkv = operand(op, 0, call);
  VtCudaRopeAndCache args{};
  args.qkv = qkv.data;
  args.cos_sin = reinterpret_cast<const float*>(operand(op, 1, call).data);
  args.slots = arrays_.slots;
  args.kv_cache = kv_cache_;
  args.num_tokens = call.shape.num_tokens;
  args.layer = op.attr_int(0);
  args.num_heads = op.attr_int(1);
  args.num_kv_heads = op.attr_int(2);
  args.head_dim = op.attr_int(3);
  args.num_layers = program_.kv_groups[0].num_layers;
  args.block_size = arrays_.block_size;
  args.qkv_stride = qkv.stride;
  args.row_scale = call.row_scale;
  args.dtype = dtype(op, 0);
  args.flags = call.flags;
  return args;
}

void Launches::rope_and_cache(const OpRecord& op, const Call& call) const {
  VtCudaRopeAndCache args = rope_args(op, call);
  args.ahead = keys_ahead(op, call);
  VT_LAUNCH(vt_cuda_rope_and_cache(&args, call.stream));
}

VtCudaAttention Launches::attention_args(const OpRecord& op, const AttentionGroup& group,
                                         const Call& call) const {
  const Operand out = operand(op, 0, call), qkv = operand(op, 1, call);
  VtCudaAttention args{};
  attention_->describe(group, args);
  args.out = out.data;
  args.qkv = qkv.data;
  args.kv_cache = kv_cache_;
  args.block_tables = arrays_.block_tables;
  args.num_layers = program_.kv_groups[0].num_layers;
  args.layer = op.attr_int(0);
  args.block_size = arrays_.block_size;
  args.max_num_blocks = static_cast<int>(arrays_.block_stride);
  args.qkv_stride = qkv.stride;
  args.out_stride = out.stride;
  args.scale = static_cast<float>(op.attrs[4]);
  args.dtype = dtype(op, 0);
  args.flags = early(call.shape, call.flags);
  return args;
}

void Launches::attention(const OpRecord& op, const Call& call) const {
  for (const AttentionGroup& group : call.shape.attention) {
    const VtCudaAttention args = attention_args(op, group, call);
    VT_LAUNCH(vt_cuda_attention(&args, call.stream));
  }
  *call.pieces_ahead = 0;
}

void Launches::silu_and_mul(const OpRecord& op, const Call& call) const {
  const Operand out = operand(op, 0, call), gate_up = operand(op, 1, call);
  VtCudaSiluAndMul args{};
  args.out = out.data;
  args.gate_up = gate_up.data;
  args.num_rows = num_rows(op, call);
  args.columns = static_cast<int>(columns(op, 0));
  args.out_stride = out.stride;
  args.gate_up_stride = gate_up.stride;
  if (call.row_scale != nullptr) args.row_scale = call.row_scale + call.row_begin;
  args.interleave = interleave_of(op);
  args.dtype = dtype(op, 0);
  args.flags = call.flags;
  args.ahead = keys_ahead(op, call);
  VT_LAUNCH(vt_cuda_silu_and_mul(&args, call.stream));
}

void Launches::gather_logit_rows(const OpRecord& op, const Call& call) const {
  if (call.shape.logits_are_tokens) return;
  const Operand out = operand(op, 0, call), x = operand(op, 1, call);
  VtCudaGather args{};
  args.out = out.data;
  args.source = x.data;
  args.index = arrays_.logit_index + call.logit_begin;
  args.num_rows = call.num_logits;
  args.columns = static_cast<int>(columns(op, 0));
  args.num_source_rows = call.shape.num_tokens;
  args.out_stride = out.stride;
  args.source_stride = x.stride;
  args.dtype = args.out_dtype = dtype(op, 0);
  args.flags = call.flags;
  VT_LAUNCH(vt_cuda_gather_logit_rows(&args, call.stream));
}

void Launches::sample(const OpRecord& op, const Call& call) const {
  VtCudaSample args = sample_args(operand(op, 0, call), call);
  args.flags = early(call.shape, call.flags);
  if (call.finishes) {
    const LogprobStrides strides{call.shape.num_top, call.shape.num_named};
    return launch_sample_and_finish(args, arrays_, strides, call.stream);
  }
  VT_LAUNCH(vt_cuda_sample(&args, call.stream));
}

VtCudaSample Launches::sample_args(const Operand& logits, const Call& call) const {
  const int begin = call.logit_begin, num_top = call.shape.num_top;
  const std::int64_t top = std::int64_t{begin} * (num_top > 0 ? num_top : 0);
  VtCudaSample args{};
  args.token_ids = arrays_.sampled_ids + begin;
  args.row_flags = arrays_.sampled_flags + begin;
  args.logprobs = arrays_.logprobs + begin;
  args.ranks = arrays_.ranks + begin;
  args.top_ids = arrays_.top_ids + top;
  args.top_logprobs = arrays_.top_logprobs + top;
  args.named_logprobs = arrays_.named_logprobs;
  args.logits = reinterpret_cast<const float*>(logits.data);
  args.row_of = arrays_.logit_row + begin;
  args.judged_ids = arrays_.judged_ids + begin;
  args.params = arrays_.params;
  args.num_tokens = arrays_.num_tokens;
  args.finished = arrays_.finished;
  args.history = arrays_.histories;
  args.num_rows = call.num_logits;
  args.vocab_size = program_.vocab_size;
  args.logits_stride = logits.stride;
  args.history_stride = static_cast<int>(arrays_.history_stride);
  args.num_top = num_top;
  args.num_named = call.shape.num_named;
  args.scratch = sample_scratch_.as<float>();
  args.scratch_stride = sample_scratch_stride_;
  args.best = call.num_best > 0 ? best_ids_.as<std::uint64_t>() : nullptr;
  args.num_best = call.num_best;
  args.flags = call.flags;
  return args;
}

}  // namespace vt
