// Histogram: weights of ids by bin, added over the cluster, and the bin where their sum from the
// greatest down reaches a target. Weights are integers, so that no sum depends on an order.
#ifndef VT_CUDA_SAMPLE_HISTOGRAM_CUH_
#define VT_CUDA_SAMPLE_HISTOGRAM_CUH_

#include "sample.cuh"

namespace vt {
namespace sample {

/** Bins of equal width in z: b has edge(b + 1) <= z < edge(b); the last has the rest. */
class EvenBins {
 public:
  __device__ explicit EvenBins(float z_max) : z_max_(z_max) {}

  __device__ float edge(int b) const {
    return __fsub_rn(z_max_, __fmul_rn(static_cast<float>(b), 1.0f / kBinsPerUnit));
  }
  __device__ int of(float z) const {
    const float distance = __fmul_rn(__fsub_rn(z_max_, z), kBinsPerUnit);
    int b = static_cast<int>(fminf(distance, static_cast<float>(kBins - 1)));
    while (b > 0 && z >= edge(b)) b--;
    while (b < kBins - 1 && z < edge(b + 1)) b++;
    return b;
  }

 private:
  static constexpr float kBinsPerUnit = 16.0f;
  float z_max_;
};

/** To a sum in shared memory of two halves, low half first, by any thread of the block. */
__device__ __forceinline__ void add_weight(uint32_t* halves, Word weight) {
  const uint32_t low = static_cast<uint32_t>(weight);
  const uint32_t before = atomicAdd(&halves[0], low);
  const uint32_t carry = before + low < low ? 1 : 0;
  const uint32_t high = static_cast<uint32_t>(weight >> 32) + carry;
  if (high != 0) atomicAdd(&halves[1], high);
}

/** Of all blocks' sums that lie where this block has `halves`. */
__device__ __forceinline__ Word cluster_weight(const Row& row, const uint32_t* halves) {
  const uint32_t address = shared_address(halves);
  Word parts[kMaxCluster];
#pragma unroll
  for (int r = 0; r < kMaxCluster; r++) {
    parts[r] = r < row.num_blocks ? load_in_cluster_u64(address_in(address, r)) : 0;
  }
  Word sum = 0;
#pragma unroll
  for (int r = 0; r < kMaxCluster; r++) sum += parts[r];
  return sum;
}

/** The sum of this lane's value and of those before it. */
__device__ __forceinline__ Word warp_prefix(Word value) {
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const Word other = __shfl_up_sync(~0u, value, d);
    if (static_cast<int>(threadIdx.x % 32) >= d) value += other;
  }
  return value;
}

/** Over Shared::bins; begin, add by any thread, add_up, choose. Barriers of the cluster. */
class Histogram {
 public:
  __device__ explicit Histogram(const Row& row)
      : row_(row), shared_(*row.shared), each_(kBins / blockDim.x) {}

  /** Nobody in the cluster may still read the bins. */
  __device__ void begin() {
    uint32_t* halves = &shared_.bins[0][0];
    for (int i = threadIdx.x; i < 2 * kBins; i += blockDim.x) halves[i] = 0;
    __syncthreads();
  }

  __device__ __forceinline__ void add(int b, Word weight) { add_weight(shared_.bins[b], weight); }

  /** The sum of all weights. Afterwards nobody reads the bins any more. */
  __device__ Word add_up() {
    cluster_sync();
    through_ = 0;
#pragma unroll
    for (int e = 0; e < kMaxEach; e++) {
      mine_[e] = e < each_ ? cluster_weight(row_, shared_.bins[threadIdx.x * each_ + e]) : 0;
      through_ += mine_[e];
    }
    const int warp = threadIdx.x / 32;
    through_ = warp_prefix(through_);
    if (threadIdx.x % 32 == 31) shared_.warps[warp] = through_;
    cluster_sync();
    Word total = 0;
    for (int w = 0; w < static_cast<int>(blockDim.x) / 32; w++) {
      if (w < warp) through_ += shared_.warps[w];
      total += shared_.warps[w];
    }
    return total;
  }

  /** The first bin that, with those above it, reaches `target`, 1..total; `target` becomes what the
   * bin itself must give. */
  __device__ int choose(Word& target) {
    Word above = through_;
#pragma unroll
    for (int e = 0; e < kMaxEach; e++) above -= mine_[e];
#pragma unroll
    for (int e = 0; e < kMaxEach; e++) {
      if (above < target && above + mine_[e] >= target) {
        shared_.chosen = threadIdx.x * each_ + e;
        shared_.above_chosen = above;
      }
      above += mine_[e];
    }
    __syncthreads();
    target -= shared_.above_chosen;
    return static_cast<int>(shared_.chosen);
  }

 private:
  static constexpr int kMaxEach = 2;  // kBins / the fewest threads of a block

  const Row& row_;
  Shared& shared_;
  const int each_;
  Word mine_[kMaxEach];
  Word through_;
};

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_HISTOGRAM_CUH_
