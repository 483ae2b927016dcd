// Candidates: rows with min-p or top-k over ranks. The ids that a rank's own min-p and top-k leave
// hold all that those of the whole row leave there, since another rank's ids only raise the bound.
// So a few ids of each rank, with their logits, are a row that the sampler's own threshold and
// noise answer, with the token that all logits would give. Where some rank has too many, it sends
// all of its logits, and the others' are -Infinity but for their candidates: the same token again.
#ifndef VT_CUDA_SAMPLE_CANDIDATES_CUH_
#define VT_CUDA_SAMPLE_CANDIDATES_CUH_

#include "sample_draw.cuh"
#include "sample_exchange.cuh"
#include "sample_threshold.cuh"

namespace vt {
namespace sample {

/** Whether a row is told by candidates, if they turn out to be few. */
__device__ __forceinline__ bool has_candidates(const VtCudaRowParams& p) {
  return p.min_p > 0.0f || (p.top_k > 0 && p.top_k <= kMaxCandidates);
}

/**
 * Sends those among this rank's ids, whose greatest logit is `best`, and returns how many; or more
 * than kMaxCandidates, and nothing is sent. Barriers of the cluster.
 */
__device__ inline int send_candidates(const ShardParams& params, uint64_t epoch, Row& row,
                                      int index, Word best) {
  Shared& shared = *row.shared;
  const float temperature = shared.params.temperature;
  bool few;
  const float least =
      kept_by_count(row, temperature, __fdiv_rn(ranked_value(best), temperature), few);
  if (threadIdx.x == 0) shared.num_listed = 0;
  __syncthreads();
  for_each_from(row, temperature, least, [&](float, int i) {
    const int at = atomicAdd(&shared.num_listed, 1);
    if (at < kMaxCandidates) shared.candidates[at] = i;
  });
  __syncthreads();
  tell(row, static_cast<Word>(shared.num_listed));
  int before = 0;
  int total = 0;
  for (int r = 0; r < row.num_blocks; r++) {
    if (r < row.rank) before += static_cast<int>(told(row, r));
    total += static_cast<int>(told(row, r));
  }
  if (total > kMaxCandidates) return total;
  const VtCudaGroup& group = params.group;
  const int64_t at = room_of(params, index) + before;
  for (int i = threadIdx.x; i < shared.num_listed * group.num_ranks; i += blockDim.x) {
    const int listed = shared.candidates[i / group.num_ranks];
    const int id = row.begin + listed;
    send(inbox(group, i % group.num_ranks, group.rank, epoch) + at + i / group.num_ranks,
         make_uint4(__float_as_uint(row.z[listed]), static_cast<uint32_t>(id),
                    __float_as_uint(row.logits[id]), 0));
  }
  return total;
}

/** Candidates of all ranks, in one block. */
struct Candidates {
  static constexpr int kMost = kMaxCandidates * kMaxRanks;
  alignas(16) float z[kMost]; /* logits after section 3 of docs/sampling.md */
  int32_t ids[kMost];
  float logits[kMost]; /* as they came out of the model */
  int count;
};

/** Of row `index`, of which the ranks have told `told`. All threads of the block, and a barrier. */
__device__ inline void take_candidates(const ShardParams& params, Patience& patience,
                                       uint64_t epoch, int index, const uint4* told,
                                       Candidates& out) {
  const VtCudaGroup& group = params.group;
  int begin = 0;
  for (int rank = 0; rank < group.num_ranks; rank++) {
    const RowNews news = news_of(told[rank]);
    if (news.kind != kCandidates) continue;
    const int count = static_cast<int>(min(news.value, static_cast<uint32_t>(kMaxCandidates)));
    uint4* from = inbox(group, group.rank, rank, epoch) + room_of(params, index);
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      const uint4 words = take(from + i, rank, patience);
      out.z[begin + i] = __uint_as_float(words.x);
      out.ids[begin + i] = static_cast<int32_t>(words.y);
      out.logits[begin + i] = __uint_as_float(words.z);
    }
    begin += count;
  }
  if (threadIdx.x == 0) out.count = begin;
  if (begin + threadIdx.x < (begin + 3) / 4 * 4) out.z[begin + threadIdx.x] = -INFINITY;
  __syncthreads();
}

/** To their places in all_logits. All threads of the block. */
__device__ inline void place_candidates(const ShardParams& params, int index,
                                        const Candidates& candidates) {
  float* out = all_logits(params, index);
  for (int i = threadIdx.x; i < candidates.count; i += blockDim.x) {
    const int id = candidates.ids[i];
    if (id >= 0 && id < params.sample.vocab_size) out[id] = candidates.logits[i];
  }
}

/** Of one of them, ranked, as it came out of the model. */
__device__ __forceinline__ float logit_of(const Candidates& candidates, Word word) {
  if (word == kNone) return 0;
  int i = 0;
  while (i + 1 < candidates.count && candidates.ids[i] != ranked_id(word)) i++;
  return candidates.logits[i];
}

/**
 * The draw among them, ranked. `shared` has the row's parameters; the block is a cluster of its
 * own.
 */
__device__ inline Word draw_candidate(Candidates& candidates, Shared& shared) {
  const int thread = threadIdx.x;
  Row row;
  row.logits = candidates.logits;
  row.z = candidates.z;
  row.shared = &shared;
  row.vocab_size = row.count = candidates.count;
  row.rank = 0;
  row.num_blocks = 1;
  row.num_tiles = 1;
  row.begin = 0;
  row.turn = 0;
  row.greatest = -INFINITY;
  // A thread has one group: there are no fewer threads.
  const int first = 4 * thread;
  const int end = min(first + 4, candidates.count);
  Word best = kNone;
  for (int i = first; i < end; i++) {
    row.greatest = fmaxf(row.greatest, row.z[i]);
    best = max(best, ranked(row.z[i], candidates.ids[i]));
  }
  best = cluster_max(row, best);
  if (best == kNone) return kNone;
  const float temperature = shared.params.temperature;
  const float least =
      truncation_threshold(row, temperature, __fdiv_rn(ranked_value(best), temperature));
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
