// The C ABI of collectives: what ranks that run one program on several GPUs of one host exchange.
// As vt_cuda.h: plain C, every launcher checks, queues work on `stream`, and returns 0 or -1.
//
// All ranks launch the same collectives with the same sizes in the same order. Each has an epoch,
// which counts them: *first_epoch of the step plus `ordinal` of the launch. The sum of parts is
// added in rank order in f32, whichever way the parts travel: every rank has the same bits.
#ifndef VT_CUDA_COLLECTIVE_H_
#define VT_CUDA_COLLECTIVE_H_

#include <stdint.h>

#include "vt_cuda_sample.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VT_CUDA_MAX_RANKS 8
#define VT_CUDA_INBOX_OFFSET 256

enum VtCudaGroupState {
  VT_CUDA_GROUP_WELL = 0,
  /** missing_rank did not come. */
  VT_CUDA_GROUP_GAVE_UP = 1,
  /** missing_rank has read other tokens than the others. */
  VT_CUDA_GROUP_DISAGREES = 2,
};

/**
 * Why a rank gave up, in host memory that the device writes; zero while all is well. `state` is
 * written last. `waiting_op`: op index + 1 of a collective that has waited for a while, else 0.
 */
typedef struct {
  uint32_t state; /* VtCudaGroupState */
  int32_t missing_rank;
  int32_t op_index;
  int32_t waiting_op;
  uint64_t epoch;
} VtCudaGroupReport;

/** The ranks as one of them sees them. Pointers to peers' memory are this process's own. */
typedef struct {
  /* vt_cuda_board_bytes each; at first zeros up to VT_CUDA_INBOX_OFFSET, then all bits set */
  void* boards[VT_CUDA_MAX_RANKS];
  const uint64_t* first_epoch;     /* device; constant while the step runs; from 1 on */
  VtCudaGroupReport* report;       /* mapped host memory */
  uint64_t timeout_ns;             /* a rank that is waited for so long is given up */
  int64_t slot_bytes;              /* of a rank's part in an inbox; a multiple of 64 */
  int32_t rank, num_ranks;
  int32_t max_blocks; /* of a grid that waits; the least number of multiprocessors of all ranks */
  int32_t unused;
} VtCudaGroup;

/** Bytes of a rank's board; a multiple of 2 MiB, so that it can be shared by itself. */
VT_CUDA_API uint64_t vt_cuda_board_bytes(int32_t num_ranks, int64_t slot_bytes);

/** How parts travel: `way`. Never changes the result. */
enum VtCudaWay {
  VT_CUDA_WAY_BY_SIZE = 0,
  /** Every rank sends its part to all others, and adds all up. */
  VT_CUDA_WAY_ONE_SHOT = 1,
  /** A row has an owner: parts go to it, and its sum to all. Not for fewer rows than ranks. */
  VT_CUDA_WAY_TWO_SHOT = 2,
  /** As one shot, but vt_cuda_linear_send right in front has sent all parts; x is not read. */
  VT_CUDA_WAY_SENT = 3,
};

/**
 * out = round(x of rank 0 + x of rank 1 + ... (+ bias) (+ residual)); with norm_out,
 * norm_out = vt_cuda_rms_norm(out, norm_weight, eps) too, with its bits. residual may be out.
 * Takes as many epochs as vt_cuda_all_reduce_epochs says, one after another.
 */
typedef struct {
  const VtCudaGroup* group; /* copied */
  void* out;                /* [num_rows][columns] dtype */
  const float* x;           /* [num_rows][columns] */
  const void* bias;         /* [columns] dtype, or null */
  const void* residual;     /* [num_rows][columns] dtype, or null */
  void* norm_out;           /* [num_rows][columns] dtype, or null */
  const void* norm_weight;  /* [columns] dtype */
  int32_t num_rows, columns; /* columns: a multiple of 16, at most 16384 */
  int32_t out_stride, x_stride, residual_stride, norm_stride;
  int32_t ordinal;  /* epochs of the step before this one */
  int32_t op_index; /* for the report */
  int32_t way;      /* VtCudaWay */
  int32_t split;    /* blocks of a row; 0: chosen */
  float eps;
  int32_t dtype;
  int32_t flags;
} VtCudaAllReduce;
VT_CUDA_API int vt_cuda_all_reduce(const VtCudaAllReduce* args, void* stream);
VT_CUDA_API int vt_cuda_all_reduce_epochs(const VtCudaGroup* group, int32_t num_rows,
                                          int32_t columns, int32_t way);

