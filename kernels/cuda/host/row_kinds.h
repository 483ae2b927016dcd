// What rows of a step need to be sampled, by their parameters: of other ranks' logits, since what NCCL
// carries is queued by the host, which knows no logits (vt_cuda_collective.h has the same rules); and
// whether it pays to look for the greatest logits before they are written (sample_needs.cuh).
#pragma once

#include <algorithm>

#include "../../host/batch.h"
#include "../vt_cuda_collective.h"

namespace vt {

struct RowKinds {
  /// A row with a top-k and a top-p.
  static constexpr int kLongestSearch = 2 * VT_CUDA_SEARCH_STEPS;

  /// Some may be told by candidates.
  bool has_candidates = false;
  /// Rounds of the longest search for a row's threshold.
  int search_steps = 0;
  /// Rows of logits; those of which the greatest is the answer.
  int num_rows = 0, num_likeliest = 0;

  void add(const SamplingParams& p) {
    if (is_likeliest(p)) num_likeliest++;
    const bool cuts = p.min_p > 0 || p.top_k > 0 || p.top_p < 1;
    // A row that is as good as greedy is counted too.
    if (p.temperature <= 0 || !cuts) return;
    if (p.top_k > 0 && p.top_k <= VT_CUDA_CARRIED_CANDIDATES) {
      has_candidates = true;
      return;
    }
    const int num_selections = (p.top_k > 0 ? 1 : 0) + (p.top_p < 1 ? 1 : 0);
    // With min-p alone the threshold is known, but not who is drawn.
    search_steps = std::max({search_steps, 1, num_selections * VT_CUDA_SEARCH_STEPS});
  }

  /// Whether those are so many that a slower linear pays: docs/kernels.md has the measurements.
  bool finds_best() const { return num_likeliest > 0 && num_likeliest * 4 >= num_rows; }

  /// Whether launches for these rows serve `other` too.
  bool serve(const RowKinds& other) const {
    return (has_candidates || !other.has_candidates) && search_steps >= other.search_steps;
  }

 private:
  static bool is_likeliest(const SamplingParams& p) {
    return p.temperature < 1e-5f && p.num_logprobs < 0 && p.repetition_penalty == 1 &&
           p.frequency_penalty == 0 && p.presence_penalty == 0 && p.biases.empty() &&
           p.allowed_ids.empty() && p.bad_word_ids.empty() &&
           (p.min_tokens == 0 || p.stop_ids.empty());
  }
};

}  // namespace vt
