// Which CUDA graphs a backend captures, for what each has room, and which of them serves a step, if
// any does. Knows no device: graphs.h has the graphs, step_runner.h what is captured.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "../../host/batch.h"
#include "row_kinds.h"

namespace vt {

/// 1, 2, 4, then multiples of 8 to 256, of 16 to 512, of 32 beyond; and `most`, the last.
std::vector<int> decode_buckets(int most);

/// What a graph is for, beside its bucket; those that serve less come first.
enum class GraphKind {
  /// Logits of rows that need the greatest alone are not written (head.cc).
  few_logits,
  /// Ranks: rows that best ids tell, none with logprobs.
  no_alternatives,
  /// Ranks over a library that carries: rows that candidates tell.
  told,
  /// So too, and rows with min-p alone.
  bounded,
  /// So too, and rows with one of a top-k beyond what is carried and a top-p.
  searched,
  /// Every row.
  all
};
constexpr int kNumGraphKinds = 6;

/// The longest list of best ids that a graph makes; longer ones take another instance of sample.
constexpr int kMostListed = 32;

struct GraphOptions {
  /// Of a step, and alternatives that a row may ask for.
  int max_rows = 1, max_logprobs = 0;
  /// See Launches.
  bool has_sample = false, tells_rows = false, needs_kinds = false;
  /// Nothing is captured.
  bool op_by_op = false;
};

/// What a step's rows of logits ask for.
struct SampledRows {
  RowKinds kinds;
  bool has_logprobs = false;
};

SampledRows sampled_rows(const Batch& batch, const RowTable& table);

/// The part of a StepShape that differs between graphs of a bucket.
struct GraphSampling {
  int num_top = -1, num_named = 0;
  RowKinds kinds;
};

class GraphChoice {
 public:
  struct Graph {
    GraphKind kind;
    int bucket;
  };

  /// `may_find_best`: see Launches; it is asked for every bucket, here.
  GraphChoice(const GraphOptions& options, const std::function<bool(int)>& may_find_best);

  bool has_graphs() const { return !options_.op_by_op; }
  /// Ascending.
  const std::vector<int>& buckets() const { return buckets_; }
  /// Whether a bucket has a graph of this kind, where there are graphs.
  bool has(GraphKind kind, int bucket) const;
  /// Room for what rows may ask: a row that asks for less, or nothing, costs what it costs alone.
  GraphSampling sampling(GraphKind kind, int num_rows) const;
  /// The graph of the first kind that serves the step, and of its smallest bucket that holds the
  /// step's rows. None where the step must run op by op: some row has several tokens, judges a
  /// prompt or does not sample, a list of best ids is too long, or attention has `num_groups` above
  /// one.
  std::optional<Graph> choose(const Batch& batch, const SampledRows& rows, int num_groups) const;

 private:
  GraphKind kind_of(const SampledRows& rows, int bucket) const;
  /// Whether there are graphs of this kind for every number of rows, or nearly.
  bool has_kind(GraphKind kind) const;
  /// What few_logits is but for the head: ranks exchange the same in both.
  GraphKind with_all_logits() const;
  int most_listed() const;

  const GraphOptions options_;
  const std::vector<int> buckets_;
  /// Of few_logits.
  std::vector<int> best_buckets_;
};

}  // namespace vt
