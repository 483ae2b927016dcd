// The C ABI of the sampler: how each row samples, and what it answers. As vt_cuda.h: plain C, every
// launcher checks, queues work on `stream`, and returns 0 or -1.
#ifndef VT_CUDA_SAMPLE_H_
#define VT_CUDA_SAMPLE_H_

#include <stdint.h>

#include "vt_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * How a row of the row table samples: the columns of StepInput, one struct a row, in device memory.
 * Lists may lie in device or in mapped host memory. Only a row that has one reads it, at most a few
 * times a step. Ids outside the vocabulary are ignored.
 */
typedef struct {
  uint64_t seed;
  const int32_t* stop_ids;        /* [num_stop_ids]; masked below min_tokens */
  const int32_t* bias_ids;        /* [num_biases], any order, repeats are added in order */
  const float* biases;            /* [num_biases] */
  const int32_t* allowed_ids;     /* [num_allowed_ids], any order; none = all ids */
  const int32_t* bad_word_starts; /* [num_bad_words + 1] where a word's ids begin; end */
  const int32_t* bad_word_ids;
  float temperature; /* below 1e-5: greedy */
  float min_p;       /* 0 = off */
  float top_p;       /* 1 = off */
  int32_t top_k;     /* 0 or less = off */
  float repetition_penalty; /* 1 = off */
  float frequency_penalty, presence_penalty;
  int32_t num_prompt_tokens;
  int32_t min_tokens;
  int32_t max_num_tokens; /* not read by sample: for the kernel that ends rows */
  int32_t num_logprobs;   /* -1 = none */
  int32_t num_logprob_ids; /* 0 = the best ids are the alternatives */
  int32_t num_stop_ids, num_biases, num_allowed_ids, num_bad_words;
  const int32_t* logprob_ids; /* [num_logprob_ids], at most VT_CUDA_MAX_LOGPROB_IDS */
} VtCudaRowParams; /* 128 bytes */

/** Best ids that are listed with a token, and ids that a row may name instead. */
#define VT_CUDA_MAX_LOGPROBS 128
#define VT_CUDA_MAX_LOGPROB_IDS 128
/** In row_of of vt_cuda_sample: nothing is written, others have answered. */
#define VT_CUDA_ROW_ANSWERED (-2)

/**
 * docs/sampling.md: a token for each row of logits, or the logprob of a judged prompt token. One
 * launch, whose shape depends on num_rows and vocab_size only; a row pays only for what
 * its own parameters ask. Appends nothing: history and state are the caller's.
 */
typedef struct {
  int32_t* token_ids; /* [num_rows]: sampled or judged id; -1 where flagged or nothing to do */
  uint8_t* row_flags; /* [num_rows]; bit 0: NaN or infinity in the logits, or no id left */
  /* Of rows that judge, and of those that sample with num_logprobs >= 0, unless flagged; rank 0
   * says that a row has none, and its other values are not written. Unused where num_top < 0. */
  float* logprobs;     /* [num_rows] */
  int32_t* ranks;      /* [num_rows] */
  /* [num_rows][num_top]: as many as the row asked for; all where a prompt token is judged. */
  int32_t* top_ids;
  float* top_logprobs;
  /* Of rows that sample and name ids, in their order; these have no top list. By row of the table.
   */
  float* named_logprobs; /* [][num_named] */
  const float* logits; /* [num_rows][logits_stride]; never changed; 16-byte rows are fastest */
  uint64_t* best; /* [num_rows][num_best], of vt_cuda_linear_for_sample; null: logits are all there */
  /* [num_rows] row of the table; -1 = padding, no work; or VT_CUDA_ROW_ANSWERED */
  const int32_t* row_of;
  const int32_t* judged_ids; /* [num_rows] prompt token to judge, -1 = sample; null = all sample */
  const VtCudaRowParams* params; /* by row of the table, as the next three */
  const int32_t* num_tokens;     /* tokens known before the new one: its position */
  const int32_t* finished;       /* not 0 = as padding; null = none */
  const int32_t* history;        /* [][history_stride], device or mapped; for penalties */
  int32_t num_rows, vocab_size;
  int32_t logits_stride, history_stride; /* elements */
  int32_t num_top; /* 0..VT_CUDA_MAX_LOGPROBS; -1 = no logprobs in this step */
  int32_t num_best;
  int32_t num_named; /* most ids that a row of this step names; 0 = none does */
  int32_t scratch_stride; /* floats, a multiple of 4: at least vt_cuda_sample_scratch_stride */
  float* scratch;         /* [num_rows][scratch_stride], 16-byte aligned; null where that is 0 */
  int32_t flags;
} VtCudaSample;
VT_CUDA_API int vt_cuda_sample(const VtCudaSample* args, void* stream);
/**
 * vt_cuda_linear of logits [m][n], m = num_rows, and then vt_cuda_sample with the same `sample` gives
 * the same answers: rows that need the greatest logit alone (greedy, with nothing else asked) have no
 * logits written, nor have rows without work, but their best ids in `best`. n = vocab_size; or, with
 * vt_cuda_sample_sharded behind it, n = x_columns, and vocab_size here is how many of them are ids of
 * this rank: 0 or more, a multiple of 8. Ids in `best` count from the first column.
 */
VT_CUDA_API int vt_cuda_linear_for_sample(const VtCudaLinear* args, const VtCudaSample* sample,
                                          void* stream);
/**
 * num_best, at most VT_CUDA_MAX_BEST, where that call is built: Hopper, m > 64, f32 logits, nothing
 * added; else 0. Reads what vt_cuda_linear_fuses reads. Whether it is ahead of the two calls apart
 * depends on how many rows need the greatest logit alone.
 */
VT_CUDA_API int vt_cuda_linear_num_best(const VtCudaLinear* args);
#define VT_CUDA_MAX_BEST 256
/** Most rows of such a call. */
#define VT_CUDA_MAX_BEST_ROWS 256
/** Floats of scratch a row of logits; 0 where the kernel keeps it in shared memory. */
VT_CUDA_API int vt_cuda_sample_scratch_stride(int32_t vocab_size);

#ifdef __cplusplus
}
#endif

#endif  // VT_CUDA_SAMPLE_H_
