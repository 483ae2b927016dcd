// Threshold: min-p, top-k and top-p as one bound on z, section 5 of docs/sampling.md, without
// sorting. A selection keeps a range of keys that holds the bound, narrows it by histograms until
// few ids are left in it, and ranks those.
#ifndef VT_CUDA_SAMPLE_THRESHOLD_CUH_
#define VT_CUDA_SAMPLE_THRESHOLD_CUH_

#include "sample_histogram.cuh"

namespace vt {
namespace sample {

/** Of an id: exp(z - z_max) in units of 2^-40. */
__device__ __forceinline__ Word mass_of(float z, float z_max) {
  return static_cast<Word>(__fmul_rn(expf(__fsub_rn(z, z_max)), 0x1p40f));
}
/** How far below z_max ids may have a mass: exp(-28) < 2^-40. */
constexpr float kMassReach = 28.0f;

/** What `share` of a mass is, at least 1. */
__device__ __forceinline__ Word share_of(Word mass, double share) {
  return max(static_cast<Word>(ceil(share * static_cast<double>(mass))), Word{1});
}

/** Every method is called by all threads of the cluster, and is a barrier of it. */
class Selection {
 public:
  /** Among the ids with z >= least, which may be `few` from the start; by mass, or by count. */
  __device__ Selection(Row& row, float temperature, float z_max, float least, bool by_mass,
                       bool few)
      : row_(row),
        shared_(*row.shared),
        even_(z_max),
        histogram_(row),
        temperature_(temperature),
        z_max_(z_max),
        least_(least),
        by_mass_(by_mass),
        few_(few),
        low_(max(key_of(least), key_of(-INFINITY) + 1)),
        high_(key_of(z_max)) {}

  /** The k-th greatest z; `least` if there are fewer. */
  __device__ float greatest(int k) {
    if (k <= row_.num_blocks * static_cast<int>(blockDim.x)) raise_low(k);
    return run(static_cast<Word>(k), 0.0);
  }

  /**
   * The greatest t such that the ids with z >= t have `share` of the mass, of which ids elsewhere
   * have `others`; `least` if there is none.
   */
  __device__ float with_mass(double share, Word others = 0) {
    others_ = others;
    return run(0, share);
  }

 private:
  /** The k-th greatest of the threads' greatest is not above the k-th of all. */
  __device__ void raise_low(int k) {
    histogram_.begin();
    const float z = __fdiv_rn(row_.greatest, temperature_);
    if (z >= least_ && z > -INFINITY) histogram_.add(even_.of(z), 1);
    if (histogram_.add_up() < static_cast<Word>(k)) return;
    Word target = k;
    const int b = histogram_.choose(target);
    if (b == kBins - 1) return;
    low_ = max(low_, key_of(even_.edge(b + 1)));
    few_ = true;
  }

  /** `target`: weight from high_ down that the result reaches first; by mass it follows from
   * `share` once the whole is known. */
  __device__ float run(Word target, double share) {
    for (bool first = true; low_ < high_; first = false) {
      if (!first || few_) {
        const int n = list();
        if (n <= kMaxListed) return rank(n, target, share);
      }
      const int shift = max(0, 23 - __clz(high_ - low_));  // (high - low) >> shift < kBins
      const Word total = fill(first, shift);
      if (first && by_mass_) target = share_of(total + others_, share);
      if (total < target) return least_;
      const int b = histogram_.choose(target);
      if (first) {
        if (b < kBins - 1) low_ = max(low_, key_of(even_.edge(b + 1)));
        if (b > 0) high_ = key_of(even_.edge(b)) - 1;
      } else {
        high_ -= static_cast<uint32_t>(b) << shift;
        const uint32_t width = (1u << shift) - 1;
        if (high_ - low_ > width) low_ = high_ - width;
      }
    }
    return value_of(low_);
  }

  __device__ __forceinline__ Word weight(float z) const {
    return by_mass_ ? mass_of(z, z_max_) : 1;
  }

