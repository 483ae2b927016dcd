// The C ABI of libvt_cuda.so: what the addon sees of the CUDA kernels. Plain C, no CUDA headers: a
// stream is an opaque pointer, device memory is void*. Op names mirror kernels/ops.ts.
//
// Every launcher checks its shapes, queues work on `stream`, and returns 0, or -1 with the reason
// in vt_cuda_error() (per thread). Nothing here allocates device memory or waits for the device.
#ifndef VT_CUDA_H_
#define VT_CUDA_H_

#include <stdint.h>

#define VT_CUDA_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/** Bumped when a struct below changes. */
#define VT_CUDA_ABI 12

enum VtCudaDtype { VT_CUDA_F32 = 0, VT_CUDA_F16 = 1, VT_CUDA_BF16 = 2 };

/** Bits of `flags`. */
enum {
  /** Launch as programmatic dependent of the kernel before it on the stream. */
  VT_CUDA_DEPENDENT = 1,
  /**
   * What the step starts with was complete before this step's embedding let the next kernel start,
   * so it may be read before the kernel in front has finished. vt_cuda_attention: work lists, block
   * tables and the keys of earlier steps; vt_cuda_sample: all but logits.
   */
  VT_CUDA_EARLY_READS = 2,
  /**
   * vt_cuda_linear of few rows: kernels of one block, as norms and collectives, stand near it, so
   * most shapes keep two of its blocks off one multiprocessor (linear_skinny.cuh).
   */
  VT_CUDA_APART = 4,
};

VT_CUDA_API int vt_cuda_abi(void);
/** Why the last call on this thread returned -1. */
VT_CUDA_API const char* vt_cuda_error(void);

/** Sums of squares for a norm with a late scale (VtCudaLinear): most rows, and floats a row. */
#define VT_CUDA_SQUARES_ROWS 32
#define VT_CUDA_SQUARES 512

/**
 * out[i] = source[index[i] - first_index]; a row of zeros where that is not in [0,
 * num_source_rows). No later kernel starts before all kernels in front of this one have finished.
 */
typedef struct {
  void* out;            /* [num_rows][columns] out_dtype */
  const void* source;   /* [num_source_rows][columns] dtype: the embedding's weight, or x */
  const int32_t* index; /* [num_rows]: token ids, or logit rows */
  int32_t num_rows, columns, num_source_rows; /* columns: a multiple of 8 */
  int32_t out_stride, source_stride, gained_stride; /* elements */
  int32_t first_index;
  int32_t dtype;     /* VT_CUDA_F16 or VT_CUDA_BF16 */
  int32_t out_dtype; /* the same, or VT_CUDA_F32 */
  int32_t flags;
  /* vt_cuda_embedding of bf16 alone: as in VtCudaLinear, with its limits of rows and columns. */
  const void* out_gain; /* [columns], or null */
  void* gained;         /* [num_rows][gained_stride] */
  float* out_squares;   /* [num_rows][VT_CUDA_SQUARES] */
} VtCudaGather;
VT_CUDA_API int vt_cuda_embedding(const VtCudaGather* args, void* stream);
VT_CUDA_API int vt_cuda_gather_logit_rows(const VtCudaGather* args, void* stream);

/** out[t][i] = cos(positions[t] * inv_freq[i]) * factor, out[t][d / 2 + i] = sin(..) * factor. */
typedef struct {
  float* out;               /* [num_tokens][head_dim] */
  const float* inv_freq;    /* [head_dim / 2] */
  const int32_t* positions; /* [num_tokens] */
  int32_t num_tokens, head_dim;
  float factor;
  int32_t flags;
} VtCudaRopeCosSin;
VT_CUDA_API int vt_cuda_rope_cos_sin(const VtCudaRopeCosSin* args, void* stream);
/** vt_cuda_embedding, of the table's dtype, and vt_cuda_rope_cos_sin of as many tokens at once. */
VT_CUDA_API int vt_cuda_embedding_and_angles(const VtCudaGather* args,
                                             const VtCudaRopeCosSin* angles, void* stream);

/**
 * Keys and values that the next vt_cuda_attention will read, fetched into the L2 cache by blocks of
 * their own of a launch that leaves memory idle: never changes a result, and reads nothing that the
 * kernel in front may write. For calls behind the step's embedding (VT_CUDA_EARLY_READS). Piece p is
 * what block p / num_works of decode_work's work p % num_works holds for the layer; all zero: none.
 */
