// What this rank has heard of a row, and the answer that it gives to it.
#ifndef VT_CUDA_SAMPLE_ANSWER_CUH_
#define VT_CUDA_SAMPLE_ANSWER_CUH_

#include "sample_exchange.cuh"

namespace vt {
namespace sample {

/** What ranks told of a row, in all of a block's threads. */
struct Heard {
  /** The best of the ids that they named; kUnfit if a rank said so. */
  Word best = kNone;
  /** Of `best`, or of the judged id. */
  float logit = 0;
  /** Key of the row's greatest logit; 0 where it has no logprob. */
  uint32_t greatest = 0;
  /** Of a row that is searched: the same after section 3 of docs/sampling.md. */
  uint32_t greatest_edited = 0;
  bool has_candidates = false, is_likeliest = false, needs_more = false;
  bool is_judged = false, is_idle = false;
};

/** The answer to a row that nothing more is needed for but perhaps its logprobs. By one thread. */
__device__ inline void answer_row(const ShardParams& params, int index, const Heard& heard) {
  const VtCudaSample& sample = params.sample;
  const bool is_fit = heard.best != kUnfit;
  int id = -1;
  if (heard.is_judged && is_fit) {
    id = sample.judged_ids[index];
  } else if (heard.best != kNone && is_fit) {
    id = ranked_id(heard.best);
  }
  sample.token_ids[index] = id;
  sample.row_flags[index] = id >= 0 || heard.is_idle ? 0 : 1;
  if (sample.num_top < 0) return;
  const bool has_round = id >= 0 && heard.greatest != 0;
  if (!has_round) sample.ranks[index] = 0;
  choose(params, index,
         {has_round ? id : Chosen::kNoRound, heard.logit, value_of(heard.greatest)});
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_ANSWER_CUH_
