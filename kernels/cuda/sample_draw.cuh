// Draw: the argmax of z plus Gumbel noise, section 6 of docs/sampling.md. Noise has an upper bound,
// so most ids cannot win and get none; groups of four that may are queued by warp, so that every
// lane has one when noise is made.
#ifndef VT_CUDA_SAMPLE_DRAW_CUH_
#define VT_CUDA_SAMPLE_DRAW_CUH_

#include "sample.cuh"

namespace vt {
namespace sample {

/** Above -ln(-ln(1 - 2^-24)) = 16.64, the noise of the greatest u. */
constexpr float kMaxNoise = 16.75f;

/** Philox4x32-10, as Random123 has it: the key of a round, and a round. */
__device__ __forceinline__ uint2 philox_key(unsigned long long seed, int round) {
  return make_uint2(static_cast<uint32_t>(seed) + round * 0x9E3779B9u,
                    static_cast<uint32_t>(seed >> 32) + round * 0xBB67AE85u);
}

__device__ __forceinline__ uint4 philox_round(uint4 counter, uint2 key) {
  const uint2 product0 = mul_wide(counter.x, 0xD2511F53u);
  const uint2 product1 = mul_wide(counter.z, 0xCD9E8D57u);
  return make_uint4(product1.y ^ counter.y ^ key.x, product1.x, product0.y ^ counter.w ^ key.y,
                    product0.x);
}

__device__ __forceinline__ float gumbel(uint32_t word) {
  const float u = __fmul_rn(__fadd_rn(static_cast<float>(word >> 9), 0.5f), 0x1p-23f);
  return -logf(-logf(u));
}

/**
 * At least gumbel(word), for a fraction of the work: -ln(u) >= 1 - u, and 1 - u = n * 2^-23 with n
 * below exactly; so -ln(-ln(u)) <= (23 - log2(n)) * ln(2), and 0.001 covers all that is rounded.
 */
__device__ __forceinline__ float gumbel_bound(uint32_t word) {
  const float n = __uint_as_float(0x4b000000u | (~word >> 9)) - 8388607.5f;
  return fmaf(log2_approx(n), -0.693147181f, 15.9433851f);
}

/** Philox's four words for the ids 4 * group to 4 * group + 3, at a position of a seed. */
__device__ __forceinline__ uint4 noise_words(unsigned long long seed, uint32_t position,
                                             int group) {
  uint4 counter = make_uint4(position, group, 0, 0);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    counter = philox_round(counter, philox_key(seed, round));
  }
  return counter;
}

__device__ __forceinline__ uint32_t noise_word(unsigned long long seed, uint32_t position, int id) {
  const uint4 words = noise_words(seed, position, id / 4);
  const uint32_t low = id % 2 == 0 ? words.x : words.y;
  const uint32_t high = id % 2 == 0 ? words.z : words.w;
  return id % 4 < 2 ? low : high;
}

/** What the values of four ids cannot be above, for less than it takes to know them. */
class Reach {
 public:
  __device__ explicit Reach(float temperature) {
    inverse_ = __fdiv_rn(1.0f, temperature);
    // What is rounded is a few units of 2^-24 of z; of an inverse that is not normal, anything.
    slack_ = temperature < 0x1p100f ? 0x1p-20f : INFINITY;
  }

  /** Of ids whose logits are at most `logit` and whose words at most `word`; may be NaN. */
  __device__ __forceinline__ float of(float logit, uint32_t word) const {
    const float z = logit * inverse_;
    return fmaf(fabsf(z), slack_, z + gumbel_bound(word));
  }
  __device__ __forceinline__ float of(const float4& logits, const uint4& words) const {
    return of(fmaxf(fmaxf(logits.x, logits.y), fmaxf(logits.z, logits.w)),
              max(max(words.x, words.y), max(words.z, words.w)));
  }

 private:
  float inverse_, slack_;
};

class Draw {
 public:
  __device__ Draw(const Row& row, float temperature, float least, uint32_t position)
      : row_(row),
        shared_(*row.shared),
        temperature_(temperature),
        least_(least),
        position_(position),
        seed_(shared_.params.seed),
        reach_(temperature) {}

