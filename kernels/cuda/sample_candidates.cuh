// Candidates: rows with min-p, top-k or top-p over ranks. Two kinds of lists:
//
// - The ids that a rank's own min-p and top-k leave hold all that those of the whole row leave
//   there, since another rank's ids only raise the bound.
// - With top-p alone a rank names its likeliest ids, and the mass of the others. That mass is known
//   within bounds: it is against the rank's own greatest z, and rounded otherwise than the one that
//   counts. If both bounds give one threshold, and no rank has an id above it that it has not
//   named, then it is the threshold that all logits give. Of other rows all logits are gathered.
//
// So a few ids of each rank, with their logits, are a row that the sampler's own threshold and
// noise answer, with the token that all logits would give.
#ifndef VT_CUDA_SAMPLE_CANDIDATES_CUH_
#define VT_CUDA_SAMPLE_CANDIDATES_CUH_

#include "sample_draw.cuh"
#include "sample_exchange.cuh"
#include "sample_threshold.cuh"

namespace vt {
namespace sample {

/** What is told of a row that cuts: kCandidates or kLikeliest, if they turn out to be few. */
__device__ __forceinline__ Told told_of_cut(const VtCudaRowParams& p, const ShardParams& params) {
  if (p.min_p > 0.0f) return kCandidates;
  const bool has_top_k = p.top_k > 0 && p.top_k < params.sample.vocab_size;
  if (!has_top_k) return kLikeliest;
  return p.top_k <= most_candidates(params.group.num_ranks) ? kCandidates : kAllLogits;
}

/** The sum over the cluster, in every thread, in one order. A barrier of the cluster. */
__device__ __forceinline__ double cluster_sum(Row& row, double value) {
  Shared& shared = *row.shared;
#pragma unroll
  for (int d = 16; d > 0; d /= 2) value += __shfl_xor_sync(~0u, value, d);
  const auto bits = [](double x) { return static_cast<Word>(__double_as_longlong(x)); };
  const auto number = [](Word x) { return __longlong_as_double(static_cast<long long>(x)); };
  if (threadIdx.x % 32 == 0) shared.warps[threadIdx.x / 32] = bits(value);
  __syncthreads();
  double sum = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / 32; w++) sum += number(shared.warps[w]);
  tell(row, bits(sum));
  sum = 0;
  for (int r = 0; r < row.num_blocks; r++) sum += number(told(row, r));
  return sum;
}

/**
 * A z that at least `count` ids have, and not many more if they lie among many threads: so many
 * threads' greatest have it. -Infinity if there are fewer. Barriers of the cluster.
 */
__device__ inline float likeliest_from(const Row& row, float temperature, float z_max, int count) {
  const EvenBins even(z_max);
  Histogram histogram(row);
  histogram.begin();
  const float z = __fdiv_rn(row.greatest, temperature);
  if (z > -INFINITY) histogram.add(even.of(z), 1);
  Word target = count;
  if (histogram.add_up() < target) return -INFINITY;
  const int b = histogram.choose(target);
  return b == kBins - 1 ? -INFINITY : even.edge(b + 1);
}

/** The mass of this rank's ids with z < `least`; z_max has 1. Barriers of the cluster. */
__device__ inline double mass_below(Row& row, float temperature, float z_max, float least) {
  double sum = 0;
  for_each_from(row, temperature, z_max - kMassReach, [&](float z, int) {
    if (z < least) sum += static_cast<double>(expf(__fsub_rn(z, z_max)));
  });
  return cluster_sum(row, sum);
}

/**
 * Sends those among this rank's ids, whose greatest logit is `best`: news of `by`. Nothing is sent
 * if they are too many. Barriers of the cluster.
 */
__device__ inline RowNews send_candidates(const ShardParams& params, uint64_t epoch, Row& row,
                                          int index, Word best, Told by) {
  Shared& shared = *row.shared;
  const VtCudaGroup& group = params.group;
  const int most = most_candidates(group.num_ranks);
  const float temperature = shared.params.temperature;
  const float z_max = __fdiv_rn(ranked_value(best), temperature);
  bool few;
  // A quarter of the room: ids with one z, or nearly so, are named together.
  const float least = by == kLikeliest ? likeliest_from(row, temperature, z_max, most / 4)
                                       : kept_by_count(row, temperature, z_max, few);
  if (threadIdx.x == 0) shared.num_listed = 0;
  __syncthreads();
  for_each_from(row, temperature, least, [&](float, int i) {
    const int at = atomicAdd(&shared.num_listed, 1);
    if (at < most) shared.candidates[at] = i;
  });
  __syncthreads();
  tell(row, static_cast<Word>(shared.num_listed));
  int before = 0;
  int total = 0;
  for (int r = 0; r < row.num_blocks; r++) {
    if (r < row.rank) before += static_cast<int>(told(row, r));
    total += static_cast<int>(told(row, r));
  }
  RowNews news;
  news.kind = by;
  news.value = static_cast<uint32_t>(best >> 32);
  news.id = total;
  if (total > most || !(fabsf(z_max) < INFINITY)) {
    news.kind = kAllLogits;
    return news;
  }
  const int64_t at = candidates_at(params, index) + before;
  for (int i = threadIdx.x; i < shared.num_listed * group.num_ranks; i += blockDim.x) {
    const int listed = shared.candidates[i / group.num_ranks];
    const int id = row.begin + listed;
    send(inbox(group, i % group.num_ranks, group.rank, epoch) + at + i / group.num_ranks,
         make_uint4(__float_as_uint(row.z[listed]), static_cast<uint32_t>(id),
                    __float_as_uint(row.logits[id]), __float_as_uint(least)));
  }
  if (by == kLikeliest) {
    news.logit = static_cast<float>(mass_below(row, temperature, z_max, least));
  }
  return news;
}

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
    const int count = min(news.id, most_candidates(group.num_ranks));
    uint4* from = inbox(group, group.rank, rank, epoch) + candidates_at(params, index);
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
    least = truncation_threshold(row, temperature, z_max);
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

#endif  // VT_CUDA_SAMPLE_CANDIDATES_CUH_
