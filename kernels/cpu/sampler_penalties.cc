// Masks, bias and penalties, in the order of docs/sampling.md section 3. Occurrences are counted
// from the row's history when they are needed, so that a row has no state but its tokens.
#include <algorithm>
#include <cmath>

#include "sampler.h"

namespace vt {

namespace {

void allow_only(const std::vector<std::int32_t>& allowed, float* z, int n,
                std::vector<float>& kept) {
  kept.clear();
  for (const std::int32_t id : allowed) kept.push_back(id >= 0 && id < n ? z[id] : 0);
  std::fill_n(z, n, -INFINITY);
  for (std::size_t i = 0; i < allowed.size(); i++)
    if (allowed[i] >= 0 && allowed[i] < n) z[allowed[i]] = kept[i];
}

void mask(std::int32_t id, float* z, int n) {
  if (id >= 0 && id < n) z[id] = -INFINITY;
}

void mask_bad_words(const SamplingParams& params, const std::int32_t* generated, int num_generated,
                    float* z, int n) {
  const std::int32_t* word = params.bad_word_ids.data();
  for (const std::int32_t length : params.bad_word_lengths) {
    const int prefix = length - 1;
    if (prefix <= num_generated &&
        std::equal(word, word + prefix, generated + num_generated - prefix))
      mask(word[prefix], z, n);
    word += length;
  }
}

/// f32, each step rounded once.
void penalize_repetition(const std::int32_t* tokens, int count, float penalty, float* z,
                         std::vector<std::int32_t>& seen) {
  for (int i = 0; i < count; i++) {
    const std::int32_t id = tokens[i];
    if (seen[id]++ != 0) continue;
    z[id] = z[id] > 0 ? z[id] / penalty : z[id] * penalty;
  }
  for (int i = 0; i < count; i++) seen[tokens[i]] = 0;
}

void penalize_frequency(const std::int32_t* tokens, int count, float frequency, float presence,
                        float* z, std::vector<std::int32_t>& counts) {
  for (int i = 0; i < count; i++) counts[tokens[i]]++;
  for (int i = 0; i < count; i++) {
    const std::int32_t id = tokens[i];
    if (counts[id] == 0) continue;
    if (frequency != 0) z[id] = z[id] - frequency * static_cast<float>(counts[id]);
    if (presence != 0) z[id] = z[id] - presence;
    counts[id] = 0;
  }
}

}  // namespace

bool has_penalties(const Row& row, int position) {
  const SamplingParams& p = row.params;
  return !p.allowed_ids.empty() || !p.bad_word_lengths.empty() || !p.bias_ids.empty() ||
         p.repetition_penalty != 1 || p.frequency_penalty != 0 || p.presence_penalty != 0 ||
         (position - row.num_prompt_tokens < p.min_tokens && !p.stop_ids.empty());
}

void apply_penalties(const SampleInput& input, float* z, SamplerScratch& scratch) {
  const SamplingParams& p = input.row->params;
  const int n = input.vocab_size;
  const std::int32_t* generated = input.tokens + input.row->num_prompt_tokens;
  const int num_generated = input.position - input.row->num_prompt_tokens;
  if (!p.allowed_ids.empty()) allow_only(p.allowed_ids, z, n, scratch.values);
  mask_bad_words(p, generated, num_generated, z, n);
  if (num_generated < p.min_tokens)
    for (const std::int32_t id : p.stop_ids) mask(id, z, n);
  for (std::size_t i = 0; i < p.bias_ids.size(); i++)
    if (p.bias_ids[i] >= 0 && p.bias_ids[i] < n)
      z[p.bias_ids[i]] += std::min(100.0f, std::max(-100.0f, p.biases[i]));
  scratch.counts.resize(n);
  if (p.repetition_penalty != 1)
    penalize_repetition(input.tokens, input.position, p.repetition_penalty, z, scratch.counts);
  if (p.frequency_penalty != 0 || p.presence_penalty != 0)
    penalize_frequency(generated, num_generated, p.frequency_penalty, p.presence_penalty, z,
                       scratch.counts);
}

}  // namespace vt
