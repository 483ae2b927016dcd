// What a row of sampleSharded's test is drawn to be: its logits, what it asks for, and what its ranks
// may tell of it.
#ifndef VT_TEST_EMULATION_DRAWN_ROW_H_
#define VT_TEST_EMULATION_DRAWN_ROW_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "draws.h"
#include "vt_cuda_collective.h"
#include "vt_cuda_sample.h"

constexpr int kNamed = 5;

/// All that is drawn for a row.
struct Row {
  std::vector<float> logits;
  std::vector<int32_t> history, allowed, bias_ids, stops, named;
  std::vector<float> biases;
  VtCudaRowParams params = {};
  int32_t row_of = 0, judged = -1, finished = 0;

  /// What its ranks may tell of it, by its parameters.
  enum class Kind { other, complete, likeliest };
  bool is_cut() const {
    if (row_of < 0 || finished != 0 || judged >= 0 || params.temperature == 0) return false;
    return params.min_p > 0 || params.top_k > 0 || params.top_p < 1;
  }
  /// Its best id alone is the answer.
  bool is_likeliest() const {
    return row_of >= 0 && finished == 0 && judged < 0 && params.temperature == 0 &&
           params.num_logprobs < 0 && params.repetition_penalty == 1 && bias_ids.empty() &&
           allowed.empty();
  }
  /// What the host knows by the parameters alone: rounds of a search; 0 for those that have none.
  int search_steps() const {
    if (!is_cut() || (params.top_k > 0 && params.top_k <= VT_CUDA_CARRIED_CANDIDATES)) return 0;
    const int num_selections = (params.top_k > 0) + (params.top_p < 1);
    return std::max(1, num_selections * VT_CUDA_SEARCH_STEPS);
  }
  Kind kind(int num_ranks, int vocab) const {
    if (!is_cut()) return Kind::other;
    if (params.min_p > 0) return Kind::complete;
    if (params.top_k > 0 && params.top_k < vocab)
      return params.top_k <= 2048 / num_ranks ? Kind::complete : Kind::other;
    return params.top_p < 1 ? Kind::likeliest : Kind::other;
  }
};

/// From this seed on all rows have top-p alone, and nothing odd about them.
constexpr uint64_t kNuclei = 100;
/// From this one on all have a top-k, and many ids have the k-th greatest logit.
constexpr uint64_t kEquals = 200;

/// From this one on rows have a threshold that over a library is searched for, or nearly so.
constexpr uint64_t kSearches = 300;

/// A share of the mass, or as many ids as their number, from hardly any to nearly all.
inline void draw_cut(Draws& draws, Row& row, int vocab) {
  constexpr float kShares[] = {1e-9f, 0.1f, 0.5f, 0.9f, 0.99f, 0.999999f, 1};
  VtCudaRowParams& p = row.params;
  p.temperature = draws.one_in(4) ? 3 : 0.2f + draws.unit();
  p.min_p = draws.one_in(2) ? 0 : draws.one_in(4) ? 1 : 0.3f * draws.unit() * draws.unit();
  p.top_k = draws.one_in(2) ? 0 : 60 + static_cast<int>(draws.below(vocab));
  if (draws.one_in(4)) p.top_k = 65 + static_cast<int>(draws.below(30));
  p.top_p = kShares[draws.below(7)];
  const int shape = static_cast<int>(draws.below(6));
  // Around zero, where floats are dense; negative; in few steps; of two values; as they are.
  for (float& x : row.logits) {
    if (shape == 0) x = (x - 3) * std::exp2(-40 * draws.unit() * draws.unit());
    if (shape == 1) x = -1 - x * x;
    if (shape == 2) x = std::floor(x * 2) / 2;
    if (shape == 3) x = draws.one_in(3) ? 0.0f : -0.0f + (draws.one_in(2) ? 1 : 0);
    if (shape == 4 && draws.one_in(2)) x = -INFINITY;
  }
  // Of some z there is no end, or of one rank's no beginning, or of any.
  if (!draws.one_in(6)) return;
  p.temperature = 2e-5f;
  if (draws.one_in(4)) std::fill(row.logits.begin(), row.logits.end(), -1e34f);
  for (int id = 0; id < vocab; id++)
    if (draws.one_in(40)) row.logits[id] = draws.one_in(3) ? 1e34f : -1e34f;
}

