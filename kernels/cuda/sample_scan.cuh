// Scan: a block's logits from global to shared memory, and the greatest of them on the way.
#ifndef VT_CUDA_SAMPLE_SCAN_CUH_
#define VT_CUDA_SAMPLE_SCAN_CUH_

#include "sample.cuh"

namespace vt {
namespace sample {

/** NaN if either is. */
__device__ __forceinline__ float max_or_nan(float a, float b) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}

/** What a thread has seen: four ids at a time, ascending. */
class Scan {
 public:
  __device__ __forceinline__ void add(float4 x, int group) {
    const float greatest = max_or_nan(max_or_nan(x.x, x.y), max_or_nan(x.z, x.w));
    all_ = max_or_nan(all_, greatest);
    if (greatest > best_) {
      best_ = greatest;
      group_ = group;
    }
  }
  /** A logit that is not in shared memory but must be fit. */
  __device__ __forceinline__ void check(float x) { all_ = max_or_nan(all_, x); }

  /** The greatest, ranked; kUnfit if there was a NaN or an infinity. */
  __device__ __forceinline__ Word result(const Row& row) const {
    if (!(all_ < INFINITY)) return kUnfit;
    if (best_ == -INFINITY) return kNone;
    int id = 4 * group_;
    while (row.z[id] != best_) id++;
    return ranked(best_, row.begin + id);
  }

 private:
  float best_ = -INFINITY;
  float all_ = -INFINITY;
  int group_ = 0;
};

/** Group i of the block's logits; -Infinity beyond its ids. */
__device__ __forceinline__ float4 load_group(const Row& row, int i) {
  const float* from = row.logits + row.begin + 4 * i;
  const auto at = [&](int e) { return 4 * i + e < row.count ? __ldcg(from + e) : -INFINITY; };
  return make_float4(at(0), at(1), at(2), at(3));
}

/** Fills row.z with the logits as they are. */
__device__ __forceinline__ Word scan_logits(const Row& row) {
  const float4* from = reinterpret_cast<const float4*>(row.logits + row.begin);
  float4* to = reinterpret_cast<float4*>(row.z);
  const bool aligned = reinterpret_cast<uintptr_t>(from) % 16 == 0;
  const int step = blockDim.x;
  const int whole = aligned ? row.count / 4 : 0;
  Scan scan;
  int i = threadIdx.x;
  for (; i + 3 * step < whole; i += 4 * step) {
    const float4 x[4] = {__ldcg(from + i), __ldcg(from + i + step), __ldcg(from + i + 2 * step),
                         __ldcg(from + i + 3 * step)};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      to[i + j * step] = x[j];
      scan.add(x[j], i + j * step);
    }
  }
  for (; 4 * i < row.count; i += step) {
    const float4 x = i < whole ? __ldcg(from + i) : load_group(row, i);
    to[i] = x;
    scan.add(x, i);
  }
  return scan.result(row);
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_SCAN_CUH_
