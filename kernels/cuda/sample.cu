// sample: logits to token ids, without sorting.
//
// What it computes: docs/sampling.md, sections 2 and 4 to 6. z = logit / temperature; min-p, top-k
// and top-p each are a threshold on z; the token is the argmax of z plus Gumbel noise over the ids
// at or above it, ties to the lower id. Masses for top-p are integers (units of 2^-40 of the
// largest), so their sums do not depend on an order.
//
// Launch: scan (a block a row and 8,192 ids: largest logit, anything that is no number), threshold
// (a block a row; radix selection, 11 + 11 + 10 bits, only where top-k or top-p ask), draw (as
// scan), finish (a warp a row). Blocks write what they found to scratch and the next kernel folds
// it.
#include "common.cuh"

namespace vt {
namespace {

constexpr int kChunk = 8192;
constexpr int kThreads = 256;
constexpr int kSelectThreads = 1024;
constexpr int kMaxBins = 2048;
constexpr float kGreedyBelow = 1e-5f;

/** The best of a part of a row; `bad`: it holds a NaN or infinity. */
struct Best {
  float value;
  int id;
};

struct RowState {
  float threshold;  // on z
  float z_max;
  int greedy_id;
  int bad;
};

struct Scratch {
  Best* best;     // [num_rows][chunks]
  int* bad;       // [num_rows][chunks]
  RowState* row;  // [num_rows]
};

__host__ __device__ __forceinline__ int num_chunks(int vocab_size) {
  return (vocab_size + kChunk - 1) / kChunk;
}

__device__ __forceinline__ Scratch scratch_of(const VtCudaSample& args) {
  const int64_t parts = static_cast<int64_t>(args.num_rows) * num_chunks(args.vocab_size);
  Scratch scratch;
  scratch.row = static_cast<RowState*>(args.scratch);
  scratch.best = reinterpret_cast<Best*>(scratch.row + args.num_rows);
  scratch.bad = reinterpret_cast<int*>(scratch.best + parts);
  return scratch;
}

__device__ __forceinline__ Best better(Best a, Best b) {
  return b.value > a.value || (b.value == a.value && b.id < a.id) ? b : a;
}

__device__ __forceinline__ Best warp_best(Best best) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    best = better(best, {__shfl_xor_sync(~0u, best.value, d), __shfl_xor_sync(~0u, best.id, d)});
  }
  return best;
}

/** Of the block; valid in thread 0. */
__device__ __forceinline__ Best block_best(Best best) {
  __shared__ Best parts[kThreads / 32];
  best = warp_best(best);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = best;
  __syncthreads();
  for (int w = 1; w < kThreads / 32; w++) best = better(best, parts[w]);
  return best;
}

__device__ __forceinline__ bool is_greedy(const VtCudaSample& args, int row) {
  return args.temperature[row] < kGreedyBelow;
}

constexpr Best kNothing = {-INFINITY, INT32_MAX};

__global__ void __launch_bounds__(kThreads) sample_scan(const __grid_constant__ VtCudaSample args) {
  start_next();
  wait_for_previous();
  const int row = blockIdx.y;
  const float* logits = args.logits + static_cast<int64_t>(row) * args.logits_stride;
  Best best = kNothing;
  bool bad = false;
  const int end = min(args.vocab_size, (static_cast<int>(blockIdx.x) + 1) * kChunk);
  for (int id = blockIdx.x * kChunk + threadIdx.x; id < end; id += kThreads) {
    const float x = logits[id];
    bad |= !(x < INFINITY);  // NaN too
    if (x > best.value) best = {x, id};
  }
  best = block_best(best);
  const int any_bad = __syncthreads_or(bad);
  if (threadIdx.x == 0) {
    const Scratch scratch = scratch_of(args);
    scratch.best[row * gridDim.x + blockIdx.x] = best;
    scratch.bad[row * gridDim.x + blockIdx.x] = any_bad;
  }
}

