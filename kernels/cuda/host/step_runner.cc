#include "step_runner.h"

#include <algorithm>
#include <cstdio>

#include "../../step.h"

namespace vt {

using In = StepInputColumn;

namespace {

BatchLimits limits_of(const Program& program, const ExecutorOptions& options) {
  const bool has_kv = !program.kv_groups.empty();
  return {program.max_num_tokens, options.max_model_len, has_kv ? program.kv_groups[0].window : 0,
          has_kv};
}

RowTableSizes sizes_of(const Program& program, const ExecutorOptions& options) {
  return {options.max_num_seqs, options.max_model_len, options.block_size, 1,
          program.vocab_size,   options.max_logprobs};
}

/// Tokens of the steps that are run before the first one: where classes of m end, each of which has
/// kernels of its own. Those of linear_decode.cu lie between 64 and 256. A longer step may load a
/// kernel.
constexpr int kWarmedUp[] = {8, 16, 32, 64, 96, 128, 144, 160, 192, 208, 224, 256, 512, 1024, 2048};

std::size_t free_bytes() {
  std::size_t free = 0, total = 0;
  VT_CUDA(cudaMemGetInfo(&free, &total));
  return free;
}

}  // namespace

StepRunner::StepRunner(const Program& program, const Weights& weights,
                       const LinearLibrary& linears, void* kv_base, RankGroup* ranks,
                       const ExecutorOptions& options, Ledger& ledger)
    : program_(program),
      options_(options),
      ranks_(ranks),
      rows_(sizes_of(program, options), ledger),
      buffers_(options.max_num_seqs, program.max_num_tokens, options.max_logprobs,
               options.async_depth + 2, ledger),
      arrays_(describe()),
      launches_(program, weights, linears, kv_base, ranks, sizes_of(program, options), arrays_,
                ledger),
      builder_(rows_.table(), limits_of(program, options)),
      choice_(graph_options(), [this](int rows) { return launches_.may_find_best(rows); }) {
  watch_.before = [this](int op) { op_index_.store(op, std::memory_order_relaxed); };
  watch_.after = [this](int) { stream_.synchronize(); };
}

StepArrays StepRunner::describe() const {
  StepArrays arrays{};
  rows_.describe(arrays);
  buffers_.describe(arrays);
  return arrays;
}

GraphOptions StepRunner::graph_options() const {
  GraphOptions options;
  options.max_rows = std::min(options_.max_num_seqs, program_.max_num_tokens);
  options.max_logprobs = options_.max_logprobs;
  options.has_sample = launches_.has_sample();
  options.tells_rows = launches_.tells_rows();
  options.needs_kinds = launches_.needs_kinds();
  options.op_by_op = options_.debug_sync || options_.eager;
  return options;
}

void StepRunner::queue(const StepShape& shape, const StepPadding& padding, int max_count) {
  const bool watched = options_.debug_sync;
  const int flags = watched ? 0 : VT_CUDA_DEPENDENT;
  FirstOps first{};
  if (inputs_are_one_block(padding, max_count))
    first = launches_.first_ops(shape, shape.logits_are_tokens && !watched);
  // After the step before, to its end: this one may overwrite all that it read.
  launch_build_inputs(arrays_, padding, max_count, first, 0, stream_);
  if (watched) stream_.synchronize();
  if (launches_.run(shape, first, stream_, watched ? &watch_ : nullptr)) return;
  LogprobStrides strides{shape.num_top, shape.num_named};
  if (!shape.logits_are_tokens) {
    // Prompts may have logprobs, and one block would take long to copy those.
    if (shape.num_top >= 0 && shape.num_logit_rows > 0)
      launch_copy_logprobs(arrays_, shape.num_logit_rows, strides, flags, stream_);
    strides = {};
  }
  launch_finish_step(arrays_, strides, launches_.early(shape, flags), stream_);
  if (watched) stream_.synchronize();
}

StepShape StepRunner::decode_shape(int num_rows, GraphKind kind) const {
  const GraphSampling sampling = choice_.sampling(kind, num_rows);
  StepShape shape;
  shape.num_tokens = num_rows;
  shape.num_logit_rows = launches_.has_sample() ? num_rows : 0;
  shape.logits_are_tokens = true;
  shape.num_top = sampling.num_top;
  shape.num_named = sampling.num_named;
  shape.kinds = sampling.kinds;
  if (launches_.attention() != nullptr)
    shape.attention.push_back(launches_.attention()->decode_group(num_rows));
  return shape;
}

/// A step of padding: it runs every kernel and touches neither KV cache nor rows.
void StepRunner::warm_up(const StepShape& shape, const StepPadding& padding,
                         std::uint64_t step_index) {
  buffers_.write(step_index, Batch{}, false, rows_, epoch_);
  epoch_ += launches_.num_epochs(shape);
  queue(shape, padding, 1);
  stream_.synchronize();
}

std::uint64_t StepRunner::capture(Ledger& ledger) {
  std::uint64_t step_index = 0;
  // What runs from here on waits for the others, and not for long.
  if (ranks_ != nullptr) ranks_->meet();
  const std::vector<int>& buckets = choice_.buckets();
  const std::size_t before = free_bytes();
  StepShape mixed;
  mixed.num_top = options_.max_logprobs;
  mixed.kinds.has_candidates = true;
  mixed.num_logit_rows = launches_.has_sample() ? 1 : 0;
  if (launches_.attention() != nullptr)
    mixed.attention.push_back(launches_.attention()->empty_group());
  for (const int num_tokens : kWarmedUp) {
    if (num_tokens > program_.max_num_tokens) break;
    mixed.num_tokens = num_tokens;
    warm_up(mixed, {1, num_tokens, 1}, step_index++);
  }
  const auto for_each_kind = [&](int rows, const auto& f) {
    for (int k = 0; k < kNumGraphKinds; k++)
      if (choice_.has(static_cast<GraphKind>(k), rows)) f(static_cast<GraphKind>(k));
  };
  for (const int rows : buckets)
    if ((rows & (rows - 1)) == 0 || rows == buckets.back())
      for_each_kind(rows, [&](GraphKind kind) {
        if (kind == GraphKind::few_logits || kind == GraphKind::all || rows == buckets.back())
          warm_up(decode_shape(rows, kind), {rows, rows, rows}, step_index++);
      });
  const std::size_t loaded = free_bytes();
  ledger.add("modules", before > loaded ? before - loaded : 0);
  if (!choice_.has_graphs()) return step_index;
  for (const int rows : buckets)
    for_each_kind(rows, [&](GraphKind kind) {
      graphs_[static_cast<int>(kind)].capture(rows, stream_, [&] {
        queue(decode_shape(rows, kind), {rows, rows, rows}, 1);
      });
    });
  stream_.synchronize();
  const std::size_t captured = free_bytes();
  ledger.add("graphs", loaded > captured ? loaded - captured : 0);
  return step_index;
}

void StepRunner::run(const StepView& view, std::int64_t num_tokens, std::uint64_t step_index,
                     std::uint64_t num_reported, StepRecord& record) {
  // Until all of it is queued, whatever failed is this step's.
  record.end_epoch = ~std::uint64_t{0};
  rows_.apply(view, step_index, num_reported);
  RowTable& table = rows_.table();
  Batch& batch = record.batch;
  builder_.build(view, num_tokens, batch);
  const Column<std::int32_t> scheduled = view.i32(In::row);
  record.scheduled.assign(scheduled.data, scheduled.data + scheduled.count);
  record.filled.clear();
  for (const std::int32_t row : rows_.new_rows())
    record.filled.push_back({row, table.row(row).num_tokens});
  if (!launches_.has_sample()) batch.logit_rows.clear();
  const SampledRows sampled = sampled_rows(batch, table);
  record.has_logprobs = sampled.has_logprobs;
  record.named_ids.clear();
  for (const LogitRow& row : batch.logit_rows) {
    const std::vector<std::int32_t>& ids = table.row(row.row).params.logprob_ids;
    if (row.num_named > 0) record.named_ids.insert(record.named_ids.end(), ids.begin(), ids.end());
  }
  buffers_.write(step_index, batch, record.has_logprobs, rows_, epoch_);
  for (const LogitRow& row : batch.logit_rows)
    if (!row.is_prompt) table.expect(row.row);
  shape_.attention.clear();
  if (launches_.attention() != nullptr) launches_.attention()->divide(batch.rows, shape_.attention);
  shape_.kinds = sampled.kinds;
  const auto graph = choice_.choose(batch, sampled, static_cast<int>(shape_.attention.size()));
  if (graph) {
    graphs_[static_cast<int>(graph->kind)].launch(graph->bucket, stream_);
  } else {
    run_op_by_op(record);
  }
  epoch_ += launches_.num_epochs(graph ? decode_shape(graph->bucket, graph->kind) : shape_);
  record.end_epoch = epoch_;
}

void StepRunner::check_ranks(const StepRecord& record) const {
  if (ranks_ == nullptr) return;
  const auto failure = ranks_->failure();
  if (!failure || failure->epoch >= record.end_epoch) return;
  const char* op = op_spec(program_.ops[failure->op_index].id).name;
  const int rank = failure->missing_rank;
  const double timeout = ranks_->timeout_ms() / 1000;
  char text[400];
  if (!failure->reason.empty())
    std::snprintf(text, sizeof text, "%s; the last was %s (op %d of step %.0f)",
                  failure->reason.c_str(), op, failure->op_index, record.step);
  else if (rank >= 0)
    std::snprintf(text, sizeof text, "rank %d did not come to %s (op %d of step %.0f) within %g s",
                  rank, op, failure->op_index, record.step, timeout);
  else
    std::snprintf(text, sizeof text,
                  "%s (op %d of step %.0f) did not end within %g s, though all ranks came to it",
                  op, failure->op_index, record.step, timeout);
  KernelError error(__FILE__, __LINE__, text);
  error.op = op;
  error.rank = failure->missing_rank;
  throw error;
}

std::int32_t StepRunner::op_index() const {
  const int waiting = ranks_ == nullptr ? -1 : ranks_->waiting_op();
  return waiting >= 0 ? waiting : op_index_.load(std::memory_order_relaxed);
}

void StepRunner::run_op_by_op(const StepRecord& record) {
  const Batch& batch = record.batch;
  shape_.num_tokens = batch.num_tokens;
  shape_.num_logit_rows = static_cast<int>(batch.logit_rows.size());
  shape_.num_top = record.has_logprobs ? batch.num_top : -1;
  shape_.num_named = batch.num_named;
  int max_count = 0;
  for (const BatchRow& row : batch.rows) max_count = std::max(max_count, row.count);
  queue(shape_, {static_cast<int>(batch.rows.size()), shape_.num_tokens, shape_.num_logit_rows},
        max_count);
}

}  // namespace vt
