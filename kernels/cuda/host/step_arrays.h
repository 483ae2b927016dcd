// What host and device share of a step: rings of inputs and results in pinned memory that both
// address, the row table's copy on the device, and the arrays that the ops of a step read. Plain
// structs; the kernels get them by value, so that a graph's parameters never change.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../../step.h"
#include "../vt_cuda_sample.h"

namespace vt {

static_assert(kMaxLogprobIds == VT_CUDA_MAX_LOGPROB_IDS, "step.h and vt_cuda_sample.h differ");

/// Stop ids that the device keeps of a row; those of a row with more are read where the host put
/// them.
constexpr int kStopIdsOnDevice = 8;

/// Why a row takes no further part, on the device.
enum RowEnd : std::int32_t { kNotFinished = 0, kFinished = 1, kUnfitLogits = 2 };

// ---- of a step, from the host

struct alignas(64) StepHeader {
  std::int32_t num_rows, num_tokens, num_logit_rows, num_new_rows, num_judged;
  /// The longest list of best ids that a row of it asked for, -1 = no row asked for logprobs; the
  /// longest list of ids that one names.
  std::int16_t num_top, num_named;
  /// Of the step's first collective: all before it are counted.
  std::uint64_t first_epoch;
};
static_assert(offsetof(StepHeader, first_epoch) == 24, "read as two words of 16 bytes");

/// A scheduled row that has work.
struct alignas(16) RowEntry {
  std::int32_t row;
  /// Position of its first token, how many, and the place of the first in the step's tokens.
  std::int32_t start, count, token_begin;
  /// Block table entries from here to the step's last block are new to the device.
  std::int32_t copy_from;
  /// The row of logits that makes its next token, or -1.
  std::int32_t logit_row;
  /// Filled in this step: what the device knows of the row is another's.
  std::int32_t is_new;
  std::int32_t unused;
};

/// A row of logits that judges a prompt token.
struct alignas(16) JudgedEntry {
  std::int32_t row;
  /// Token of the step whose logits these are.
  std::int32_t token;
  std::int32_t judged_id;
  /// Place among the step's RowEntries, and among its rows of logits.
  std::int32_t batch_row, logit_row;
  std::int32_t unused[3];
};
static_assert(sizeof(RowEntry) == 32 && sizeof(JudgedEntry) == 32, "read as two words of 16 bytes");

/// What a row starts with on the device, by row.
struct alignas(16) RowSetup {
  VtCudaRowParams params;
  std::int32_t stop_ids[kStopIdsOnDevice];
  std::int32_t num_tokens, last_token;
  std::int32_t unused[2];
};
static_assert(sizeof(VtCudaRowParams) == 128 && sizeof(RowSetup) == 176, "copied word by word");

// ---- of a step, to the host

struct alignas(64) ResultHeader {
  /// Index of the step plus one; written last, with system-scope release.
  std::uint64_t done;
  /// %globaltimer when its first and its last kernel ran.
  std::uint64_t start_ns, end_ns;
};

/// Where the columns of a slot lie, in bytes from its begin. Slots follow each other.
struct SlotLayout {
  // inputs
  std::int64_t row_entries, new_rows, judged_entries, input_bytes;
  // results
  std::int64_t token_ids, row_flags, logprobs, ranks, top_ids, top_logprobs, named_logprobs,
      result_bytes;
  int num_slots;
};

struct StepCounts {
  std::int32_t num_rows, num_logit_rows, num_judged, num_top, num_named;
};

struct StepArrays {
  SlotLayout layout;
  /// Mapped rings: [num_slots][input_bytes], [num_slots][result_bytes].
  const char* inputs;
  char* results;

  // The row table. Mapped: setups, histories, host_block_tables.
  const RowSetup* setups;
  std::int32_t* histories;
  const std::int32_t* host_block_tables;
  std::int32_t* block_tables;
  VtCudaRowParams* params;
  std::int32_t* stop_ids; ///< [rows][kStopIdsOnDevice]
  std::int32_t* num_tokens;
  std::int32_t* finished; ///< RowEnd
  std::int32_t* last_token;
  std::int64_t history_stride, block_stride;
  int block_size, max_model_len;

  // By token of the step.
  std::int32_t *token_ids, *positions, *slots;
  // By batch row; query_start has one more. unfit: a judged row of logits was.
  std::int32_t *query_start, *seq_lens, *row_of, *logit_of, *unfit;
  // By row of logits: what sample reads, and what it found.
  std::int32_t *logit_index, *logit_row, *judged_ids, *batch_of;
  std::int32_t* sampled_ids;
  std::uint8_t* sampled_flags;
  float* logprobs;
  std::int32_t* ranks;
  std::int32_t* top_ids;
  float* top_logprobs;
  float* named_logprobs;  ///< by row of the row table

  /// Steps that were finished on the device: the slot of the next one.
  std::uint64_t* step_index;
  std::uint64_t* start_ns;
  std::uint64_t* first_epoch;
  StepCounts* counts;  ///< of the step at hand
};

/// The first kernel of a step: applies its row changes and builds its arrays, with padding up to
/// the sizes given (of a graph; else those of the step). `max_count`: most tokens of a row.
struct StepPadding {
  std::int32_t num_rows, num_tokens, num_logit_rows;
};
/// What the first kernel does besides, where inputs_are_one_block: attention's work lists of all
/// rows, unless num_seqs is 0; embedding and ropeCosSin of a step of one token, unless num_rows is 0.
struct FirstOps {
  VtCudaPlanAttention plan;
  VtCudaGather embedding;
  VtCudaRopeCosSin angles;
};
void launch_build_inputs(const StepArrays& arrays, const StepPadding& padding, int max_count,
                         const FirstOps& first, int flags, void* stream);
/// Whether it is one block, which can do more than build arrays.
bool inputs_are_one_block(const StepPadding& padding, int max_count);

/// How far apart sample put the lists of two rows. `top` -1: it was not asked for logprobs.
struct LogprobStrides {
  int top = -1, named = 0;
};
/// Logprobs of the step's rows of logits to its result slot, where many have them.
void launch_copy_logprobs(const StepArrays& arrays, int num_logit_rows,
                          const LogprobStrides& strides, int flags, void* stream);
/// The last kernel: appends sampled ids, ends rows, copies logprobs unless `strides` has none, and
/// publishes the results. With VT_CUDA_EARLY_READS all but what was sampled is read at once.
void launch_finish_step(const StepArrays& arrays, const LogprobStrides& strides, int flags,
                        void* stream);

/// sample and launch_finish_step of a step of one row that has a row of logits, no prompt's, where
/// sample_can_finish.
void launch_sample_and_finish(const VtCudaSample& args, const StepArrays& arrays,
                              const LogprobStrides& strides, void* stream);
bool sample_can_finish(const VtCudaSample& args);

}  // namespace vt
