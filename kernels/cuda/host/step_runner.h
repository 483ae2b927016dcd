// Queues steps on the device: takes a step's columns into the row table, writes its slot, and runs
// its kernels, as the graph of a bucket where all rows decode, else op by op. Knows nothing of
// threads, nor when a step is over.
#pragma once

#include <atomic>
#include <cstdint>

#include "executor.h"
#include "graph_choice.h"
#include "graphs.h"
#include "launches.h"
#include "rows.h"
#include "step_buffers.h"
#include "step_report.h"
#include "stream.h"

namespace vt {

class StepRunner {
 public:
  /// `ranks` is null where this one runs the whole model.
  StepRunner(const Program& program, const Weights& weights, const LinearLibrary& linears,
             void* kv_base, RankGroup* ranks, const ExecutorOptions& options, Ledger& ledger);

  /// Runs every kernel on padding, then captures the graphs; how many steps that took.
  std::uint64_t capture(Ledger& ledger);
  /// Queues a step, the `step_index`-th of this backend; its record has `step` set. Steps below
  /// `num_reported` are over. Throws KernelError.
  void run(const StepView& view, std::int64_t num_tokens, std::uint64_t step_index,
           std::uint64_t num_reported, StepRecord& record);

  Rows& rows() { return rows_; }
  const StepBuffers& buffers() const { return buffers_; }
  const Launches& launches() const { return launches_; }
  const Stream& stream() const { return stream_; }
  /// Whether a step may never end by itself: see check_ranks().
  bool needs_watching() const { return ranks_ != nullptr && ranks_->needs_watching(); }
  /// Throws KernelError, with rank, step and op, if the step waited for a rank in vain.
  void check_ranks(const StepRecord& record) const;
  /// The op that runs, where each is waited for, or that waits for other ranks.
  std::int32_t op_index() const;

 private:
  StepArrays describe() const;
  GraphOptions graph_options() const;
  void queue(const StepShape& shape, const StepPadding& padding, int max_count);
  StepShape decode_shape(int num_rows, GraphKind kind) const;
  void warm_up(const StepShape& shape, const StepPadding& padding, std::uint64_t step_index);
  void run_op_by_op(const StepRecord& record);

  const Program& program_;
  const ExecutorOptions options_;
  RankGroup* const ranks_;
  Rows rows_;
  StepBuffers buffers_;
  const StepArrays arrays_;
  const Launches launches_;
  BatchBuilder builder_;
  const GraphChoice choice_;
  Graphs graphs_[kNumGraphKinds];
  /// After all that its kernels use: it is waited for before they go.
  Stream stream_;
  Launches::Watch watch_;
  StepShape shape_;
  /// Of the next collective. All ranks count alike.
  std::uint64_t epoch_ = 1;
  std::atomic<std::int32_t> op_index_{0};
};

}  // namespace vt
