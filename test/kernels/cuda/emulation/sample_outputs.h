// What `sample` writes for the rows of a step, compared bit for bit.
#ifndef VT_TEST_EMULATION_SAMPLE_OUTPUTS_H_
#define VT_TEST_EMULATION_SAMPLE_OUTPUTS_H_

#include <cstdint>
#include <cstring>
#include <vector>

#include "vt_cuda_sample.h"

/// For `rows` rows with `top` alternatives and `named` ids each; filled with what no row answers.
struct Outputs {
  int top, named;
  std::vector<int32_t> token_ids, ranks, top_ids;
  std::vector<uint8_t> row_flags;
  std::vector<float> logprobs, top_logprobs, named_logprobs;

  Outputs(int rows, int num_top, int num_named = 0)
      : top(num_top),
        named(num_named),
        token_ids(rows, -7),
        ranks(rows, -7),
        top_ids(rows * num_top, -7),
        row_flags(rows, 7),
        logprobs(rows, 7),
        top_logprobs(rows * num_top, 7),
        named_logprobs(rows * num_named, 7) {}

  /// Where a call writes its rows, of which the first is `row` here.
  void receive(VtCudaSample& args, int row = 0) {
    args.token_ids = token_ids.data() + row;
    args.row_flags = row_flags.data() + row;
    args.logprobs = logprobs.data() + row;
    args.ranks = ranks.data() + row;
    args.top_ids = top_ids.data() + row * top;
    args.top_logprobs = top_logprobs.data() + row * top;
    args.num_top = top;
    if (named == 0) return;
    args.named_logprobs = named_logprobs.data() + row * named;
    args.num_named = named;
  }

  /// Of bits: a logprob among logits of -Infinity is none.
  bool same(const Outputs& other, int row) const {
    const auto equal = [&](const auto& a, const auto& b, int count) {
      return count == 0 || std::memcmp(&a[row * count], &b[row * count], count * sizeof a[0]) == 0;
    };
    return equal(token_ids, other.token_ids, 1) && equal(row_flags, other.row_flags, 1) &&
           equal(logprobs, other.logprobs, 1) && equal(ranks, other.ranks, 1) &&
           equal(top_ids, other.top_ids, top) && equal(top_logprobs, other.top_logprobs, top) &&
           equal(named_logprobs, other.named_logprobs, named);
  }
  bool operator==(const Outputs& other) const {
    for (size_t row = 0; row < token_ids.size(); row++) {
      if (!same(other, static_cast<int>(row))) return false;
    }
    return true;
  }
};

#endif  // VT_TEST_EMULATION_SAMPLE_OUTPUTS_H_