  /** The best (value, id) that this thread has seen; `likely` is the id with the greatest z. */
  __device__ Word run(float z_max, int likely) {
    if (threadIdx.x == 0) {
      best_value_ = __fadd_rn(z_max, gumbel(noise_word(seed_, position_, likely)));
      best_id_ = likely;
      shared_.best_key = key_of(best_value_);
    }
    __syncthreads();
    bound(value_of(shared_.best_key));
    search();
    return best_value_ == -INFINITY ? kNone : ranked(best_value_, best_id_);
  }

 private:
  /** Logits below lowest_ cannot win against `value`, or are out. */
  __device__ __forceinline__ void bound(float value) {
    value_ = value;
    const float z = value - kMaxNoise - fabsf(value) * 0x1p-20f;
    lowest_ = lowest_logit(fmaxf(z, least_), temperature_);
  }

  __device__ __forceinline__ void search() {
    if (!__any_sync(~0u, row_.greatest >= lowest_)) return;
    const float4* groups = reinterpret_cast<const float4*>(row_.z);
    const int num_groups = (row_.count + 3) / 4;
    const int lane = threadIdx.x % 32;
    uint32_t* queue = shared_.queues[threadIdx.x / 32];
    int queued = 0;
    for (int base = threadIdx.x - lane; base < num_groups; base += blockDim.x) {
      const int i = base + lane;
      bool may_win = false;
      if (i < num_groups && row_.greatest >= lowest_) {
        const float4 x = groups[i];
        may_win = fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w)) >= lowest_;
      }
      const uint32_t found = __ballot_sync(~0u, may_win);
      if (found == 0) continue;
      if (may_win) queue[queued + __popc(found & ((1u << lane) - 1))] = i;
      queued += __popc(found);
      __syncwarp();
      if (queued >= 32) {
        queued -= 32;
        consider(queue[queued + lane]);
        share_best();
      }
      __syncwarp();
    }
    if (lane < queued) consider(queue[lane]);
  }

  /** Noise for the ids of a group that are left, and the better of them and the best so far. */
  __device__ __forceinline__ void consider(int group) {
    const float4 x = reinterpret_cast<const float4*>(row_.z)[group];
    const float logits[4] = {x.x, x.y, x.z, x.w};
    const int id = row_.begin + 4 * group;
    const uint4 noise = noise_words(seed_, position_, id / 4);
    if (reach_.of(x, noise) < value_) return;
    const uint32_t words[4] = {noise.x, noise.y, noise.z, noise.w};
#pragma unroll
    for (int e = 0; e < 4; e++) {
      if (!(logits[e] >= lowest_)) continue;
      const float z = __fdiv_rn(logits[e], temperature_);
      if (!(z >= least_) || z == -INFINITY) continue;
      if (__fadd_rn(z, gumbel_bound(words[e])) < value_) continue;
      const float value = __fadd_rn(z, gumbel(words[e]));
      if (value > best_value_ || (value == best_value_ && id + e < best_id_)) {
        best_value_ = value;
        best_id_ = id + e;
      }
    }
  }

  /** Lets the block know this warp's best, and this warp the block's. */
  __device__ __forceinline__ void share_best() {
    const uint32_t mine = __reduce_max_sync(~0u, key_of(best_value_));
    uint32_t known = 0;
    if (threadIdx.x % 32 == 0) known = max(mine, atomicMax(&shared_.best_key, mine));
    bound(value_of(__shfl_sync(~0u, known, 0)));
  }

  const Row& row_;
  Shared& shared_;
  const float temperature_, least_;
  const uint32_t position_;
  const unsigned long long seed_;
  const Reach reach_;
  float best_value_ = -INFINITY;
  int best_id_ = 0;
  float value_ = -INFINITY;  // what an id must reach
  float lowest_ = -INFINITY;
};

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_DRAW_CUH_
