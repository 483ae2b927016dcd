// Runs steps of one program, one after another, on a pool of threads: applies a step's row changes,
// builds its batch, runs the ops with a barrier after each, and collects the output. Knows nothing
// of queues or JavaScript.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "communicator.h"
#include "finish_step.h"
#include "ops.h"
#include "pages.h"

namespace vt {

struct ExecutorOptions {
  int block_size, num_blocks, max_num_seqs, max_model_len, num_threads;
};

struct MemoryUse {
  std::size_t weights, kv_cache, activations, row_table, scratch;
};

class Executor {
 public:
  /// The parts' bytes are copied. `ranks` is null where one rank runs the whole model; else its
  /// memory holds the program's arena. Throws KernelError.
  Executor(const KernelTable& kernels, Program program,
           const std::vector<std::vector<WeightPart>>& parts, const ExecutorOptions& options,
           std::unique_ptr<Communicator> ranks);

  /// Runs output.step. Throws KernelError.
  void execute(const StepView& step, std::int64_t num_tokens, StepOutput& output);
  /// Other ranks need not wait for this one any more. Any thread.
  void leave(const std::string& why);

  /// Op that runs now; read from any thread.
  int op_index() const { return op_index_.load(std::memory_order_relaxed); }
  /// What this rank has shown each other rank. Any thread.
  std::int64_t shown_bytes() const { return state_.shown_bytes.load(std::memory_order_relaxed); }
  MemoryUse memory() const;
  /// For tests, between steps: the program's buffers, [rows][columns].
  float* buffer(int index) const;
  std::int64_t buffer_columns(int index) const { return program_.buffers[index].columns; }
  std::int64_t buffer_rows(int index) const;

 private:
  void bind(const OpRecord& record);
  void reserve_scratch();
  void run_ops(int thread);
  bool run_range(std::size_t begin, std::size_t end, const OpCall& call);
  bool meet_ranks(int thread, int op_index, const char* where);
  void throw_if_ranks_failed();

  const KernelTable& kernels_;
  const Program program_;
  const ExecutorOptions options_;
  ThreadPool pool_;
  Weights weights_;
  KvCache kv_;
  const std::unique_ptr<Communicator> ranks_;
  Pages arena_;
  const RowTableSizes row_sizes_;
  Pages histories_, block_tables_;
  RowTable rows_;
  BatchBuilder builder_;
  std::vector<BoundOp> ops_;
  /// The ops from this one on work on rows of logits, as many at a time as the buffers hold.
  std::size_t first_logit_op_;
  bool has_attention_ = false;
  AttentionShape attention_shape_{};
  StepState state_;
  /// What threads and attention may use at most; reserved, so that no step grows it.
  std::size_t scratch_bytes_ = 0;
  std::atomic<int> op_index_{0};
};

}  // namespace vt
