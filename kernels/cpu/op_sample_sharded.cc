// sampleSharded: rows of logits of which every rank has some columns. In up to three rounds the
// ranks tell each other the candidates of each row, what is needed for its logprobs, and all logits
// of the rows that need them; a round that no row needs is left out, by all. Each thread takes
// whole rows. What a rank tells lies in `out`, of the one round, then of the next, row by row, no
// longer than a row's parameters make it.
#include <algorithm>
#include <cstring>

#include "meeting.h"
#include "sampler_shard.h"

namespace vt {

namespace {

/// What ranks tell each other of a row before they may have to gather its logits.
enum Round { kCandidates, kLogprobs };

class ShardedSample {
 public:
  ShardedSample(const OpCall& call, const BoundOp& op)
      : call_(call),
        op_(op),
        step_(call.step),
        kernels_(*step_.kernels),
        scratch_(step_.scratch[call.thread]),
        told_(op.args[0].data),
        x_(op.args[1]),
        vocab_size_(step_.rows->sizes().vocab_size),
        first_id_(op.attr_int(0)),
        num_ids_(static_cast<int>(
            std::clamp<std::int64_t>(vocab_size_ - first_id_, 0, x_.columns))),
        num_tiles_(static_cast<int>(x_.columns / kTileIds)),
        rows_(call.share_of(call.num_logits)) {}

  /// Every thread calls it. Returns early where the step is lost.
  void run() {
    for (std::int64_t i = rows_.begin; i < rows_.end; i++) choice(i).is_gathered = true;
    const std::int64_t candidates = size_of(kCandidates), logprobs = size_of(kLogprobs);
    if (candidates > 0) {
      find();
      if (!show(told_, candidates)) return;
      choose();
    }
    if (logprobs > 0) {
      // Others may still be reading the candidates. Sums are of 8 bytes.
      told_ += (candidates + 1) / 2 * 2;
      judge();
      if (!show(told_, logprobs)) return;
      merge();
    }
    step_.pool->barrier();
    gather();
  }

 private:
  const LogitRow& logit_row(std::int64_t i) const {
    return step_.batch.logit_rows[call_.logit_begin + i];
  }
  const Row& row(std::int64_t i) const { return step_.rows->row(logit_row(i).row); }
  ShardKind kind(std::int64_t i) const {
    return shard_kind(row(i), logit_row(i), vocab_size_);
  }
  Choice& choice(std::int64_t i) const { return step_.choices[call_.logit_begin + i]; }
  LogitResult& result(std::int64_t i) const { return step_.results[call_.logit_begin + i]; }
  SampleInput input(std::int64_t i) const {
    const LogitRow& at = logit_row(i);
    const float* logits = x_.data + i * x_.columns;
    return {logits,      num_ids_, &row(i), step_.rows->tokens(at.row),
            at.position, at.num_top, first_id_};
  }

  /// Words that a rank tells of a row. By parameters alone, so that every rank finds the same.
  std::int64_t words(Round round, std::int64_t i) const {
    if (round == kCandidates) return Candidates::words(kind(i));
    if (!has_shard_logprobs(row(i), kind(i))) return 0;
    return ShardLogprobs::words(num_tiles_, logit_row(i).num_top);
  }
  std::int64_t size_of(Round round) const {
    std::int64_t size = 0;
    for (std::int64_t i = 0; i < call_.num_logits; i++) size += words(round, i);
    return size;
  }
  /// f(row, where in told_ its words begin) for the thread's rows that have any.
  template <typename Function>
  void for_rows(Round round, Function f) const {
    std::int64_t at = 0;
    for (std::int64_t i = 0; i < rows_.end; i++) {
      const std::int64_t count = words(round, i);
      if (i >= rows_.begin && count > 0) f(i, at);
      at += count;
    }
  }

  /// Once all threads are here, the ranks meet.
  bool show(const float* data, std::int64_t count) const {
    step_.pool->barrier();
    return meet(call_, op_, data, count);
  }
  /// What each rank told, at `at`.
  template <typename T>
  void collect(std::int64_t at, std::vector<const T*>& all) const {
    all.clear();
    for (int rank = 0; rank < num_ranks(step_); rank++)
      all.push_back(reinterpret_cast<const T*>(part(step_, told_, rank) + at));
  }

  void find() const {
    for_rows(kCandidates, [this](std::int64_t i, std::int64_t at) {
      find_candidates(kernels_, input(i), kind(i), scratch_.sampler,
                      reinterpret_cast<Candidates*>(told_ + at));
    });
  }

  void choose() const {
    std::vector<const Candidates*> told;
    for_rows(kCandidates, [&](std::int64_t i, std::int64_t at) {
      collect(at, told);
      choice(i) = choose_candidate(kernels_, row(i), logit_row(i).position, kind(i), told,
                                   scratch_.sampler);
      if (choice(i).is_gathered) return;
      result(i).id = choice(i).id;
      result(i).is_nan = choice(i).id < 0;
      result(i).has_logprob = false;
    });
  }

  /// Rows that turned out to be unfit, or to be gathered, have room in the second round too.
  bool is_chosen(std::int64_t i) const { return !choice(i).is_gathered && choice(i).id >= 0; }

  void judge() const {
    for_rows(kLogprobs, [this](std::int64_t i, std::int64_t at) {
      if (is_chosen(i))
        judge_shard(kernels_, input(i), choice(i), num_tiles_, scratch_.sampler,
                    reinterpret_cast<ShardLogprobs*>(told_ + at));
    });
  }

  void merge() const {
    std::vector<const ShardLogprobs*> told;
    for_rows(kLogprobs, [&](std::int64_t i, std::int64_t at) {
      if (!is_chosen(i)) return;
      collect(at, told);
      merge_logprobs(choice(i), told, num_tiles_, logit_row(i).num_top, result(i));
    });
  }

  /// The rows from the first to the last that need all their logits.
  void gather() const {
    std::int64_t first = call_.num_logits, last = -1;
    for (std::int64_t i = 0; i < call_.num_logits; i++) {
      if (!choice(i).is_gathered) continue;
      first = std::min(first, i);
      last = i;
    }
    if (last < 0) return;
    const float* own = x_.data + first * x_.columns;
    if (!show(own, (last - first + 1) * x_.columns)) return;
    std::vector<float>& logits = scratch_.logits;
    logits.resize(vocab_size_);
    for (std::int64_t i = rows_.begin; i < rows_.end; i++) {
      if (!choice(i).is_gathered) continue;
      for (std::int64_t id = 0; id < vocab_size_; id += x_.columns)
        std::memcpy(logits.data() + id,
                    part(step_, own, static_cast<int>(id / x_.columns)) + (i - first) * x_.columns,
                    static_cast<std::size_t>(std::min(x_.columns, vocab_size_ - id)) *
                        sizeof(float));
      sample_logits(call_, call_.logit_begin + i, logits.data());
    }
  }

  const OpCall& call_;
  const BoundOp& op_;
  StepState& step_;
  const KernelTable& kernels_;
  ThreadScratch& scratch_;
  /// Of the round that runs.
  float* told_;
  const BoundArg& x_;
  const std::int64_t vocab_size_;
  /// Of the rank, within the vocabulary.
  const int first_id_, num_ids_;
  /// Of every rank.
  const int num_tiles_;
  const Range rows_;
};

}  // namespace

void run_sample_sharded(const OpCall& call, const BoundOp& op) { ShardedSample(call, op).run(); }

}  // namespace vt