typedef struct {
  const void* kv_cache; /* this and what follows as in that call */
  const int32_t* block_tables;
  const int32_t* decode_work;
  const int32_t* work_counts;
  int32_t num_layers, layer, num_kv_heads, head_dim, block_size, max_num_blocks;
  int32_t num_works; /* how many from the list's first, which has the most keys */
  int32_t first_piece, num_pieces;
} VtCudaKeysAhead;

/**
 * out = x / sqrt(mean(x^2) + eps) * weight, in f32, rounded once; one summation tree a width. With
 * `scales` the scale comes late: a linear multiplies out, and what reads its rows their scales
 * (`row_scale` below).
 */
typedef struct {
  void* out;                 /* [num_rows][columns] dtype; may be x */
  const void* x;             /* [num_rows][columns] dtype */
  const void* weight;        /* [columns] dtype */
  float* scales; /* [num_rows] = 1 / sqrt(mean(x^2) + eps), and out = x * weight; or null */
  int32_t num_rows, columns; /* columns: a multiple of 8, at most 16384 */
  int32_t out_stride, x_stride;
  float eps;
  int32_t dtype;
  int32_t flags;
  VtCudaKeysAhead ahead; /* of few rows alone */
} VtCudaRmsNorm;
VT_CUDA_API int vt_cuda_rms_norm(const VtCudaRmsNorm* args, void* stream);

/** rmsNorm of every query head (q_weight) and every KV head of K (k_weight), in place. */
typedef struct {
  void* qkv;            /* [num_tokens][(num_heads + 2 num_kv_heads) * head_dim] dtype */
  const void* q_weight; /* [head_dim] */
  const void* k_weight; /* [head_dim] */
  int32_t num_tokens, num_heads, num_kv_heads, head_dim; /* head_dim: a multiple of 8, <= 256 */
  int32_t qkv_stride;
  float eps;
  int32_t dtype;
  int32_t flags;
} VtCudaHeadRmsNorm;
VT_CUDA_API int vt_cuda_head_rms_norm(const VtCudaHeadRmsNorm* args, void* stream);

/**
 * Rotates q (in place) and k by cos_sin, then writes k and v to their slot; slot -1 writes nothing
 * there. With q_weight and k_weight, vt_cuda_head_rms_norm of both comes first, with its bits; with
 * row_scale, before all else, round(qkv * row_scale) stands for qkv.
 */
typedef struct {
  void* qkv;            /* [num_tokens][(num_heads + 2 num_kv_heads) * head_dim] dtype */
  const float* cos_sin; /* [num_tokens][head_dim], of vt_cuda_rope_cos_sin */
  const int32_t* slots; /* [num_tokens] block * block_size + offset */
  const float* row_scale; /* [num_tokens], or null */
  void* kv_cache;       /* [block][num_layers][K|V][num_kv_heads][block_size][head_dim] dtype */
  int32_t num_tokens, num_heads, num_kv_heads, head_dim; /* head_dim: a multiple of 16 */
  int32_t num_layers, layer, block_size;
  int32_t qkv_stride;
  const void* q_weight; /* [head_dim], or null */
  const void* k_weight; /* [head_dim], or null: both or neither; head_dim <= 256 */
  float eps;
  int32_t dtype;
  int32_t flags;
  VtCudaKeysAhead ahead;
} VtCudaRopeAndCache;
VT_CUDA_API int vt_cuda_rope_and_cache(const VtCudaRopeAndCache* args, void* stream);

/** out = silu(gate) * up, in f32, rounded once; with row_scale of round(gate_up * row_scale). */
typedef struct {
  void* out;                 /* [num_rows][columns] dtype */
  const void* gate_up;       /* [num_rows][2 columns] dtype */
  const float* row_scale;    /* [num_rows], or null */
  int32_t num_rows, columns; /* columns: a multiple of 8 */
  int32_t out_stride, gate_up_stride;
  int32_t interleave; /* 0: gate, then up; n: they alternate in groups of n, a multiple of 8 */
  int32_t dtype;
  int32_t flags;
  VtCudaKeysAhead ahead;
} VtCudaSiluAndMul;
VT_CUDA_API int vt_cuda_silu_and_mul(const VtCudaSiluAndMul* args, void* stream);

/** What vt_cuda_linear does with its sums: `epilogue`. */
enum VtCudaEpilogue {
  VT_CUDA_PLAIN = 0,
  /**
   * Rows of the weight alternate, 8 of gate, 8 of up: out [m][n / 2] = silu(gate) * up, both
   * rounded to dtype first, as vt_cuda_silu_and_mul with interleave 8 would.
   */
  VT_CUDA_SILU_AND_MUL = 1,
  /**
   * n = (num_heads + 2 num_kv_heads) * head_dim: vt_cuda_rope_and_cache of the rounded sums. Only
   * the q columns of out are written; k and v go to the cache alone.
   */
  VT_CUDA_ROPE_AND_CACHE = 2,
};

