// A program as launches: its ops bound to device memory once, then queued on a stream for a step's
// sizes, whatever the stream does with them (run, or be captured). Knows nothing of rows or rings.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "../../host/program.h"
#include "attention_room.h"
#include "linear_library.h"
#include "rank_group.h"
#include "row_kinds.h"
#include "step_arrays.h"
#include "weights.h"

namespace vt {

/// Sizes of a step's launches; those of a graph are the largest that it serves.
struct StepShape {
  int num_tokens = 0;
  int num_logit_rows = 0;
  /// Row l of logits is token l: there is nothing to gather.
  bool logits_are_tokens = false;
  /// Most best ids that a row asked for; -1: no row asked for logprobs. Most ids that one names.
  int num_top = -1, num_named = 0;
  /// Where tells_rows(), or may_find_best().
  RowKinds kinds;
  std::vector<AttentionGroup> attention;
};

/// Whether the step's ranks meet in it.
inline bool is_collective(const OpRecord& op) {
  return op.id == OpId::all_reduce || op.id == OpId::all_reduce_residual_norm ||
         op.id == OpId::sample_sharded;
}

class Launches {
 public:
  /// Called with the op's index before its launches, and after them.
  struct Watch {
    std::function<void(int)> before, after;
  };

  /// What `weights`, `linears`, `kv_cache` and `ranks` (null: there is one) refer to must live as
  /// long. With several ranks it meets the others. Throws KernelError.
  Launches(const Program& program, const Weights& weights, const LinearLibrary& linears,
           void* kv_cache, RankGroup* ranks, const RowTableSizes& rows, const StepArrays& arrays,
           Ledger& ledger);

  /// What the step's first kernel may do besides; `decodes`: one token a row.
  FirstOps first_ops(const StepShape& shape, bool decodes) const;
  /// The step's ops but for those in `first`, attention's work lists first. Each kernel is a dependent
  /// of the one before, unless `watch` is given. Throws KernelError with the op's name. Returns whether
  /// the last of them ends the step too.
  bool run(const StepShape& shape, const FirstOps& first, void* stream,
           const Watch* watch = nullptr) const;

  /// `flags` of a launch behind the step's embedding, with VT_CUDA_EARLY_READS where it holds.
  int early(const StepShape& shape, int flags) const {
    const bool holds = early_reads_ && shape.num_tokens > 0 && (flags & VT_CUDA_DEPENDENT) != 0;
    return flags | (holds ? VT_CUDA_EARLY_READS : 0);
  }
  /// Of the collectives of a step of this shape.
  int num_epochs(const StepShape& shape) const;

  bool has_sample() const { return has_sample_; }
  /// Whether ranks tell each other rows that are sampled.
  bool tells_rows() const;
  /// Whether what sampling exchanges depends on the step's rows by the host's choice.
  bool needs_kinds() const;
  /// Whether a launch for so many rows of logits, or as many as are at hand at once, may leave out
  /// those of rows that need one id alone.
  bool may_find_best(int num_rows) const;
  /// Null where the program has no attention.
  const AttentionRoom* attention() const { return attention_.get(); }
  char* buffer(int index) const;
  std::size_t buffer_bytes(int index) const;

 private:
  /// One call: the step, and the rows of logits at hand.
  struct Call {
    const StepShape& shape;
    void* stream;
    int flags;
    int logit_begin = 0, num_logits = 0;
    /// The part of the step's rows that is at hand, where num_rows is not 0.
    int row_begin = 0, num_rows = 0;
    /// Of the step so far.
    int* num_epochs = nullptr;
    /// Fetched for the next attention.
    int* pieces_ahead = nullptr;
    /// sample ends the step.
    bool finishes = false;
    /// Best ids of a row, by the linear of logits in front; 0: all logits are there.
    int num_best = 0;
    /// Of all of the step's rows, where what is read has a late scale.
    const float* row_scale = nullptr;
  };
  struct Operand {
    char* data;
    int stride;
  };

  void bind_attention(const OpRecord& op, const RowTableSizes& rows, Ledger& ledger);
  void run_op(const OpRecord& op, const Call& call) const;

  // fusion.cc
  /// Which ops may be one launch with the next, by what reads their output.
  void find_links();
  bool feeds_next_alone(std::size_t index) const;
  /// Queues the ops from `index` on that one launch does together; how many, 0 if none.
  int run_fused(std::size_t index, std::size_t end, const Call& call) const;
  /// The linear at `index`, with the norm before it, or the op after it, or both.
  bool try_fused_linear(std::size_t index, bool norm, bool epilogue, const Call& call) const;
  /// Makes `after` the linear's epilogue; whether its output lies apart from what it reads.
  bool add_epilogue(const OpRecord& after, VtCudaLinear& args, const Call& call) const;
  /// The linear at `index`, which sends its sums, and the collective of them behind it.
  bool try_sending_linear(std::size_t index, const Call& call) const;

  // head.cc
  /// Whether the op at `index`, not the last, is the linear of logits that the next samples.
  bool makes_logits(std::size_t index) const;
  /// Room for rows' best ids, where the program ends with logits and their sampler.
  void bind_head(Ledger& ledger);
  /// The linear of logits at `index` and the sampler behind it, where rows that need one id alone have
  /// no logits written: 2, else 0.
  int run_head(std::size_t index, const Call& call) const;

