// One row of logits to a token, by docs/sampling.md: masks, bias and penalties, temperature, min-p,
// top-k, top-p, then the Gumbel argmax; and raw logprobs. Knows nothing of batches or threads.
#pragma once

#include <cstdint>
#include <vector>

#include "../host/row_table.h"
#include "../op_table.h"
#include "../step.h"
#include "kernel_table.h"

namespace vt {

constexpr float kGreedyBelow = 1e-5f;

struct SampleInput {
  /// [vocab_size]; where a rank has some of the ids, those from first_id on, and as many.
  const float* logits;
  int vocab_size;
  const Row* row;
  /// The row's history.
  const std::int32_t* tokens;
  /// Position of the token that is made or judged.
  int position;
  /// Best ids to return with the token's logprob, unless the row names ids of its own.
  int num_top;
  int first_id = 0;
};

struct LogitResult {
  /// Sampled or judged id; -1 where the logits were unfit.
  std::int32_t id;
  bool is_nan;
  bool has_logprob;
  float logprob;
  std::int32_t rank;
  /// The alternatives: as many as were asked for.
  std::vector<std::int32_t> top_ids;
  std::vector<float> top_logprobs;
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
  /// Candidates of ranks; ids where many of them are put in order.
  std::vector<std::int32_t> ids;
  std::vector<float> logits;
};

/// Room for any row of so many ids, so that a step never takes memory for it. Returns its bytes.
std::size_t reserve_scratch(SamplerScratch& scratch, int vocab_size);

void sample_token(const KernelTable& kernels, const SampleInput& input, SamplerScratch& scratch,
                  LogitResult& result);
void judge_prompt_token(const KernelTable& kernels, const SampleInput& input,
                        SamplerScratch& scratch, LogitResult& result);

// The parts, each in its own file.

/// Section 1 of docs/sampling.md: logprob and rank of `id`, and the alternatives: the ids in
/// `named` where there are any, else the best.
void compute_logprobs(const KernelTable& kernels, const SampleInput& input, std::int32_t id,
                      const std::vector<std::int32_t>& named, float max, SamplerScratch& scratch,
                      LogitResult& result);
/// Its parts: the sum of exp(x - max) over the ids of one tile; the `count` best ids, of at most n;
/// the logprob of a logit.
double sum_of_tile(const KernelTable& kernels, const float* x, int count, float max,
                   SamplerScratch& scratch);
void find_top_ids(const KernelTable& kernels, const float* x, int n, int count, std::int32_t* ids);
inline float logprob_of(float x, float max, double log_sum) {
  return static_cast<float>((static_cast<double>(x) - static_cast<double>(max)) - log_sum);
}
/// Section 3. True if any of it applies to the row.
bool has_penalties(const Row& row, int position);
void apply_penalties(const SampleInput& input, float* z, SamplerScratch& scratch);
struct Truncation {
  float min_p;
  int top_k;
  float top_p;
};
/// Section 5, steps 2 to 4, on logits already divided by the temperature: an id stays if its z is
/// at least the result.
float truncation_threshold(const KernelTable& kernels, const Truncation& params, const float* z,
                           int num_ids, float z_max, SamplerScratch& scratch);
/// Which ids an array of z has: those listed, ascending, or else all from `first` on.
struct IdsOfZ {
  const std::int32_t* list;
  std::int32_t first;
  std::int32_t operator[](std::int32_t i) const { return list == nullptr ? first + i : list[i]; }
};
struct Drawn {
  /// In the array of z.
  std::int32_t index;
  /// z plus noise.
  float value;
};
/// Section 6 over the ids with z >= threshold; `likely` is the index of any of them.
Drawn draw(const KernelTable& kernels, std::uint64_t seed, int position, const float* z,
           const IdsOfZ& ids, int num_ids, float threshold, std::int32_t likely);

}  // namespace vt
