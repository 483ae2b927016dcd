// The end of a tile of logits where a row may need no more than the greatest: each lane keeps the
// best of its columns from tile to tile, and a launch writes one word a row and cluster. Rows that
// need their logits have them written. Rows are those of a block's only tiles of x.
#ifndef VT_CUDA_LINEAR_WGMMA_BEST_CUH_
#define VT_CUDA_LINEAR_WGMMA_BEST_CUH_

#include "linear_wgmma_ends.cuh"
#include "sample_needs.cuh"
#include "sample_words.cuh"

namespace vt {

/** Of a lane's rows lane / 4 and lane / 4 + 8 of its warp's 16 from m0 on; those before `own` are
 * another's. */
class BestLogits {
 public:
  __device__ __forceinline__ BestLogits(const VtCudaSample& sampler, int m0, int own,
                                        int lane) {
    const int m = m0 + lane % 16;
    const bool is_own = m >= own && m < sampler.num_rows;
    const int needs = is_own ? static_cast<int>(sample::needs_of(sampler, m)) : 0;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      needs_[h] = static_cast<sample::Needs>(__shfl_sync(~0u, needs, lane / 4 + h * 8));
      greatest_[h] = -INFINITY;
      ids_[h] = 0;
    }
  }

  /** A tile of columns from n0 on; later tiles have later columns. Those from the sampler's
   * vocab_size on are nobody's ids. */
  template <int kTiles>
  __device__ __forceinline__ void take(const VtCudaLinear& args, const VtCudaSample& sampler,
                                       const TileSums<kTiles>& sum, int m0, int n0, int lane) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      if (needs_[h] == sample::Needs::best_logit) {
        keep_best<kTiles>(sum, h, n0 + lane % 4 * 2, sampler.vocab_size - n0);
      } else if (needs_[h] == sample::Needs::all_logits) {
        const int64_t row = m0 + lane / 4 + h * 8;
        float* to = static_cast<float*>(args.out) + row * args.out_stride + n0 + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < kTiles; j++) {
          if (j * 8 >= args.n - n0) continue;
          *reinterpret_cast<float2*>(to + j * 8) = make_float2(sum[j][h * 2], sum[j][h * 2 + 1]);
        }
      }
    }
  }

  /** The words of cluster `cluster`. */
  __device__ __forceinline__ void write(const VtCudaSample& sampler, int cluster, int m0, int own,
                                        int lane) const {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      sample::Word best = word(h);
      best = max(best, __shfl_xor_sync(~0u, best, 1));
      best = max(best, __shfl_xor_sync(~0u, best, 2));
      const int m = m0 + lane / 4 + h * 8;
      if (lane % 4 == 0 && m >= own && m < sampler.num_rows) {
        sampler.best[m * sampler.num_best + cluster] =
            needs_[h] == sample::Needs::best_logit ? best : sample::kHasLogits;
      }
    }
  }

 private:
  /** The first of the greatest: `first` is the lane's first column, the tile has `left` ids. */
  template <int kTiles>
  __device__ __forceinline__ void keep_best(const TileSums<kTiles>& sum, int h, int first,
                                            int left) {
    float greatest = greatest_[h];
    int at = -1;
#pragma unroll
    for (int j = 0; j < kTiles; j++) {
      if (j * 8 >= left) continue;
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const float logit = sum[j][h * 2 + e];
        if (logit > greatest) at = j * 8 + e;
        greatest = max_or_nan(greatest, logit);
      }
    }
    greatest_[h] = greatest;
    if (at >= 0) ids_[h] = first + at;
  }

  /** As vt_cuda_sample ranks what it scans. */
  __device__ __forceinline__ sample::Word word(int h) const {
    if (!(greatest_[h] < INFINITY)) return sample::kUnfit;
    return greatest_[h] == -INFINITY ? sample::kNone : sample::ranked(greatest_[h], ids_[h]);
  }

  sample::Needs needs_[2];
  float greatest_[2]; /* NaN from the first on */
  int ids_[2];
};

}  // namespace vt

#endif  // VT_CUDA_LINEAR_WGMMA_BEST_CUH_
