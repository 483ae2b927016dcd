// A finished step's slot as StepOutput. Keeps of each row what the hash and the flags of steps need
// that came after the row ended: steps report in order.
#pragma once

#include <cstdint>
#include <vector>

#include "../../host/batch.h"
#include "../../host/step_output.h"
#include "step_buffers.h"

namespace vt {

/// What the host remembers of a step in flight.
struct StepRecord {
  double step = 0;
  /// The step's column `row`.
  std::vector<std::int32_t> scheduled;
  struct Filled {
    std::int32_t row, num_tokens;
  };
  std::vector<Filled> filled;
  Batch batch;
  bool has_logprobs = false;
  /// That of the first collective after the step.
  std::uint64_t end_epoch = 0;
  /// Ids that its rows of logits name, one row after another: a row may be filled anew before the
  /// step reports.
  std::vector<std::int32_t> named_ids;
};

class StepReporter {
 public:
  explicit StepReporter(int num_rows) : rows_(num_rows) {}
  /// Fills `output`; `now_us` is the host's clock, read after the step was seen to be done.
  void report(const StepRecord& record, const StepResults& results, double now_us,
              StepOutput& output);
  /// Between the end of the step before and the begin of the last one reported.
  double device_idle_us() const { return device_idle_us_; }

 private:
  struct KnownRow {
    std::int32_t num_tokens = 0;
    bool is_unfit = false;
  };
  void add_logprobs(const StepRecord& record, const StepResults& results);
  void set_times(const StepResults& results, double now_us, StepOutput& output);

  std::vector<KnownRow> rows_;
  OutputColumns columns_;
  /// Host clock less device clock, by the fastest report so far.
  double offset_us_ = 0;
  std::uint64_t last_end_ns_ = 0;
  double device_idle_us_ = 0;
};

}  // namespace vt
