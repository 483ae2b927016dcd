// What ranks tell each other of a row of logits of which each has a run of ids. A rank's slot of an
// inbox begins with 16 bytes for each row, and 16 more for the step's tokens; behind them each row
// has room for the rank's logits, or for the candidates among them, and for what a second round
// tells of logprobs. A rank writes to its own inbox as to others', so that all is taken alike, but
// for its logits, which it reads where they are.
#ifndef VT_CUDA_SAMPLE_EXCHANGE_CUH_
#define VT_CUDA_SAMPLE_EXCHANGE_CUH_

#include "group.cuh"
#include "sample.cuh"

namespace vt {
namespace sample {

struct ShardParams {
  VtCudaGroup group;
  VtCudaSampleSharded args;
  VtCudaSample sample;
};

enum Told : uint32_t {
  kIdle,
  /** No id is left. */
  kNoId,
  /** The best of the rank's ids. */
  kBestId,
  /** The row cannot be sampled. */
  kNotFit,
  kCandidates,
  kAllLogits,
  /** Nothing has to be found: the row judges a prompt token. */
  kJudged,
};

/** What a rank tells of a row, as 16 bytes. */
struct RowNews {
  Told kind = kIdle;
  /** Key of the best id's value; or how many candidates; or whether the judged id is the rank's. */
  uint32_t value = 0;
  /** The best id. */
  int id = 0;
  /** Of the best id, or the judged one, as it came out of the model. */
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

/** Of row `index`, by block 0 of its cluster. */
__device__ inline void tell_ranks(const ShardParams& params, uint64_t epoch, int index,
                                  const uint4& words) {
  const VtCudaGroup& group = params.group;
  const int rank = threadIdx.x;
  if (cluster_rank() != 0 || rank >= group.num_ranks) return;
  send(inbox(group, rank, group.rank, epoch) + index, words);
}

/** Of one row, in fours: logits or candidates; tiles; best ids, two in one, or named ids. */
__host__ __device__ __forceinline__ int room_of_row(int x_columns) {
  return x_columns / 4 + x_columns / kTile + VT_CUDA_MAX_LOGPROB_IDS;
}

/** Where it begins, behind what is told of all rows. */
__device__ __forceinline__ int64_t room_of(const ShardParams& params, int index) {
  return params.sample.num_rows + 1 +
         static_cast<int64_t>(index) * room_of_row(params.args.x_columns);
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

/** Alternatives of a row whose logprobs come in a second round; others gather all logits. */
constexpr int kMostToldBest = 32;

/** What all ranks know of a row after the first round, if they tell its logprobs in a second. */
struct Chosen {
  int id; /* or one of these */
  float logit;
  /** Of the row's logits, as they came out of the model. */
  float greatest;

  static constexpr int kNoRound = -1;
  /** Is what vt_cuda_sample answered from all_logits, which has the logit too. */
  static constexpr int kAnswered = -2;
};

__device__ __forceinline__ void choose(const ShardParams& params, int index, const Chosen& chosen) {
  const int step = params.sample.num_rows;
  int32_t* to = params.args.rest + step + index;
  to[0] = chosen.id;
  to[step] = __float_as_int(chosen.logit);
  to[2 * step] = __float_as_int(chosen.greatest);
}

/** The second round, in a file of its own; after vt_cuda_sample. */
int tell_logprobs(const ShardParams& params, void* stream);

__device__ inline void send_logits(const ShardParams& params, uint64_t epoch, const Row& row,
                                   int index) {
  const VtCudaGroup& group = params.group;
  const auto* from = reinterpret_cast<const uint4*>(
      params.args.x + static_cast<int64_t>(index) * params.args.x_stride);
  const int64_t at = room_of(params, index);
  const int step = row.num_blocks * static_cast<int>(blockDim.x);
  for (int i = row.rank * static_cast<int>(blockDim.x) + threadIdx.x;
       i < params.args.x_columns / 4; i += step) {
    const uint4 values = from[i];
    for (int p = 0; p + 1 < group.num_ranks; p++) {
      send(inbox(group, peer_of(group, p), group.rank, epoch) + at + i, values);
    }
  }
}

/** Row `index` of all_logits. */
__device__ __forceinline__ float* all_logits(const ShardParams& params, int index) {
  return params.args.all_logits + static_cast<int64_t>(index) * params.sample.logits_stride;
}

/** The logits of rank `rank` to their place in all_logits. All threads of the block. */
__device__ inline void take_logits(const ShardParams& params, Patience& patience, uint64_t epoch,
                                   int index, int rank) {
  const VtCudaGroup& group = params.group;
  const int columns = params.args.x_columns;
  float* out = all_logits(params, index);
  const auto* mine = reinterpret_cast<const uint4*>(
      params.args.x + static_cast<int64_t>(index) * params.args.x_stride);
  uint4* from = inbox(group, group.rank, rank, epoch) + room_of(params, index);
  const bool is_own = rank == group.rank;
  const int count = columns / 4;
  constexpr int kAhead = 4;  // looks that are on their way at a time
  for (int begin = threadIdx.x; begin < count; begin += kAhead * static_cast<int>(blockDim.x)) {
    const auto place = [&](int ahead) { return begin + ahead * static_cast<int>(blockDim.x); };
    uint4 looks[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; a++) {
      if (place(a) < count) looks[a] = is_own ? mine[place(a)] : load_relaxed(from + place(a));
    }
#pragma unroll
    for (int a = 0; a < kAhead; a++) {
      const int i = place(a);
      if (i >= count) break;
      const uint4 values = is_own ? looks[a] : take(from + i, looks[a], rank, patience);
      const uint32_t bits[4] = {values.x, values.y, values.z, values.w};
      const int first = rank * columns + 4 * i;
#pragma unroll
      for (int e = 0; e < 4; e++) {
        if (first + e < params.sample.vocab_size) out[first + e] = __uint_as_float(bits[e]);
      }
    }
  }
}

/** `value` for all logits of rank `rank`. All threads of the block. */
__device__ inline void fill_logits(const ShardParams& params, int index, int rank, float value) {
  const int begin = rank * params.args.x_columns;
  const int end = min(params.sample.vocab_size, begin + params.args.x_columns);
  float* out = all_logits(params, index);
  for (int id = begin + static_cast<int>(threadIdx.x); id < end; id += blockDim.x) out[id] = value;
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_EXCHANGE_CUH_
