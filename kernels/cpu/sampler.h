// One row of logits to a token, by docs/sampling.md: masks, bias and penalties, temperature, min-p,
// top-k, top-p, then the Gumbel argmax; and raw logprobs. Knows nothing of batches or threads.
#pragma once

#include <cstdint>
#include <vector>

#include "../host/row_table.h"
#include "../step.h"
#include "kernel_table.h"

namespace vt {

struct SampleInput {
  /// [vocab_size]
  const float* logits;
  int vocab_size;
  const Row* row;
  /// The row's history.
  const std::int32_t* tokens;
  /// Position of the token that is made or judged.
  int position;
  /// Alternatives to return with the token's logprob.
  int num_top;
};

struct LogitResult {
  /// Sampled or judged id; -1 where the logits were unfit.
  std::int32_t id;
  bool is_nan;
  bool has_logprob;
  float logprob;
  std::int32_t rank;
  std::int32_t top_ids[kMaxLogprobs];
  float top_logprobs[kMaxLogprobs];
};

/// Memory of one thread for the rows that it samples.
struct SamplerScratch {
  /// [vocab_size] the logits as they change
  std::vector<float> z;
  /// [vocab_size] occurrences of each id; 0 between uses
  std::vector<std::int32_t> counts;
  std::vector<float> exps;
  std::vector<float> values;
  std::vector<double> bucket_mass;
  std::vector<std::int32_t> bucket_count;
};

void sample_token(const KernelTable& kernels, const SampleInput& input, SamplerScratch& scratch,
                  LogitResult& result);
void judge_prompt_token(const KernelTable& kernels, const SampleInput& input,
                        SamplerScratch& scratch, LogitResult& result);

// The parts, each in its own file.

/// Section 1 of docs/sampling.md: logprob and rank of `id`, and the top list.
void compute_logprobs(const KernelTable& kernels, const SampleInput& input, std::int32_t id,
                      float max, SamplerScratch& scratch, LogitResult& result);
/// Section 3. True if any of it applies to the row.
bool has_penalties(const Row& row, int position);
void apply_penalties(const SampleInput& input, float* z, SamplerScratch& scratch);
/// Section 5, steps 2 to 4, on logits already divided by the temperature: an id stays if its z is
/// at least the result.
float truncation_threshold(const KernelTable& kernels, const SamplingParams& params, const float* z,
                           int vocab_size, float z_max, SamplerScratch& scratch);
/// Section 6 over the ids with z >= threshold; `likely` is any of them.
std::int32_t draw(const KernelTable& kernels, std::uint64_t seed, int position, const float* z,
                  int vocab_size, float threshold, std::int32_t likely);

}  // namespace vt
