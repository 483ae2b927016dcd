// The C ABI of the CUDA backend in libvt_cuda.so: a program with its weights once, then steps. The
// addon (kernels/addon/cuda_backend.cc) is its one caller. Plain C, no CUDA headers; nothing here
// throws: a call returns -1, or null, with the reason in vt_cuda_error().
#ifndef VT_CUDA_BACKEND_H_
#define VT_CUDA_BACKEND_H_

#include <stdint.h>

#include "vt_cuda_collective.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct VtCudaBackend VtCudaBackend;

typedef struct {
  char name[64];
  int32_t compute_major, compute_minor;
  int32_t driver_version; /* as cudaDriverGetVersion says: 13000 */
  uint64_t total_bytes;
} VtCudaDevice;
/** Device 0 of those visible; -1 where there is no driver, one too old, no device, or one that this
 * library has no code for. The message is one line for a user. */
VT_CUDA_API int vt_cuda_device(VtCudaDevice* device);

/** Rows of one checkpoint tensor, or a range of their columns, little-endian, usually a view of a
 * mapped file, any alignment. Columns that the weight has beyond them are zeros. */
typedef struct {
  int32_t dtype; /* index in `dtypes` of kernels/program.ts */
  int64_t num_rows, num_columns;
  int64_t row_bytes; /* from the begin of a row to that of the next */
  const void* data; /* null with dummy_seed: made up as this rectangle of a tensor */
  uint64_t num_bytes;
  uint32_t tensor; /* a hash of its name; the rest without data alone */
  int64_t first_row, first_column;
  int64_t tensor_rows, tensor_columns;
} VtCudaWeightPart;

/** The ranks that run one program, each on its own device: the local_rank-th of those visible on
 * its host. On one host they meet at sockets beside `path`, which is the same for all; on several at
 * `addresses`, where each shows the others what they expect. */
typedef struct {
  int32_t rank, num_ranks;
  int32_t local_rank, num_local_ranks;
  int32_t timeout_ms; /* of a wait of the device for another rank */
  const char* path;
  const char* collectives;      /* who carries them: "auto", "peer", "nccl", "shared" */
  const char* const* addresses; /* [num_ranks] host:port; null: all are on one host */
  const void* shown_tokens;     /* [num_ranks][2][32]: for each other rank, data and news */
  const void* expected_tokens;
} VtCudaRanks;

/** A load: flat numbers of flattenProgram in kernels/program.ts, weights, and sizes. Everything it
 * points to must live until vt_cuda_backend_load returns. */
typedef struct {
  const int32_t* ops;
  const double* attrs;
  const double* buffers;
  const double* weights;
  const double* kv_groups;
  uint64_t num_op_words, num_attrs, num_buffer_words, num_weight_words, num_kv_group_words;
  double vocab_size, arena_bytes, max_num_tokens, max_num_logits;
  const VtCudaWeightPart* parts; /* of all weights, in order */
  const int32_t* num_parts;      /* [number of weights]; 0 with dummy_seed: any numbers */
  int64_t dummy_seed;            /* -1: weights are `parts`; else made on the device */
  int32_t block_size, max_num_seqs, max_model_len, async_depth;
  int32_t max_logprobs; /* room for so many alternatives; at most VT_CUDA_MAX_LOGPROBS */
  int32_t fast_math, debug_sync;
  int32_t eager; /* no graphs: every step is queued op by op */
  int32_t fit_model_len; /* a cache that holds less than one row of max_model_len will do */
  /* KV cache: bytes if > 0, else what memory_utilization of the whole card leaves. Never more than
   * max_num_seqs rows of max_model_len can fill. */
  int64_t kv_cache_memory_bytes;
  double memory_utilization;
  /* VLLM_TS_CUDA_LIBS: folders with cuBLASLt and NCCL, ':' between; may be "" */
  const char* library_path;
  const VtCudaRanks* ranks; /* null: this process runs the whole model, on device 0 */
} VtCudaLoad;

#define VT_CUDA_MAX_OWNERS 16
typedef struct {
  int32_t num_blocks; /* with the null block */
  int32_t num_owners;
  struct {
    char owner[32];
    uint64_t bytes;
  } memory[VT_CUDA_MAX_OWNERS]; /* planned and measured, see docs/kernels.md */
  char device[96];              /* for the ready line: "cuda (NVIDIA H100 80GB HBM3)" */
  char notes[512];              /* lines for the log, '\n' between: which GEMM serves, and why */
} VtCudaLoaded;

VT_CUDA_API VtCudaBackend* vt_cuda_backend_load(const VtCudaLoad* load, VtCudaLoaded* loaded);

/** Queues a step and returns. `body` and `table` as in kernels/backend.ts; both are copied. Not
 * called by two threads at once. */
VT_CUDA_API int vt_cuda_backend_submit(VtCudaBackend* backend, double step, int64_t num_tokens,
                                       const void* body, uint64_t body_bytes, const int32_t* table,
                                       uint64_t table_words);

/** A step's output; pointers are valid until the next call of vt_cuda_backend_wait. */
typedef struct {
  double step;
  uint32_t hash;
  double start_us, end_us;   /* when the device began and ended it, on the host's steady clock */
  double device_idle_us;     /* between the last kernel of the step before and this one's first */
  const void* body;          /* StepOutput's body frame */
  uint64_t body_bytes;
  const int32_t* table;      /* byte offset, element count of each of stepOutputColumns */
} VtCudaStepOutput;

/** Waits for the oldest step in flight, or for one to be submitted. 0: *output; 1: the backend is
 * being closed; -1: the backend failed (reported once, with *step, the op's name where known, and
 * the rank that is to blame, or -1). */
VT_CUDA_API int vt_cuda_backend_wait(VtCudaBackend* backend, VtCudaStepOutput* output,
                                     double* step, const char** op, int32_t* rank);

/** Where the device is; any thread, never waits. */
VT_CUDA_API void vt_cuda_backend_position(VtCudaBackend* backend, double* step, int32_t* op_index);

/** Makes vt_cuda_backend_wait return 1; any thread. */
VT_CUDA_API void vt_cuda_backend_stop(VtCudaBackend* backend);
/** Frees everything, after vt_cuda_backend_wait returned 1 or -1. */
VT_CUDA_API void vt_cuda_backend_close(VtCudaBackend* backend);

/** For tests, between steps: copies buffer `index` of the program to or from `data`. */
VT_CUDA_API int vt_cuda_backend_buffer(VtCudaBackend* backend, int32_t index, void* data,
                                       uint64_t num_bytes, int32_t write);

#ifdef __cplusplus
}
#endif

#endif  // VT_CUDA_BACKEND_H_