/** Floats in the order of unsigned numbers. */
__device__ __forceinline__ uint32_t key_of(float z) {
  const uint32_t bits = __float_as_uint(z);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float value_of(uint32_t key) {
  return __uint_as_float(key >> 31 != 0 ? key & 0x7fffffffu : ~key);
}

/** What an id counts in a selection: one, or its mass. */
__device__ __forceinline__ unsigned long long weight_of(float z, float z_max, bool by_mass) {
  if (!by_mass) return 1;
  return static_cast<unsigned long long>(expf(__fsub_rn(z, z_max)) * 1099511627776.0f);
}

struct Row {
  const float* logits;
  int vocab_size;
  float temperature;
  float z_max;
  uint32_t lowest;  // keys below are out
};

__device__ unsigned long long total_weight(const Row& row, bool by_mass) {
  __shared__ unsigned long long total;
  __syncthreads();
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  unsigned long long sum = 0;
  for (int id = threadIdx.x; id < row.vocab_size; id += kSelectThreads) {
    const float z = __fdiv_rn(row.logits[id], row.temperature);
    if (key_of(z) >= row.lowest) sum += weight_of(z, row.z_max, by_mass);
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
  if (threadIdx.x % 32 == 0) atomicAdd(&total, sum);
  __syncthreads();
  return total;
}

/** The greatest key t such that the ids with keys >= t weigh at least `target` (> 0). */
__device__ uint32_t select_key(const Row& row, bool by_mass, unsigned long long target) {
  __shared__ unsigned long long bins[kMaxBins];
  __shared__ uint32_t chosen;
  __shared__ unsigned long long left;
  uint32_t prefix = 0;
  uint32_t mask = 0;
  const int shifts[3] = {21, 10, 0};
  const int widths[3] = {11, 11, 10};
  for (int pass = 0; pass < 3; pass++) {
    const int shift = shifts[pass];
    const int num_bins = 1 << widths[pass];
    __syncthreads();
    for (int b = threadIdx.x; b < kMaxBins; b += kSelectThreads) bins[b] = 0;
    __syncthreads();
    for (int id = threadIdx.x; id < row.vocab_size; id += kSelectThreads) {
      const float z = __fdiv_rn(row.logits[id], row.temperature);
      const uint32_t key = key_of(z);
      if (key < row.lowest || (key & mask) != prefix) continue;
      const unsigned long long weight = weight_of(z, row.z_max, by_mass);
      if (weight > 0) atomicAdd(&bins[key >> shift & (num_bins - 1)], weight);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      // Lane 0 has the highest bins.
      const int each = num_bins / 32;
      const int top = num_bins - 1 - static_cast<int>(threadIdx.x) * each;
      unsigned long long mine = 0;
      for (int b = 0; b < each; b++) mine += bins[top - b];
      unsigned long long through = mine;
#pragma unroll
      for (int d = 1; d < 32; d *= 2) {
        const unsigned long long other = __shfl_up_sync(~0u, through, d);
        if (static_cast<int>(threadIdx.x) >= d) through += other;
      }
      const unsigned reached = __ballot_sync(~0u, through >= target);
      if (reached != 0 && static_cast<int>(threadIdx.x) == __ffs(reached) - 1) {
        unsigned long long above = through - mine;
        int b = top;
        while (above + bins[b] < target) above += bins[b--];
        chosen = b;
        left = target - above;
      }
    }
    __syncthreads();
    prefix |= chosen << shift;
    mask |= static_cast<uint32_t>(num_bins - 1) << shift;
    target = left;
  }
  return prefix;
}

__global__ void __launch_bounds__(kSelectThreads)
    sample_threshold(const __grid_constant__ VtCudaSample args) {
  __shared__ RowState shared_state;
  start_next();
  wait_for_previous();
  const int row = blockIdx.x;
  const Scratch scratch = scratch_of(args);
  const int chunks = num_chunks(args.vocab_size);
  if (threadIdx.x == 0) {
    Best best = kNothing;
    int bad = 0;
    for (int c = 0; c < chunks; c++) {
      best = better(best, scratch.best[row * chunks + c]);
      bad |= scratch.bad[row * chunks + c];
    }
    const bool greedy = is_greedy(args, row);
    shared_state.bad = bad | (best.value == -INFINITY);
    shared_state.greedy_id = best.id;
    shared_state.z_max = greedy ? best.value : __fdiv_rn(best.value, args.temperature[row]);
    const float min_p = args.min_p[row];
    shared_state.threshold =
        greedy || !(min_p > 0.0f) ? -INFINITY : __fadd_rn(shared_state.z_max, logf(min_p));
  }
  __syncthreads();
  RowState state = shared_state;
  const int top_k = args.top_k[row];
  const float top_p = args.top_p[row];
  if (state.bad == 0 && !is_greedy(args, row) && (top_k > 0 || top_p < 1.0f)) {
    Row select = {args.logits + static_cast<int64_t>(row) * args.logits_stride, args.vocab_size,
                  args.temperature[row], state.z_max, 0};
    // Masked ids never count.
    select.lowest = max(key_of(state.threshold), key_of(-INFINITY) + 1);
    if (top_k > 0 && static_cast<unsigned long long>(top_k) < total_weight(select, false)) {
      select.lowest = select_key(select, false, top_k);
    }
    if (top_p < 1.0f) {
      const double mass =
          static_cast<double>(top_p) * static_cast<double>(total_weight(select, true));
      const double target = ceil(mass);
      select.lowest = select_key(select, true, target < 1.0 ? 1 : static_cast<uint64_t>(target));
    }
    state.threshold = value_of(select.lowest);
  }
  if (threadIdx.x == 0) scratch.row[row] = state;
}

/** Philox4x32-10, as Random123 has it. */
__device__ __forceinline__ uint4 philox(uint4 counter, uint2 key) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t high0 = __umulhi(0xD2511F53u, counter.x);
    const uint32_t low0 = 0xD2511F53u * counter.x;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, counter.z);
    const uint32_t low1 = 0xCD9E8D57u * counter.z;
    counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
    key.x += 0x9E3779B9u;
    key.y += 0xBB67AE85u;
  }
  return counter;
}

