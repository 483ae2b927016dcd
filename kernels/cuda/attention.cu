// attention: checks a call, launches its two kernels, and builds their work lists on the device.
//
// Launch of the plan: one block; a thread a row, prefix sums in between, so that the lists have one
// order whatever the timing (attention_plan.cuh; decode's of 1,024 rows at a time), which is how its
// blocks share them out evenly. A step's first kernel does it where rows are few.
#include "attention_plan.cuh"

namespace vt {

int attention_decode_by_shape(const VtCudaAttention& args, void* stream);
int attention_prefill_by_shape(const VtCudaAttention& args, void* stream);
int attention_wgmma_by_shape(const VtCudaAttention& args, void* stream);
int attention_wgmma_rows(int head_dim);

namespace {

constexpr int kThreads = 1024;

/** Sum of `value` over the threads before this one; `total` of all. */
__device__ int exclusive_sum(int value, int* shared, int& total) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  int sum = value;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const int other = __shfl_up_sync(~0u, sum, d);
    if (lane >= d) sum += other;
  }
  __syncthreads();
  if (lane == 31) shared[warp] = sum;
  __syncthreads();
  int before = 0;
  total = 0;
  for (int w = 0; w < kThreads / 32; w++) {
    if (w < warp) before += shared[w];
    total += shared[w];
  }
  return before + sum - value;
}

/**
 * How many works those threads have that come before this one: of the first `num_threads`, those of
 * a greater size (in keys), and of the same size in front of it. `total` of all.
 */
__device__ int sum_before_by_size(int works, int size, int num_threads, int4* keys, int* ranked,
                                  int* shared, int& total) {
  const int thread = threadIdx.x;
  const int key = order_key(size, thread);
  reinterpret_cast<int*>(keys)[thread] = thread < num_threads ? key : -1;
  __syncthreads();
  int rank = thread;
  if (thread < num_threads) {
    rank = 0;
    for (int i = 0; i < (num_threads + 3) / 4; i++) {
      const int4 others = keys[i];
      rank += (others.x > key) + (others.y > key) + (others.z > key) + (others.w > key);
    }
  }
  ranked[rank] = works;
  __syncthreads();
  const int before = exclusive_sum(ranked[thread], shared, total);
  ranked[thread] = before;
  __syncthreads();
  return ranked[rank];
}

/** `blocks`: of the decode kernel, at most. */
__global__ void __launch_bounds__(kThreads)
    plan_attention(const VtCudaPlanAttention args, int blocks) {
  __shared__ int shared[kThreads / 32];
  __shared__ int4 keys[kThreads / 4];
  __shared__ int ranked[kThreads];
  start_next();
  wait_for_previous();
  int row_keys = 0;
  bool fits = true;
  for (int row = threadIdx.x; row < args.num_seqs; row += kThreads) {
    const int num_queries = args.query_start[row + 1] - args.query_start[row];
    row_keys += decode_keys(args, args.seq_lens[row], num_queries);
    fits &= fits_cluster(args, blocks, args.seq_lens[row], num_queries);
  }
  const bool by_clusters = __syncthreads_or(!fits) == 0;
  int all_keys;
  exclusive_sum(row_keys, shared, all_keys);
  const int most_whole = by_clusters ? kAnyKeys : most_whole_keys(args, all_keys, blocks);
  int decode_base = 0;
  int prefill_base = 0;
  for (int row0 = 0; row0 < args.num_seqs; row0 += kThreads) {
    const int row = row0 + threadIdx.x;
    AttentionWork work = {row, 0, 0, 0, 0, 0, 0, 0};
    RowPlan plan;
    if (row < args.num_seqs) {
      work.query_start = args.query_start[row];
      work.num_queries = args.query_start[row + 1] - work.query_start;
      work.seq_len = args.seq_lens[row];
      if (args.row_of != nullptr) work.row = args.row_of[row];
      plan = plan_row(args, work.seq_len, work.num_queries, most_whole);
    }
    int decode_total;
    int prefill_total;
    const int decode_at =
        decode_base + sum_before_by_size(plan.decode_works, plan.size,
                                         min(kThreads, args.num_seqs - row0), keys, ranked, shared,
                                         decode_total);
    const int prefill_at = prefill_base + exclusive_sum(plan.prefill_works, shared, prefill_total);
    if (row < args.num_seqs) put_works(args, plan, work, decode_at, prefill_at);
    decode_base += decode_total;
    prefill_base += prefill_total;
  }
  if (threadIdx.x == 0) put_counts(args, decode_base, prefill_base, by_clusters);
}

}  // namespace
}  // namespace vt

