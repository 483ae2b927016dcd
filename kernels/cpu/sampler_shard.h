// One row of logits of which every rank has some ids: what a rank tells the others, so that all of
// them come to the token, and the logprobs, that one place with all logits would. First each names
// its candidates; then, where logprobs are wanted, what it knows of the chosen id. Knows nothing of
// threads, nor of how ranks meet.
#pragma once

#include "../host/batch.h"
#include "sampler.h"

namespace vt {

/// How a row is served; every rank finds the same.
enum class ShardKind {
  /// All logits are needed: a top-k of more ids than are worth naming, logprobs of ids that the row
  /// names, and the like.
  gathered,
  /// A prompt token is judged.
  judged,
  /// One candidate from each rank will do: greedy, or a draw from all ids.
  one,
  /// All ids that a rank's own min-p and top-k leave, as long as there are few.
  many,
  /// The likeliest ids of a rank, and the mass of its others: top-p alone.
  likeliest,
};

constexpr int kMaxCandidates = 64;
constexpr int kMaxLikeliest = 128;
constexpr int kMaxShardTop = 20;

ShardKind shard_kind(const Row& row, const LogitRow& logit_row, int vocab_size);
/// Whether the ranks have a second round for the row's logprobs.
inline bool has_shard_logprobs(const Row& row, ShardKind kind) {
  return kind == ShardKind::judged || (kind != ShardKind::gathered && row.params.num_logprobs >= 0);
}

struct Candidate {
  std::int32_t id;
  /// What candidates are chosen by: z (greedy), z / temperature + noise (a draw from all ids), or
  /// z / temperature.
  float value;
  /// As it came out of the model.
  float logit;
};

/// The first round, of one row; candidates follow, ascending by id. The first of the likeliest is
/// none: its value is the least that ids have of which all are named, its logit the mass of the
/// others, the greatest candidate's being 1.
struct Candidates {
  /// Or one of the two below.
  std::int32_t count;
  /// Greatest logit of the rank.
  float max;

  static constexpr std::int32_t kUnfit = -1, kTooMany = -2;
  Candidate* list() { return reinterpret_cast<Candidate*>(this + 1); }
  const Candidate* list() const { return reinterpret_cast<const Candidate*>(this + 1); }
  /// Of 4 bytes.
  static std::int64_t words(ShardKind kind);
};

/// `input` has the rank's ids, perhaps none; `out` has room for words(kind).
void find_candidates(const KernelTable& kernels, const SampleInput& input, ShardKind kind,
                     SamplerScratch& scratch, Candidates* out);

/// The candidates of a row of the kind `likeliest`, whose z is neither -Infinity nor too great.
void find_likeliest(const KernelTable& kernels, const float* logits, std::int32_t first_id,
                    const float* z, int num_ids, float z_max, SamplerScratch& scratch,
                    Candidates* out);
/// The threshold of top-p on candidates z of all ranks, of which `ranks` told; false if all logits
/// are needed to know it.
bool find_threshold(const KernelTable& kernels, float top_p,
                    const std::vector<const Candidates*>& ranks, const std::vector<float>& z,
                    SamplerScratch& scratch, float* threshold);

/// What the ranks agree on after the first round.
struct Choice {
  /// The rows' logits must be gathered after all.
  bool is_gathered;
  /// -1: the row is unfit.
  std::int32_t id;
  float logit;
  /// Greatest logit of all.
  float max;
};

Choice choose_candidate(const KernelTable& kernels, const Row& row, int position, ShardKind kind,
                        const std::vector<const Candidates*>& ranks, SamplerScratch& scratch);

/// The second round, of one row: `num_tiles` sums and `num_top` best ids follow.
struct ShardLogprobs {
  /// Ids with a greater logit than the chosen one.
  std::int32_t num_greater;
  std::int32_t num_top;

  struct Best {
    /// -1: the rank has no more.
    std::int32_t id;
    float logit;
  };
  double* sums() { return reinterpret_cast<double*>(this + 1); }
  const double* sums() const { return reinterpret_cast<const double*>(this + 1); }
  Best* top(int num_tiles) { return reinterpret_cast<Best*>(sums() + num_tiles); }
  const Best* top(int num_tiles) const { return reinterpret_cast<const Best*>(sums() + num_tiles); }
  /// Of 4 bytes; even.
  static std::int64_t words(int num_tiles, int num_top) { return 2 + 2 * (num_tiles + num_top); }
};

/// `num_tiles` is that of every rank; those beyond the vocabulary add 0.
void judge_shard(const KernelTable& kernels, const SampleInput& input, const Choice& choice,
                 int num_tiles, SamplerScratch& scratch, ShardLogprobs* out);
/// Sets the logprobs of `result`.
void merge_logprobs(const Choice& choice, const std::vector<const ShardLogprobs*>& ranks,
                    int num_tiles, int num_top, LogitResult& result);

}  // namespace vt