/** Which kernel of ours computes m > 64: `large`. All give the same bits. */
enum VtCudaLarge {
  VT_CUDA_LARGE_MMA = 0,       /* mma.sync; no epilogues */
  VT_CUDA_LARGE_WGMMA = 1,     /* wgmma, n a multiple of 8, rows 16-byte aligned; else as MMA */
  VT_CUDA_LARGE_CLUSTER_2 = 2, /* and two blocks share the weight's rows */
};

/**
 * out[m][n] = round(sum_k x[m][k] * weight[n][k] (+ bias[n]) (+ residual[m][n])), the sum in one
 * f32 chain, k ascending by 16, whatever m. Strides in elements; k a multiple of 16, rows 16-byte
 * aligned. A prologue or epilogue never changes bits: each equals its op launched alone. Which are
 * worth it for which sizes vt_cuda_linear_fuses says; vt_cuda_linear refuses what is not built.
 */
typedef struct {
  void* out;            /* [m][n] dtype or f32 */
  const void* x;        /* [m][k] dtype */
  const void* weight;   /* [n][k] dtype */
  const void* bias;     /* [n] dtype, or null */
  const void* residual; /* [m][n] dtype, or null; may be `out`; with no epilogue only */
  /* [m], or null: rounded sums are multiplied by it, and rounded, before the epilogue; not with a
   * prologue, bias, residual or f32 output. */
  const float* row_scale;
  int32_t m, n, k;
  int32_t out_stride, x_stride, weight_stride, residual_stride;
  int32_t dtype;     /* VT_CUDA_F16 or VT_CUDA_BF16 */
  int32_t out_dtype; /* the same, or VT_CUDA_F32 */
  int32_t flags;
  /**
   * 0 = by shape. For tuning only, never changes the result: warps | (8 KiB of weights under way
   * until x is there, 15 = all) << 4 | (runs of 8 rows in a unit) << 8 | (columns of a stage) << 16
   * | (4 KiB of shared memory) << 25, each by shape where 0; the sign: x comes in stages. Above 64
   * rows with VT_CUDA_LARGE_CLUSTER_2: 1 to 5, a form of linear_decode for large weights.
   */
  int32_t tuning;
  /* Prologue: x becomes vt_cuda_rms_norm(x, norm_weight, norm_eps). */
  const void* norm_weight; /* [k] dtype, or null */
  float norm_eps;
  int32_t epilogue; /* VtCudaEpilogue */
  /* VT_CUDA_ROPE_AND_CACHE alone; see VtCudaRopeAndCache. */
  const float* cos_sin;
  const int32_t* slots;
  void* kv_cache;
  int32_t num_layers, layer, block_size;
  int32_t num_heads, num_kv_heads, head_dim;
  int32_t large; /* VtCudaLarge */
  /* A norm with a late scale behind: gained [m][n] = round(out * out_gain) is what the next linear
   * multiplies, out_squares [m][VT_CUDA_SQUARES] its x_squares. All or none; m <=
   * VT_CUDA_SQUARES_ROWS, n <= 8 VT_CUDA_SQUARES, bf16, a residual; no other ends. */
  const void* out_gain; /* [n] dtype, or null */
  void* gained;
  float* out_squares;
  const float* x_squares; /* out_squares of x, or null; in place of row_scale, with norm_eps */
  int32_t gained_stride;
} VtCudaLinear;
VT_CUDA_API int vt_cuda_linear(const VtCudaLinear* args, void* stream);
/**
 * 1 if one launch does all that `args` asks for, and not slower than several, else 0: ask for less,
 * or launch the ops one by one. Reads sizes, dtypes, epilogue, and which of the pointers are null;
 * follows none.
 */
VT_CUDA_API int vt_cuda_linear_fuses(const VtCudaLinear* args);
/** 1 if vt_cuda_linear is ahead of cuBLASLt for m > 64. Reads what vt_cuda_linear_fuses reads. */
VT_CUDA_API int vt_cuda_linear_is_ahead(const VtCudaLinear* args);

/**
 * Which kernel attends where a row has many queries. All give the same bits. MMA is built for every
 * head_dim, the others for some: vt_cuda_prefill_for.
 */
