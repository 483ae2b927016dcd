#include "executor.h"

#include <algorithm>
#include <utility>

#include "../check.h"

namespace vt {

namespace {

BatchLimits limits_of(const Program& program, const ExecutorOptions& options) {
  const bool has_kv = !program.kv_groups.empty();
  return {program.max_num_tokens, options.max_model_len, has_kv ? program.kv_groups[0].window : 0,
          has_kv};
}

void check_options(const ExecutorOptions& o) {
  VT_CHECK(o.num_threads >= 1 && o.num_threads <= 1024, "%d threads", o.num_threads);
  VT_CHECK(o.block_size >= 1 && o.block_size <= 65536, "block size %d", o.block_size);
  VT_CHECK(o.num_blocks >= 1, "%d KV blocks", o.num_blocks);
  VT_CHECK(o.max_num_seqs >= 1 && o.max_num_seqs <= 1 << 20, "%d rows", o.max_num_seqs);
  VT_CHECK(o.max_model_len >= 1 && o.max_model_len <= 1 << 26, "%d tokens a row", o.max_model_len);
}

/// Ranks that read different tokens, or elsewhere, know it at the step's first meeting.
std::uint32_t with_inputs(std::uint32_t checksum, const TokenInputs& tokens) {
  for (const std::vector<std::int32_t>* column : {&tokens.ids, &tokens.positions})
    for (const std::int32_t word : *column)
      checksum = (checksum ^ static_cast<std::uint32_t>(word)) * 0x01000193;
  return checksum;
}

const ExecutorOptions& checked(const ExecutorOptions& options) {
  check_options(options);
  return options;
}

}  // namespace

Executor::Executor(const KernelTable& kernels, Program program,
                   const std::vector<std::vector<WeightPart>>& parts,
                   const ExecutorOptions& options, std::unique_ptr<Communicator> ranks)
    : kernels_(kernels),
      program_(std::move(program)),
      options_(checked(options)),
      pool_(options.num_threads),
      weights_(load_weights(program_, parts, kernels.lanes, pool_)),
      ranks_(std::move(ranks)),
      arena_(ranks_ ? 0 : static_cast<std::size_t>(program_.arena_bytes), "activations"),
      row_sizes_{options.max_num_seqs, options.max_model_len, options.block_size,
                 options.num_blocks,   program_.vocab_size,   program_.vocab_size},
      histories_(row_sizes_.token_bytes(), "row table"),
      block_tables_(row_sizes_.block_bytes(), "row table"),
      rows_(row_sizes_, histories_.as<std::int32_t>(), block_tables_.as<std::int32_t>()),
      builder_(rows_, limits_of(program_, options)) {
  if (!program_.kv_groups.empty())
    kv_ = KvCache(program_.kv_groups[0], options.block_size, options.num_blocks);
  for (const OpRecord& record : program_.ops) bind(record);
  first_logit_op_ = ops_.size();
  for (std::size_t i = ops_.size(); i-- > 0 && ops_[i].rows == Symbol::num_logits;)
    first_logit_op_ = i;
  for (std::size_t i = 0; i < first_logit_op_; i++)
    VT_CHECK(ops_[i].rows == Symbol::num_tokens, "program: %s on rows of logits before the rest",
             op_spec(ops_[i].id).name);
  state_.kernels = &kernels_;
  state_.num_threads = options.num_threads;
  state_.pool = &pool_;
  state_.ranks = ranks_.get();
  state_.rows = &rows_;
  state_.kv = &kv_;
  reserve_scratch();
}

void Executor::reserve_scratch() {
  state_.scratch.resize(options_.num_threads);
  const int head_dim = program_.kv_groups.empty() ? 0 : program_.kv_groups[0].head_dim;
  const std::size_t tile = 2 * kernels_.max_attention_rows * head_dim;
  for (ThreadScratch& scratch : state_.scratch) {
    scratch.attention.resize(tile);
    scratch_bytes_ += tile * sizeof(float);
    scratch_bytes_ += vt::reserve_scratch(scratch.sampler, program_.vocab_size);
  }
  if (!has_attention_) return;
  const std::size_t partials = max_partials(attention_shape_, options_.max_model_len) *
                               kernels_.max_attention_rows * (2 + head_dim);
  state_.attention_partials.reserve(partials);
  scratch_bytes_ += partials * sizeof(float);
}

void Executor::bind(const OpRecord& record) {
  const OpSpec& spec = op_spec(record.id);
  BoundOp op{};
  op.id = record.id;
  op.index = static_cast<int>(ops_.size());
  op.run = op_function(record.id);
  std::copy(record.attrs, record.attrs + kMaxOpAttrs, op.attrs);
  for (int i = 0; i < spec.num_args; i++) {
    const int index = record.args[i];
    if (index < 0) continue;
    if (spec.args[i].role == Role::weight) {
      op.args[i].matrix = &weights_.matrices[index];
      op.args[i].data = weights_.vectors[index].data();
      op.args[i].columns = program_.weights[index].columns;
    } else {
      op.args[i].data = buffer(index);
      op.args[i].columns = program_.buffers[index].columns;
    }
  }
  op.rows = program_.buffers[record.args[0]].rows;
  if (record.id == OpId::attention) {
    const AttentionShape shape = {op.attr_int(1), op.attr_int(2), op.attr_int(5),
                                  kernels_.max_attention_rows, options_.num_threads};
    VT_CHECK(!has_attention_ || (shape.num_heads == attention_shape_.num_heads &&
                                 shape.window == attention_shape_.window),
             "attention ops that differ in heads or window are not supported on cpu yet");
    has_attention_ = true;
    attention_shape_ = shape;
  }
  ops_.push_back(op);
}

void Executor::execute(const StepView& step, std::int64_t num_tokens, StepOutput& output) {
  op_index_.store(0, std::memory_order_relaxed);
  state_.step = output.step;
  rows_.apply(step);
  builder_.build(step, num_tokens, state_.batch);
  state_.tokens.build(state_.batch, rows_);
  if (ranks_) state_.checksum = with_inputs(state_.checksum, state_.tokens);
  state_.results.resize(state_.batch.logit_rows.size());
  state_.choices.resize(state_.batch.logit_rows.size());
  if (has_attention_) {
    plan_attention(state_.batch, attention_shape_, state_.attention);
    const std::size_t partial = kernels_.max_attention_rows * (2 + program_.kv_groups[0].head_dim);
    const std::size_t size = state_.attention.num_partials * partial;
    if (state_.attention_partials.size() < size) state_.attention_partials.resize(size);
  }
  if (state_.batch.num_tokens > 0)
    pool_.run([](void* self, int thread) { static_cast<Executor*>(self)->run_ops(thread); }, this);
  throw_if_ranks_failed();
  finish_step(state_, step.i32(StepInputColumn::row), rows_, output);
  state_.checksum = state_.checksum * 31 + output.hash;
}

void Executor::leave(const std::string& why) {
  if (ranks_) ranks_->leave(why);
}

void Executor::throw_if_ranks_failed() {
  if (!ranks_ || !ranks_->failed()) return;
  KernelError error(__FILE__, __LINE__, ranks_->failure().message);
  error.op = op_spec(ops_[op_index()].id).name;
  error.rank = ranks_->failure().rank;
  throw error;
}

void Executor::run_ops(int thread) {
  // What others may still read of the last step is overwritten from here on.
  if (!meet_ranks(thread, 0, "the step's first op")) return;
  if (!run_range(0, first_logit_op_, {state_, thread, 0, 0})) return;
  const int num_logits = static_cast<int>(state_.batch.logit_rows.size());
  const int at_once = std::max(1, program_.max_num_logits);
  for (int begin = 0; begin < num_logits; begin += at_once) {
    const int first = static_cast<int>(first_logit_op_);
    if (begin > 0 && !meet_ranks(thread, first, "the next rows of logits")) return;
    if (!run_range(first_logit_op_, ops_.size(),
                   {state_, thread, begin, std::min(at_once, num_logits - begin)}))
      return;
  }
}

/// Called by every thread. False if the step is lost.
bool Executor::meet_ranks(int thread, int op_index, const char* where) {
  if (!ranks_) return true;
  if (thread == 0) ranks_->meet({state_.step, op_index, where, state_.checksum}, nullptr, 0);
  pool_.barrier();
  return !ranks_->failed();
}

bool Executor::run_range(std::size_t begin, std::size_t end, const OpCall& call) {
  for (std::size_t i = begin; i < end; i++) {
    if (call.thread == 0) {
      op_index_.store(static_cast<int>(i), std::memory_order_relaxed);
      if (ranks_) ranks_->set_position(state_.step, static_cast<int>(i));
    }
    ops_[i].run(call, ops_[i]);
    pool_.barrier();
    if (ranks_ && ranks_->failed()) return false;
  }
  return true;
}

MemoryUse Executor::memory() const {
  return {weights_.bytes(), kv_.bytes(), static_cast<std::size_t>(program_.arena_bytes),
          histories_.bytes() + block_tables_.bytes(), scratch_bytes_};
}

float* Executor::buffer(int index) const {
  char* arena = ranks_ ? ranks_->memory() : arena_.data();
  return reinterpret_cast<float*>(arena + program_.buffers[index].offset);
}

std::int64_t Executor::buffer_rows(int index) const {
  return program_.max_rows(program_.buffers[index]);
}

}  // namespace vt
