// Threshold: min-p, top-k and top-p as one bound on z, section 5 of docs/sampling.md, without
// sorting. A selection counts ids, or adds their masses as integers (units of 2^-40 of the
// largest), so that no sum depends on an order. Bins of its first pass are equally wide in z, those
// of later passes split the keys of the chosen bin, until one key is left.
#ifndef VT_CUDA_SAMPLE_THRESHOLD_CUH_
#define VT_CUDA_SAMPLE_THRESHOLD_CUH_

#include "sample.cuh"

namespace vt {
namespace sample {

/** Bins of the first pass: b has edge(b + 1) <= z < edge(b); the last has the rest. */
class EvenBins {
 public:
  __device__ explicit EvenBins(float z_max) : z_max_(z_max) {}

  __device__ float edge(int b) const {
    return __fsub_rn(z_max_, __fmul_rn(static_cast<float>(b), 1.0f / kBinsPerUnit));
  }
  __device__ int of(float z) const {
    int b = min(kBins - 1, static_cast<int>(__fmul_rn(__fsub_rn(z_max_, z), kBinsPerUnit)));
    while (b > 0 && z >= edge(b)) b--;
    while (b < kBins - 1 && z < edge(b + 1)) b++;
    return b;
  }

 private:
  static constexpr float kBinsPerUnit = 16.0f;
  float z_max_;
};

/** Every method with a barrier is called by all threads of the cluster. */
class Selection {
 public:
  /** Among the ids with z >= least; by mass, or by count. */
  __device__ Selection(const Row& row, float temperature, float z_max, float least, bool by_mass)
      : row_(row),
        shared_(*row.shared),
        temperature_(temperature),
        z_max_(z_max),
        least_(least),
        by_mass_(by_mass),
        low_(max(key_of(least), key_of(-INFINITY) + 1)),
        high_(key_of(z_max)) {}

  /** The k-th greatest z; `least` if no more than k ids are there. */
  __device__ float greatest(int k) { return run(static_cast<Word>(k), 0.0); }
  /** The greatest t such that the ids with z >= t have `share` of the mass. */
  __device__ float with_mass(double share) { return run(0, share); }

 private:
  __device__ float run(Word target, double share) {
    const EvenBins even(z_max_);
    for (bool first = true; low_ < high_; first = false) {
      const int shift = max(0, 23 - __clz(high_ - low_));  // (high - low) >> shift < kBins
      fill([&](float z) {
        return first ? even.of(z) : static_cast<int>((high_ - key_of(z)) >> shift);
      });
      const Word total = add_up();
      if (first && by_mass_) {
        target = max(static_cast<Word>(ceil(share * static_cast<double>(total))), Word{1});
      }
      const bool all = first && !by_mass_ && total <= target;
      if (!all) {
        const int b = choose(target);
        target -= shared_.above_chosen;
        if (first) {
          if (b < kBins - 1) low_ = max(low_, key_of(even.edge(b + 1)));
          if (b > 0) high_ = key_of(even.edge(b)) - 1;
        } else {
          high_ -= static_cast<uint32_t>(b) << shift;
          const uint32_t width = (1u << shift) - 1;
          if (high_ - low_ > width) low_ = high_ - width;
        }
      }
      cluster_sync();  // nobody reads these bins any more
      if (all) return least_;
    }
    return value_of(low_);
  }

  /** This block's ids with keys from low_ to high_ into its bins. */
  template <typename BinOf>
  __device__ __forceinline__ void fill(BinOf bin_of) {
    uint32_t* halves = &shared_.bins[0][0];
    for (int i = threadIdx.x; i < 2 * kBins; i += blockDim.x) halves[i] = 0;
    __syncthreads();
    for_each_from(row_, temperature_, value_of(low_), [&](float z) {
      if (key_of(z) > high_) return;
      if (!by_mass_) {
        atomicAdd(&shared_.bins[bin_of(z)][0], 1);
        return;
      }
      const Word weight = static_cast<Word>(__fmul_rn(expf(__fsub_rn(z, z_max_)), 0x1p40f));
      if (weight == 0) return;
      uint32_t* bin = shared_.bins[bin_of(z)];
      const uint32_t low = static_cast<uint32_t>(weight);
      const uint32_t before = atomicAdd(&bin[0], low);
      const uint32_t carry = before + low < low ? 1 : 0;
      const uint32_t high = static_cast<uint32_t>(weight >> 32) + carry;
      if (high != 0) atomicAdd(&bin[1], high);
    });
    cluster_sync();
  }

  /** All blocks' bins, a few in each thread, and what lies in and above those; the total. */
  __device__ Word add_up() {
    const int each = kBins / blockDim.x;
    through_ = 0;
#pragma unroll
    for (int e = 0; e < kMaxEach; e++) {
      mine_[e] = 0;
      if (e >= each) continue;
      const uint32_t address = shared_address(shared_.bins[threadIdx.x * each + e]);
      for (int r = 0; r < row_.num_blocks; r++) {
        mine_[e] += load_in_cluster_u64(address_in(address, r));
      }
      through_ += mine_[e];
    }
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const Word other = __shfl_up_sync(~0u, through_, d);
      if (lane >= d) through_ += other;
    }
    if (lane == 31) shared_.warps[warp] = through_;
    __syncthreads();
    Word total = 0;
    for (int w = 0; w < static_cast<int>(blockDim.x) / 32; w++) {
      if (w < warp) through_ += shared_.warps[w];
      total += shared_.warps[w];
    }
    return total;
  }

  /** The first bin that, with those above it, reaches `target`: 1..total. */
  __device__ int choose(Word target) {
    const int each = kBins / blockDim.x;
    Word above = through_;
#pragma unroll
    for (int e = 0; e < kMaxEach; e++) above -= mine_[e];
#pragma unroll
    for (int e = 0; e < kMaxEach; e++) {
      if (above < target && above + mine_[e] >= target) {
        shared_.chosen_bin = threadIdx.x * each + e;
        shared_.above_chosen = above;
      }
      above += mine_[e];
    }
    __syncthreads();
    return shared_.chosen_bin;
  }

  static constexpr int kMaxEach = 2;  // kBins / the fewest threads of a block

  const Row& row_;
  Shared& shared_;
  const float temperature_, z_max_, least_;
  const bool by_mass_;
  uint32_t low_, high_;
  Word mine_[kMaxEach];
  Word through_;
};

/** Ids stay whose z is at least this. Barriers of the cluster. */
__device__ inline float truncation_threshold(const Row& row, float temperature, float z_max) {
  const VtCudaRowParams& p = row.shared->params;
  float least = p.min_p > 0.0f ? __fadd_rn(z_max, logf(p.min_p)) : -INFINITY;
  if (p.top_k > 0) {
    least = Selection(row, temperature, z_max, least, false).greatest(p.top_k);
  }
  if (p.top_p < 1.0f) {
    least = Selection(row, temperature, z_max, least, true).with_mass(p.top_p);
  }
  return least;
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_THRESHOLD_CUH_
