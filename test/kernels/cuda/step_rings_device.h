// A device for step_rings_run.cc, by the contracts of step_arrays.h: it reads a step's slot and
// compares what it finds with what the step was made of; what it samples depends on row, position
// and the id before, and is left in the step's result slot.
#pragma once

#include <cstdio>
#include <cstring>
#include <vector>

#include "kernels/cuda/host/step_arrays.h"
#include "kernels/cuda/host/step_report.h"

using Ids = std::vector<std::int32_t>;

constexpr int kBlockSize = 16, kVocab = 97;

inline int num_wrong = 0;
inline void expect(bool holds, const char* what, std::uint64_t step) {
  if (!holds && num_wrong++ < 20) std::printf("step %d: %s\n", static_cast<int>(step), what);
}

/// step_rings_room.cc: of StepBuffers for so many rows, tokens and best ids of a row of logits.
void check_room(int num_rows, int num_tokens, int max_top);
/// Pieces of memory that the backend has.
std::size_t count_allocated();

struct Request {
  Ids tokens, blocks, stops, biases, allowed, bad_lengths, bad_ids, named;
  int num_prompt = 0, num_computed = 0, max_length = 0, num_top = -1, num_prompt_top = -1;
  /// What the engine believes, which does not know ids; what the device knows.
  int num_believed = 0;
  /// Of its parameters, which count up from here.
  int first_number = 0;
  bool has_ended = false, is_unfit = false;
  std::uint64_t last_step = 0;
};

inline std::int32_t sampled_id(int row, int position, std::int32_t last) {
  return (row * 31 + position * 7 + last * 13 + 5) % kVocab;
}
inline bool is_unfit(int row, int position) { return (row * 17 + position * 5) % 41 == 0; }
inline float score(int row, int position, int j) { return -(row + position * 0.25f + j * 0.125f); }

/// What a step must report, and what the device must find in its slot.
struct Expected {
  vt::StepRecord record;
  struct Entry {
    int row, start, count;
    Request request;
    bool samples, judges, is_dead;
  };
  std::vector<Entry> entries;
  Ids token_ids;
  std::vector<std::uint8_t> flags;
  vt::LogprobColumns sampled, prompt;
  vt::StepHash hash;
};

inline bool same_list(const std::int32_t* list, int count, const Ids& wanted) {
  return count == static_cast<int>(wanted.size()) &&
         (count == 0 || std::memcmp(list, wanted.data(), count * 4) == 0);
}

