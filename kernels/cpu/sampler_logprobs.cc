// Logprobs of raw logits: a sum of exponentials over tiles of 1,024 ids in f64, and the best ids.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "sampler.h"

namespace vt {

namespace {

double sum_of_exps(const KernelTable& kernels, const float* x, int n, float max,
                   SamplerScratch& scratch) {
  double sum = 0;
  for (int begin = 0; begin < n; begin += kTileIds)
    sum += sum_of_tile(kernels, x + begin, std::min(kTileIds, n - begin), max, scratch);
  return sum;
}

/// Beyond this, keeping a list sorted by insertion costs more than putting all ids in order.
constexpr int kMostInserted = 64;

/// As find_top_ids, for many.
void sort_top_ids(const float* x, int n, int count, std::vector<std::int32_t>& order,
                  std::int32_t* ids) {
  order.resize(n);
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(
      order.begin(), order.begin() + count, order.end(),
      [x](std::int32_t a, std::int32_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); });
  std::copy_n(order.begin(), count, ids);
}

}  // namespace

double sum_of_tile(const KernelTable& kernels, const float* x, int count, float max,
                   SamplerScratch& scratch) {
  scratch.exps.resize(kTileIds);
  const float* exps = scratch.exps.data();
  kernels.exp_minus(x, max, scratch.exps.data(), count);
  double lanes[4] = {0, 0, 0, 0};
  int i = 0;
  for (; i + 4 <= count; i += 4)
    for (int lane = 0; lane < 4; lane++) lanes[lane] += exps[i + lane];
  double tile = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  for (; i < count; i++) tile += exps[i];
  return tile;
}

// Ties go to the lower id. Scans once, keeping the list sorted.
void find_top_ids(const KernelTable& kernels, const float* x, int n, int count, std::int32_t* ids) {
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

void compute_logprobs(const KernelTable& kernels, const SampleInput& input, std::int32_t id,
                      const std::vector<std::int32_t>& named, float max, SamplerScratch& scratch,
                      LogitResult& result) {
  const float* x = input.logits;
  const int n = input.vocab_size;
  const double log_sum = std::log(sum_of_exps(kernels, x, n, max, scratch));
  const auto logprob = [&](std::int32_t i) { return logprob_of(x[i], max, log_sum); };
  result.has_logprob = true;
  result.logprob = logprob(id);
  result.rank = 1;
  for (int i = 0; i < n; i++) result.rank += x[i] > x[id];
  std::vector<std::int32_t>& ids = result.top_ids;
  if (!named.empty()) {
    ids = named;
  } else {
    ids.resize(input.num_top);
    if (input.num_top > kMostInserted)
      sort_top_ids(x, n, input.num_top, scratch.ids, ids.data());
    else if (input.num_top > 0)
      find_top_ids(kernels, x, n, input.num_top, ids.data());
  }
  result.top_logprobs.resize(ids.size());
  for (std::size_t i = 0; i < ids.size(); i++) result.top_logprobs[i] = logprob(ids[i]);
}

}  // namespace vt
