// Candidates that ranks have told of a row (sample_candidates.cuh): they lie in one block, and are
// a row that the sampler's own threshold and noise answer, with the token that all logits would
// give, or the answer is that all logits are needed.
#ifndef VT_CUDA_SAMPLE_TOLD_CUH_
#define VT_CUDA_SAMPLE_TOLD_CUH_

#include "sample_candidates.cuh"

namespace vt {
namespace sample {

/** Candidates of all ranks, in one block. */
struct Candidates {
  alignas(16) float z[kMaxCandidates]; /* logits after section 3 of docs/sampling.md */
  int32_t ids[kMaxCandidates];
  float logits[kMaxCandidates]; /* as they came out of the model */
  int count;
  /** Ids of rank r with a z of at least this are all named. */
  float named_from[kMaxRanks];
};

/** Of row `index`, of which the ranks have told `told`. All threads of the block, and a barrier. */
__device__ inline void take_candidates(const ShardParams& params, Patience& patience,
                                       uint64_t epoch, int index, const uint4* told,
                                       Candidates& out) {
  const VtCudaGroup& group = params.group;
  int begin = 0;
  for (int rank = 0; rank < group.num_ranks; rank++) {
    const RowNews news = news_of(told[rank]);
    if (news.kind != kCandidates && news.kind != kLikeliest) continue;
    const int count = min(news.id, params.most_candidates);
    uint4* from = slot(params, group.rank, rank, epoch) + candidates_at(params, index);
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      const uint4 words = take(from + i, rank, patience);
      out.z[begin + i] = __uint_as_float(words.x);
      out.ids[begin + i] = static_cast<int32_t>(words.y);
      out.logits[begin + i] = __uint_as_float(words.z);
      if (i == 0) out.named_from[rank] = __uint_as_float(words.w);
    }
    begin += count;
  }
  if (threadIdx.x == 0) out.count = begin;
  if (begin + threadIdx.x < (begin + 3) / 4 * 4) out.z[begin + threadIdx.x] = -INFINITY;
  __syncthreads();
}

/** Of one of them, ranked, as it came out of the model; in all threads. A barrier of the block. */
__device__ inline float logit_of(const Candidates& candidates, Word word, Shared& shared) {
  for (int i = threadIdx.x; i < candidates.count; i += blockDim.x) {
    if (candidates.ids[i] == ranked_id(word)) shared.chosen = __float_as_uint(candidates.logits[i]);
  }
  __syncthreads();
  return word == kNone ? 0 : __uint_as_float(shared.chosen);
}

/** The mass of ids that have the least z of those that stay, and that ranks have not named. */
__device__ inline Word mass_of_equals(const ShardParams& params, const uint4* told,
                                      const Candidates& candidates, float z_max, float least) {
  Word mass = 0;
  for (int rank = 0; rank < params.group.num_ranks; rank++) {
    const RowNews news = news_of(told[rank]);
    if (news.kind != kCandidates || news.id == 0 || candidates.named_from[rank] != least) continue;
    mass += __float_as_uint(news.logit) * mass_of(least, z_max);
  }
  return mass;
}

/** What lies beside the candidates of a row: ids that ranks have not named, below `named_from`. */
struct Others {
  Word least, most; /* bounds of their mass, in units of mass_of() */
  float named_from;
};

/**
 * Their mass is a sum of floor(2^40 e), where e is exp(z - z_max) within 2^-20 for the rounded
 * difference, which is above -32, and 2^-22 for the exponential; a rank has told its sum of e with
 * its own z_max, within as much. Both together are less than 2^-18.
 */
__device__ inline Others others_of(const ShardParams& params, const uint4* told,
                                   const Candidates& candidates, float temperature, float z_max) {
  constexpr double kWithin = 0x1p-18;
  Others others = {0, 0, -INFINITY};
  for (int rank = 0; rank < params.group.num_ranks; rank++) {
    const RowNews news = news_of(told[rank]);
    if (news.kind != kLikeliest) continue;
    const float own_max = __fdiv_rn(value_of(news.value), temperature);
    const double distance = static_cast<double>(own_max) - static_cast<double>(z_max);
    const double mass = 0x1p40 * static_cast<double>(news.logit) * exp(distance);
    others.named_from = fmaxf(others.named_from, candidates.named_from[rank]);
    if (candidates.named_from[rank] == -INFINITY) continue;  // there are no others
    others.most += static_cast<Word>(ceil(mass * (1 + kWithin)));
    others.least += static_cast<Word>(fmax(mass * (1 - kWithin) - params.args.x_columns, 0.0));
  }
  return others;
}

/**
 * Whether `least`, found with the most that the others may have, is also what the least gives, and
 * all ids above it are named. All threads of the block, a cluster of its own; barriers of it.
 */
__device__ inline bool is_decided(Row& row, float temperature, float z_max, float least,
                                  const Others& others) {
  if (!(least >= others.named_from)) return false;
  Word above = 0;
  Word named = 0;
  for_each_from(row, temperature, z_max - kMassReach, [&](float z, int) {
    const Word mass = mass_of(z, z_max);
    named += mass;
    if (z > least) above += mass;
  });
  // Sums below 2^53, so that doubles have all of their bits.
  const auto sum = [&](Word word) {
    return static_cast<Word>(cluster_sum(row, static_cast<double>(word)));
  };
  const Word total = sum(named) + others.least;
  return sum(above) < share_of(total, row.shared->params.top_p);
}

/**
 * The draw among them, ranked; kUnfit if it needs all logits. `shared` has the row's parameters;
 * the block is a cluster of its own.
 */
__device__ inline Word draw_candidate(const ShardParams& params, const uint4* told,
                                      Candidates& candidates, bool is_likeliest, Shared& shared) {
  Row row;
  row.logits = candidates.logits;
  row.z = candidates.z;
  row.shared = &shared;
  row.vocab_size = row.count = candidates.count;
  row.rank = 0;
  row.num_blocks = 1;
  row.num_tiles = (kMaxCandidates + kTile - 1) / kTile;
  row.begin = 0;
  row.turn = 0;
  row.greatest = -INFINITY;
  Word best = kNone;
  for (int first = 4 * threadIdx.x; first < candidates.count; first += 4 * blockDim.x) {
    for (int i = first; i < min(first + 4, candidates.count); i++) {
      row.greatest = fmaxf(row.greatest, row.z[i]);
      best = max(best, ranked(row.z[i], candidates.ids[i]));
    }
  }
  best = cluster_max(row, best);
  if (best == kNone) return kNone;
  const float temperature = shared.params.temperature;
  const float z_max = __fdiv_rn(ranked_value(best), temperature);
  float least;
  if (is_likeliest) {
    const Others others = others_of(params, told, candidates, temperature, z_max);
    least = Selection(row, temperature, z_max, -INFINITY, true, false)
                .with_mass(shared.params.top_p, others.most);
    if (!is_decided(row, temperature, z_max, least, others)) return kUnfit;
  } else {
    bool few;
    least = kept_by_count(row, temperature, z_max, few);
    if (shared.params.top_p < 1.0f) {
      const Word unnamed = mass_of_equals(params, told, candidates, z_max, least);
      least = Selection(row, temperature, z_max, least, true, few)
                  .with_mass(shared.params.top_p, unnamed);
    }
  }
  best = kNone;
  for_each_from(row, temperature, least, [&](float z, int i) {
    const int id = candidates.ids[i];
    const float noise = gumbel(noise_word(shared.params.seed, shared.num_tokens, id));
    best = max(best, ranked(__fadd_rn(z, noise), id));
  });
  return cluster_max(row, best);
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_TOLD_CUH_
