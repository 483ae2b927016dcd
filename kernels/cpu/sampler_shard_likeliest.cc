// Rows with top-p alone: each rank names its likeliest ids and tells the mass of its others. That
// mass is known within bounds: it is against the rank's own greatest z, and added in another order
// than the one that counts. If both bounds end top-p at one z, and no rank has ids above it that it
// has not named, all logits would end it there too. Of other rows all logits are gathered.
#include <algorithm>
#include <cmath>

#include "sampler_shard.h"

namespace vt {

namespace {

/// Of any mass: exponentials of rounded differences are within 2^-21 of themselves, those of z so
/// far below the greatest that it is more are nothing beside 2^-24 of the whole; sums of doubles
/// are much closer.
constexpr double kWithin = 0x1p-18;

/// The least z of at most `most` ids, greater than that of all others; -Infinity if there are no
/// others, Infinity if so many are equal that there is none.
float named_from(const KernelTable& kernels, const float* z, int n, int most, float z_max,
                 SamplerScratch& scratch) {
  const float border = truncation_threshold(kernels, {0, most + 1, 1}, z, n, z_max, scratch);
  if (border == -INFINITY) return border;
  float least = INFINITY;
  for (int i = kernels.find_at_least(z, 0, n, border); i < n;
       i = kernels.find_at_least(z, i + 1, n, border))
    if (z[i] > border) least = std::min(least, z[i]);
  return least;
}

}  // namespace

void find_likeliest(const KernelTable& kernels, const float* logits, std::int32_t first_id,
                    const float* z, int num_ids, float z_max, SamplerScratch& scratch,
                    Candidates* out) {
  const float least = std::isfinite(z_max)
                          ? named_from(kernels, z, num_ids, kMaxLikeliest, z_max, scratch)
                          : INFINITY;
  if (least == INFINITY) {
    out->count = Candidates::kTooMany;
    return;
  }
  scratch.exps.resize(num_ids);
  kernels.exp_minus(z, z_max, scratch.exps.data(), num_ids);
  double others = 0;
  Candidate* named = out->list() + 1;
  for (int i = 0; i < num_ids; i++) {
    if (z[i] == -INFINITY) continue;
    if (z[i] >= least)
      *named++ = {first_id + i, z[i], logits[i]};
    else
      others += scratch.exps[i];
  }
  out->list()[0] = {-1, least, static_cast<float>(others)};
  out->count = static_cast<std::int32_t>(named - out->list());
}

bool find_threshold(const KernelTable& kernels, float top_p,
                    const std::vector<const Candidates*>& ranks, const std::vector<float>& z,
                    SamplerScratch& scratch, float* threshold) {
  std::vector<float>& values = scratch.values;
  values.assign(z.begin(), z.end());
  std::sort(values.begin(), values.end(), [](float a, float b) { return a > b; });
  const int n = static_cast<int>(values.size());
  scratch.exps.resize(std::max<std::size_t>(n, scratch.exps.size()));
  kernels.exp_minus(values.data(), values[0], scratch.exps.data(), n);
  double others = 0, named = 0;
  float all_from = -INFINITY;
  for (const Candidates* rank : ranks) {
    if (rank->count == 0) continue;
    const Candidate* list = rank->list();
    float own_max = list[1].value;
    for (int i = 2; i < rank->count; i++) own_max = std::max(own_max, list[i].value);
    const double distance = static_cast<double>(own_max) - static_cast<double>(values[0]);
    others += static_cast<double>(list[0].logit) * std::exp(distance);
    all_from = std::max(all_from, list[0].value);
  }
  for (int i = 0; i < n; i++) named += scratch.exps[i];
  const double wanted = static_cast<double>(top_p) * (named + others);
  double above = 0;
  for (int i = 0; i < n;) {
    const double before = above;
    const int first = i;
    while (i < n && values[i] == values[first]) above += scratch.exps[i++];
    if (above < wanted * (1 - kWithin)) continue;
    *threshold = values[first];
    return before < wanted * (1 - kWithin) && above >= wanted * (1 + kWithin) &&
           *threshold >= all_from;
  }
  return false;
}

}  // namespace vt
