// Logprobs of raw logits: a sum of exponentials over tiles of 1,024 ids in f64, and the best ids.
#include <algorithm>
#include <cmath>

#include "sampler.h"

namespace vt {

namespace {

constexpr int kTile = 1024;

double sum_of_exps(const KernelTable& kernels, const float* x, int n, float max,
                   std::vector<float>& exps) {
  exps.resize(kTile);
  double sum = 0;
  for (int begin = 0; begin < n; begin += kTile) {
    const int count = std::min(kTile, n - begin);
    kernels.exp_minus(x + begin, max, exps.data(), count);
    double lanes[4] = {0, 0, 0, 0};
    int i = 0;
    for (; i + 4 <= count; i += 4)
      for (int lane = 0; lane < 4; lane++) lanes[lane] += exps[i + lane];
    double tile = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    for (; i < count; i++) tile += exps[i];
    sum += tile;
  }
  return sum;
}

/// The `count` greatest, ties to the lower id. Scans once, keeping the list sorted.
void top_ids(const KernelTable& kernels, const float* x, int n, int count, std::int32_t* ids) {
  int size = 0;
  for (int id = 0; id < n; id++) {
    if (size == count) {
      id = kernels.find_at_least(x, id, n, x[ids[size - 1]]);
      if (id >= n) break;
      if (!(x[id] > x[ids[size - 1]])) continue;
    } else {
      size++;
    }
    int at = size - 1;
    for (; at > 0 && x[id] > x[ids[at - 1]]; at--) ids[at] = ids[at - 1];
    ids[at] = id;
  }
}

}  // namespace

void compute_logprobs(const KernelTable& kernels, const SampleInput& input, std::int32_t id,
                      float max, SamplerScratch& scratch, LogitResult& result) {
  const float* x = input.logits;
  const int n = input.vocab_size;
  const double log_sum = std::log(sum_of_exps(kernels, x, n, max, scratch.exps));
  const auto logprob = [&](std::int32_t i) {
    return static_cast<float>((static_cast<double>(x[i]) - static_cast<double>(max)) - log_sum);
  };
  result.has_logprob = true;
  result.logprob = logprob(id);
  result.rank = 1;
  for (int i = 0; i < n; i++) result.rank += x[i] > x[id];
  const int count = std::min(input.num_top, n);
  if (count > 0) top_ids(kernels, x, n, count, result.top_ids);
  for (int i = 0; i < count; i++) result.top_logprobs[i] = logprob(result.top_ids[i]);
  for (int i = count; i < input.num_top; i++) {
    result.top_ids[i] = -1;
    result.top_logprobs[i] = -INFINITY;
  }
}

}  // namespace vt
