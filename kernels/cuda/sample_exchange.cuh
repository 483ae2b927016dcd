// What ranks tell each other of a row of logits of which each has a run of ids. A rank's slot of an
// inbox begins with 16 bytes for each row, and 16 more for the step's tokens; behind them each row
// has room for the rank's logits, or for the candidates among them. A rank writes to its own inbox
// as to others', so that all is taken alike, but for its logits, which it reads where they are.
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

/** What a rank tells of a row, in the third word; beside it the words named here. */
enum Told : uint32_t {
  kIdle,
  /** No id is left. */
  kNoId,
  /** Key of its value; the id. */
  kBestId,
  /** The row cannot be sampled. */
  kNotFit,
  /** How many. */
  kCandidates,
  kAllLogits,
};

/** Of row `index`, by block 0 of its cluster. */
__device__ inline void tell_ranks(const ShardParams& params, uint64_t epoch, int index,
                                  const uint4& words) {
  const VtCudaGroup& group = params.group;
  const int rank = threadIdx.x;
  if (cluster_rank() != 0 || rank >= group.num_ranks) return;
  send(inbox(group, rank, group.rank, epoch) + index, words);
}

/** What lies behind what is told of all rows, in fours. */
__device__ __forceinline__ int64_t room_of(const ShardParams& params, int index) {
  return params.sample.num_rows + 1 + static_cast<int64_t>(index) * (params.args.x_columns / 4);
}

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