  // late_norms.cc
  void find_late_norms(Ledger& ledger);
  bool is_late(std::size_t norm) const;
  template <typename Args>
  void ask_for_squares(const OpRecord& norm, Args& args, const Call& call) const;
  void take_squares(const OpRecord& norm, VtCudaLinear& args) const;
  /// Whether in this step what is in front of the norm gives what the linear behind needs of it.
  bool has_squares(std::size_t norm, const Call& call) const;
  void add_squares(const OpRecord& embedding, VtCudaGather& args, const Call& call) const;
  /// The op at `index`, in front of a late norm, where it is such a linear: 1, else 0.
  int run_squares(std::size_t index, const Call& call) const;
  /// The late norm at `index` with what is behind it; how many ops that were.
  int run_late_norm(std::size_t index, const Call& call) const;

  /// The linear at `index` and the siluAndMul behind it, some of the rows at a time, where what goes
  /// between them has no room for all; how many ops that were, 0 if none.
  int run_by_parts(std::size_t index, const Call& call) const;
  void run_range(std::size_t begin, std::size_t end, const Call& call, const Watch* watch) const;
  int num_rows(const OpRecord& op, const Call& call) const;
  /// Argument `arg` of `op`: a buffer or a weight; data is null where it is missing.
  Operand operand(const OpRecord& op, int arg, const Call& call) const;
  std::int64_t columns(const OpRecord& op, int arg) const;
  int dtype(const OpRecord& op, int arg) const;
  /// Of the weight that made siluAndMul's input.
  int interleave_of(const OpRecord& op) const;

  void embedding(const OpRecord& op, const Call& call) const;
  VtCudaGather embedding_args(const OpRecord& op, const Call& call) const;
  void rope_cos_sin(const OpRecord& op, const Call& call) const;
  VtCudaRopeCosSin angle_args(const OpRecord& op, const Call& call) const;
  /// `scales`: by row, where they come late; or null.
  void rms_norm(const OpRecord& op, const Call& call, float* scales = nullptr) const;
  void linear(const OpRecord& op, const Call& call) const;
  VtCudaLinear linear_args(const OpRecord& op, const Call& call) const;
  void head_rms_norm(const OpRecord& op, const Call& call) const;
  void rope_and_cache(const OpRecord& op, const Call& call) const;
  VtCudaRopeAndCache rope_args(const OpRecord& op, const Call& call) const;
  void attention(const OpRecord& op, const Call& call) const;
  VtCudaAttention attention_args(const OpRecord& op, const AttentionGroup& group,
                                 const Call& call) const;
  void silu_and_mul(const OpRecord& op, const Call& call) const;
  void gather_logit_rows(const OpRecord& op, const Call& call) const;
  void sample(const OpRecord& op, const Call& call) const;
  bool can_finish(const StepShape& shape) const;
  VtCudaSample sample_args(const Operand& logits, const Call& call) const;

  // keys_ahead.cc
  /// Whether linears between two attentions have few weights.
  bool leaves_memory_idle() const;
  /// What the launch of `op` fetches for the attention behind it, besides.
  VtCudaKeysAhead keys_ahead(const OpRecord& op, const Call& call) const;

  // launch_collectives.cc
  void bind_collectives(RankGroup* ranks, Ledger& ledger);
  /// `sent`: by the linear in front.
  void all_reduce(const OpRecord& op, const Call& call, bool sent = false) const;
  void sample_sharded(const OpRecord& op, const Call& call) const;
  void gather_and_sample(const OpRecord& op, const Call& call) const;
  int index_of(const OpRecord& op) const;
  int num_epochs(const OpRecord& op, int num_rows) const;

  const Program& program_;
  const Weights& weights_;
  const LinearLibrary& linears_;
  void* const kv_cache_;
  const StepArrays arrays_;
  DeviceBuffer arena_;
  std::unique_ptr<AttentionRoom> attention_;
  /// The ops from this one on work on rows of logits, as many at a time as the buffers hold.
  std::size_t first_logit_op_;
  bool has_sample_ = false;
  /// VtCudaLarge of our own linears; what cuBLASLt computes stays with it.
  int large_ = 0;
  /// An embedding stands before all attention and sampling.
  bool early_reads_ = false;
  /// Keys and values for attention, by launches before it.
  bool fetches_ahead_ = false;
  /// [ops] the op's output is an input of the next and of no other, or the two work in place.
  std::vector<bool> links_;
  /// [ops] a norm whose scale comes late.
  std::vector<bool> late_;
  /// What goes around late norms: scales of rows, x of the linear behind, its squares.
  DeviceBuffer scales_, gained_, squares_;
  /// gatherLogitRows' out and x, or -1.
  int gathered_ = -1, gather_source_ = -1;
  /// Null, and of num_ranks 1, where there are no others.
  const RankGroup* ranks_ = nullptr;
  VtCudaGroup group_{};
  bool linears_send_ = false;
  /// Of sample, by row of logits, where it asks for any.
  DeviceBuffer sample_scratch_;
  int sample_scratch_stride_ = 0;
  /// Of rows of logits, between their linear and sample.
  DeviceBuffer best_ids_;
  /// Of sampleSharded: logits of all ranks side by side, and what it keeps of rows.
  DeviceBuffer all_logits_, shard_scratch_;
  int logits_stride_ = 0;
};

}  // namespace vt
