// Rows, rings and reports of kernels/cuda/host over memory of the process: requests drawn from a
// seed fill rows, grow blocks, are judged, sample, end and give their rows to others, with up to
// three steps in flight on the device of step_rings_device.h.   step_rings_run SEED
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <random>
#include <string>

#include "kernels/check.h"
#include "kernels/cuda/host/step_buffers.h"
#include "kernels/cuda/host/step_report.h"
#include "step_rings_device.h"

namespace {

using In = vt::StepInputColumn;
using Out = vt::StepOutputColumn;

constexpr int kRows = 6, kMaxLength = 90, kMaxTop = 5, kInFlight = 3;
constexpr int kMostTokens = 80, kNumSteps = 4000;

/// A step's columns as the engine packs them.
class Columns {
 public:
  template <typename T>
  void add(In column, T value) {
    std::string& bytes = bytes_[static_cast<int>(column)];
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    counts_[static_cast<int>(column)]++;
  }
  void replace_last(In column, std::int32_t value) {
    std::string& bytes = bytes_[static_cast<int>(column)];
    std::memcpy(&bytes[bytes.size() - 4], &value, 4);
  }
  void add_all(In column, const Ids& values) {
    for (const std::int32_t value : values) add(column, value);
  }
  vt::StepView view() {
    body_.clear();
    for (int i = 0; i < vt::kNumStepInputColumns; i++) {
      body_.resize((body_.size() + 7) / 8 * 8);
      layout_[2 * i] = static_cast<std::int32_t>(body_.size());
      layout_[2 * i + 1] = counts_[i];
      body_ += bytes_[i];
    }
    return {body_.data(), static_cast<std::int64_t>(body_.size()), layout_,
            2 * vt::kNumStepInputColumns};
  }

 private:
  std::string bytes_[vt::kNumStepInputColumns], body_;
  std::int32_t counts_[vt::kNumStepInputColumns] = {}, layout_[2 * vt::kNumStepInputColumns];
};

template <typename T>
std::vector<T> column(const vt::StepOutput& output, Out name) {
  const int i = static_cast<int>(name);
  const auto* data = reinterpret_cast<const T*>(output.body.data() + output.table[2 * i]);
  return {data, data + output.table[2 * i + 1]};
}

class Run {
 public:
  explicit Run(unsigned seed) : random_(seed) {
    rows_.describe(arrays_);
    buffers_.describe(arrays_);
    rows_.table().set_num_blocks(1000);
  }

  /// How often each thing took place.
  int num_filled = 0, num_sampled = 0, num_judged = 0, num_ended = 0, num_unfit = 0, num_named = 0,
      num_over = 0;

  void go() {
    for (std::uint64_t step = 0; step < kNumSteps; step++) {
      submit(step);
      // The device is behind by as much as it may be, or not at all.
      while (flights_.size() > static_cast<std::size_t>(below(kInFlight))) report();
    }
    while (!flights_.empty()) report();
    // The first MiB for lists is enough, since they go where others have been.
    expect(count_allocated() == num_allocated_ + 1, "room for lists", kNumSteps);
    check_filling();
  }

 private:
  int below(int bound) { return static_cast<int>(random_() % static_cast<unsigned>(bound)); }
  Ids list(int most) {
    Ids ids(below(2) * below(most + 1));
    for (std::int32_t& id : ids) id = below(kVocab);
    return ids;
  }