extern "C" int vt_cuda_prefill_for(int32_t prefill, int32_t head_dim) {
  const bool has_wgmma = vt::target() == vt::Target::sm_90a && (head_dim == 64 || head_dim == 128);
  return has_wgmma ? prefill : VT_CUDA_PREFILL_MMA;
}

extern "C" int vt_cuda_prefill_rows(int32_t prefill, int32_t head_dim) {
  return prefill == VT_CUDA_PREFILL_MMA ? 64 : vt::attention_wgmma_rows(head_dim);
}

extern "C" int vt_cuda_decode_cluster(int32_t max_decode_work, int32_t num_rows,
                                      int32_t num_kv_heads, int32_t head_dim) {
  const int64_t items = int64_t{max_decode_work} * num_kv_heads;
  // A block has both chunks of heads of 64 at once. Beside the small linears of narrow heads, clusters
  // that leave multiprocessors free let blocks of the kernels behind come to lie two to one.
  if (head_dim <= 64 || (head_dim < 128 && items <= vt::num_multiprocessors())) return 1;
  const bool fits = vt::clusters_fit(num_rows, num_kv_heads, 2, vt::most_decode_blocks());
  return fits && vt::target() >= vt::Target::sm_90 ? 2 : 1;
}

extern "C" int vt_cuda_plan_attention(const VtCudaPlanAttention* args, void* stream) {
  using vt::fail;
  const VtCudaPlanAttention& a = *args;
  VT_REQUIRE(a.num_seqs > 0 && a.max_work > 0, "planAttention: num_seqs %d, max_work %d",
             a.num_seqs, a.max_work);
  VT_REQUIRE(
      a.num_kv_heads > 0 && a.num_heads % a.num_kv_heads == 0 && a.num_heads / a.num_kv_heads <= 16,
      "planAttention: %d heads over %d KV heads: at most 16 may share one", a.num_heads,
      a.num_kv_heads);
  VT_REQUIRE(a.prefill_rows >= a.num_heads / a.num_kv_heads, "planAttention: prefill_rows %d",
             a.prefill_rows);
  return vt::launch("planAttention", vt::plan_attention, dim3(1), dim3(vt::kThreads), 0, a.flags,
                    stream, a, vt::most_decode_blocks());
}

extern "C" int vt_cuda_attention(const VtCudaAttention* args, void* stream) {
  using vt::fail;
  const VtCudaAttention& a = *args;
  VT_REQUIRE(a.dtype == VT_CUDA_F16 || a.dtype == VT_CUDA_BF16, "attention: dtype %d", a.dtype);
  VT_REQUIRE(
      a.num_kv_heads > 0 && a.num_heads % a.num_kv_heads == 0 && a.num_heads / a.num_kv_heads <= 16,
      "attention: %d heads over %d KV heads: at most 16 may share one", a.num_heads,
      a.num_kv_heads);
  VT_REQUIRE(a.block_size >= 16 && (a.block_size & (a.block_size - 1)) == 0,
             "attention: block_size %d is not a power of two from 16", a.block_size);
  VT_REQUIRE(a.layer >= 0 && a.layer < a.num_layers, "attention: layer %d of %d", a.layer,
             a.num_layers);
  VT_REQUIRE(a.scale > 0.0f, "attention: scale %g", static_cast<double>(a.scale));
  VT_REQUIRE(vt::aligned16(a.qkv, a.qkv_stride) && vt::aligned16(a.out, a.out_stride) &&
                 vt::aligned16(a.kv_cache, 0) && vt::aligned16(a.scratch, 0) &&
                 vt::aligned16(a.decode_work, 0) && vt::aligned16(a.prefill_work, 0),
             "attention: rows, cache, scratch and works must be 16-byte aligned");
  VT_REQUIRE(a.prefill >= VT_CUDA_PREFILL_MMA && a.prefill <= VT_CUDA_PREFILL_TURNS &&
                 vt_cuda_prefill_for(a.prefill, a.head_dim) == a.prefill,
             "attention: prefill %d of head_dim %d", a.prefill, a.head_dim);
  VT_REQUIRE(a.decode_cluster <= 1 || (a.decode_cluster == 2 && a.head_dim > 64),
             "attention: clusters of %d for head_dim %d", a.decode_cluster, a.head_dim);
  if (a.max_decode_work > 0 && vt::attention_decode_by_shape(a, stream) != 0) return -1;
  if (a.max_prefill_work == 0) return 0;
  return a.prefill == VT_CUDA_PREFILL_MMA ? vt::attention_prefill_by_shape(a, stream)
                                          : vt::attention_wgmma_by_shape(a, stream);
}
