// sample over fibers: rows of every kind; each answer against that of its row alone, bit for bit,
// and where it lies so that it is drawn from shared memory, not as it streams by; and against a step
// whose head has found the best ids of the rows that need no more, which have no logits there. Each
// is an id, or -1 and a flag: that also where finite logits are all -Infinity by their temperature.
//   run_rows SEED   one line, exit code 0 if all is right
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "best_words.h"
#include "draws.h"
#include "fibers.h"
#include "print_errors.h"
#include "sample_outputs.h"
#include "vt_cuda_sample.h"

namespace {

constexpr int kRows = 14, kTop = 3, kLength = 16;

/// Rows `first` to `first + count - 1`.
VtCudaSample rows_from(VtCudaSample a, Outputs& out, int first, int count) {
  out.receive(a, first);
  a.logits += static_cast<int64_t>(first) * a.logits_stride;
  a.row_of += first;
  a.judged_ids += first;
  a.num_rows = count;
  return a;
}

/// A copy that begins at [1], not at a multiple of 16 bytes.
std::vector<float> odd_place(const float* logits, int count) {
  std::vector<float> copy(1, 0.0f);
  copy.insert(copy.end(), logits, logits + count);
  return copy;
}

void* const kStream = reinterpret_cast<void*>(intptr_t{1});

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 64;
  const uint64_t seed = strtoull(argv[1], nullptr, 10);
  Draws draws(seed);
  // A row in a block, or in two; some that are not copied in groups of four.
  const int vocab = (seed % 3 == 0 ? 25000 : 3000) + (seed % 4 == 0 ? 1 : 0);
  std::vector<VtCudaRowParams> params(kRows);
  std::vector<int32_t> num_tokens, finished, history, row_of, judged;
  std::vector<float> logits;
  const int32_t bias_id = 7;
  const float bias = 3;
  std::vector<bool> is_asked, is_lost;
  std::vector<uint64_t> best;
  std::vector<float> few_logits;
  int streamed = 0, told = 0, lost = 0;
  for (int row = 0; row < kRows; row++) {
    VtCudaRowParams& p = params[row];
    p.seed = (static_cast<uint64_t>(draws.below(1 << 30)) << 32) | draws.below(1 << 30);
    p.temperature = draws.one_in(6) ? 0 : 0.3f + draws.unit();
    p.top_p = 1;
    p.repetition_penalty = 1;
    p.num_prompt_tokens = 2;
    p.num_logprobs = draws.one_in(8) ? kTop : -1;
    // Values far apart and close together, high and low.
    const float level = 100 * static_cast<float>(draws.below(5)), width = draws.one_in(2) ? 2 : 20;
    for (int id = 0; id < vocab; id++) logits.push_back(level + width * draws.unit());
    // Two ids of one thread, of which the likelier may lose.
    if (draws.one_in(3)) {
      const int id = static_cast<int>(draws.below(vocab / 4)) * 4;
      logits[logits.size() - vocab + id] = level + 60;
      logits[logits.size() - vocab + id + 1] = level + 60.8f;
    }
    if (draws.one_in(9)) logits[logits.size() - 1 - draws.below(vocab)] = NAN;
    if (draws.one_in(12)) std::fill(logits.end() - vocab, logits.end(), -INFINITY);
    const bool is_low = draws.one_in(6);
    if (is_low)
      for (int id = 1; id <= vocab; id++) logits[logits.size() - id] = -3e38f - 2e37f * draws.unit();
    const int kind = static_cast<int>(draws.below(8));
    if (kind == 0) p.min_p = 0.1f;
    if (kind == 1) p.top_k = 40, p.top_p = 0.9f;
    if (kind == 2) p.bias_ids = &bias_id, p.biases = &bias, p.num_biases = 1;
    if (kind == 3) p.repetition_penalty = 1.5f;
    num_tokens.push_back(3 + static_cast<int>(draws.below(kLength - 3)));
    for (int i = 0; i < kLength; i++) history.push_back(static_cast<int32_t>(draws.below(vocab)));
    row_of.push_back(!draws.one_in(8) ? row : draws.one_in(3) ? VT_CUDA_ROW_ANSWERED : -1);
    judged.push_back(draws.one_in(12) ? static_cast<int32_t>(draws.below(vocab)) : -1);
    finished.push_back(draws.one_in(12) ? 1 : 0);
    is_asked.push_back(row_of[row] >= 0 && finished[row] == 0 && judged[row] < 0);
    // 3e38 / 0.85 is above the greatest float; greedy rows do not divide.
    is_lost.push_back(is_low && p.temperature > 0 && p.temperature < 0.85f);
    lost += is_asked[row] && is_lost[row];
    streamed += kind > 3 && p.temperature > 0 && p.num_logprobs < 0 && row_of[row] >= 0 && judged[row] < 0 &&
                finished[row] == 0 && vocab % 4 == 0;
    const bool is_told = p.temperature == 0 && kind != 2 && kind != 3 && p.num_logprobs < 0 &&
                         row_of[row] >= 0 && judged[row] < 0 && finished[row] == 0;
    told += is_told;
    const float* of_row = &logits[logits.size() - vocab];
    for (int id = 0; id < vocab; id++) few_logits.push_back(is_told ? NAN : of_row[id]);
    add_best_words(best, of_row, vocab, is_told);
  }
  VtCudaSample all = {};
  all.logits = logits.data();
  all.row_of = row_of.data();
  all.judged_ids = judged.data();
  all.params = params.data();
  all.num_tokens = num_tokens.data();
  all.finished = finished.data();
  all.history = history.data();
  all.vocab_size = all.logits_stride = vocab;
  all.history_stride = kLength;

  Outputs together(kRows, kTop), alone(kRows, kTop);
  emulation::Machine machine(1, seed);
  emulation::machine = &machine;
  const VtCudaSample batch = rows_from(all, together, 0, kRows);
  if (vt_cuda_sample(&batch, kStream) != 0) return 2;
  machine.run();
  for (int row = 0; row < kRows; row++) {
    emulation::Machine one(1, seed + row + 1);
    emulation::machine = &one;
    VtCudaSample single = rows_from(all, alone, row, 1);
    const std::vector<float> kept = odd_place(single.logits, vocab);
    single.logits = &kept[1];
    if (vt_cuda_sample(&single, kStream) != 0) return 2;
    one.run();
  }
  Outputs of_best(kRows, kTop);
  emulation::Machine again(1, seed + 100);
  emulation::machine = &again;
  all.logits = few_logits.data();
  all.best = best.data();
  all.num_best = kBest;
  all.flags = seed % 2 == 0 ? VT_CUDA_EARLY_READS : 0;
  const VtCudaSample few = rows_from(all, of_best, 0, kRows);
  if (vt_cuda_sample(&few, kStream) != 0) return 2;
  again.run();
  int wrong = 0;
  for (int row = 0; row < kRows; row++) {
    const int id = together.token_ids[row], flag = together.row_flags[row];
    const bool is_right = id < 0 ? id == -1 && flag == 1 : id < vocab && flag == 0 && !is_lost[row];
    if ((is_right || !is_asked[row]) && together.same(alone, row) && together.same(of_best, row))
      continue;
    printf("row %d: %d flag %d, alone %d, of best ids %d\n", row, id, flag, alone.token_ids[row],
           of_best.token_ids[row]);
    wrong++;
  }
  printf("%d rows of %d ids, %d streamed, %d told, %d lost: %d wrong\n", kRows, vocab, streamed,
         told, lost, wrong);
  return wrong == 0 ? 0 : 1;
}
