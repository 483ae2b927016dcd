// Rows that need nothing of their logits but the best id: greedy, or a temperature alone. Threads
// take them from global memory into registers, the next while these are looked at; nothing is kept.
#ifndef VT_CUDA_SAMPLE_STREAM_CUH_
#define VT_CUDA_SAMPLE_STREAM_CUH_

#include "sample_draw.cuh"
#include "sample_scan.cuh"

namespace vt {
namespace sample {

/** The draw of a row that has a temperature alone. */
class StreamDraw {
 public:
  /** Shared::best_key must be 0 in the block. */
  __device__ explicit StreamDraw(const Row& row)
      : row_(row),
        last_(row.count / 4 - 1),
        best_key_(&row.shared->best_key),
        seed_(row.shared->params.seed),
        position_(row.shared->num_tokens),
        temperature_(row.shared->params.temperature),
        reach_(row.shared->params.temperature) {}

  /** The best value of this thread's ids, ranked; kUnfit if there was a NaN or an infinity. */
  __device__ __forceinline__ Word run() {
    float all = -INFINITY;
    // What the first ids cannot be above: they are looked at again when more is known.
    float of_first = -INFINITY;
    const int threads = blockDim.x;
    float4 next[kAtOnce];
    if (last_ >= 0) load(threadIdx.x, next);
    // All threads take the same number of steps.
    for (int base = 0; base <= last_; base += kAtOnce * threads) {
      const int i = base + static_cast<int>(threadIdx.x);
      float4 x[kAtOnce];
#pragma unroll
      for (int q = 0; q < kAtOnce; q++) x[q] = next[q];
      if (base + kAtOnce * threads <= last_) load(i + kAtOnce * threads, next);
      bound();
      float most[kAtOnce];
      bool any = false;
#pragma unroll
      for (int q = 0; q < kAtOnce; q++) {
        most[q] = greatest_or_nan(x[q]);
        all = max_or_nan(all, most[q]);
        any |= most[q] >= lowest_;
      }
      if (!__any_sync(~0u, any)) continue;
      uint4 words[kAtOnce];
      noise(i, words);
      if (base == 0) {
        of_first = see_likeliest(x, words, i);
        share();
        continue;
      }
      bool may_win[kAtOnce];
      any = false;
#pragma unroll
      for (int q = 0; q < kAtOnce; q++) {
        may_win[q] = !(reach_.of(most[q], greatest_of(words[q])) < value_);
        any |= may_win[q];
      }
      if (!__any_sync(~0u, any)) continue;
#pragma unroll
      for (int q = 0; q < kAtOnce; q++) {
        if (may_win[q]) see_group(x[q], words[q], id_of(i, q));
      }
      share();
    }
    bound();
    if (__any_sync(~0u, !(of_first < value_))) see_first();
    if (!(all < INFINITY)) return kUnfit;
    if (best_value_ == -INFINITY) return kNone;
    return ranked(best_value_, best_id_);
  }

 private:
  static constexpr int kAtOnce = 2;

  /** Group q of those from i on, or the last where that is beyond it. */
  __device__ __forceinline__ int group_of(int i, int q) const {
    return min(i + q * static_cast<int>(blockDim.x), last_);
  }
  __device__ __forceinline__ int id_of(int i, int q) const {
    return row_.begin + 4 * group_of(i, q);
  }

  __device__ __forceinline__ void load(int i, float4 (&x)[kAtOnce]) const {
    const float4* groups = reinterpret_cast<const float4*>(row_.logits + row_.begin);
#pragma unroll
    for (int q = 0; q < kAtOnce; q++) x[q] = __ldcg(groups + group_of(i, q));
  }

  __device__ __forceinline__ void noise(int i, uint4 (&words)[kAtOnce]) const {
#pragma unroll
    for (int q = 0; q < kAtOnce; q++) words[q] = make_uint4(position_, id_of(i, q) / 4, 0, 0);
#pragma unroll
    for (int round = 0; round < 10; round++) {
#pragma unroll
      for (int q = 0; q < kAtOnce; q++) {
        words[q] = philox_round(words[q], philox_key(seed_, round));
      }
    }
  }

