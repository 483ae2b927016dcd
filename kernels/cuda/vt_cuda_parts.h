// The C ABI of what follows a collective that a library carried (NCCL): parts of all ranks lie in
// this rank's own memory, and are added or put in order here. As vt_cuda.h: plain C, every launcher
// checks, queues work on `stream`, and returns 0 or -1.
#ifndef VT_CUDA_PARTS_H_
#define VT_CUDA_PARTS_H_

#include <stdint.h>

#include "vt_cuda_collective.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Where a rank is, in host memory that the device writes: a word is epoch << 16 | op index of a
 * collective, 0 before the first. `arrived`: what it was to read is made. `done`: it has ended. */
typedef struct {
  uint64_t arrived, done;
} VtCudaProgress;

/** A word of VtCudaProgress to write: the epoch is *first_epoch + ordinal. Null `word`: none. */
typedef struct {
  uint64_t* word;
  const uint64_t* first_epoch; /* device; constant while the step runs */
  int32_t ordinal, op_index;
} VtCudaMark;

/** Writes the mark when all before it on the stream has ended. */
VT_CUDA_API int vt_cuda_mark(const VtCudaMark* mark, int32_t flags, void* stream);

/**
 * out = round(part 0 + part 1 + ... (+ bias) (+ residual)), added in f32 in that order; with
 * norm_out, norm_out = vt_cuda_rms_norm(out, norm_weight, eps) too: the bits of vt_cuda_all_reduce.
 * Part p lies at parts + p * part_stride, rows back to back; part `own_part`, if that is not -1, at
 * `own`. residual may be out.
 */
typedef struct {
  void* out;               /* [num_rows][columns] dtype */
  const float* parts;      /* [num_parts][num_rows][columns] */
  const float* own;        /* [num_rows][columns] */
  const void* bias;        /* [columns] dtype, or null */
  const void* residual;    /* [num_rows][columns] dtype, or null */
  void* norm_out;          /* [num_rows][columns] dtype, or null */
  const void* norm_weight; /* [columns] dtype */
  VtCudaMark mark;
  int64_t part_stride;
  int32_t num_parts, own_part;
  int32_t num_rows, columns; /* columns: a multiple of 8, at most 16384 */
  int32_t out_stride, residual_stride, norm_stride;
  float eps;
  int32_t dtype;
  int32_t flags;
} VtCudaSumParts;
VT_CUDA_API int vt_cuda_sum_parts(const VtCudaSumParts* args, void* stream);

/** out = the columns of part 0, then those of part 1, ..; those beyond out are dropped. */
typedef struct {
  float* out;         /* [num_rows][out_columns] */
  const float* parts; /* [num_parts][num_rows][columns] */
  VtCudaMark mark;
  int32_t num_parts, num_rows, columns;
  int32_t out_columns, out_stride;
  int32_t flags;
} VtCudaJoinParts;
VT_CUDA_API int vt_cuda_join_parts(const VtCudaJoinParts* args, void* stream);

/**
 * A gather that a library carries: out = the columns of x of rank 0, then those of rank 1, ..;
 * those beyond out are dropped. One epoch.
 */
typedef struct {
  const VtCudaGroup* group;
  float* out;     /* [num_rows][out_columns] */
  const float* x; /* [num_rows][x_columns] */
  int32_t num_rows, out_columns, x_columns;
  int32_t out_stride, x_stride;
  int32_t ordinal, op_index;
  int32_t flags;
} VtCudaAllGather;

#ifdef __cplusplus
}
#endif

#endif  // VT_CUDA_PARTS_H_
