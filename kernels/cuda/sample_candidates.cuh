// Candidates: rows with min-p, top-k or top-p over ranks. Two kinds of lists:
//
// - The ids that a rank's own min-p and top-k leave hold all that those of the whole row leave
//   there, since another rank's ids only raise the bound. Of a top-k a rank names no more than k:
//   where more have the k-th greatest z, as many times as are left the one of them with the most
//   noise, since no other of them can be drawn, and how many they are.
// - With top-p alone a rank names its likeliest ids, and the mass of the others. That mass is known
//   within bounds: it is against the rank's own greatest z, and rounded otherwise than the one that
//   counts. If both bounds give one threshold, and no rank has an id above it that it has not
//   named, then it is the threshold that all logits give. Of other rows all logits are gathered.
//
// What is made of them: sample_told.cuh.
#ifndef VT_CUDA_SAMPLE_CANDIDATES_CUH_
#define VT_CUDA_SAMPLE_CANDIDATES_CUH_

#include "sample_draw.cuh"
#include "sample_exchange.cuh"
#include "sample_threshold.cuh"

namespace vt {
namespace sample {

/** What is told of a row that cuts: kSearched, or kCandidates or kLikeliest, if they turn out to be
 * few. */
__device__ __forceinline__ Told told_of_cut(const VtCudaRowParams& p, const ShardParams& params) {
  if (is_carried(params)) {
    // Only what can be told whatever the logits are: nothing more can be asked for then.
    const bool is_told = params.args.has_candidates != 0 && p.top_k > 0;
    return is_told && p.top_k <= params.most_candidates ? kCandidates : kSearched;
  }
  if (p.min_p > 0.0f) return kCandidates;
  const bool has_top_k = p.top_k > 0 && p.top_k < params.sample.vocab_size;
  if (!has_top_k) return kLikeliest;
  return p.top_k <= params.most_candidates ? kCandidates : kAllLogits;
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

/** Places in z that a block has listed, and what the blocks before it and all have. */
struct Listed {
  int before, total;
};

/**
 * Lists this rank's ids with z >= least, or above it, in shared.candidates as far as there is room
 * for. Barriers of the cluster.
 */
__device__ inline Listed list_candidates(Row& row, float temperature, float least, bool above,
                                         int most) {
  Shared& shared = *row.shared;
  if (threadIdx.x == 0) shared.num_listed = 0;
  __syncthreads();
  for_each_from(row, temperature, least, [&](float z, int i) {
    if (above && z == least) return;
    const int at = atomicAdd(&shared.num_listed, 1);
    if (at < most) shared.candidates[at] = i;
  });
  __syncthreads();
  tell(row, static_cast<Word>(shared.num_listed));
  Listed listed = {0, 0};
  for (int r = 0; r < row.num_blocks; r++) {
    if (r < row.rank) listed.before += static_cast<int>(told(row, r));
    listed.total += static_cast<int>(told(row, r));
  }
  return listed;
}

/** Of the ids with this z the one with the most noise, ranked. Barriers of the cluster. */
__device__ inline Word best_of_equals(Row& row, float temperature, float z_of_them) {
  const Shared& shared = *row.shared;
  Word best = kNone;
  for_each_from(row, temperature, z_of_them, [&](float z, int i) {
    if (z != z_of_them) return;
    const int id = row.begin + i;
    best = max(
        best,
        ranked(__fadd_rn(z, gumbel(noise_word(shared.params.seed, shared.num_tokens, id))), id));
  });
  return cluster_max(row, best);
}

/**
 * Sends those among this rank's ids, whose greatest logit is `best`: news of `by`. Nothing is sent
 * if they are too many. Barriers of the cluster.
 */
__device__ inline RowNews send_candidates(const ShardParams& params, uint64_t epoch, Row& row,
                                          int index, Word best, Told by) {
  Shared& shared = *row.shared;
  const int most = params.most_candidates;
  const float temperature = shared.params.temperature;
  const float z_max = __fdiv_rn(ranked_value(best), temperature);
  bool few;
  // A quarter of the room: ids with one z, or nearly so, are named together.
  const float least = by == kLikeliest ? likeliest_from(row, temperature, z_max, most / 4)
                                       : kept_by_count(row, temperature, z_max, few);
  RowNews news;
  news.kind = by;
  news.value = static_cast<uint32_t>(best >> 32);
  Listed listed = list_candidates(row, temperature, least, false, most);
  const int top_k = by == kCandidates ? shared.params.top_k : 0;
  const bool has_equals = listed.total > most && top_k > 0 && top_k <= most;
  if (listed.total > most && !has_equals) {
    news.kind = kAllLogits;
    return news;
  }
  Word equal = kNone;
  if (has_equals) {
    equal = best_of_equals(row, temperature, least);
    news.logit = __uint_as_float(static_cast<uint32_t>(listed.total - top_k));
    listed = list_candidates(row, temperature, least, true, most);
  }
  const int64_t at = candidates_at(params, index);
  const auto send_one = [&](int place, int i, int rank) {
    const int id = row.begin + i;
    send(slot(params, rank, params.group.rank, epoch) + at + place,
         make_uint4(__float_as_uint(row.z[i]), static_cast<uint32_t>(id),
                    __float_as_uint(row.logits[id]), __float_as_uint(least)));
  };
  const int receivers = num_boards(params);
  for (int i = threadIdx.x; i < shared.num_listed * receivers; i += blockDim.x) {
    send_one(listed.before + i / receivers, shared.candidates[i / receivers], i % receivers);
  }
  news.id = has_equals ? top_k : listed.total;
  const int of_equal = ranked_id(equal) - row.begin;
  if (has_equals && of_equal >= 0 && of_equal < row.count) {
    for (int i = threadIdx.x; i < (top_k - listed.total) * receivers; i += blockDim.x) {
      send_one(listed.total + i / receivers, of_equal, i % receivers);
    }
  }
  if (by == kLikeliest) {
    news.logit = static_cast<float>(mass_below(row, temperature, z_max, least));
  }
  return news;
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_CANDIDATES_CUH_
