#include "launches.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "launch_error.h"

namespace vt {

namespace {

int cuda_dtype(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return VT_CUDA_F32;
    case Dtype::f16:
      return VT_CUDA_F16;
    case Dtype::bf16:
      return VT_CUDA_BF16;
    default:
      VT_FAIL("%s is no dtype of the cuda kernels", dtype_name(dtype));
  }
}

Symbol rows_of(const Program& program, const OpRecord& op) {
  return program.buffers[op.args[0]].rows;
}

/// By hand, or what measured best: docs/kernels.md.
int chosen_large() {
  constexpr const char* kNames[] = {"mma", "wgmma", "cluster2"};
  const char* wanted = std::getenv("VLLM_TS_CUDA_LARGE");
  if (wanted == nullptr || *wanted == '\0') return VT_CUDA_LARGE_CLUSTER_2;
  for (int i = 0; i < 3; i++)
    if (std::strcmp(wanted, kNames[i]) == 0) return i;
  VT_FAIL("VLLM_TS_CUDA_LARGE is '%s': mma, wgmma or cluster2", wanted);
}

/// What has room for some of a step's rows goes from a linear to the siluAndMul behind it alone.
void check_rows_at_once(const Program& program) {
  const auto is_partial = [&](int buffer) {
    return buffer >= 0 && program.buffers[buffer].rows_at_once > 0;
  };
  for (std::size_t i = 0; i < program.ops.size(); i++) {
    const OpRecord& op = program.ops[i];
    const OpSpec& spec = op_spec(op.id);
    for (int arg = 0; arg < spec.num_args; arg++) {
      if (spec.args[arg].role == Role::weight || !is_partial(op.args[arg])) continue;
      const bool is_made = op.id == OpId::linear && arg == 0 && i + 1 < program.ops.size() &&
                           program.ops[i + 1].id == OpId::silu_and_mul &&
                           program.ops[i + 1].args[1] == op.args[0];
      const bool is_read = op.id == OpId::silu_and_mul && arg == 1 && i > 0 &&
                           program.ops[i - 1].id == OpId::linear &&
                           program.ops[i - 1].args[0] == op.args[1];
      VT_CHECK(is_made || is_read, "program: %s.%s has room for some of a step's rows", spec.name,
               spec.args[arg].name);
    }
  }
}

/// Index of the first of the ops at the end that work on rows of logits.
std::size_t find_first_logit_op(const Program& program) {
  std::size_t first = program.ops.size();
  while (first > 0 && rows_of(program, program.ops[first - 1]) == Symbol::num_logits) first--;
  for (std::size_t i = 0; i < first; i++)
    VT_CHECK(rows_of(program, program.ops[i]) == Symbol::num_tokens,
             "program: %s on rows of logits before the rest", op_spec(program.ops[i].id).name);
  return first;
}

}  // namespace

Launches::Launches(const Program& program, const Weights& weights, const LinearLibrary& linears,
                   void* kv_cache, RankGroup* ranks, const RowTableSizes& rows,
                   const StepArrays& arrays, Ledger& ledger)
    : program_(program),
      weights_(weights),
      linears_(linears),
      kv_cache_(kv_cache),
      arrays_(arrays),
      arena_(static_cast<std::size_t>(program.arena_bytes), "activations", ledger),
      first_logit_op_(find_first_logit_op(program)),
      large_(chosen_large()) {
  check_rows_at_once(program);
  bool has_embedding = false;
  early_reads_ = true;
  for (const OpRecord& op : program.ops) {
    has_embedding |= op.id == OpId::embedding;
    has_sample_ |= op.id == OpId::sample || op.id == OpId::sample_sharded;
    if (op.id == OpId::attention || op.id == OpId::sample) early_reads_ &= has_embedding;
    if (op.id == OpId::attention) bind_attention(op, rows, ledger);
    if (op.id == OpId::gather_logit_rows) {
      gathered_ = op.args[0];
      gather_source_ = op.args[1];
    }
  }
  early_reads_ &= has_embedding;
  find_links();
  find_late_norms(ledger);
  bind_collectives(ranks, ledger);
  fetches_ahead_ = ranks == nullptr && leaves_memory_idle();
  if (!has_sample_) return;
  bind_head(ledger);
  sample_scratch_stride_ = vt_cuda_sample_scratch_stride(program.vocab_size);
  const auto scratch = static_cast<std::size_t>(sample_scratch_stride_) * sizeof(float);
  if (scratch > 0) sample_scratch_ = {program.max_num_logits * scratch, "activations", ledger};
}

void Launches::bind_attention(const OpRecord& op, const RowTableSizes& rows, Ledger& ledger) {
  const AttentionShape shape = {op.attr_int(1), op.attr_int(2), op.attr_int(3), op.attr_int(5)};
  if (attention_ == nullptr) {
    attention_ = std::make_unique<AttentionRoom>(shape, rows, program_.max_num_tokens, ledger);
    return;
  }
  const AttentionShape& first = attention_->shape();
  VT_CHECK(shape.num_heads == first.num_heads && shape.window == first.window,
           "attention ops that differ in heads or window are not supported on cuda yet");
}

char* Launches::buffer(int index) const {
  return arena_.as<char>() + program_.buffers[index].offset;
}

std::size_t Launches::buffer_bytes(int index) const {
  const BufferSpec& buffer = program_.buffers[index];
  return static_cast<std::size_t>(program_.max_rows(buffer)) * buffer.columns *
         dtype_bytes(buffer.dtype);
}

