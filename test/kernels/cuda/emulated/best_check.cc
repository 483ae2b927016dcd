// Logits for the sampler by wgmma in emulated clusters: rows that need the greatest alone have its
// word, from a scan of linear_large's logits; rows that need all have those, bit for bit; nothing
// else is written. `best_check`.
#include <cmath>
#include <cstdlib>

#include "checks.h"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/linear_best.cuh"
#include "kernels/cuda/sample_words.cuh"

namespace {

using vt::sample::Word;

constexpr float kLeft = -7.5f;
constexpr std::uint64_t kNoWord = 0x77;

/// What is asked of row r: kKinds[r % 11].
enum Kind {
  greedy, cold, warm, penalty, padding, answered, finished, judged, logprobs, stops, min_tokens
};
constexpr int kKinds = 11;

bool needs_best(int kind) { return kind == greedy || kind == cold || kind == stops; }
bool needs_nothing(int kind) { return kind == padding || kind == answered || kind == finished; }

class Case {
 public:
  /// `ids`: of the n columns, those before the ones that are nobody's; `common`: the first column of
  /// all weights.
  Case(int m, int n, int ids, int k, Element element, float common)
      : m_(m), n_(n), ids_(ids), k_(k), element_(element) {
    x_ = normal_words(random_, element, std::size_t(m) * k);
    weight_ = normal_words(random_, element, std::size_t(n) * k, 0.1f);
    const auto put = [&](Words& words, int row, int column, float value) {
      words[std::size_t(row) * k + column] = emulated::from_float(element, value);
    };
    // Ids of several tiles that are equal, and the greatest of some rows; rows of zeros; unfit ones.
    for (const int id : {ids / 2, std::max(13, ids - 3)})
      std::copy_n(&weight_[std::size_t(k) * 13], k, &weight_[std::size_t(k) * id]);
    for (int row = 0; row < m; row++) {
      const int which = row / kKinds;
      std::uint16_t* const words = &x_[std::size_t(row) * k];
      if (which == 1) std::copy_n(&weight_[std::size_t(k) * 13], k, words);
      if (which == 2) std::fill_n(words, k, 0);
      if (which == 3) put(x_, row, k / 2, NAN);
      if (which == 4) put(x_, row, 0, 3e38f);
      if (which == 5) put(x_, row, 0, -3e38f);
    }
    if (common != 0)
      for (int id = 0; id < n; id++) put(weight_, id, 0, common);
    put(weight_, 17, 0, 100);
    // What is nobody's would be the best of some rows, and unfit in others.
    for (int column = ids; column < n; column++)
      for (int i = 0; i < k; i++) put(weight_, column, i, column % 2 == 0 ? 3e38f : -3e38f);
    fill_table();
  }

  bool check() {
    VtCudaLinear args = {};
    args.x = x_.data();
    args.weight = weight_.data();
    args.m = m_;
    args.n = n_;
    args.k = args.x_stride = args.weight_stride = k_;
    args.out_stride = n_ + 8;
    args.dtype = dtype_of(element_);
    args.out_dtype = VT_CUDA_F32;
    std::vector<float> wanted(std::size_t(m_ + 1) * args.out_stride, kLeft), logits = wanted;
    args.out = wanted.data();
    if (vt::linear_large(args, nullptr) != 0) std::exit(1);
    args.out = logits.data();
    args.large = VT_CUDA_LARGE_CLUSTER_2;
    const int num_best = vt::linear_wgmma_num_best(args);
    std::vector<std::uint64_t> best(std::size_t(m_ + 1) * num_best, kNoWord);
    sampler_.best = best.data();
    sampler_.num_best = num_best;
    if (vt::linear_wgmma_for_sample(args, sampler_, nullptr) != 0) std::exit(1);

    bool same = num_best > 1;
    for (int row = 0; row <= m_; row++) {
      const int kind = row % kKinds;
      const float* of_row = &wanted[std::size_t(row) * args.out_stride];
      const bool has_logits = row < m_ && !needs_best(kind) && !needs_nothing(kind);
      for (int i = 0; i < args.out_stride; i++) {
        const float left = has_logits && i < n_ ? of_row[i] : kLeft;
        same &= std::memcmp(&left, &logits[std::size_t(row) * args.out_stride + i], 4) == 0;
      }
      Word greatest = 0;
      for (int i = 0; i < num_best; i++) {
        const Word word = best[std::size_t(row) * num_best + i];
        if (row == m_) same &= word == kNoWord;
        if (row < m_ && !needs_best(kind)) same &= word == vt::sample::kHasLogits;
        greatest = std::max(greatest, word);
      }
      if (row < m_ && needs_best(kind)) same &= greatest == word_of(of_row);
    }
    return same;
  }

