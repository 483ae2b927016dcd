// What the head's linear finds of a row that needs the greatest logit alone: words, each of a run of
// its ids.
#ifndef VT_TEST_EMULATION_BEST_WORDS_H_
#define VT_TEST_EMULATION_BEST_WORDS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "sample_words.cuh"

/// Words of a row: more than a warp looks at once.
constexpr int kBest = 70;

/// The greatest of logits `begin` to `end - 1` of a row.
inline uint64_t best_word(const float* logits, int begin, int end) {
  uint64_t best = vt::sample::kNone;
  for (int id = begin; id < end; id++) {
    if (!(logits[id] < INFINITY)) return vt::sample::kUnfit;
    if (logits[id] > -INFINITY) best = std::max<uint64_t>(best, vt::sample::ranked(logits[id], id));
  }
  return best;
}

/// kBest more words: of a row's `ids` logits, or that they are there.
inline void add_best_words(std::vector<uint64_t>& words, const float* logits, int ids, bool is_told) {
  for (int i = 0; i < kBest; i++)
    words.push_back(is_told ? best_word(logits, ids * i / kBest, ids * (i + 1) / kBest)
                            : vt::sample::kHasLogits);
}

#endif  // VT_TEST_EMULATION_BEST_WORDS_H_
