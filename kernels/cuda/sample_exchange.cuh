// What ranks tell each other of a row of logits of which each has a run of ids. A rank's slot of an
// inbox begins with 16 bytes for each row, and 16 more for the step's tokens; behind them each row
// has room for the rank's logits, for candidates among them, and for what a second round tells of
// logprobs. A rank writes to its own inbox as to others', so that all is taken alike, but for its
// logits, which it reads where they are.
//
// Where a library carries (NCCL), all of a rank's boards are one in its own memory: it writes what
// it tells to its own slot there, the library fills the slots of the others between two launches,
// and what takes them finds all there. A round has the memory for itself, so that slots are as long
// as the round needs and lie one behind another. Logits are never carried.
#ifndef VT_CUDA_SAMPLE_EXCHANGE_CUH_
#define VT_CUDA_SAMPLE_EXCHANGE_CUH_

#include "group.cuh"
#include "sample.cuh"

namespace vt {
namespace sample {

/** Where rows have their parts of a slot, in fours. */
struct Places {
  /** Of row 0, behind what is told of all rows; from a row to the next. */
  int64_t begin;
  int each;
  /** Within a row; its logits come first. */
  int candidates, sums, alternatives;
};

struct ShardParams {
  VtCudaGroup group;
  VtCudaSampleSharded args;
  VtCudaSample sample;
  Places places;
  /** Candidates that a rank can tell of a row. */
  int most_candidates;
};

/** Between two launches, not by stores to the memory of others. */
__host__ __device__ __forceinline__ bool is_carried(const ShardParams& params) {
  return params.args.carry != nullptr;
}

enum Told : uint32_t {
  kIdle,
  /** No id is left. */
  kNoId,
  /** The best of the rank's ids. */
  kBestId,
  /** The row cannot be sampled. */
  kNotFit,
  /** All ids that the rank's own min-p and top-k leave. */
  kCandidates,
  /** The likeliest ids, and the mass of the others: the row has top-p alone. */
  kLikeliest,
  /** All logits are needed, and sent when all ranks know it. */
  kAllLogits,
  /** The greatest logit: the threshold is searched for (sample_search.cuh). */
  kSearched,
  /** Nothing has to be found: the row judges a prompt token. */
  kJudged,
};

/** What a rank tells of a row, as 16 bytes. */
struct RowNews {
  Told kind = kIdle;
  /** Key of the best id's value, or of the greatest logit where ids are cut; or whether the judged
   * id is here. */
  uint32_t value = 0;
  /** The best id; or how many candidates, which are not sent if there is no room for so many. */
  int id = 0;
  /**
   * Of the best id, or the judged one, as it came out of the model. Of kLikeliest: the mass of the
   * rank's other ids, the greatest candidate's being 1. Of kCandidates, as an integer: how many ids
   * with the least z of those that stay are not named.
   */
  float logit = 0;
  /** Of a row that has a logprob: key of the rank's greatest logit as it came out of the model. */
  uint32_t greatest = 0;
};

constexpr int kIdBits = 24;

__device__ __forceinline__ uint4 words_of(const RowNews& news) {
  return make_uint4(news.value, news.kind << kIdBits | static_cast<uint32_t>(news.id),
                    __float_as_uint(news.logit), news.greatest);
}

__device__ __forceinline__ RowNews news_of(const uint4& words) {
  return {static_cast<Told>(words.y >> kIdBits), words.x,
          static_cast<int>(words.y & ((1u << kIdBits) - 1)), __uint_as_float(words.z), words.w};
}

/** Begins a launch of a round: the epoch, behind the wait for what is in front of it. */
__device__ __forceinline__ uint64_t begin_round(const ShardParams& params) {
  start_next();
  const uint64_t epoch = epoch_of(params.group, params.args.ordinal);
  wait_for_previous();
  return epoch;
}

/** To how many boards a rank writes what all are told. */
__device__ __forceinline__ int num_boards(const ShardParams& params) {
  return is_carried(params) ? 1 : params.group.num_ranks;
}

/** What `source` tells `owner`. */
__device__ __forceinline__ uint4* slot(const ShardParams& params, int owner, int source,
                                       uint64_t epoch) {
  return inbox(params.group, owner, source, is_carried(params) ? 0 : epoch);
}

/** Of row `index`, by block 0 of its cluster. */
__device__ inline void tell_ranks(const ShardParams& params, uint64_t epoch, int index,
                                  const uint4& words) {
  const int rank = threadIdx.x;
  if (cluster_rank() != 0 || rank >= num_boards(params)) return;
  send(slot(params, rank, params.group.rank, epoch) + index, words);
}

__device__ __forceinline__ int64_t logits_at(const ShardParams& params, int index) {
  return params.places.begin + static_cast<int64_t>(index) * params.places.each;
}
__device__ __forceinline__ int64_t candidates_at(const ShardParams& params, int index) {
  return logits_at(params, index) + params.places.candidates;
}
__device__ __forceinline__ int64_t sums_at(const ShardParams& params, int index) {
  return logits_at(params, index) + params.places.sums;
}
__device__ __forceinline__ int64_t alternatives_at(const ShardParams& params, int index) {
  return logits_at(params, index) + params.places.alternatives;
}

/** This rank's part of row `index`, as one block of its cluster sees it. */
__device__ __forceinline__ Row part_of_row(const ShardParams& params, int index, int num_tiles,
                                           Shared& shared) {
  Row row;
  row.num_blocks = cluster_size();
  row.rank = cluster_rank();
  row.first = params.group.rank * params.args.x_columns;
  row.logits = params.args.x + static_cast<int64_t>(index) * params.args.x_stride - row.first;
  row.z = reinterpret_cast<float*>(dynamic_shared());
  row.shared = &shared;
  row.vocab_size = min(params.sample.vocab_size, row.first + params.args.x_columns);
  row.num_tiles = num_tiles;
  row.begin = row.first + row.rank * num_tiles * kTile;
  row.count = max(0, min(num_tiles * kTile, row.vocab_size - row.begin));
  row.turn = 0;
  return row;
}

/** Begins with row `index`: its state, and this rank's part of it. A barrier of the block. */
__device__ __forceinline__ Row begin_part(const ShardParams& params, int index, int num_tiles,
                                          Shared& shared) {
  prepare_copy(shared);
  load_state(params.sample, params.sample.row_of[index], index, shared);
  return part_of_row(params, index, num_tiles, shared);
}

/** What all ranks know of a row that is answered, if they tell its logprobs in a second round. */
struct Chosen {
  int id; /* or kNoRound */
  float logit;
  /** Of the row's logits, as they came out of the model. */
  float greatest;