 private:
  Word word_of(const float* logits) {
    if (ids_ == 0) return vt::sample::kNone;
    int at = 0;
    for (int i = 0; i < ids_; i++) {
      if (!(logits[i] < INFINITY)) return vt::sample::kUnfit;
      if (logits[i] > logits[at]) at = i;
    }
    return logits[at] == -INFINITY ? vt::sample::kNone : vt::sample::ranked(logits[at], at);
  }

  void fill_table() {
    static const std::int32_t ids[2] = {1, 2};
    for (int row = 0; row < m_; row++) {
      const int kind = row % kKinds;
      VtCudaRowParams p = {};
      p.top_p = 0.9f;  // a greedy row does not look at it
      p.temperature = kind == warm ? 0.6f : kind == cold ? 1e-6f : 0.0f;
      p.repetition_penalty = kind == penalty ? 1.1f : 1.0f;
      p.num_prompt_tokens = 3;
      p.num_logprobs = kind == logprobs ? 0 : -1;
      p.stop_ids = ids;
      p.num_stop_ids = 2;
      p.min_tokens = kind == stops ? 4 : kind == min_tokens ? 5 : 0;
      // A table in another order.
      const int of_table = m_ - 1 - row;
      row_of_.push_back(kind == padding ? -1 : kind == answered ? VT_CUDA_ROW_ANSWERED : of_table);
      judged_.push_back(kind == judged ? 5 : -1);
      params_.insert(params_.begin(), p);
      finished_.insert(finished_.begin(), kind == finished);
    }
    num_tokens_.assign(m_, 7);
    sampler_.row_of = row_of_.data();
    sampler_.judged_ids = judged_.data();
    sampler_.params = params_.data();
    sampler_.num_tokens = num_tokens_.data();
    sampler_.finished = finished_.data();
    sampler_.num_rows = m_;
    sampler_.vocab_size = ids_;
    sampler_.num_top = 3;
  }

  std::mt19937 random_{9};
  const int m_, n_, ids_, k_;
  const Element element_;
  Words x_, weight_;
  std::vector<VtCudaRowParams> params_;
  std::vector<std::int32_t> row_of_, judged_, num_tokens_, finished_;
  VtCudaSample sampler_ = {};
};

void check(const char* name, int m, int n, int ids, int k, Element element, float common) {
  Case made(m, n, ids, k, element, common);
  bool same = true;
  for (const emulated::Timing& timing : {emulated::Timing{false, false, 0}, {true, true, 1}}) {
    emulated::timing = timing;
    same &= made.check();
  }
  report(name, same);
}

}  // namespace

int main() {
  vt::multiprocessors = 4;
  check("150 x 1160, k 80, in pairs", 150, 1160, 1160, 80, Element::bf16, 0);
  check("200 x 776, k 32, in pairs, rows that are unfit", 200, 776, 776, 32, Element::bf16, 100);
  check("128 x 1160, k 48", 128, 1160, 1160, 48, Element::f16, 0);
  check("150 x 1160, k 80, of a rank with 616 ids", 150, 1160, 616, 80, Element::bf16, 0);
  check("130 x 776, k 32, of a rank with 512 ids", 130, 776, 512, 32, Element::bf16, 0);
  check("70 x 776, k 32, of a rank without ids", 70, 776, 0, 32, Element::bf16, 0);
  return exit_status();
}
