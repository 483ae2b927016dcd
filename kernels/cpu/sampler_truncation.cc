// min-p, top-k and top-p as one threshold. The ids that are left fall into buckets by their
// distance from the greatest logit; only the bucket that holds the border is sorted.
#include <algorithm>
#include <cmath>

#include "sampler.h"

namespace vt {

namespace {

constexpr int kBuckets = 1024;
constexpr float kBucketsPerUnit = 32;

/// Falls as z rises, in floating point too, so that buckets never overlap.
int bucket_of(float z, float z_max) {
  const float distance = (z_max - z) * kBucketsPerUnit;
  return distance < kBuckets - 1 ? static_cast<int>(distance) : kBuckets - 1;
}

/// Values of the ids left in one bucket, greatest first.
void sorted_bucket(const KernelTable& kernels, const float* z, int n, float threshold, float z_max,
                   int bucket, std::vector<float>& values) {
  values.clear();
  for (int i = kernels.find_at_least(z, 0, n, threshold); i < n;
       i = kernels.find_at_least(z, i + 1, n, threshold))
    if (z[i] > -INFINITY && bucket_of(z[i], z_max) == bucket) values.push_back(z[i]);
  std::sort(values.begin(), values.end(), [](float a, float b) { return a > b; });
}

/// The k-th greatest value left, or the threshold if no more than k are left.
float top_k_threshold(const KernelTable& kernels, const float* z, int n, int k, float threshold,
                      float z_max, SamplerScratch& scratch) {
  scratch.bucket_count.assign(kBuckets, 0);
  for (int i = kernels.find_at_least(z, 0, n, threshold); i < n;
       i = kernels.find_at_least(z, i + 1, n, threshold))
    if (z[i] > -INFINITY) scratch.bucket_count[bucket_of(z[i], z_max)]++;
  int above = 0, bucket = 0;
  while (bucket < kBuckets && above + scratch.bucket_count[bucket] < k)
    above += scratch.bucket_count[bucket++];
  if (bucket == kBuckets) return threshold;
  sorted_bucket(kernels, z, n, threshold, z_max, bucket, scratch.values);
  return scratch.values[k - above - 1];
}

/// The greatest t with mass(z >= t) >= top_p * mass(all left).
float top_p_threshold(const KernelTable& kernels, const float* z, int n, float top_p,
                      float threshold, float z_max, SamplerScratch& scratch) {
  scratch.bucket_mass.assign(kBuckets, 0);
  scratch.exps.resize(n);
  kernels.exp_minus(z, z_max, scratch.exps.data(), n);
  for (int i = kernels.find_at_least(z, 0, n, threshold); i < n;
       i = kernels.find_at_least(z, i + 1, n, threshold))
    if (z[i] > -INFINITY) scratch.bucket_mass[bucket_of(z[i], z_max)] += scratch.exps[i];
  double total = 0;
  for (const double mass : scratch.bucket_mass) total += mass;
  const double wanted = static_cast<double>(top_p) * total;
  double above = 0;
  int bucket = 0;
  while (bucket < kBuckets - 1 && above + scratch.bucket_mass[bucket] < wanted)
    above += scratch.bucket_mass[bucket++];
  sorted_bucket(kernels, z, n, threshold, z_max, bucket, scratch.values);
  const std::vector<float>& values = scratch.values;
  if (values.empty()) return threshold;
  scratch.exps.resize(std::max<std::size_t>(n, values.size()));
  kernels.exp_minus(values.data(), z_max, scratch.exps.data(), static_cast<int>(values.size()));
  for (std::size_t i = 0; i < values.size(); i++) {
    above += scratch.exps[i];
    if (above >= wanted) return values[i];
  }
  return values.back();
}

}  // namespace

float truncation_threshold(const KernelTable& kernels, const Truncation& params, const float* z,
                           int num_ids, float z_max, SamplerScratch& scratch) {
  float threshold = -INFINITY;
  if (params.min_p > 0) threshold = z_max + std::log(params.min_p);
  if (params.top_k > 0)
    threshold = std::max(threshold, top_k_threshold(kernels, z, num_ids, params.top_k, threshold,
                                                    z_max, scratch));
  if (params.top_p < 1)
    threshold = std::max(threshold, top_p_threshold(kernels, z, num_ids, params.top_p, threshold,
                                                    z_max, scratch));
  return threshold;
}

}  // namespace vt