__device__ __forceinline__ float gumbel(uint32_t word) {
  const float u = __fmul_rn(__fadd_rn(static_cast<float>(word >> 9), 0.5f), 0x1p-23f);
  return -logf(-logf(u));
}

__global__ void __launch_bounds__(kThreads) sample_draw(const __grid_constant__ VtCudaSample args) {
  start_next();
  wait_for_previous();
  const int row = blockIdx.y;
  const Scratch scratch = scratch_of(args);
  const RowState state = scratch.row[row];
  if (state.bad != 0 || is_greedy(args, row)) return;
  const float* logits = args.logits + static_cast<int64_t>(row) * args.logits_stride;
  const float temperature = args.temperature[row];
  const uint2 key = make_uint2(static_cast<uint32_t>(args.seed[row]),
                               static_cast<uint32_t>(args.seed[row] >> 32));
  const uint32_t position = args.position[row];
  Best best = kNothing;
  const int begin = blockIdx.x * kChunk;
  const int end = min(args.vocab_size, begin + kChunk);
  for (int id = begin + threadIdx.x * 4; id < end; id += kThreads * 4) {
    float z[4];
    bool any = false;
#pragma unroll
    for (int e = 0; e < 4; e++) {
      z[e] = id + e < end ? __fdiv_rn(logits[id + e], temperature) : -INFINITY;
      any |= z[e] >= state.threshold && z[e] > -INFINITY;
    }
    if (!any) continue;
    const uint4 noise = philox(make_uint4(position, id / 4, 0, 0), key);
    const uint32_t words[4] = {noise.x, noise.y, noise.z, noise.w};
#pragma unroll
    for (int e = 0; e < 4; e++) {
      if (z[e] >= state.threshold && z[e] > -INFINITY) {
        best = better(best, {__fadd_rn(z[e], gumbel(words[e])), id + e});
      }
    }
  }
  best = block_best(best);
  if (threadIdx.x == 0) scratch.best[row * gridDim.x + blockIdx.x] = best;
}

__global__ void __launch_bounds__(32) sample_finish(const __grid_constant__ VtCudaSample args) {
  start_next();
  wait_for_previous();
  const int row = blockIdx.x;
  const Scratch scratch = scratch_of(args);
  const RowState state = scratch.row[row];
  const int chunks = num_chunks(args.vocab_size);
  Best best = {-INFINITY, INT32_MAX};
  for (int c = threadIdx.x; c < chunks; c += 32) {
    best = better(best, scratch.best[row * chunks + c]);
  }
  best = warp_best(best);
  if (threadIdx.x != 0) return;
  const int id = is_greedy(args, row) ? state.greedy_id : best.id;
  const bool flagged = state.bad != 0 || id == INT32_MAX;
  args.token_ids[row] = flagged ? -1 : id;
  args.row_flags[row] = flagged ? 1 : 0;
}

}  // namespace
}  // namespace vt

extern "C" int64_t vt_cuda_sample_scratch_bytes(int32_t num_rows, int32_t vocab_size) {
  const int64_t parts = static_cast<int64_t>(num_rows) * vt::num_chunks(vocab_size);
  return num_rows * static_cast<int64_t>(sizeof(vt::RowState)) +
         parts * static_cast<int64_t>(sizeof(vt::Best) + sizeof(int));
}

extern "C" int vt_cuda_sample(const VtCudaSample* args, void* stream) {
  using namespace vt;
  const VtCudaSample& a = *args;
  VT_REQUIRE(a.num_rows > 0 && a.num_rows <= 65535 && a.vocab_size > 0,
             "sample: %d rows (at most 65535) of %d ids", a.num_rows, a.vocab_size);
  VT_REQUIRE(a.logits_stride >= a.vocab_size, "sample: logits_stride %d below %d ids",
             a.logits_stride, a.vocab_size);
  const dim3 parts(num_chunks(a.vocab_size), a.num_rows);
  if (launch("sample", sample_scan, parts, dim3(kThreads), 0, a.flags, stream, a) != 0 ||
      launch("sample", sample_threshold, dim3(a.num_rows), dim3(kSelectThreads), 0, a.flags, stream,
             a) != 0 ||
      launch("sample", sample_draw, parts, dim3(kThreads), 0, a.flags, stream, a) != 0) {
    return -1;
  }
  return launch("sample", sample_finish, dim3(a.num_rows), dim3(32), 0, a.flags, stream, a);
}
