// Scan: a block's logits from global to shared memory, and the greatest of them on the way.
#ifndef VT_CUDA_SAMPLE_SCAN_CUH_
#define VT_CUDA_SAMPLE_SCAN_CUH_

#include "sample.cuh"

namespace vt {
namespace sample {

/** NaN if one is. */
__device__ __forceinline__ float greatest_or_nan(float4 x) {
  return max_or_nan(max_or_nan(x.x, x.y), max_or_nan(x.z, x.w));
}

/** What a thread has seen: its groups of four ids, ascending. */
class Scan {
 public:
  __device__ __forceinline__ void add(float4 x, int group) {
    const float greatest = greatest_or_nan(x);
    all_ = max_or_nan(all_, greatest);
    if (greatest > best_) {
      best_ = greatest;
      group_ = group;
    }
  }
  /** Logits that are not in shared memory but must be fit. */
  __device__ __forceinline__ void check(float4 x) { all_ = max_or_nan(all_, greatest_or_nan(x)); }

  /** The greatest, ranked; kUnfit if there was a NaN or an infinity. Sets row.greatest. */
  __device__ __forceinline__ Word result(Row& row) const {
    row.greatest = best_;
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

/** Groups of the block that may be read, or copied, as a whole. */
__device__ __forceinline__ int whole_groups(const Row& row) {
  const bool aligned = reinterpret_cast<uintptr_t>(row.logits) % 16 == 0;
  return aligned ? row.count / 4 : 0;
}

/** Group i of the block's logits; -Infinity beyond its ids. */
__device__ __forceinline__ float4 load_group(const Row& row, int i, int whole) {
  const float* from = row.logits + row.begin + 4 * i;
  if (i < whole) return __ldcg(reinterpret_cast<const float4*>(from));
  const auto at = [&](int e) { return 4 * i + e < row.count ? __ldcg(from + e) : -INFINITY; };
  return make_float4(at(0), at(1), at(2), at(3));
}

/** Starts the copy of all whole groups to row.z, once in a block's life. One thread. */
__device__ __forceinline__ void copy_logits(const Row& row) {
  constexpr int kPiece = 8192;
  const int bytes = 16 * whole_groups(row);
  const uint32_t barrier = shared_address(&row.shared->copied);
  barrier_expect(barrier, bytes);
  const char* from = reinterpret_cast<const char*>(row.logits + row.begin);
  for (int at = 0; at < bytes; at += kPiece) {
    copy_bulk(shared_address(row.z) + at, from + at, min(kPiece, bytes - at), barrier);
  }
}

/** Begins to fill row.z with the logits as they are; once in a block's life. */
__device__ __forceinline__ void start_scan(const Row& row) {
  if (VT_HAS_SM_90 && threadIdx.x == 0) copy_logits(row);
}

/** What start_scan has begun. */
__device__ __forceinline__ Word finish_scan(Row& row) {
  const int whole = whole_groups(row);
  float4* groups = reinterpret_cast<float4*>(row.z);
  Scan scan;
  int i = threadIdx.x;
#if VT_HAS_SM_90
  barrier_wait(shared_address(&row.shared->copied), 0);
#pragma unroll 4
  for (; i < whole; i += blockDim.x) scan.add(groups[i], i);
#endif
  for (; 4 * i < row.count; i += blockDim.x) {
    groups[i] = load_group(row, i, whole);
    scan.add(groups[i], i);
  }
  return scan.result(row);
}

__device__ __forceinline__ Word scan_logits(Row& row) {
  start_scan(row);
  return finish_scan(row);
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_SCAN_CUH_