  static constexpr int kNoRound = -1;
};

__device__ __forceinline__ void choose(const ShardParams& params, int index, const Chosen& chosen) {
  const int step = params.sample.num_rows;
  int32_t* to = params.args.rest + step + index;
  to[0] = chosen.id;
  to[step] = __float_as_int(chosen.logit);
  to[2 * step] = __float_as_int(chosen.greatest);
}

/** Whether a row has a second round; then `chosen` is what it was told with. */
__device__ __forceinline__ bool has_round(const ShardParams& params, int index, Chosen& chosen) {
  const int step = params.sample.num_rows;
  const int32_t* from = params.args.rest + step + index;
  chosen = {from[0], __int_as_float(from[step]), __int_as_float(from[2 * step])};
  return chosen.id != Chosen::kNoRound;
}

/** The first round, in a file of its own. */
int tell_rows(const ShardParams& params, void* stream);

/** Gathers the rows that args.rest names in all_logits: launches in a file of their own. */
int gather_logits(const ShardParams& params, void* stream);

/** Answers the rows that args.rest names, by args.search_steps rounds that a library carries:
 * launches in a file of their own. */
int search_thresholds(const ShardParams& params, void* stream);
/** How many rows its rounds have room for. */
int most_rows_searched(const VtCudaGroup& group);

/** The second round, in a file of its own. */
int tell_logprobs(const ShardParams& params, void* stream);

/** Of a round that a library carries: its slots are `fours` long; then it can be launched. */
inline ShardParams carried(const ShardParams& params, const Places& places, int64_t fours) {
  ShardParams round = params;
  round.places = places;
  round.group.slot_bytes = (16 * fours + 63) / 64 * 64;
  return round;
}

/** Between what tells and what takes, on `stream`: slots from `offset` on. */
inline int carry(const ShardParams& round, int64_t offset, int64_t slot_bytes, void* stream) {
  return round.args.carry(round.args.carrier, offset, slot_bytes, stream);
}
inline int carry(const ShardParams& round, void* stream) {
  return carry(round, 0, round.group.slot_bytes, stream);
}

/** Of a launch that takes: behind the library's, which lets nothing begin before its end. */
inline int taking_flags(const ShardParams& params) {
  return is_carried(params) ? params.sample.flags & ~VT_CUDA_DEPENDENT : params.sample.flags;
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_EXCHANGE_CUH_
