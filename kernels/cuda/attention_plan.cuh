// How a step's rows become works of attention: the arithmetic of a row, whichever kernel makes the
// lists. Their order: prefill's that of the rows; decode's from the row with the longest works to
// that with the shortest, of two that are equal the first row first.
#ifndef VT_CUDA_ATTENTION_PLAN_CUH_
#define VT_CUDA_ATTENTION_PLAN_CUH_

#include "attention.cuh"

namespace vt {

/** The blocks of the decode kernel, at most. */
inline int most_decode_blocks() { return 2 * num_multiprocessors(); }

/** Where the first key lies that a row's queries see, a multiple of kTileKeys. */
__device__ __forceinline__ int first_key(const VtCudaPlanAttention& args, int seq_len,
                                         int num_queries) {
  if (args.window <= 0) return 0;
  return max(0, seq_len - num_queries - args.window + 1) / kTileKeys * kTileKeys;
}

/** Whether a row goes through the decode kernel. */
__device__ __forceinline__ bool decodes(int seq_len, int num_queries, int group) {
  return seq_len > 0 && num_queries > 0 && num_queries * group <= 16;
}

/** The keys that a row's decode works read. */
__device__ __forceinline__ int decode_keys(const VtCudaPlanAttention& args, int seq_len,
                                           int num_queries) {
  if (!decodes(seq_len, num_queries, args.num_heads / args.num_kv_heads)) return 0;
  return seq_len - first_key(args, seq_len, num_queries);
}

/**
 * Rows of up to so many keys stay in one work each: no parts, and no merge through memory, which costs
 * more than a multiprocessor that has somewhat more to do than others. `all_keys`: of all rows;
 * `blocks`: of the decode kernel, two a multiprocessor.
 */
__device__ __forceinline__ int most_whole_keys(const VtCudaPlanAttention& args, int all_keys,
                                               int blocks) {
  const int64_t each = static_cast<int64_t>(all_keys) * args.num_kv_heads * 2 / blocks;
  const int64_t most = max(each * 3 / 4, min(each * 5 / 4, int64_t{2 * chunk_end(0)}));
  return static_cast<int>(min(most, int64_t{1} << 30));
}

/** As most_whole_keys: all rows stay whole, as clusters need them. */
constexpr int kAnyKeys = 1 << 30;

/** Whether clusters of so many blocks have a multiprocessor for each block of all rows. */
__host__ __device__ __forceinline__ bool clusters_fit(int num_rows, int num_kv_heads, int cluster,
                                                      int blocks) {
  return int64_t{2} * num_rows * num_kv_heads * cluster <= blocks;
}

/**
 * Whether clusters of the decode kernel, which take all rows of a step or none, may take this one: a
 * block a chunk, all of 256 keys, and a multiprocessor for each block of all rows. `blocks` as above.
 */
__device__ __forceinline__ bool fits_cluster(const VtCudaPlanAttention& args, int blocks,
                                             int seq_len, int num_queries) {
  const int group = args.num_heads / args.num_kv_heads;
  if (args.decode_cluster <= 1) return false;
  if (!clusters_fit(args.num_seqs, args.num_kv_heads, args.decode_cluster, blocks)) return false;
  if (!decodes(seq_len, num_queries, group)) return true;
  const int begin = first_key(args, seq_len, num_queries);
  const int others = (seq_len - 1) / chunk_end(0) - begin / chunk_end(0);
  return seq_len <= 8192 && others < args.decode_cluster &&
         others * num_queries * group <= kPartRows;
}

/** A row's works. */
struct RowPlan {
  int decode_works = 0, prefill_works = 0;
  int key_begin = 0;
  int size = 0; /* of a decode work, in keys */
};

__device__ __forceinline__ RowPlan plan_row(const VtCudaPlanAttention& args, int seq_len,
                                            int num_queries, int most_whole) {
  const int group = args.num_heads / args.num_kv_heads;
  RowPlan plan;
  plan.key_begin = first_key(args, seq_len, num_queries);
  if (decodes(seq_len, num_queries, group)) {
    if (seq_len - plan.key_begin <= most_whole) {
      plan.decode_works = 1;
      plan.size = seq_len - plan.key_begin;
    } else {
      plan.size = min(seq_len - plan.key_begin, chunk_end(0));
      for (int key = plan.key_begin; key < seq_len; key = chunk_end(key)) plan.decode_works++;
    }
  } else if (seq_len > 0 && num_queries > 0) {
    const int tile_queries = args.prefill_rows / group;
    plan.prefill_works = (num_queries + tile_queries - 1) / tile_queries;
  }
  return plan;
}

/** A number by which rows are in decode's order, descending: no two of 1,024 have the same. */
__device__ __forceinline__ int order_key(int size, int place) {
  return min(size, 1 << 20) * 1024 + 1023 - place;
}

/** `work` has the row, its length and its queries; its works begin at these places in the lists. */
__device__ __forceinline__ void put_works(const VtCudaPlanAttention& args, const RowPlan& plan,
                                          AttentionWork work, int decode_at, int prefill_at) {
  AttentionWork* decode = reinterpret_cast<AttentionWork*>(args.decode_work);
  AttentionWork* prefill = reinterpret_cast<AttentionWork*>(args.prefill_work);
  work.first = decode_at;
  work.count = plan.decode_works;
  int key = plan.key_begin;
  for (int i = 0; i < plan.decode_works && decode_at + i < args.max_work; i++) {
    work.key_begin = key;
    work.key_end = plan.decode_works == 1 ? work.seq_len : min(chunk_end(key), work.seq_len);
    key = work.key_end;
    decode[decode_at + i] = work;
  }
  const int tile_queries = args.prefill_rows / (args.num_heads / args.num_kv_heads);
  for (int i = 0; i < plan.prefill_works && prefill_at + i < args.max_work; i++) {
    // The last queries see the most keys: longest first.
    work.first = (plan.prefill_works - 1 - i) * tile_queries;
    prefill[prefill_at + i] = work;
  }
}

__device__ __forceinline__ void put_counts(const VtCudaPlanAttention& args, int num_decode,
                                           int num_prefill, bool by_clusters) {
  args.work_counts[0] = min(num_decode, args.max_work);
  args.work_counts[1] = min(num_prefill, args.max_work);
  args.work_counts[2] = 0;
  args.work_counts[3] = by_clusters;
}

/**
 * The lists of a step of at most 32 rows, by one warp, a row a lane; `seq_len` and `num_queries` are
 * 0 where a lane has none. What vt_cuda_plan_attention would write, without reading what it reads.
 */
__device__ __forceinline__ void plan_by_warp(const VtCudaPlanAttention& args, int blocks, int row,
                                             int query_start, int num_queries, int seq_len) {
  const int lane = threadIdx.x % 32;
  int all_keys = decode_keys(args, seq_len, num_queries);
#pragma unroll
  for (int d = 1; d < 32; d *= 2) all_keys += __shfl_xor_sync(~0u, all_keys, d);
  const bool by_clusters = __all_sync(~0u, fits_cluster(args, blocks, seq_len, num_queries));
  const int most_whole = by_clusters ? kAnyKeys : most_whole_keys(args, all_keys, blocks);
  const RowPlan plan = plan_row(args, seq_len, num_queries, most_whole);
  const int key = order_key(plan.size, lane);
  int decode_at = 0;
  int prefill_at = 0;
  int num_decode = 0;
  int num_prefill = 0;
  for (int other = 0; other < args.num_seqs; other++) {
    const int decode_works = __shfl_sync(~0u, plan.decode_works, other);
    const int prefill_works = __shfl_sync(~0u, plan.prefill_works, other);
    if (__shfl_sync(~0u, key, other) > key) decode_at += decode_works;
    if (other < lane) prefill_at += prefill_works;
    num_decode += decode_works;
    num_prefill += prefill_works;
  }
  if (lane < args.num_seqs) {
    put_works(args, plan, {row, 0, 0, 0, seq_len, query_start, num_queries, 0}, decode_at,
              prefill_at);
  }
  if (lane == 0) put_counts(args, num_decode, num_prefill, by_clusters);
}

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_PLAN_CUH_