/// The device: its copy of the row table lies in `a`.
inline void run_on_device(const vt::StepArrays& a, std::uint64_t step, const Expected& wanted) {
  const char* slot = a.inputs + step % a.layout.num_slots * a.layout.input_bytes;
  char* out = a.results + step % a.layout.num_slots * a.layout.result_bytes;
  const auto& header = *reinterpret_cast<const vt::StepHeader*>(slot);
  const auto* entries = reinterpret_cast<const vt::RowEntry*>(slot + a.layout.row_entries);
  const auto* new_rows = reinterpret_cast<const std::int32_t*>(slot + a.layout.new_rows);
  const auto* judged = reinterpret_cast<const vt::JudgedEntry*>(slot + a.layout.judged_entries);
  auto* logprobs = reinterpret_cast<float*>(out + a.layout.logprobs);
  auto* ranks = reinterpret_cast<std::int32_t*>(out + a.layout.ranks);
  auto* top_ids = reinterpret_cast<std::int32_t*>(out + a.layout.top_ids);
  auto* top_logprobs = reinterpret_cast<float*>(out + a.layout.top_logprobs);
  auto* named = reinterpret_cast<float*>(out + a.layout.named_logprobs);
  expect(header.first_epoch == step * 3, "the epoch", step);
  expect(header.num_rows == static_cast<int>(wanted.entries.size()), "rows", step);
  for (int i = 0; i < header.num_new_rows; i++) {
    const int row = new_rows[i];
    a.params[row] = a.setups[row].params;
    std::memcpy(a.stop_ids + row * vt::kStopIdsOnDevice, a.setups[row].stop_ids, 32);
    a.num_tokens[row] = a.setups[row].num_tokens;
    a.last_token[row] = a.setups[row].last_token;
    a.finished[row] = vt::kNotFinished;
  }
  int num_judged = 0, num_tokens = 0;
  for (int i = 0; i < header.num_rows; i++) {
    const vt::RowEntry& entry = entries[i];
    const Expected::Entry& is = wanted.entries[i];
    const Request& request = is.request;
    const int row = entry.row;
    expect(row == is.row && entry.start == is.start && entry.count == is.count, "an entry", step);
    bool is_new = false;
    for (int n = 0; n < header.num_new_rows; n++) is_new |= new_rows[n] == row;
    expect((entry.is_new != 0) == is_new, "whether a row is new", step);
    expect(entry.token_begin == num_tokens, "where its tokens begin", step);
    num_tokens += entry.count;
    std::int32_t* blocks = a.block_tables + row * a.block_stride;
    for (int b = entry.copy_from; b <= (entry.start + entry.count - 1) / a.block_size; b++)
      blocks[b] = a.host_block_tables[row * a.block_stride + b];
    for (int p = 0; p < entry.start + entry.count; p++)
      expect(blocks[p / kBlockSize] == request.blocks[p / kBlockSize], "a block", step);
    const VtCudaRowParams& p = a.params[row];
    expect(same_list(p.stop_ids, p.num_stop_ids, request.stops) &&
               same_list(p.bias_ids, p.num_biases, request.biases) &&
               same_list(p.allowed_ids, p.num_allowed_ids, request.allowed) &&
               same_list(p.logprob_ids, p.num_logprob_ids, request.named),
           "a row's lists", step);
    for (std::size_t b = 0; b < request.biases.size(); b++)
      expect(p.biases[b] == static_cast<float>(request.biases[b]) / 2, "a bias", step);
    int at = 0;
    expect(p.num_bad_words == static_cast<int>(request.bad_lengths.size()), "bad words", step);
    for (int w = 0; w < p.num_bad_words; at += request.bad_lengths[w++])
      expect(p.bad_word_starts[w] == at && p.bad_word_starts[w + 1] == at + request.bad_lengths[w],
             "where a bad word begins", step);
    expect(same_list(p.bad_word_ids, at, request.bad_ids), "ids of bad words", step);
    expect(p.seed == static_cast<std::uint64_t>(request.max_length) &&
               p.num_prompt_tokens == request.num_prompt && p.num_logprobs == request.num_top &&
               p.max_num_tokens == request.max_length,
           "a row's parameters", step);
    int number = request.first_number;
    for (const float value : {p.temperature, p.top_p, p.min_p, p.presence_penalty,
                              p.frequency_penalty, p.repetition_penalty})
      expect(value == static_cast<float>(number++), "a parameter", step);
    expect(p.top_k == number && p.min_tokens == number + 1, "top_k or min_tokens", step);
    auto* ids = reinterpret_cast<std::int32_t*>(out + a.layout.token_ids);
    auto* flags = reinterpret_cast<std::uint8_t*>(out + a.layout.row_flags);
    ids[i] = -1;
    flags[i] = 0;
    const bool is_dead = a.finished[row] != vt::kNotFinished;
    expect(is_dead == is.is_dead, "whether a row has ended", step);
    std::int32_t* history = a.histories + row * a.history_stride;
    const int known = a.num_tokens[row];
    for (; num_judged < header.num_judged && judged[num_judged].batch_row == i; num_judged++) {
      const vt::JudgedEntry& of = judged[num_judged];
      const int position = entry.start + of.token - entry.token_begin + 1, l = of.logit_row;
      expect(is.judges && of.row == row, "a judged row", step);
      expect(of.judged_id == request.tokens[position], "a judged id", step);
      ranks[l] = is_dead ? 0 : position;
      logprobs[l] = score(row, position, 0);
      for (int j = 0; j < header.num_top; j++) {
        top_ids[l * header.num_top + j] = position + j;
        top_logprobs[l * header.num_top + j] = score(row, position, j);
      }
    }
    expect((entry.logit_row >= 0) == is.samples, "whether a row samples", step);
    if (entry.logit_row < 0) continue;
    const int l = entry.logit_row;
    if (header.num_top >= 0) ranks[l] = 0;
    if (is_dead) continue;
    expect(known == entry.start + entry.count, "a row's length", step);
    if (is_unfit(row, known)) {
      a.finished[row] = vt::kUnfitLogits;
      flags[i] = vt::kRowFlagNan;
      continue;
    }
    const std::int32_t id = ids[i] = sampled_id(row, known, a.last_token[row]);
    history[known] = a.last_token[row] = id;
    a.num_tokens[row]++;
    bool stops = known + 1 >= p.max_num_tokens || known + 1 >= a.max_model_len;
    for (int s = 0; s < p.num_stop_ids; s++) stops |= p.stop_ids[s] == id;
    if (stops) a.finished[row] = vt::kFinished;
    if (p.num_logprobs < 0) continue;
    expect(header.num_top >= p.num_logprobs || p.num_logprob_ids > 0, "room for a list", step);
    ranks[l] = known;
    logprobs[l] = score(row, known, 0);
    for (int j = 0; j < header.num_top; j++) {
      top_ids[l * header.num_top + j] = known + j;
      top_logprobs[l * header.num_top + j] = score(row, known, j);
    }
    for (int j = 0; j < p.num_logprob_ids; j++)
      named[row * header.num_named + j] = score(row, known, p.logprob_ids[j]);
  }
  expect(num_judged == header.num_judged && num_tokens == header.num_tokens, "counts", step);
  auto& result = *reinterpret_cast<vt::ResultHeader*>(out);
  result.start_ns = step * 1000000 + 1000;
  result.end_ns = step * 1000000 + 900000;
  __atomic_store_n(&result.done, step + 1, __ATOMIC_RELEASE);
}
