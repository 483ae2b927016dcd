// What rows of a step need of other ranks' logits to be sampled, by their parameters: what NCCL
// carries is queued by the host, which knows no logits. vt_cuda_collective.h has the same rules.
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

  void add(const SamplingParams& p) {
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

  /// Whether launches for these rows serve `other` too.
  bool serve(const RowKinds& other) const {
    return (has_candidates || !other.has_candidates) && search_steps >= other.search_steps;
  }
};

}  // namespace vt
