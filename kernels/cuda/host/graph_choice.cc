#include "graph_choice.h"

#include <algorithm>

namespace vt {

namespace {

bool is_power_of_two(int value) { return (value & (value - 1)) == 0; }

/// Every row has one token and samples after it.
bool is_decode(const Batch& batch) {
  if (batch.rows.empty() || batch.logit_rows.size() != batch.rows.size()) return false;
  for (std::size_t i = 0; i < batch.rows.size(); i++)
    if (batch.rows[i].count != 1 || batch.logit_rows[i].is_prompt) return false;
  return true;
}

}  // namespace

std::vector<int> decode_buckets(int most) {
  std::vector<int> buckets;
  for (int b = 1; b < most; b += b < 8 ? b : b < 256 ? 8 : b < 512 ? 16 : 32)
    buckets.push_back(b);
  buckets.push_back(most);
  return buckets;
}

SampledRows sampled_rows(const Batch& batch, const RowTable& table) {
  SampledRows rows;
  rows.kinds.num_rows = static_cast<int>(batch.logit_rows.size());
  for (const LogitRow& row : batch.logit_rows) {
    const SamplingParams& params = table.row(row.row).params;
    if (!row.is_prompt) rows.kinds.add(params);
    if (row.is_prompt || params.num_logprobs >= 0) rows.has_logprobs = true;
  }
  return rows;
}

GraphChoice::GraphChoice(const GraphOptions& options,
                         const std::function<bool(int)>& may_find_best)
    : options_(options), buckets_(decode_buckets(options.max_rows)) {
  for (const int bucket : buckets_)
    if (may_find_best(bucket)) best_buckets_.push_back(bucket);
}

bool GraphChoice::has_kind(GraphKind kind) const {
  if (kind == GraphKind::few_logits) return false;
  if (kind == GraphKind::all) return true;
  return options_.has_sample &&
         (kind == GraphKind::no_alternatives ? options_.tells_rows : options_.needs_kinds);
}

bool GraphChoice::has(GraphKind kind, int bucket) const {
  if (kind == GraphKind::few_logits)
    return std::binary_search(best_buckets_.begin(), best_buckets_.end(), bucket);
  if (kind != GraphKind::all || !has_kind(GraphKind::searched)) return has_kind(kind);
  // Few steps need the longest search: a start is not longer for them than it must be.
  return is_power_of_two(bucket) || bucket == options_.max_rows;
}

GraphKind GraphChoice::with_all_logits() const {
  return has_kind(GraphKind::no_alternatives) ? GraphKind::no_alternatives : GraphKind::all;
}

int GraphChoice::most_listed() const { return std::min(options_.max_logprobs, kMostListed); }

GraphSampling GraphChoice::sampling(GraphKind kind, int num_rows) const {
  const bool finds_best = kind == GraphKind::few_logits;
  if (finds_best) kind = with_all_logits();
  const bool has_alternatives = kind != GraphKind::no_alternatives;
  GraphSampling sampling;
  if (has_alternatives) {
    sampling.num_top = options_.has_sample ? most_listed() : -1;
    sampling.num_named = kMaxLogprobIds;
  }
  sampling.kinds.has_candidates = has_alternatives;
  if (kind == GraphKind::bounded) sampling.kinds.search_steps = 1;
  if (kind == GraphKind::searched) sampling.kinds.search_steps = VT_CUDA_SEARCH_STEPS;
  if (kind == GraphKind::all) sampling.kinds.search_steps = RowKinds::kLongestSearch;
  if (finds_best) sampling.kinds.num_rows = sampling.kinds.num_likeliest = num_rows;
  return sampling;
}

GraphKind GraphChoice::kind_of(const SampledRows& rows, int bucket) const {
  GraphKind found = GraphKind::all;
  for (int k = kNumGraphKinds - 2; k >= 0; k--) {
    const auto kind = static_cast<GraphKind>(k);
    if (!has_kind(kind)) continue;
    const GraphSampling graph = sampling(kind, bucket);
    if (graph.kinds.serve(rows.kinds) && (graph.num_top >= 0 || !rows.has_logprobs)) found = kind;
  }
  const bool finds_best = rows.kinds.finds_best() && has(GraphKind::few_logits, bucket);
  return found == with_all_logits() && finds_best ? GraphKind::few_logits : found;
}

std::optional<GraphChoice::Graph> GraphChoice::choose(const Batch& batch, const SampledRows& rows,
                                                      int num_groups) const {
  const bool fits = is_decode(batch) && batch.num_top <= most_listed() && num_groups <= 1;
  if (options_.op_by_op || !fits) return std::nullopt;
  const int num_rows = static_cast<int>(batch.rows.size());
  auto bucket = std::lower_bound(buckets_.begin(), buckets_.end(), num_rows);
  if (bucket == buckets_.end()) return std::nullopt;
  const GraphKind kind = kind_of(rows, *bucket);
  // The last has graphs of every kind that has any, but for few_logits.
  while (!has(kind, *bucket)) bucket++;
  return Graph{kind, *bucket};
}

}  // namespace vt