  void fill(int row, Columns& columns) {
    Request& r = requests_[row] = {};
    r.tokens.resize(1 + below(60));
    for (std::int32_t& id : r.tokens) id = below(kVocab);
    r.num_prompt = r.num_believed = static_cast<int>(r.tokens.size());
    r.max_length = r.num_prompt + 1 + below(40);
    r.stops = list(12);
    r.biases = list(9);
    r.allowed = list(900);
    r.named = below(4) == 0 ? list(128) : Ids();
    if (!r.named.empty() && below(3) == 0) r.named.resize(1);
    if (below(3) == 0) r.bad_lengths = {2, 1, 3};
    r.bad_ids.assign(r.bad_lengths.empty() ? 0 : 6, row);
    r.num_top = r.named.empty() ? below(kMaxTop + 2) - 1 : 0;
    r.num_prompt_top = below(kMaxTop + 2) - 1;
    num_filled++;
    num_named += !r.named.empty();
    columns.add(In::newRow, row);
    columns.add(In::newNumTokens, r.num_prompt);
    columns.add(In::newNumPromptTokens, r.num_prompt);
    columns.add_all(In::newTokenIds, r.tokens);
    r.first_number = 1 + below(9);
    int number = r.first_number;
    for (const In f32 : {In::newTemperature, In::newTopP, In::newMinP, In::newPresencePenalty,
                         In::newFrequencyPenalty, In::newRepetitionPenalty})
      columns.add(f32, static_cast<float>(number++));
    columns.add(In::newTopK, number++);
    columns.add(In::newSeed, static_cast<std::uint64_t>(r.max_length));
    columns.add(In::newMinTokens, number++);
    columns.add(In::newMaxNumTokens, r.max_length);
    columns.add(In::newNumLogprobs, r.num_top);
    columns.add(In::newNumPromptLogprobs, r.num_prompt_top);
    const auto put = [&](In count, In ids, const Ids& values) {
      columns.add(count, static_cast<std::int32_t>(values.size()));
      columns.add_all(ids, values);
    };
    put(In::newNumLogprobIds, In::logprobIds, r.named);
    put(In::newNumStopIds, In::stopIds, r.stops);
    put(In::newNumLogitBias, In::logitBiasIds, r.biases);
    for (const std::int32_t id : r.biases) columns.add(In::logitBias, static_cast<float>(id) / 2);
    put(In::newNumAllowedIds, In::allowedIds, r.allowed);
    put(In::newNumBadWords, In::badWordLength, r.bad_lengths);
    columns.add_all(In::badWordIds, r.bad_ids);
  }

  /// What the engine believes to be over.
  bool is_over(const Request& r) const {
    return r.num_believed >= r.max_length || r.num_believed >= kMaxLength;
  }

  void schedule(int row, Columns& columns, int& room, Expected& expected) {
    Request& r = requests_[row];
    const int known = r.num_believed, most = std::min(room, known - r.num_computed);
    const int place = static_cast<int>(expected.token_ids.size());
    if (most < 1) return;
    const bool decodes = r.num_computed >= r.num_prompt;
    const int count = decodes || below(2) == 0 ? most : 1 + below(most);
    room -= count;
    const int start = r.num_computed, end = start + count;
    if (!r.blocks.empty() && r.last_step <= num_reported_ && below(9) == 0) {
      // One that the device has already.
      columns.add(In::blockRow, row);
      columns.add(In::blockIndex, 0);
      columns.add(In::blockId, r.blocks[0] = 1 + below(999));
    }
    while (static_cast<int>(r.blocks.size()) * kBlockSize < end + below(20)) {
      if (r.blocks.size() == (kMaxLength + kBlockSize - 1) / kBlockSize) break;
      columns.add(In::blockRow, row);
      columns.add(In::blockIndex, static_cast<std::int32_t>(r.blocks.size()));
      r.blocks.push_back(1 + below(999));
      columns.add(In::blockId, r.blocks.back());
    }
    const bool samples = end == known, judges = !decodes && r.num_prompt_top >= 0;
    columns.add(In::row, row);
    columns.add(In::start, start);
    columns.add(In::count, count);
    columns.add(In::flags, (samples ? vt::kStepFlagSample : 0) |
                               (judges ? vt::kStepFlagPromptLogprobs : 0));
    r.num_computed = end;
    const bool was_dead = r.has_ended;
    expected.entries.push_back({row, start, count, r, samples, judges, was_dead});
    std::int32_t id = -1;
    const auto told = [&](vt::LogprobColumns& to, int position, int num_top) {
      Ids ids;
      std::vector<float> scores;
      for (int j = 0; j < num_top; j++) {
        ids.push_back(position + j);
        scores.push_back(score(row, position, j));
      }
      to.add(place, position, score(row, position, 0), position, ids.data(), scores.data(),
             num_top);
    };
    for (int p = start; judges && !was_dead && p < end && p + 1 < r.num_prompt; p++) {
      told(expected.prompt, p + 1, r.num_prompt_top);
      num_judged++;
    }
    if (samples && !was_dead) {
      if (is_unfit(row, known)) {
        r.has_ended = r.is_unfit = true;
        num_unfit++;
      } else {
        id = sampled_id(row, known, r.tokens.back());
        r.tokens.push_back(id);
        num_sampled++;
        for (const std::int32_t stop : r.stops) r.has_ended |= stop == id;
        num_ended += r.has_ended;
        if (known + 1 >= r.max_length || known + 1 >= kMaxLength) r.has_ended = true;
        if (r.named.empty() && r.num_top >= 0) told(expected.sampled, known, r.num_top);
        if (!r.named.empty()) {
          std::vector<float> scores;
          for (const std::int32_t of : r.named) scores.push_back(score(row, known, of));
          expected.sampled.add(place, known, score(row, known, 0), known, r.named.data(),
                               scores.data(), static_cast<int>(r.named.size()));
        }
      }
    }
    if (samples) r.num_believed++;
    expected.token_ids.push_back(id);
    expected.flags.push_back(r.is_unfit ? vt::kRowFlagNan : 0);
    expected.hash.add(row, static_cast<int>(r.tokens.size()), id);
  }

