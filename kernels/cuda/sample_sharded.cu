// sampleSharded: rows of logits of which every rank has a run of ids. Four launches: each rank
// tells the others the best of its own ids of a row that needs no more, or some candidates; then it
// takes what the others told, and answers the rows that this decides (sample_sharded_rows.cu); then
// the ranks gather all logits of the others (sample_sharded_logits.cu), and vt_cuda_sample answers
// those: these two are left out where best ids tell all rows. Two more tell logprobs
// (sample_sharded_logprobs.cu). Where a library carries, it does so between what tells and what
// takes, and instead of gathering a search finds the threshold of rows that the best ids or
// candidates do not answer (sample_sharded_search.cu).
#include <algorithm>

#include "group_check.h"
#include "sample_exchange.cuh"

namespace vt {
namespace sample {
namespace {

/** Of a slot that has all that a rank tells of rows, in fours: logits; candidates; tiles; best ids,
 * two in one, or named ids. */
Places places_of(int num_rows, int x_columns, int num_ranks) {
  Places places;
  places.begin = num_rows + 1;
  places.candidates = x_columns / 4;
  places.sums = places.candidates + kMaxCandidates / num_ranks;
  places.alternatives = places.sums + x_columns / kTile;
  places.each = places.alternatives + VT_CUDA_MAX_LOGPROB_IDS;
  return places;
}

int most_rows(const VtCudaGroup& group, int x_columns) {
  const int64_t each = 16 * (int64_t{1} + places_of(0, x_columns, group.num_ranks).each);
  return static_cast<int>(std::min<int64_t>((group.slot_bytes - 16) / each, 1 << 20));
}

/** Of which each round fits a slot that a library carries. */
int most_rows_carried(const VtCudaSampleSharded& a) {
  const int news = 1 + (a.has_candidates != 0 ? VT_CUDA_CARRIED_CANDIDATES : 0);
  const int each = std::max(news, a.x_columns / kTile + VT_CUDA_MAX_LOGPROB_IDS);
  const int64_t rows = std::min<int64_t>((a.group->slot_bytes / 16 - 4) / each, 1 << 20);
  return std::min(static_cast<int>(rows), most_rows_searched(*a.group));
}

template <typename T>
void move_on(T*& rows, int64_t count) {
  if (rows != nullptr) rows += count;
}

/** Rows from `first` on. */
VtCudaSample rows_from(VtCudaSample sample, int first, int count) {
  const int64_t top = static_cast<int64_t>(first) * std::max(0, sample.num_top);
  sample.num_rows = count;
  move_on(sample.best, static_cast<int64_t>(first) * sample.num_best);
  move_on(sample.token_ids, first);
  move_on(sample.row_flags, first);
  move_on(sample.logprobs, first);
  move_on(sample.ranks, first);
  move_on(sample.top_ids, top);
  move_on(sample.top_logprobs, top);
  move_on(sample.row_of, first);
  move_on(sample.judged_ids, first);
  return sample;
}

int check(const VtCudaSampleSharded& a) {
  VT_REQUIRE(a.group != nullptr && a.sample != nullptr, "sampleSharded: no group");
  if (check_group("sampleSharded", *a.group) != 0) return -1;
  VT_REQUIRE(a.x_columns > 0 && a.x_columns % kTile == 0 && a.x_stride >= a.x_columns &&
                 a.sample->vocab_size <= static_cast<int64_t>(a.x_columns) * a.group->num_ranks,
             "sampleSharded: %d columns (tiles of %d) from each of %d ranks for %d ids",
             a.x_columns, kTile, a.group->num_ranks, a.sample->vocab_size);
  VT_REQUIRE(aligned16(a.x, 0) && a.x_stride % 4 == 0,
             "sampleSharded: rows must be 16-byte aligned");
  VT_REQUIRE(a.x_columns <= kMaxVocab && a.sample->vocab_size <= kMaxVocab,
             "sampleSharded: %d of %d ids (at most %d)", a.x_columns, a.sample->vocab_size,
             kMaxVocab);
  if (check_best(*a.sample) != 0) return -1;
  VT_REQUIRE(a.carry == nullptr || a.search_steps == 0 || a.search_steps == 1 ||
                 a.search_steps == VT_CUDA_SEARCH_STEPS ||
                 a.search_steps == 2 * VT_CUDA_SEARCH_STEPS,
             "sampleSharded: a search of %d steps", a.search_steps);
  const bool fits =
      a.carry != nullptr ? most_rows_carried(a) > 0 : most_rows(*a.group, a.x_columns) > 0;
  VT_REQUIRE(fits, "sampleSharded: a row of %d columns does not fit the inbox", a.x_columns);
  return 0;
}

/** The first round of these rows. */
ShardParams first_round(const ShardParams& params) {
  const VtCudaSampleSharded& args = params.args;
  const int num_rows = params.sample.num_rows;
  if (!is_carried(params)) {
    ShardParams round = params;
    round.places = places_of(num_rows, args.x_columns, params.group.num_ranks);
    round.most_candidates = kMaxCandidates / params.group.num_ranks;
    return round;
  }
  Places places = {};
  places.begin = num_rows + 1;
  places.each = args.has_candidates != 0 ? VT_CUDA_CARRIED_CANDIDATES : 0;
  ShardParams round =
      carried(params, places, places.begin + static_cast<int64_t>(num_rows) * places.each);
  round.most_candidates = VT_CUDA_CARRIED_CANDIDATES;
  return round;
}

int launch_rounds(const ShardParams& params, void* stream) {
  const ShardParams first = first_round(params);
  int result = tell_rows(first, stream);
  if (result != 0) return result;
  if (is_carried(params)) {
    result = params.args.search_steps > 0 ? search_thresholds(params, stream) : 0;
  } else if (params.args.by_best_ids == 0) {
    result = gather_logits(first, stream);
    if (result != 0) return result;
    VtCudaSample rest = params.sample;
    rest.row_of = params.args.rest;
    rest.logits = params.args.all_logits;
    rest.best = nullptr;
    result = vt_cuda_sample(&rest, stream);
  }
  return result == 0 && params.sample.num_top >= 0 ? tell_logprobs(first, stream) : result;
}

}  // namespace
}  // namespace sample
}  // namespace vt

extern "C" int vt_cuda_sample_sharded(const VtCudaSampleSharded* args, void* stream) {
  using namespace vt::sample;
  if (check(*args) != 0) return -1;
  const bool by_library = args->carry != nullptr;
  const int most = by_library ? most_rows_carried(*args) : most_rows(*args->group, args->x_columns);
  ShardParams params = {};
  params.group = *args->group;
  for (int first = 0; first < args->sample->num_rows; first += most) {
    params.args = *args;
    if (!by_library) params.args.ordinal += first / most;
    params.args.x += static_cast<int64_t>(first) * args->x_stride;
    params.args.all_logits += static_cast<int64_t>(first) * args->sample->logits_stride;
    params.sample = rows_from(*args->sample, first, std::min(most, args->sample->num_rows - first));
    const int result = launch_rounds(params, stream);
    if (result != 0) return result;
  }
  return 0;
}

extern "C" int vt_cuda_sample_sharded_epochs(const VtCudaGroup* group, int32_t num_rows,
                                             int32_t x_columns) {
  const int most = std::max(1, vt::sample::most_rows(*group, x_columns));
  return (num_rows + most - 1) / most;
}
