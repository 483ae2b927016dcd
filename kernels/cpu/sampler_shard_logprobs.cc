// The second round: logprobs of a row of logits over ranks. A tile of ids lies on one rank, so that
// the sums of tiles, added in the order of ids, are those of one place with all logits.
#include <algorithm>
#include <cmath>

#include "sampler_shard.h"

namespace vt {

void judge_shard(const KernelTable& kernels, const SampleInput& input, const Choice& choice,
                 int num_tiles, SamplerScratch& scratch, ShardLogprobs* out) {
  const float* x = input.logits;
  const int n = input.vocab_size;
  *out = {0, input.num_top};
  for (int tile = 0; tile < num_tiles; tile++) {
    const int count = std::min(kTileIds, n - tile * kTileIds);
    out->sums()[tile] =
        count <= 0 ? 0 : sum_of_tile(kernels, x + tile * kTileIds, count, choice.max, scratch);
  }
  for (int i = 0; i < n; i++) out->num_greater += x[i] > choice.logit;
  std::int32_t ids[kMaxShardTop];
  const int count = std::min(input.num_top, n);
  if (count > 0) find_top_ids(kernels, x, n, count, ids);
  ShardLogprobs::Best* top = out->top(num_tiles);
  for (int i = 0; i < input.num_top; i++)
    top[i] = i < count ? ShardLogprobs::Best{input.first_id + ids[i], x[ids[i]]}
                       : ShardLogprobs::Best{-1, -INFINITY};
}

void merge_logprobs(const Choice& choice, const std::vector<const ShardLogprobs*>& ranks,
                    int num_tiles, int num_top, LogitResult& result) {
  double sum = 0;
  result.rank = 1;
  for (const ShardLogprobs* rank : ranks) {
    for (int tile = 0; tile < num_tiles; tile++) sum += rank->sums()[tile];
    result.rank += rank->num_greater;
  }
  const double log_sum = std::log(sum);
  const auto logprob = [&](float x) { return logprob_of(x, choice.max, log_sum); };
  result.has_logprob = true;
  result.logprob = logprob(choice.logit);
  result.top_ids.clear();
  result.top_logprobs.clear();
  // Lists are sorted, and ranks have ascending ids: of equals the first rank's comes first.
  std::vector<int> taken(ranks.size(), 0);
  for (int i = 0; i < num_top; i++) {
    int best = -1;
    const auto next = [&](int rank) { return ranks[rank]->top(num_tiles)[taken[rank]]; };
    for (int rank = 0; rank < static_cast<int>(ranks.size()); rank++)
      if (taken[rank] < num_top && next(rank).id >= 0 &&
          (best < 0 || next(rank).logit > next(best).logit))
        best = rank;
    if (best < 0) return;
    result.top_ids.push_back(next(best).id);
    result.top_logprobs.push_back(logprob(next(best).logit));
    taken[best]++;
  }
}

}  // namespace vt
