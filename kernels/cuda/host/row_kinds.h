// What rows of a step need of other ranks' logits to be sampled, by their parameters: what NCCL
// carries is queued by the host, which knows no logits. vt_cuda_collective.h has the same rules.
#pragma once

#include "../../host/batch.h"
#include "../vt_cuda_collective.h"

namespace vt {

struct RowKinds {
  /// Of more rows all logits of all rows are gathered at once.
  static constexpr int kMostGathered = 8;

  /// Some may be told by candidates.
  bool has_candidates = false;
  /// Rows of which all logits are gathered.
  int num_gathered = 0;

  void add(const SamplingParams& p) {
    const bool cuts = p.min_p > 0 || p.top_k > 0 || p.top_p < 1;
    // A row that is as good as greedy is counted too.
    if (p.temperature <= 0 || !cuts) return;
    if (p.top_k > 0 && p.top_k <= VT_CUDA_CARRIED_CANDIDATES)
      has_candidates = true;
    else
      num_gathered++;
  }

  /// Whether launches for these rows serve `other` too.
  bool serve(const RowKinds& other) const {
    return (has_candidates || !other.has_candidates) && num_gathered >= other.num_gathered;
  }
};

}  // namespace vt