  __device__ __forceinline__ static uint32_t greatest_of(const uint4& words) {
    return max(max(words.x, words.y), max(words.z, words.w));
  }
  __device__ __forceinline__ static float of(const float4& x, int e) {
    return e < 2 ? (e == 0 ? x.x : x.y) : (e == 2 ? x.z : x.w);
  }
  __device__ __forceinline__ static uint32_t of(const uint4& x, int e) {
    return e < 2 ? (e == 0 ? x.x : x.y) : (e == 2 ? x.z : x.w);
  }

  __device__ __forceinline__ void see(float logit, uint32_t word, int id) {
    const float z = __fdiv_rn(logit, temperature_);
    if (z == -INFINITY) return;
    const float value = __fadd_rn(z, gumbel(word));
    if (value > best_value_ || (value == best_value_ && id < best_id_)) {
      best_value_ = value;
      best_id_ = id;
    }
  }

  __device__ __forceinline__ void see_group(const float4& x, const uint4& words, int id) {
#pragma unroll 1
    for (int e = 0; e < 4; e++) {
      if (!(reach_.of(of(x, e), of(words, e)) < value_)) see(of(x, e), of(words, e), id + e);
    }
  }

  /** The likeliest of some ids; what the others cannot be above. */
  __device__ __forceinline__ float see_likeliest(const float4 (&x)[kAtOnce],
                                                 const uint4 (&words)[kAtOnce], int i) {
    float most = -INFINITY;
    float logit = x[0].x;
    uint32_t word = words[0].x;
    int id = id_of(i, 0);
    bool is_known = true;
#pragma unroll
    for (int q = 0; q < kAtOnce; q++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const float reach = reach_.of(of(x[q], e), of(words[q], e));
        is_known &= reach == reach;
        if (!(reach > most)) continue;
        most = reach;
        logit = of(x[q], e);
        word = of(words[q], e);
        id = id_of(i, q) + e;
      }
    }
    see(logit, word, id);
    return is_known ? most : INFINITY;
  }

  /** The first ids again. */
  __device__ __forceinline__ void see_first() {
#pragma unroll 1
    for (int q = 0; q < kAtOnce; q++) {
      const int id = id_of(threadIdx.x, q);
      see_group(__ldcg(reinterpret_cast<const float4*>(row_.logits + id)),
                noise_words(seed_, position_, id / 4), id);
    }
  }

  /** What an id must reach, and the logit below which none does. */
  __device__ __forceinline__ void bound() {
    const uint32_t key = *static_cast<volatile uint32_t*>(best_key_);
    if (key == seen_) return;
    seen_ = key;
    value_ = value_of(key);
    const float z = value_ - kMaxNoise - fabsf(value_) * 0x1p-20f;
    lowest_ = lowest_logit(fmaxf(z, -INFINITY), temperature_);
  }

  /** Lets the block know this warp's best, if it is better. */
  __device__ __forceinline__ void share() {
    const uint32_t mine = __reduce_max_sync(~0u, key_of(best_value_));
    if (threadIdx.x % 32 == 0 && mine > seen_) atomicMax(best_key_, mine);
    __syncwarp();
  }

  const Row& row_;
  const int last_; /* group */
  uint32_t* const best_key_;
  const unsigned long long seed_;
  const uint32_t position_;
  const float temperature_;
  const Reach reach_;
  float best_value_ = -INFINITY;
  int best_id_ = -1;
  uint32_t seen_ = 0;
  float value_ = -INFINITY;
  float lowest_ = -INFINITY;
};

/** This thread's best value, as StreamDraw has it. Apart, so that it gets registers of its own. */
__device__ __noinline__ inline Word stream_draw(const float* logits, int begin, int count) {
  Row row;
  row.shared = &block_shared<Shared>();
  row.logits = logits;
  row.begin = begin;
  row.count = count;
  return StreamDraw(row).run();
}

/** Whether a row that is sampled without edits is such a one; its state is in shared memory. */
__device__ __forceinline__ bool is_streamed(const Row& row) {
  const VtCudaRowParams& p = row.shared->params;
  const bool cuts = p.min_p > 0.0f || p.top_k > 0 || p.top_p < 1.0f;
  return !cuts && p.temperature >= kGreedyBelow && row.vocab_size % 4 == 0 &&
         reinterpret_cast<uintptr_t>(row.logits) % 16 == 0;
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_STREAM_CUH_