/// Kinds by turns, so that a step has several.
inline Row draw_row(Draws& draws, int kind, int vocab, int columns, int top, bool is_plain,
             bool has_equals) {
  Row row;
  VtCudaRowParams& p = row.params;
  p.seed = (static_cast<uint64_t>(draws.below(1 << 30)) << 32) | draws.below(1 << 30);
  p.temperature = 0.3f + draws.unit();
  p.top_p = 1;
  p.repetition_penalty = 1;
  p.num_prompt_tokens = 2;
  p.num_logprobs = -1;
  // Peaked; or in steps, with many ties; some of them flat on one rank, and so with many ids left.
  const bool in_steps = draws.one_in(3);
  const bool by_min_p = kind % 10 == 3 || kind % 10 == 4;
  const int has_ids = (vocab - 1) / columns + 1;
  const int flat = by_min_p || draws.one_in(4) ? static_cast<int>(draws.below(has_ids)) : -1;
  for (int id = 0; id < vocab; id++) {
    const float x = 12 * draws.unit() * draws.unit() * draws.unit();
    const float value = id / columns == flat ? 9.0f + 0.01f * draws.unit() : x;
    const float steps = has_equals ? 0.3f : 2;
    row.logits.push_back(in_steps || has_equals ? std::floor(value * steps) / steps : value);
  }
  // Many ids with much of the mass, not as many or as likely on each rank.
  if (kind % 10 >= 8) {
    const float width = 1 + 5 * draws.unit(), apart = draws.one_in(2) ? 0 : 2 * draws.unit();
    for (int id = 0; id < vocab; id++) {
      row.logits[id] = width * draws.unit() + apart * static_cast<float>(id / columns % 3);
      // More of the best in one warp's list than a lane has of it.
      if (top > 32 && id / 32 % 8 == 3) row.logits[id] += width;
    }
  }
  const int length = 2 + static_cast<int>(draws.below(20));
  for (int i = 0; i < length; i++) row.history.push_back(static_cast<int32_t>(draws.below(vocab)));
  switch (kind % 10) {
    case 0:
      p.temperature = draws.one_in(2) ? 0 : p.temperature;
      break;
    case 1:
      p.top_k = 1 + static_cast<int>(draws.below(64));
      break;
    case 2:
      p.top_k = 1 + static_cast<int>(draws.below(40));
      p.top_p = 0.2f + 0.7f * draws.unit();
      break;
    case 3:
      p.min_p = 0.02f + 0.3f * draws.unit();
      break;
    case 4:
      p.temperature = 1 + draws.unit();
      p.min_p = 0.001f + 0.02f * draws.unit();
      p.top_k = draws.one_in(2) ? 0 : 100 + static_cast<int>(draws.below(300));
      p.top_p = draws.one_in(2) ? 1 : 0.5f;
      break;
    case 5: {
      // The nucleus from one id to nearly all; some rows as if they had a top-k.
      constexpr float kShares[] = {0.1f, 0.5f, 0.9f, 0.95f, 0.999f, 0.9999f};
      p.top_p = kShares[draws.below(6)];
      p.temperature *= draws.one_in(3) ? 3 : 1;
      p.top_k = draws.one_in(4) ? vocab : 0;
      break;
    }
    case 8:
    case 9:
      p.temperature = 1;
      p.top_p = 0.1f + (is_plain ? 0.5f : 0.8f) * draws.unit();
      break;
    case 6:
      p.top_k = 65 + static_cast<int>(draws.below(draws.one_in(2) ? 200 : 1500));
      p.top_p = draws.one_in(2) ? 1 : 0.9f;
      break;
    default:
      break;
  }
  if (kind % 10 == 7 || draws.one_in(2)) {
    p.num_logprobs = static_cast<int32_t>(draws.one_in(2) ? top : draws.below(top + 1));
    // Of any rank, and some outside of the vocabulary.
    if (draws.one_in(3))
      for (int i = 0; i < kNamed; i++)
        row.named.push_back(static_cast<int32_t>(draws.below(vocab + 100)) - 50);
  }
  // Where one rank is flat, ids of others win by their bias, one of which is the best by little.
  if (draws.one_in(by_min_p ? 1 : kind % 10 >= 8 ? 8 : 3)) {
    p.repetition_penalty = 0.7f + draws.unit();
    p.frequency_penalty = draws.unit();
    p.presence_penalty = draws.unit();
    const bool elsewhere = draws.one_in(2);
    for (int i = 0; i < 8; i++) {
      const int id = static_cast<int>(draws.below(vocab));
      row.bias_ids.push_back(elsewhere && id / columns == flat ? (id + columns) % vocab : id);
      const float bias = by_min_p ? 9 + 3 * draws.unit() : 20 * draws.unit() - 5;
      // Some so great that nothing is left of exponentials against the greatest edited logit.
      row.biases.push_back(bias > 13 ? 100 : bias);
    }
  }
  if (is_plain) return row;
  if (draws.one_in(9)) row.logits[draws.below(vocab)] = NAN;
  if (draws.one_in(5)) {
    // All on one rank, or all outside of the vocabulary.
    const int first = draws.one_in(4) ? vocab : static_cast<int>(draws.below(vocab));
    for (int i = 0; i < 100; i++) row.allowed.push_back(first + i);
  }
  if (draws.one_in(8)) row.judged = static_cast<int32_t>(draws.below(vocab));
  if (draws.one_in(10)) row.row_of = -1;
  if (draws.one_in(10)) row.finished = 1;
  return row;
}

/// Greedy, with nothing else asked; one rank may have no id left, or all, or a row be unfit.
inline void make_greedy(Draws& draws, Row& row, int columns) {
  VtCudaRowParams& p = row.params;
  p.temperature = p.frequency_penalty = p.presence_penalty = 0;
  p.repetition_penalty = 1;
  p.num_logprobs = -1;
  row.bias_ids.clear(), row.biases.clear(), row.allowed.clear(), row.named.clear();
  const int vocab = static_cast<int>(row.logits.size());
  const int first = static_cast<int>(draws.below(vocab)) / columns * columns;
  const int end = std::min(vocab, first + columns);
  if (draws.one_in(5)) std::fill(&row.logits[first], &row.logits[0] + end, -INFINITY);
  if (draws.one_in(8)) std::fill(row.logits.begin(), row.logits.end(), -INFINITY);
  if (draws.one_in(8)) row.logits[draws.below(vocab)] = INFINITY;
  // Below zero, where 0 is better, and what is not an id's would be.
  if (draws.one_in(4))
    for (float& x : row.logits) x -= 20;
}

#endif  // VT_TEST_EMULATION_DRAWN_ROW_H_
