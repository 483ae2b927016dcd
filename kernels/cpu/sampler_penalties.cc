// Masks, bias and penalties, in the order of docs/sampling.md section 3. Occurrences are counted
// from the row's history when they are needed, so that a row has no state but its tokens.
#include <algorithm>
#include <cmath>

#include "sampler.h"

namespace vt {

namespace {

/// The ids that are here: all, or those of one rank.
struct Ids {
  std::int32_t first, count;
  /// Index of an id, or -1.
  std::int32_t index_of(std::int32_t id) const {
    return id >= first && id - first < count ? id - first : -1;
  }
};

void allow_only(const std::vector<std::int32_t>& allowed, const Ids& ids, float* z,
                std::vector<float>& kept) {
  kept.clear();
  for (const std::int32_t id : allowed) {
    const std::int32_t i = ids.index_of(id);
    kept.push_back(i < 0 ? 0 : z[i]);
  }
  std::fill_n(z, ids.count, -INFINITY);
  for (std::size_t a = 0; a < allowed.size(); a++) {
    const std::int32_t i = ids.index_of(allowed[a]);
    if (i >= 0) z[i] = kept[a];
  }
}

void mask(std::int32_t id, const Ids& ids, float* z) {
  const std::int32_t i = ids.index_of(id);
  if (i >= 0) z[i] = -INFINITY;
}

void mask_bad_words(const SamplingParams& params, const std::int32_t* generated, int num_generated,
                    const Ids& ids, float* z) {
  const std::int32_t* word = params.bad_word_ids.data();
  for (const std::int32_t length : params.bad_word_lengths) {
    const int prefix = length - 1;
    if (prefix <= num_generated &&
        std::equal(word, word + prefix, generated + num_generated - prefix))
      mask(word[prefix], ids, z);
    word += length;
  }
}

/// f32, each step rounded once.
void penalize_repetition(const std::int32_t* tokens, int count, float penalty, const Ids& ids,
                         float* z, std::vector<std::int32_t>& seen) {
  for (int t = 0; t < count; t++) {
    const std::int32_t i = ids.index_of(tokens[t]);
    if (i < 0 || seen[i]++ != 0) continue;
    z[i] = z[i] > 0 ? z[i] / penalty : z[i] * penalty;
  }
  for (int t = 0; t < count; t++) {
    const std::int32_t i = ids.index_of(tokens[t]);
    if (i >= 0) seen[i] = 0;
  }
}

void penalize_frequency(const std::int32_t* tokens, int count, float frequency, float presence,
                        const Ids& ids, float* z, std::vector<std::int32_t>& counts) {
  for (int t = 0; t < count; t++) {
    const std::int32_t i = ids.index_of(tokens[t]);
    if (i >= 0) counts[i]++;
  }
  for (int t = 0; t < count; t++) {
    const std::int32_t i = ids.index_of(tokens[t]);
    if (i < 0 || counts[i] == 0) continue;
    if (frequency != 0) z[i] = z[i] - frequency * static_cast<float>(counts[i]);
    if (presence != 0) z[i] = z[i] - presence;
    counts[i] = 0;
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
  const Ids ids = {input.first_id, input.vocab_size};
  const std::int32_t* generated = input.tokens + input.row->num_prompt_tokens;
  const int num_generated = input.position - input.row->num_prompt_tokens;
  if (!p.allowed_ids.empty()) allow_only(p.allowed_ids, ids, z, scratch.values);
  mask_bad_words(p, generated, num_generated, ids, z);
  if (num_generated < p.min_tokens)
    for (const std::int32_t id : p.stop_ids) mask(id, ids, z);
  for (std::size_t b = 0; b < p.bias_ids.size(); b++) {
    const std::int32_t i = ids.index_of(p.bias_ids[b]);
    if (i >= 0) z[i] += std::min(100.0f, std::max(-100.0f, p.biases[b]));
  }
  if (scratch.counts.size() < static_cast<std::size_t>(ids.count)) scratch.counts.resize(ids.count);
  if (p.repetition_penalty != 1)
    penalize_repetition(input.tokens, input.position, p.repetition_penalty, ids, z, scratch.counts);
  if (p.frequency_penalty != 0 || p.presence_penalty != 0)
    penalize_frequency(generated, num_generated, p.frequency_penalty, p.presence_penalty, ids, z,
                       scratch.counts);
}

}  // namespace vt
