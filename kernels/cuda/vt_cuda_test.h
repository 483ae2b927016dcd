// For tests and tuning only: parts of the backend that a program with its weights would reach in
// one go. The addon calls none of it.
#ifndef VT_CUDA_TEST_H_
#define VT_CUDA_TEST_H_

#include "vt_cuda_backend.h"
#include "vt_cuda_parts.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Uploads one weight, [rows][columns] or [rows] (columns 0), from its parts or made up from
 * dummy_seed >= 0, and copies it to `data` as it lies on the device: [rows][*stride] of dtype. `*ms`
 * is the time from the start of the upload to its end. `data` may be null. */
VT_CUDA_API int vt_cuda_test_weight(int32_t dtype, int64_t rows, int64_t columns,
                                    int32_t interleave, const VtCudaWeightPart* parts,
                                    int32_t num_parts, int64_t dummy_seed, void* data,
                                    uint64_t num_bytes, int64_t* stride, double* ms);

/** Asks the system for what these parts are mapped from, as a load does before it has a device. */
VT_CUDA_API void vt_cuda_test_readahead(const VtCudaWeightPart* parts, int32_t num_parts);

/** Reserves `reserved` bytes of addresses, maps `mapped` of them, and counts in *wrong the bytes
 * that are not zero, then those that do not hold what was written. */
VT_CUDA_API int vt_cuda_test_kv_cache(uint64_t reserved, uint64_t mapped, uint64_t* wrong);

/** Blocks that a load of these options would get for a cache of bf16, of a device with this memory
 * in all, free before the load, and free beside all but the cache. */
VT_CUDA_API int vt_cuda_test_kv_blocks(const VtCudaLoad* load, int32_t num_layers,
                                       int32_t num_kv_heads, int32_t head_dim, uint64_t total,
                                       uint64_t free_before, uint64_t free_now,
                                       int32_t* num_blocks);

/** Where cuBLASLt is found, or why it cannot serve; needs no device where it cannot. */
VT_CUDA_API int vt_cuda_test_find_cublaslt(const char* search_path, char* text, uint64_t size);

typedef struct VtCudaTestRanks VtCudaTestRanks;
/** This rank's part of a group as a load makes it, on the current device. Waits for the other ranks.
 * Null with vt_cuda_error(). */
VT_CUDA_API VtCudaTestRanks* vt_cuda_test_ranks(const VtCudaRanks* ranks, const char* library_path,
                                               int32_t fast_math);
/** As vt_cuda_all_reduce and vt_cuda_sample_sharded, by whoever carries; the note says who.
 * all_gather: by NCCL alone. */
VT_CUDA_API int vt_cuda_test_ranks_all_reduce(VtCudaTestRanks* test, const VtCudaAllReduce* args,
                                              void* stream);
VT_CUDA_API int vt_cuda_test_ranks_all_gather(VtCudaTestRanks* test, const VtCudaAllGather* args,
                                              void* stream);
VT_CUDA_API int vt_cuda_test_ranks_sample_sharded(VtCudaTestRanks* test,
                                                  const VtCudaSampleSharded* args, void* stream);
VT_CUDA_API const char* vt_cuda_test_ranks_note(VtCudaTestRanks* test);
VT_CUDA_API const VtCudaGroup* vt_cuda_test_ranks_group(VtCudaTestRanks* test);
/** What *first_epoch of the group holds from here on; waits for the device. */
VT_CUDA_API int vt_cuda_test_ranks_set_epoch(VtCudaTestRanks* test, uint64_t epoch);
VT_CUDA_API int vt_cuda_test_ranks_meet(VtCudaTestRanks* test);
/** 1 if the device gave up a wait, with the rank and the op. */
VT_CUDA_API int vt_cuda_test_ranks_failure(VtCudaTestRanks* test, int32_t* missing_rank,
                                           int32_t* op_index);
VT_CUDA_API void vt_cuda_test_ranks_close(VtCudaTestRanks* test);

typedef struct VtCudaLinearLibrary VtCudaLinearLibrary;
/** The linear library as a load makes it. Null with vt_cuda_error(). */
VT_CUDA_API VtCudaLinearLibrary* vt_cuda_linear_library(const char* search_path, int32_t fast_math);
VT_CUDA_API int vt_cuda_linear_library_prepare(VtCudaLinearLibrary* library,
                                               const VtCudaLinear* shape, int32_t max_m);
/** Takes its place of vt_cuda_linear. */
VT_CUDA_API int vt_cuda_linear_library_run(VtCudaLinearLibrary* library, const VtCudaLinear* args,
                                           void* stream);
VT_CUDA_API int vt_cuda_linear_library_notes(VtCudaLinearLibrary* library, char* text,
                                             uint64_t size);
VT_CUDA_API void vt_cuda_linear_library_close(VtCudaLinearLibrary* library);

/**
 * Times cuBLASLt's algorithms for one linear and one class of m (its largest) against each other
 * and against our own kernel, and writes a row of kernels/cuda/host/gemm_table.inc: the fastest
 * that gives our bits, all zero where that is our own. addend: 0 none, 1 bias, 2 residual.
 */
VT_CUDA_API int vt_cuda_tune_linear(const char* search_path, int32_t n, int32_t k, int32_t dtype,
                                    int32_t out_dtype, int32_t addend, int32_t max_m, char* row,
                                    uint64_t size);

#ifdef __cplusplus
}
#endif

#endif  // VT_CUDA_TEST_H_
