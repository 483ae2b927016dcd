// The end of a step of one row over fibers: sample with the step's end behind it against sample and
// then the last kernel, word for word, of a row of any kind.
//   run_ends SEED   one line, exit code 0 if all is right
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>
#include <vector>

#include "draws.h"
#include "fibers.h"
#include "host/step_arrays.h"
#include "print_errors.h"
#include "vt_cuda.h"

extern "C" const char* vt_cuda_error() { return "printed above"; }

namespace {

constexpr int kTop = 3, kTable = 20, kLength = 40, kResult = 2048;

/// A step before its rows are sampled: the same of the same seed.
class Step {
 public:
  Step(uint64_t seed, int rows, int vocab_size) : vocab(vocab_size) {
    Draws draws(seed);
    vt::StepArrays& a = arrays;
    a.layout = {0, 0, 0, 0, 64, 192, 256, 384, 512, 1024, 1536, kResult, 3};
    a.results = take<char>(3 * kResult);
    a.histories = take<int32_t>(kTable * kLength);
    a.params = take<VtCudaRowParams>(kTable);
    a.stop_ids = take<int32_t>(kTable * vt::kStopIdsOnDevice);
    for (auto of : {&a.num_tokens, &a.finished, &a.last_token, &a.row_of, &a.logit_of, &a.unfit,
                    &a.logit_row, &a.judged_ids, &a.batch_of, &a.sampled_ids, &a.ranks})
      *of = take<int32_t>(kTable);
    a.sampled_flags = take<uint8_t>(kTable);
    a.logprobs = take<float>(kTable);
    a.top_ids = take<int32_t>(kTable * kTop);
    a.top_logprobs = take<float>(kTable * kTop);
    a.named_logprobs = take<float>(kTable * kTop);
    a.step_index = take<uint64_t>(1);
    a.start_ns = take<uint64_t>(1);
    a.counts = take<vt::StepCounts>(1);
    a.history_stride = kLength;
    a.max_model_len = kLength;
    *a.step_index = seed;
    *a.start_ns = 1;
    logits = take<float>(vocab);
    const bool peaked = draws.one_in(3);
    for (int id = 0; id < vocab; id++) {
      const float x = 12 * draws.unit() * draws.unit();
      logits[id] = peaked ? std::floor(x) : x;
    }
    if (draws.one_in(9)) logits[draws.below(vocab)] = NAN;
    const int row = 3;
    a.row_of[0] = rows > 0 ? row : 0;
    a.logit_row[0] = rows > 0 ? row : -1;
    a.judged_ids[0] = -1;
    bool has_logprobs = false;
    if (rows > 0) {
      VtCudaRowParams& p = a.params[row];
      p.seed = draws.below(1 << 30);
      p.temperature = draws.one_in(2) ? 0 : 0.5f + draws.unit();
      p.top_p = 1;
      p.top_k = draws.one_in(4) ? 5 : 0;
      p.repetition_penalty = draws.one_in(4) ? 1.5f : 1;
      p.num_logprobs = draws.one_in(3) ? static_cast<int32_t>(draws.below(kTop + 1)) : -1;
      has_logprobs = p.num_logprobs >= 0;
      a.num_tokens[row] = 3 + static_cast<int32_t>(draws.below(30));
      for (int t = 0; t < a.num_tokens[row]; t++)
        a.histories[row * kLength + t] = static_cast<int32_t>(draws.below(vocab));
      p.num_prompt_tokens = a.num_tokens[row] - static_cast<int32_t>(draws.below(3));
      p.max_num_tokens = a.num_tokens[row] + 1 + static_cast<int32_t>(draws.below(4));
      p.num_stop_ids = static_cast<int32_t>(draws.below(4));
      p.stop_ids = a.stop_ids + row * vt::kStopIdsOnDevice;
      for (int s = 0; s < p.num_stop_ids; s++)
        a.stop_ids[row * vt::kStopIdsOnDevice + s] = static_cast<int32_t>(draws.below(vocab));
      a.finished[row] = draws.one_in(6) ? vt::kFinished : vt::kNotFinished;
    }
    *a.counts = {rows, rows, 0, has_logprobs ? kTop : -1, 0};
  }

  VtCudaSample sample() const {
    VtCudaSample s = {};
    s.token_ids = arrays.sampled_ids;
    s.row_flags = arrays.sampled_flags;
    s.logprobs = arrays.logprobs;
    s.ranks = arrays.ranks;
    s.top_ids = arrays.top_ids;
    s.top_logprobs = arrays.top_logprobs;
    s.named_logprobs = arrays.named_logprobs;
    s.logits = logits;
    s.row_of = arrays.logit_row;
    s.judged_ids = arrays.judged_ids;
    s.params = arrays.params;
    s.num_tokens = arrays.num_tokens;
    s.finished = arrays.finished;
    s.history = arrays.histories;
    s.num_rows = 1;
    s.vocab_size = s.logits_stride = vocab;
    s.history_stride = kLength;
    s.num_top = kTop;
    s.flags = VT_CUDA_EARLY_READS;
    return s;
  }

  /// Of the step's results, and of what it leaves to the next.
  std::string all() const {
    const auto* header = reinterpret_cast<const vt::ResultHeader*>(
        arrays.results + (*arrays.step_index - 1) % 3 * kResult);
    const_cast<vt::ResultHeader*>(header)->end_ns = header->end_ns > header->start_ns ? 1 : 0;
    std::string all = std::to_string(header->done) + " " + std::to_string(*arrays.step_index);
    all.append(arrays.results, 3 * kResult);
    const auto words = [&](const int32_t* from, int count) {
      all.append(reinterpret_cast<const char*>(from), count * 4);
    };
    for (const int32_t* of : {arrays.num_tokens, arrays.finished, arrays.last_token})
      words(of, kTable);
    words(arrays.histories, kTable * kLength);
    return all;
  }

  vt::StepArrays arrays{};
  float* logits;
  int vocab;

 private:
  /// Zeros.
  template <typename T>
  T* take(size_t count) {
    memory_.emplace_back((count * sizeof(T) + 15) / 8);
    return reinterpret_cast<T*>(memory_.back().data());
  }
  std::deque<std::vector<uint64_t>> memory_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 64;
  const uint64_t seed = strtoull(argv[1], nullptr, 10);
  // Or a step of padding.
  const int rows = seed % 10 == 9 ? 0 : 1;
  const int vocab = 1000 + static_cast<int>(Draws(seed + 1000).below(3000));
  void* stream = reinterpret_cast<void*>(intptr_t{1});
  const vt::LogprobStrides strides = {kTop, 0};
  Step apart(seed, rows, vocab), together(seed, rows, vocab);
  emulation::Machine one(1, seed);
  emulation::machine = &one;
  const VtCudaSample sample = apart.sample();
  if (vt_cuda_sample(&sample, stream) != 0) return 2;
  vt::launch_finish_step(apart.arrays, strides, VT_CUDA_EARLY_READS, stream);
  one.run();
  emulation::Machine two(1, seed);
  emulation::machine = &two;
  vt::launch_sample_and_finish(together.sample(), together.arrays, strides, stream);
  two.run();
  const bool same = apart.all() == together.all();
  const int row = together.arrays.row_of[0];
  printf("%d rows, id %d, end %d: %s\n", rows, together.arrays.sampled_ids[0],
         together.arrays.finished[row], same ? "the same" : "OTHERS");
  return same ? 0 : 1;
}
