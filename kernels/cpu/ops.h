// The ops as the executor runs them: bound to their buffers and weights once, at load, and then
// called by every thread of a step for that thread's share. Shapes were checked by check_op,
// indices by the batch; nothing here checks or throws.
#pragma once

#include <atomic>
#include <vector>

#include "../host/program.h"
#include "attention_plan.h"
#include "communicator.h"
#include "kernel_table.h"
#include "kv_cache.h"
#include "sampler_shard.h"
#include "token_inputs.h"
#include "weights.h"

namespace vt {

struct BoundArg {
  /// Activation [rows][columns], or a vector weight [columns].
  float* data = nullptr;
  std::int64_t columns = 0;
  const PackedMatrix* matrix = nullptr;
};

/// Memory of one thread's own.
struct ThreadScratch {
  /// Accumulators of one attention tile: running and of a chunk, [max_rows][headDim] each.
  std::vector<float> attention;
  /// [vocab_size] a row that was gathered from ranks; empty where nothing is
  std::vector<float> logits;
  SamplerScratch sampler;
};

/// Everything of the step that the ops share.
struct StepState {
  const KernelTable* kernels;
  int num_threads;
  ThreadPool* pool;
  /// null where one rank runs the whole model
  Communicator* ranks;
  double step = 0;
  /// Of all tokens sampled before this step, and of those that it reads.
  std::uint32_t checksum = 0;
  /// What this rank has shown each other one.
  std::atomic<std::int64_t> shown_bytes{0};
  Batch batch;
  TokenInputs tokens;
  const RowTable* rows;
  const KvCache* kv;
  AttentionPlan attention;
  /// [num_partials][max_rows][2 + headDim]: max and sum, then values, of a tile's chunk.
  std::vector<float> attention_partials;
  /// [logit rows]
  std::vector<LogitResult> results;
  /// [logit rows] of which every rank has some logits: what the ranks agree on.
  std::vector<Choice> choices;
  std::vector<ThreadScratch> scratch;
};

/// One thread's call: the step, who calls, and which of the logit rows are in the buffers now.
struct OpCall {
  StepState& step;
  int thread;
  int logit_begin, num_logits;

  Range share_of(std::int64_t count) const { return share(count, thread, step.num_threads); }
};

struct BoundOp;
using OpFunction = void (*)(const OpCall& call, const BoundOp& op);

struct BoundOp {
  OpId id;
  int index;
  OpFunction run;
  BoundArg args[kMaxOpArgs];
  double attrs[kMaxOpAttrs];
  Symbol rows;

  int attr_int(int i) const { return static_cast<int>(attrs[i]); }
  int num_rows(const OpCall& call) const {
    return rows == Symbol::num_tokens ? call.step.batch.num_tokens : call.num_logits;
  }
};

void run_embedding(const OpCall& call, const BoundOp& op);
void run_rope_cos_sin(const OpCall& call, const BoundOp& op);
void run_rms_norm(const OpCall& call, const BoundOp& op);
void run_linear(const OpCall& call, const BoundOp& op);
void run_head_rms_norm(const OpCall& call, const BoundOp& op);
void run_rope_and_cache(const OpCall& call, const BoundOp& op);
void run_attention(const OpCall& call, const BoundOp& op);
void run_silu_and_mul(const OpCall& call, const BoundOp& op);
void run_gather_logit_rows(const OpCall& call, const BoundOp& op);
void run_sample(const OpCall& call, const BoundOp& op);
void run_all_reduce(const OpCall& call, const BoundOp& op);
void run_all_reduce_residual_norm(const OpCall& call, const BoundOp& op);
void run_sample_sharded(const OpCall& call, const BoundOp& op);

/// Row `index` of the step's logit rows to its result, on the calling thread. `logits`: every id.
void sample_logits(const OpCall& call, std::int64_t index, const float* logits);

OpFunction op_function(OpId id);

}  // namespace vt
