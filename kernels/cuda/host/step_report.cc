#include "step_report.h"

#include <algorithm>

namespace vt {

namespace {

/// By how much of the time gone by the two clocks may differ.
constexpr double kClockDrift = 1e-4;

}  // namespace

void StepReporter::report(const StepRecord& record, const StepResults& results, double now_us,
                          StepOutput& output) {
  const Batch& batch = record.batch;
  for (const StepRecord::Filled& filled : record.filled)
    rows_[filled.row] = {filled.num_tokens, false};
  columns_.token_ids.assign(batch.num_scheduled, -1);
  columns_.flags.assign(batch.num_scheduled, 0);
  columns_.sampled.clear();
  columns_.prompt.clear();
  for (std::size_t i = 0; i < batch.rows.size(); i++) {
    const BatchRow& row = batch.rows[i];
    columns_.token_ids[row.index] = results.token_ids[i];
    if (results.token_ids[i] >= 0) rows_[row.row].num_tokens++;
    if ((results.row_flags[i] & kRowFlagNan) != 0) rows_[row.row].is_unfit = true;
  }
  StepHash hash;
  for (int i = 0; i < batch.num_scheduled; i++) {
    const std::int32_t row = record.scheduled[i];
    if (rows_[row].is_unfit) columns_.flags[i] |= kRowFlagNan;
    hash.add(row, rows_[row].num_tokens, columns_.token_ids[i]);
  }
  if (record.has_logprobs) add_logprobs(record, results);
  output.step = record.step;
  output.hash = hash.value();
  set_times(results, now_us, output);
  pack_output(columns_, output);
}

void StepReporter::add_logprobs(const StepRecord& record, const StepResults& results) {
  const Batch& batch = record.batch;
  const std::int32_t* named = record.named_ids.data();
  for (std::size_t l = 0; l < batch.logit_rows.size(); l++) {
    const LogitRow& row = batch.logit_rows[l];
    const std::int32_t* named_here = named;
    named += row.num_named;
    if (results.ranks[l] == 0) continue;
    LogprobColumns& columns = row.is_prompt ? columns_.prompt : columns_.sampled;
    const float logprob = results.logprobs[l];
    if (row.num_named > 0)
      columns.add(row.index, row.position, logprob, results.ranks[l], named_here,
                  results.named_logprobs + std::int64_t{row.row} * batch.num_named, row.num_named);
    else
      columns.add(row.index, row.position, logprob, results.ranks[l],
                  results.top_ids + l * batch.num_top, results.top_logprobs + l * batch.num_top,
                  row.num_top);
  }
}

void StepReporter::set_times(const StepResults& results, double now_us, StepOutput& output) {
  const double start_us = results.start_ns * 1e-3, end_us = results.end_ns * 1e-3;
  // No step is seen before its end, and the fastest report is seen soon after it.
  const double offset = now_us - end_us;
  const double since_us = last_end_ns_ == 0 ? 0 : end_us - last_end_ns_ * 1e-3;
  offset_us_ = last_end_ns_ == 0 ? offset : std::min(offset, offset_us_ + since_us * kClockDrift);
  output.start_us = start_us + offset_us_;
  output.end_us = end_us + offset_us_;
  device_idle_us_ = last_end_ns_ == 0 || results.start_ns < last_end_ns_
                        ? 0
                        : (results.start_ns - last_end_ns_) * 1e-3;
  last_end_ns_ = results.end_ns;
}

}  // namespace vt