FirstOps Launches::first_ops(const StepShape& shape, bool decodes) const {
  FirstOps first{};
  if (shape.num_tokens == 0 || shape.attention.size() != 1) return first;
  first.plan = attention_->plan_of(shape.attention[0], arrays_);
  const bool has_angles = links_[0] && program_.ops[0].id == OpId::rope_cos_sin;
  if (!decodes || shape.num_tokens > 1 || !has_angles) return first;
  const Call call{shape, nullptr, 0};
  first.angles = angle_args(program_.ops[0], call);
  first.embedding = embedding_args(program_.ops[1], call);
  return first;
}

bool Launches::can_finish(const StepShape& shape) const {
  if (!has_sample_ || !shape.logits_are_tokens || program_.ops.back().id != OpId::sample)
    return false;
  Call call{shape, nullptr, 0};
  call.num_logits = shape.num_logit_rows;
  return sample_can_finish(sample_args({nullptr, 0}, call));
}

bool Launches::run(const StepShape& shape, const FirstOps& first, void* stream,
                   const Watch* watch) const {
  const int flags = watch == nullptr ? VT_CUDA_DEPENDENT : 0;
  if (shape.num_tokens == 0) return false;
  if (first.plan.num_seqs == 0)
    for (const AttentionGroup& group : shape.attention)
      attention_->plan(group, arrays_, flags, stream);
  int num_epochs = 0, pieces_ahead = 0;
  Call call{shape, stream, flags};
  call.num_epochs = &num_epochs;
  call.pieces_ahead = &pieces_ahead;
  call.finishes = watch == nullptr && can_finish(shape);
  run_range(first.embedding.num_rows > 0 ? 2 : 0, first_logit_op_, call, watch);
  const int at_once = std::max(1, program_.max_num_logits);
  for (int begin = 0; begin < shape.num_logit_rows; begin += at_once) {
    call.logit_begin = begin;
    call.num_logits = std::min(at_once, shape.num_logit_rows - begin);
    run_range(first_logit_op_, program_.ops.size(), call, watch);
  }
  return call.finishes;
}

void Launches::run_range(std::size_t begin, std::size_t end, const Call& call,
                         const Watch* watch) const {
  for (std::size_t i = begin; i < end; i++) {
    const OpRecord& op = program_.ops[i];
    try {
      if (watch != nullptr) watch->before(static_cast<int>(i));
      int done = run_fused(i, end, call);
      if (done == 0) done = run_by_parts(i, call);
      if (done == 0) run_op(op, call);
      if (watch != nullptr) watch->after(static_cast<int>(i));
      if (done > 1) i += done - 1;
    } catch (KernelError& error) {
      error.op = op_spec(op.id).name;
      throw;
    }
  }
}

int Launches::run_by_parts(std::size_t index, const Call& call) const {
  const OpRecord& op = program_.ops[index];
  const int at_once = program_.buffers[op.args[0]].rows_at_once, rows = num_rows(op, call);
  if (op.id != OpId::linear || at_once == 0 || rows <= at_once) return 0;
  Call part = call;
  for (int begin = 0; begin < rows; begin += at_once) {
    part.row_begin = begin;
    part.num_rows = std::min(at_once, rows - begin);
    run_op(op, part);
    run_op(program_.ops[index + 1], part);
  }
  return 2;
}

void Launches::run_op(const OpRecord& op, const Call& call) const {
  switch (op.id) {
    case OpId::embedding:
      return embedding(op, call);
    case OpId::rope_cos_sin:
      return rope_cos_sin(op, call);
    case OpId::rms_norm:
      return rms_norm(op, call);
    case OpId::linear:
      return linear(op, call);
    case OpId::head_rms_norm:
      return head_rms_norm(op, call);
    case OpId::rope_and_cache:
      return rope_and_cache(op, call);
    case OpId::attention:
      return attention(op, call);
    case OpId::silu_and_mul:
      return silu_and_mul(op, call);
    case OpId::gather_logit_rows:
      return gather_logit_rows(op, call);
    case OpId::sample:
      return sample(op, call);
    case OpId::all_reduce:
    case OpId::all_reduce_residual_norm:
      return all_reduce(op, call);
    case OpId::sample_sharded:
      return sample_sharded(op, call);
    case OpId::count:
      return;
  }
}

int Launches::num_rows(const OpRecord& op, const Call& call) const {
  if (call.num_rows > 0) return call.num_rows;
  return rows_of(program_, op) == Symbol::num_tokens ? call.shape.num_tokens : call.num_logits;
}

Launches::Operand Launches::operand(const OpRecord& op, int arg, const Call& call) const {
  const int index = op.args[arg];
  if (index < 0) return {nullptr, 0};
  if (op_spec(op.id).args[arg].role == Role::weight)
    return {static_cast<char*>(const_cast<void*>(weights_.data(index))),
            static_cast<int>(weights_.stride(index))};
  const bool ungathered = call.shape.logits_are_tokens && index == gathered_;
  const int from = ungathered ? gather_source_ : index;
  const BufferSpec& spec = program_.buffers[from];
  const int rows = ungathered ? call.logit_begin : spec.rows_at_once > 0 ? 0 : call.row_begin;
  const std::int64_t skipped = rows * spec.columns;
  return {buffer(from) + skipped * dtype_bytes(spec.dtype), static_cast<int>(spec.columns)};
}

std::int64_t Launches::columns(const OpRecord& op, int arg) const {
  return program_.buffers[op.args[arg]].columns;
}

int Launches::interleave_of(const OpRecord& op) const {
  for (const OpRecord* writer = &op; writer-- != program_.ops.data();)
    if (writer->id == OpId::linear && writer->args[0] == op.args[1])
      return program_.weights[writer->args[2]].interleave;
  return 0;
}

int Launches::dtype(const OpRecord& op, int arg) const {
  return cuda_dtype(program_.buffers[op.args[arg]].dtype);
}

}  // namespace vt