  /** f(z) for this thread's ids with keys from low_ to high_ and a weight. */
  template <typename F>
  __device__ __forceinline__ void for_each(F f) {
    const float low = value_of(low_);
    for_each_from(row_, temperature_, by_mass_ ? fmaxf(low, z_max_ - kMassReach) : low,
                  [&](float z, int) {
                    if (key_of(z) <= high_) f(z);
                  });
  }

  /** The ids' weights into bins: even ones, or the range's keys by 2^shift. Their sum. */
  __device__ Word fill(bool even, int shift) {
    histogram_.begin();
    for_each([&](float z) {
      const Word w = weight(z);
      if (w == 0) return;
      histogram_.add(even ? even_.of(z) : static_cast<int>((high_ - key_of(z)) >> shift), w);
    });
    return histogram_.add_up();
  }

  /** How many ids there are; if at most kMaxListed, every block gets z and weight of all. */
  __device__ int list() {
    if (threadIdx.x == 0) shared_.num_listed = 0;
    __syncthreads();
    volatile int* num_listed = &shared_.num_listed;
    for_each([&](float z) {
      if (*num_listed > kMaxListed) return;
      const int at = atomicAdd(&shared_.num_listed, 1);
      if (at < kMaxListed) shared_.list.mine[at] = z;
    });
    __syncthreads();
    tell(row_, static_cast<Word>(shared_.num_listed));
    int total = 0;
    for (int r = 0; r < row_.num_blocks; r++) total += static_cast<int>(told(row_, r));
    if (total > kMaxListed) return total;
    const int thread = threadIdx.x;
    if (thread < total) {
      int at = thread;
      int r = 0;
      for (; at >= static_cast<int>(told(row_, r)); r++) at -= static_cast<int>(told(row_, r));
      const uint32_t place = shared_address(&shared_.list.mine[at]);
      const float z = __uint_as_float(load_in_cluster_u32(address_in(place, r)));
      shared_.list.all[thread] = z;
      shared_.list.weights[thread] = weight(z);
    }
    cluster_sync();
    return total;
  }

  /** The z among the n listed where the weight reaches `target`; `least` if it does not. */
  __device__ float rank(int n, Word target, double share) {
    const auto& list = shared_.list;
    Word total = 0;
    for (int i = 0; i < n; i++) total += list.weights[i];
    if (target == 0) target = share_of(total + others_, share);
    if (total < target) return least_;
    const int thread = threadIdx.x;
    if (thread < n) {
      const float z = list.all[thread];
      Word greater = 0;
      Word equal = 0;
      for (int i = 0; i < n; i++) {
        if (list.all[i] > z) greater += list.weights[i];
        if (list.all[i] == z) equal += list.weights[i];
      }
      if (greater < target && greater + equal >= target) shared_.chosen = key_of(z);
    }
    __syncthreads();
    return value_of(shared_.chosen);
  }

  Row& row_;
  Shared& shared_;
  const EvenBins even_;
  Histogram histogram_;
  const float temperature_, z_max_, least_;
  const bool by_mass_;
  bool few_;
  uint32_t low_, high_;
  Word others_ = 0;
};

/** Ids stay whose z is at least this, by min-p and top-k. Barriers of the cluster. */
__device__ inline float kept_by_count(Row& row, float temperature, float z_max, bool& few) {
  const VtCudaRowParams& p = row.shared->params;
  float least = -INFINITY;
  few = false;
  if (p.min_p > 0.0f) {
    least = __fadd_rn(z_max, logf(p.min_p));
    few = true;
  }
  if (p.top_k > 0) {
    least = Selection(row, temperature, z_max, least, false, few).greatest(p.top_k);
    few |= p.top_k <= kMaxListed;
  }
  return least;
}

/** And by top-p. Barriers of the cluster. */
__device__ inline float truncation_threshold(Row& row, float temperature, float z_max) {
  const VtCudaRowParams& p = row.shared->params;
  bool few;
  float least = kept_by_count(row, temperature, z_max, few);
  if (p.top_p < 1.0f) {
    least = Selection(row, temperature, z_max, least, true, few).with_mass(p.top_p);
  }
  return least;
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_THRESHOLD_CUH_
