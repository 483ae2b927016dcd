#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace vt {

namespace {

/// Greatest logit and its lowest id; false if a logit is NaN or +Infinity.
bool find_max(const KernelTable& kernels, const float* x, int n, float& max, std::int32_t& id) {
  if (!kernels.max_of(x, n, &max)) return false;
  id = kernels.find_at_least(x, 0, n, max);
  return true;
}

std::int32_t choose(const KernelTable& kernels, const SampleInput& input, float max,
                    std::int32_t argmax, SamplerScratch& scratch) {
  const SamplingParams& params = input.row->params;
  const int n = input.vocab_size;
  const float* z = input.logits;
  if (has_penalties(*input.row, input.position)) {
    scratch.z.assign(z, z + n);
    apply_penalties(input, scratch.z.data(), scratch);
    z = scratch.z.data();
    if (!find_max(kernels, z, n, max, argmax)) return -1;
  }
  if (max == -INFINITY) return -1;
  if (params.temperature < kGreedyBelow) return argmax;
  scratch.z.resize(n);
  kernels.divide(z, params.temperature, scratch.z.data(), n);
  z = scratch.z.data();
  // Division may make ties; the argmax need not be exact here.
  const float z_max = max / params.temperature;
  if (z_max == -INFINITY) return -1;
  const Truncation truncation = {params.min_p, params.top_k, params.top_p};
  const float threshold = truncation_threshold(kernels, truncation, z, n, z_max, scratch);
  return draw(kernels, params.seed, input.position, z, {nullptr, 0}, n, threshold, argmax).index;
}

}  // namespace

std::size_t reserve_scratch(SamplerScratch& scratch, int vocab_size) {
  const std::size_t ids = std::max(vocab_size, kTileIds);
  scratch.z.reserve(ids);
  scratch.counts.reserve(ids);
  scratch.exps.reserve(ids);
  scratch.values.reserve(ids);
  return ids * (sizeof(float) * 3 + sizeof(std::int32_t));
}

void sample_token(const KernelTable& kernels, const SampleInput& input, SamplerScratch& scratch,
                  LogitResult& result) {
  result.id = -1;
  result.is_nan = true;
  result.has_logprob = false;
  float max;
  std::int32_t argmax;
  if (!find_max(kernels, input.logits, input.vocab_size, max, argmax)) return;
  result.id = choose(kernels, input, max, argmax, scratch);
  result.is_nan = result.id < 0;
  if (!result.is_nan && input.row->params.num_logprobs >= 0)
    compute_logprobs(kernels, input, result.id, input.row->params.logprob_ids, max, scratch,
                     result);
}

void judge_prompt_token(const KernelTable& kernels, const SampleInput& input,
                        SamplerScratch& scratch, LogitResult& result) {
  result.id = input.tokens[input.position];
  result.is_nan = true;
  result.has_logprob = false;
  float max;
  std::int32_t argmax;
  if (!find_max(kernels, input.logits, input.vocab_size, max, argmax)) return;
  result.is_nan = false;
  compute_logprobs(kernels, input, result.id, {}, max, scratch, result);
}

}  // namespace vt