/**
 * vt_cuda_linear, whose f32 sums go to all ranks instead of to `out`, which is not written: parts
 * of the collective of that ordinal, which must be the next launch, of way VT_CUDA_WAY_SENT, with m
 * rows of n columns. Only where vt_cuda_linear_sends says 1: then the two have the bits of
 * vt_cuda_linear and a collective by size, and are faster. It reads sizes, dtypes, epilogue, and
 * which of the pointers are null; it follows none of the linear's.
 */
VT_CUDA_API int vt_cuda_linear_send(const VtCudaLinear* args, const VtCudaGroup* group,
                                    int32_t ordinal, void* stream);
VT_CUDA_API int vt_cuda_linear_sends(const VtCudaLinear* args, const VtCudaGroup* group);

/**
 * vt_cuda_sample over ranks that each have some columns of the logits. A row that is greedy, or has
 * a temperature alone, is told by the best id of each rank; one with min-p or top-k by the ids that
 * a rank's own leave; one with top-p alone by the likeliest ids of each rank and the mass of its
 * others. A rank tells at most 2048 / num_ranks. Of rows that this does not decide all logits are
 * gathered, and every rank samples them. Logprobs of the others, and of prompt tokens, come in a
 * second round. Ranks compare the tokens of the step too. Takes as many epochs as
 * vt_cuda_sample_sharded_epochs says.
 *
 * With `carry` a library does what stores to the memory of others would: boards of the group are
 * one in this rank's own memory, and its slots at most slot_bytes long. What it carries is of a
 * size that the host knows, so only what parameters tell counts: rows with a top-k of 1 to
 * VT_CUDA_CARRIED_CANDIDATES are told by candidates, with has_candidates; the threshold of others
 * that have min-p, top-k or top-p is searched for in search_steps rounds, each of one size. No
 * logits are gathered. It takes one epoch.
 */
#define VT_CUDA_SAMPLE_SCRATCH 14
/** Of which a search takes so many. */
#define VT_CUDA_SEARCH_SCRATCH 10
/** Candidates of a rank that are carried. */
#define VT_CUDA_CARRIED_CANDIDATES 64
/** Rounds that find a bound by top-k, or by top-p. */
#define VT_CUDA_SEARCH_STEPS 4
/** Fills the slots of other ranks in the board, each of them slot_bytes long, the first `offset`
 * bytes behind its head, with what they have in their own; queued on the stream, before what is
 * queued next. Not 0: it could not. */
typedef int VtCudaCarry(void* carrier, int64_t offset, int64_t slot_bytes, void* stream);
typedef struct {
  const VtCudaGroup* group;
  /* copied; its logits are all_logits; its `best` is of this rank's part: rows that have best ids have
   * no logits in x */
  const VtCudaSample* sample;
  const float* x;             /* [num_rows][x_columns] of rank r: ids from r * x_columns on */
  float* all_logits;          /* [num_rows][logits_stride]; scratch */
  int32_t* rest;              /* scratch, [VT_CUDA_SAMPLE_SCRATCH][num_rows] */
  const int32_t* tokens;      /* [num_tokens] that the step reads, equal on all ranks */
  VtCudaCarry* carry;         /* or null */
  void* carrier;
  int32_t num_tokens;
  int32_t x_columns, x_stride; /* x_columns: a multiple of 1024 */
  int32_t ordinal, op_index;
  /* with carry: whether rows may be told by candidates; rounds of the longest search of a row: 0, 1
   * (min-p alone), VT_CUDA_SEARCH_STEPS, or twice that (a top-k with a top-p) */
  int32_t has_candidates, search_steps;
  /* without carry: no row has min-p, top-k or top-p but where it is greedy, so that best ids tell all
   * that sample; no logits are gathered */
  int32_t by_best_ids;
} VtCudaSampleSharded;
VT_CUDA_API int vt_cuda_sample_sharded(const VtCudaSampleSharded* args, void* stream);
VT_CUDA_API int vt_cuda_sample_sharded_epochs(const VtCudaGroup* group, int32_t num_rows,
                                              int32_t x_columns);

#ifdef __cplusplus
}
#endif

#endif  // VT_CUDA_COLLECTIVE_H_