  /// A row that its length has ended, as a step names it that was on its way.
  void name_again(int row, Columns& columns, int& room, Expected& expected) {
    const Request& r = requests_[row];
    columns.add(In::row, row);
    columns.add(In::start, r.num_believed - 1);
    columns.add(In::count, 1);
    columns.add(In::flags, vt::kStepFlagSample);
    room--;
    expected.token_ids.push_back(-1);
    expected.flags.push_back(r.is_unfit ? vt::kRowFlagNan : 0);
    expected.hash.add(row, static_cast<int>(r.tokens.size()), -1);
    num_over++;
  }

  void submit(std::uint64_t step) {
    flights_.emplace_back();
    Expected& expected = flights_.back();
    Columns columns;
    int room = kMostTokens;
    for (int row = 0; row < kRows; row++) {
      Request& r = requests_[row];
      // A row is another's once no step in flight names it; the engine may also know its end.
      const bool is_free = r.last_step <= num_reported_;
      if (is_free && (r.tokens.empty() || is_over(r) || r.has_ended) && below(3) > 0)
        fill(row, columns);
    }
    for (int i = 0, first = below(kRows); i < kRows; i++) {
      const int row = (first + i) % kRows;
      Request& r = requests_[row];
      if (r.tokens.empty() || below(4) == 0) continue;
      if (is_over(r)) {
        if (room > 0) name_again(row, columns, room, expected);
        continue;
      }
      const std::size_t before = expected.entries.size();
      schedule(row, columns, room, expected);
      if (expected.entries.size() > before) r.last_step = step + 1;
    }
    // As StepRunner::run does.
    vt::StepRecord& record = expected.record;
    const vt::StepView view = columns.view();
    rows_.apply(view, step, num_reported_);
    for (const std::int32_t row : rows_.new_rows()) {
      record.filled.push_back({row, rows_.table().row(row).num_tokens});
      requests_[row].last_step = step + 1;
    }
    builder_.build(view, kMostTokens - room, record.batch);
    const auto scheduled = view.i32(In::row);
    record.scheduled.assign(scheduled.data, scheduled.data + scheduled.count);
    record.step = static_cast<double>(step);
    for (const vt::LogitRow& row : record.batch.logit_rows) {
      const vt::SamplingParams& params = rows_.table().row(row.row).params;
      record.has_logprobs |= row.is_prompt || params.num_logprobs >= 0;
      const Ids& ids = params.logprob_ids;
      if (row.num_named > 0)
        record.named_ids.insert(record.named_ids.end(), ids.begin(), ids.end());
    }
    buffers_.write(step, record.batch, record.has_logprobs, rows_, step * 3);
    for (const vt::LogitRow& row : record.batch.logit_rows)
      if (!row.is_prompt) rows_.table().expect(row.row);
  }

