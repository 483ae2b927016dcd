// Logprobs of raw logits, section 1 of docs/sampling.md: a sum of exponentials over tiles of 1,024
// ids, the rank of an id, and the alternatives: ids that the row names, or the best ones.
#ifndef VT_CUDA_SAMPLE_LOGPROBS_CUH_
#define VT_CUDA_SAMPLE_LOGPROBS_CUH_

#include "sample_best_ids.cuh"

namespace vt {
namespace sample {

/** Whether the row has a logprob: of the prompt token that it judges, or of what it samples. */
__device__ __forceinline__ bool has_logprob(const VtCudaSample& args, const Shared& shared) {
  return args.num_top >= 0 && (shared.judged_id >= 0 || shared.params.num_logprobs >= 0);
}

/** What a row with a logprob has beside it: alternatives of one kind. */
struct Alternatives {
  int num_top;   /* best ids; of a prompt token as many as there is room for */
  int num_named; /* ids that the row names */
};

__device__ __forceinline__ Alternatives alternatives_of(const VtCudaSample& args,
                                                        const Shared& shared) {
  if (shared.judged_id >= 0) return {args.num_top, 0};
  const int num_named = min(shared.params.num_logprob_ids, args.num_named);
  return {num_named > 0 ? 0 : min(args.num_top, shared.params.num_logprobs), num_named};
}

/** Ids of a tile, whose logits are in row.z: exponentials, in one order; this lane's above x. */
struct TileSum {
  double sum;
  unsigned greater;
};

/** By one warp, of tile `tile` of the block. */
__device__ __forceinline__ TileSum sum_tile(const Row& row, int tile, float max, float x) {
  TileSum result = {0, 0};
#pragma unroll 8
  for (int i = tile * kTile + threadIdx.x % 32; i < min(row.count, (tile + 1) * kTile); i += 32) {
    const float z = row.z[i];
    result.sum += static_cast<double>(expf(__fsub_rn(z, max)));
    result.greater += z > x ? 1 : 0;
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) result.sum += __shfl_xor_sync(~0u, result.sum, d);
  return result;
}

/** All tiles, ascending. */
__device__ __forceinline__ double add_tiles(const Shared& shared, int vocab_size) {
  double sum = 0;
#pragma unroll 8
  for (int t = 0; t * kTile < vocab_size; t++) sum += shared.tile_sums[t];
  return sum;
}

/** Writes what a step returns of row `index`: greatest logit, and the logarithm of the sum. */
class LogprobWriter {
 public:
  __device__ LogprobWriter(const VtCudaSample& args, int index, float max, double log_sum)
      : args_(args), index_(index), max_(max), log_sum_(log_sum) {}

  /** Of the row's id, whose logit is x, and above which there are `num_greater`. One thread. */
  __device__ void id(float x, uint32_t num_greater) const {
    args_.logprobs[index_] = logprob(x);
    args_.ranks[index_] = 1 + static_cast<int>(num_greater);
  }

  /** The k-th best id; kNone if there is none. One thread. */
  __device__ void top(int k, Word best) const {
    const int64_t at = static_cast<int64_t>(index_) * args_.num_top + k;
    args_.top_ids[at] = best == kNone ? -1 : ranked_id(best);
    args_.top_logprobs[at] = best == kNone ? -INFINITY : logprob(ranked_value(best));
  }

  /** The i-th id that the row names; x is its logit, or -Infinity if there is no such id. */
  __device__ void named(int i, float x) const {
    args_.named_logprobs[static_cast<int64_t>(args_.row_of[index_]) * args_.num_named + i] =
        x == -INFINITY ? x : logprob(x);
  }

 private:
  __device__ float logprob(float x) const {
    return static_cast<float>((static_cast<double>(x) - static_cast<double>(max_)) - log_sum_);
  }

  const VtCudaSample& args_;
  const int index_;
  const float max_;
  const double log_sum_;
};

/**
 * All that the step returns of `id` in logits row `index`, whose greatest logit is `max`; row.z
 * must hold the logits as they are. Lists of up to 32 * kKept. Barriers of the cluster.
 */
template <int kKept>
__device__ __forceinline__ void write_logprobs(const Row& row, const VtCudaSample& args, int index,
                                               float max, int id) {
  Shared& shared = *row.shared;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const Alternatives alternatives = alternatives_of(args, shared);
  const float x = row.logits[id];
  unsigned greater = 0;
  for (int t = warp; t * kTile < row.count; t += blockDim.x / 32) {
    const TileSum tile = sum_tile(row, t, max, x);
    greater += tile.greater;
    double* to = &shared.tile_sums[row.rank * row.num_tiles + t];
    if (lane == 0) {
      store_in_cluster(address_in(shared_address(to), 0), __double_as_longlong(tile.sum));
    }
  }
  greater = __reduce_add_sync(~0u, greater);
  if (lane == 0) add_in_cluster(address_in(shared_address(&shared.num_greater), 0), greater);
  const BestIds<kKept> best_ids(row, alternatives.num_top);
  if (alternatives.num_top > 0) best_ids.list();
  cluster_sync();
  if (row.rank == 0 && warp == 0) {
    const LogprobWriter writer(args, index, max, log(add_tiles(shared, row.vocab_size)));
    if (lane == 0) writer.id(x, shared.num_greater);
    if (alternatives.num_top > 0) {
      best_ids.merge([&](int k, Word best) {
        if (lane == 0) writer.top(k, best);
      });
    }
    for (int i = lane; i < alternatives.num_named; i += 32) {
      const int named = shared.params.logprob_ids[i];
      const bool exists = named >= 0 && named < row.vocab_size;
      writer.named(i, exists ? row.logits[named] : -INFINITY);
    }
  }
  cluster_sync();  // block 0 has read the others' lists
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_LOGPROBS_CUH_