enum VtCudaPrefill {
  VT_CUDA_PREFILL_MMA = 0,     /* mma.sync, 64 rows a work (queries times heads of a KV head) */
  VT_CUDA_PREFILL_OVERLAP = 1, /* wgmma, 128 or 192 rows a work, softmax beside the products */
  VT_CUDA_PREFILL_TURNS = 2,   /* and warpgroups that issue by turns */
};

/**
 * Paged causal attention, after the keys and values of this step are in the cache. Rows with
 * num_queries * (num_heads / num_kv_heads) <= 16 go through decode_work, others through
 * prefill_work; both lists come from vt_cuda_plan_attention, on the device. A row's result does not
 * depend on which, nor on the rest of the batch.
 */
typedef struct {
  void* out;            /* [num_tokens][num_heads * head_dim] dtype */
  const void* qkv;      /* [num_tokens][qkv_stride] dtype, queries first */
  const void* kv_cache; /* [block][num_layers][K|V][num_kv_heads][block_size][head_dim] dtype */
  const int32_t* block_tables; /* [rows][max_num_blocks] */
  const int32_t* decode_work;  /* [][8], 16-byte aligned */
  const int32_t* prefill_work; /* [][8] */
  /* [4]: decode, prefill; dealt out, zero before and after a call; decode by clusters */
  int32_t* work_counts;
  /* Bounds known to the host, and room in the lists; 0 leaves the kernel out. */
  int32_t max_decode_work, max_prefill_work;
  void* scratch;      /* f32 [max_decode_work * num_kv_heads][16][head_dim + 2] */
  uint32_t* counters; /* [rows * num_kv_heads], zero before the first call, zero after each */
  int32_t num_layers, layer;
  int32_t num_heads, num_kv_heads, head_dim; /* head_dim 64, 80, 96, 128 or 256 */
  int32_t block_size;                        /* a power of two from 16 */
  int32_t max_num_blocks;
  int32_t qkv_stride, out_stride; /* elements */
  int32_t window;                 /* 0 = all keys */
  float scale;
  int32_t dtype;   /* VT_CUDA_F16 or VT_CUDA_BF16 */
  int32_t prefill; /* VtCudaPrefill, as the lists were planned for; all but MMA: 16-byte out rows */
  int32_t decode_cluster; /* as the lists were planned for */
  int32_t flags;
} VtCudaAttention;
VT_CUDA_API int vt_cuda_attention(const VtCudaAttention* args, void* stream);
/**
 * What a launch before `next` had best fetch, in a step of `num_rows` rows that all decode, where
 * launches since the attention before have had `num_pieces` pieces; none where that is enough.
 */
VT_CUDA_API VtCudaKeysAhead vt_cuda_keys_ahead(const VtCudaAttention* next, int32_t num_rows,
                                               int32_t num_pieces);

/** Builds the work lists of a step: one launch, shared by all layers of one window. */
typedef struct {
  const int32_t* query_start; /* [num_seqs + 1], prefix sums of the step's tokens a row */
  const int32_t* seq_lens;    /* [num_seqs], context with this step's tokens; 0 = no work */
  const int32_t* row_of;      /* [num_seqs] row of block_tables and counters; null = 0, 1, .. */
  int32_t* decode_work;       /* [max_work][8] */
  int32_t* prefill_work;      /* [max_work][8] */
  int32_t* work_counts;       /* [4] */
  int32_t num_seqs;
  int32_t max_work;
  int32_t num_heads, num_kv_heads;
  int32_t window;
  int32_t prefill_rows; /* vt_cuda_prefill_rows() of the kernel that prefill_work is for */
  int32_t flags;
  /* vt_cuda_decode_cluster() of the calls that use the lists, 1 or less: none */
  int32_t decode_cluster;
} VtCudaPlanAttention;
VT_CUDA_API int vt_cuda_plan_attention(const VtCudaPlanAttention* args, void* stream);
/**
 * Blocks that share a row of decode in a call of `num_rows` rows with room for `max_decode_work`,
 * where the plan finds all rows short; 1: none do. Other numbers are right too, and slower.
 */
VT_CUDA_API int vt_cuda_decode_cluster(int32_t max_decode_work, int32_t num_rows,
                                       int32_t num_kv_heads, int32_t head_dim);
/** `prefill` where it is built for this head_dim and device, else VT_CUDA_PREFILL_MMA. */
VT_CUDA_API int vt_cuda_prefill_for(int32_t prefill, int32_t head_dim);
/** Queries times heads of a KV head that one prefill work has at most. */
VT_CUDA_API int vt_cuda_prefill_rows(int32_t prefill, int32_t head_dim);

#ifdef __cplusplus
}
#endif

#endif  // VT_CUDA_H_