  void report() {
    const std::uint64_t step = num_reported_;
    const Expected& expected = flights_.front();
    expect(!buffers_.is_done(step), "done before it ran", step);
    run_on_device(arrays_, step, expected);
    expect(buffers_.is_done(step), "not done", step);
    vt::StepOutput output;
    const double now_us = 5e6 + static_cast<double>(step) * 1000 + 950 + below(200);
    reporter_.report(expected.record, buffers_.results(step), now_us, output);
    expect(output.step == static_cast<double>(step), "its number", step);
    expect(output.hash == expected.hash.value(), "the hash", step);
    expect(column<std::int32_t>(output, Out::tokenId) == expected.token_ids, "ids", step);
    expect(column<std::uint8_t>(output, Out::rowFlags) == expected.flags, "flags", step);
    const vt::LogprobColumns &s = expected.sampled, &p = expected.prompt;
    expect(column<std::int32_t>(output, Out::logprobIndex) == s.index &&
               column<float>(output, Out::logprob) == s.logprob &&
               column<std::int32_t>(output, Out::logprobRank) == s.rank &&
               column<std::int32_t>(output, Out::topCount) == s.top_count &&
               column<std::int32_t>(output, Out::topIds) == s.top_ids &&
               column<float>(output, Out::topLogprobs) == s.top_logprobs,
           "logprobs of sampled tokens", step);
    expect(column<std::int32_t>(output, Out::promptLogprobIndex) == p.index &&
               column<std::int32_t>(output, Out::promptLogprobPosition) == p.position &&
               column<float>(output, Out::promptLogprob) == p.logprob &&
               column<std::int32_t>(output, Out::promptLogprobRank) == p.rank &&
               column<std::int32_t>(output, Out::promptTopCount) == p.top_count &&
               column<std::int32_t>(output, Out::promptTopIds) == p.top_ids &&
               column<float>(output, Out::promptTopLogprobs) == p.top_logprobs,
           "logprobs of prompts", step);
    // The host's clock by the fastest report so far, as far as clocks may differ by now.
    const double end_us = static_cast<double>(step) * 1000 + 900, offset = now_us - end_us;
    offset_us_ = step == 0 ? offset : std::min(offset, offset_us_ + 1000 * 1e-4);
    expect(std::abs(output.end_us - end_us - offset_us_) < 1e-3 &&
               std::abs(output.end_us - output.start_us - 899) < 1e-3,
           "its times", step);
    expect(std::abs(reporter_.device_idle_us() - (step == 0 ? 0 : 101)) < 1e-3, "idle", step);
    flights_.pop_front();
    num_reported_++;
  }

  /// A step that fills these rows, when so many are over: what is said of it.
  std::string fill_all(std::initializer_list<int> rows, std::uint64_t step) {
    Columns columns;
    for (const int row : rows) {
      fill(0, columns);
      columns.replace_last(In::newRow, row);
    }
    try {
      rows_.apply(columns.view(), step, kNumSteps);
    } catch (const vt::KernelError& error) {
      return error.what();
    }
    return "";
  }

  void check_filling() {
    const auto is = [](const std::string& said, const char* wanted) {
      expect(said.find(wanted) != std::string::npos, said.c_str(), kNumSteps);
    };
    is(fill_all({-1}, kNumSteps), "newRow: row -1 of 6");
    is(fill_all({kRows}, kNumSteps), "newRow: row 6 of 6");
    expect(fill_all({1, 1, 0}, kNumSteps).empty(), "a row twice", kNumSteps);
    expect(rows_.new_rows() == Ids({1, 0}), "each new row once", kNumSteps);
    is(fill_all({2, 0}, kNumSteps + 1), "newRow: row 0 is named by a step in flight");
    rows_.schedule(3, 0);
    is(fill_all({4, 3}, kNumSteps + 1), "newRow: row 3 is named by a step in flight");
  }

  std::mt19937 random_;
  vt::Ledger ledger_;
  vt::Rows rows_{{kRows, kMaxLength, kBlockSize, 1, kVocab, kMaxTop}, ledger_};
  vt::StepBuffers buffers_{kRows, kMostTokens, kMaxTop, kInFlight + 1, ledger_};
  vt::BatchBuilder builder_{rows_.table(), {kMostTokens, kMaxLength, 0, true}};
  vt::StepReporter reporter_{kRows};
  vt::StepArrays arrays_{};
  Request requests_[kRows];
  std::deque<Expected> flights_;
  std::uint64_t num_reported_ = 0;
  double offset_us_ = 0;
  const std::size_t num_allocated_ = count_allocated();
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 64;
  for (const int num_rows : {300, 320}) check_room(num_rows, 705, 3);
  Run run(static_cast<unsigned>(std::atoi(argv[1])));
  run.go();
  std::printf("%d wrong; %d filled, %d sampled, %d judged, %d stopped, %d unfit, %d named, "
              "%d over\n",
              num_wrong, run.num_filled, run.num_sampled, run.num_judged, run.num_ended,
              run.num_unfit, run.num_named, run.num_over);
  return num_wrong == 0 ? 0 : 1;
}
