// What of a row's logits its token needs, by the row table alone.
#ifndef VT_CUDA_SAMPLE_NEEDS_CUH_
#define VT_CUDA_SAMPLE_NEEDS_CUH_

#include "common.cuh"
#include "vt_cuda_sample.h"

namespace vt {
namespace sample {

/** A temperature below is none. */
constexpr float kGreedyBelow = 1e-5f;

__device__ __forceinline__ bool below_min_tokens(const VtCudaRowParams& p, int num_tokens) {
  return num_tokens - p.num_prompt_tokens < p.min_tokens;
}

/** Whether section 3 of docs/sampling.md changes logits. */
__device__ __forceinline__ bool has_edits(const VtCudaRowParams& p, int num_tokens) {
  return p.num_allowed_ids > 0 || p.num_bad_words > 0 || p.num_biases > 0 ||
         p.repetition_penalty != 1.0f || p.frequency_penalty != 0.0f ||
         p.presence_penalty != 0.0f || (p.num_stop_ids > 0 && below_min_tokens(p, num_tokens));
}

enum class Needs : int { nothing, best_logit, all_logits };

/** Of row `index` of a step's logits. */
__device__ __forceinline__ Needs needs_of(const VtCudaSample& args, int index) {
  const int table_row = args.row_of[index];
  if (table_row < 0) return Needs::nothing;
  if (args.finished != nullptr && args.finished[table_row] != 0) return Needs::nothing;
  const VtCudaRowParams& p = args.params[table_row];
  const bool judges = args.judged_ids != nullptr && args.judged_ids[index] >= 0;
  const bool has_logprob = args.num_top >= 0 && p.num_logprobs >= 0;
  return judges || has_logprob || !(p.temperature < kGreedyBelow) ||
                 has_edits(p, args.num_tokens[table_row])
             ? Needs::all_logits
             : Needs::best_logit;
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_NEEDS_CUH_
