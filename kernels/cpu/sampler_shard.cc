// The first round: candidates of a rank, and the choice among those of all ranks. An id that a
// rank's own min-p and top-k drop is dropped by those of the whole row too, and what is left of the
// row decides top-p and the draw: so few ids decide as all would, by the same code. With top-p
// alone the likeliest of each rank decide where they can (sampler_shard_likeliest.cc).
#include "sampler_shard.h"

#include <algorithm>
#include <cmath>

namespace vt {

namespace {

bool is_greedy(const SamplingParams& params) { return params.temperature < kGreedyBelow; }

void find_one(const KernelTable& kernels, const SampleInput& input, const float* z, float max,
              SamplerScratch& scratch, Candidates* out) {
  const SamplingParams& params = input.row->params;
  const int n = input.vocab_size;
  const std::int32_t argmax = kernels.find_at_least(z, 0, n, max);
  Drawn best = {argmax, max};
  if (!is_greedy(params)) {
    scratch.z.resize(n);
    kernels.divide(z, params.temperature, scratch.z.data(), n);
    const IdsOfZ ids = {nullptr, input.first_id};
    best = draw(kernels, params.seed, input.position, scratch.z.data(), ids, n, -INFINITY, argmax);
  }
  out->count = 1;
  out->list()[0] = {input.first_id + best.index, best.value, input.logits[best.index]};
}

void find_many(const KernelTable& kernels, const SampleInput& input, ShardKind kind, const float* z,
               float max, SamplerScratch& scratch, Candidates* out) {
  const SamplingParams& params = input.row->params;
  const int n = input.vocab_size;
  scratch.z.resize(n);
  kernels.divide(z, params.temperature, scratch.z.data(), n);
  z = scratch.z.data();
  if (kind == ShardKind::likeliest)
    return find_likeliest(kernels, input.logits, input.first_id, z, n, max / params.temperature,
                          scratch, out);
  const Truncation own = {params.min_p, params.top_k, 1};
  const float least = truncation_threshold(kernels, own, z, n, max / params.temperature, scratch);
  for (int i = kernels.find_at_least(z, 0, n, least); i < n;
       i = kernels.find_at_least(z, i + 1, n, least)) {
    if (z[i] == -INFINITY) continue;
    if (out->count == kMaxCandidates) {
      out->count = Candidates::kTooMany;
      return;
    }
    out->list()[out->count++] = {input.first_id + i, z[i], input.logits[i]};
  }
}

}  // namespace

ShardKind shard_kind(const Row& row, const LogitRow& logit_row, int vocab_size) {
  const SamplingParams& p = row.params;
  if (logit_row.num_top > kMaxShardTop || logit_row.num_named > 0) return ShardKind::gathered;
  if (logit_row.is_prompt) return ShardKind::judged;
  const bool has_top_k = p.top_k > 0 && p.top_k < vocab_size;
  if (is_greedy(p) || !(p.min_p > 0 || has_top_k || p.top_p < 1)) return ShardKind::one;
  const bool is_narrow = p.min_p > 0 || (has_top_k && p.top_k <= kMaxCandidates) ||
                         (!p.allowed_ids.empty() && p.allowed_ids.size() <= kMaxCandidates);
  if (is_narrow) return ShardKind::many;
  return has_top_k ? ShardKind::gathered : ShardKind::likeliest;
}

std::int64_t Candidates::words(ShardKind kind) {
  constexpr std::int64_t each = sizeof(Candidate) / 4, head = sizeof(Candidates) / 4;
  switch (kind) {
    case ShardKind::gathered:
      return 0;
    case ShardKind::judged:
    case ShardKind::one:
      return head + each;
    case ShardKind::many:
      return head + each * kMaxCandidates;
    case ShardKind::likeliest:
      return head + each * (1 + kMaxLikeliest);
  }
  return 0;
}

void find_candidates(const KernelTable& kernels, const SampleInput& input, ShardKind kind,
                     SamplerScratch& scratch, Candidates* out) {
  const int n = input.vocab_size;
  const float* z = input.logits;
  *out = {0, -INFINITY};
  if (n == 0) return;
  float max;
  if (!kernels.max_of(z, n, &max)) {
    out->count = Candidates::kUnfit;
    return;
  }
  out->max = max;
  if (kind == ShardKind::judged) {
    const std::int32_t id = input.tokens[input.position], at = id - input.first_id;
    if (at < 0 || at >= n) return;
    out->count = 1;
    out->list()[0] = {id, z[at], z[at]};
    return;
  }
  if (has_penalties(*input.row, input.position)) {
    scratch.z.assign(z, z + n);
    apply_penalties(input, scratch.z.data(), scratch);
    z = scratch.z.data();
    if (!kernels.max_of(z, n, &max)) {
      out->count = Candidates::kUnfit;
      return;
    }
  }
  const SamplingParams& params = input.row->params;
  if ((is_greedy(params) ? max : max / params.temperature) == -INFINITY) return;
  if (kind == ShardKind::one) return find_one(kernels, input, z, max, scratch, out);
  find_many(kernels, input, kind, z, max, scratch, out);
}

Choice choose_candidate(const KernelTable& kernels, const Row& row, int position, ShardKind kind,
                        const std::vector<const Candidates*>& ranks, SamplerScratch& scratch) {
  Choice choice = {false, -1, 0, -INFINITY};
  std::vector<std::int32_t>& ids = scratch.ids;
  std::vector<float>&z = scratch.z, &logits = scratch.logits;
  for (std::vector<float>* column : {&z, &logits}) column->clear();
  ids.clear();
  for (const Candidates* rank : ranks) {
    if (rank->count == Candidates::kUnfit) return choice;
    choice.is_gathered |= rank->count == Candidates::kTooMany;
    choice.max = std::max(choice.max, rank->max);
    for (int i = kind == ShardKind::likeliest ? 1 : 0; i < rank->count; i++) {
      const Candidate& candidate = rank->list()[i];
      ids.push_back(candidate.id);
      z.push_back(candidate.value);
      logits.push_back(candidate.logit);
    }
  }
  if (ids.empty() || choice.is_gathered) return choice;
  const int n = static_cast<int>(ids.size());
  // The first of the greatest, which has the lowest id.
  int best = static_cast<int>(std::max_element(z.begin(), z.end()) - z.begin());
  if (kind == ShardKind::many || kind == ShardKind::likeliest) {
    const SamplingParams& p = row.params;
    float threshold;
    if (kind == ShardKind::many) {
      threshold =
          truncation_threshold(kernels, {p.min_p, p.top_k, p.top_p}, z.data(), n, z[best], scratch);
    } else if (!find_threshold(kernels, p.top_p, ranks, z, scratch, &threshold)) {
      choice.is_gathered = true;
      return choice;
    }
    best = draw(kernels, p.seed, position, z.data(), {ids.data(), 0}, n, threshold, best).index;
  }
  choice.id = ids[best];
  choice.logit = logits[best];
  return choice;
}

}  // namespace vt
