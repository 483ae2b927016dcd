// The second round of sampleSharded: logprobs of rows whose id and greatest logit all ranks know by
// now. Two launches: each rank tells the others what section 1 of docs/sampling.md asks of its ids;
// then it takes what the others told, and writes the results. A tile lies on one rank, so its sum
// is the same sum, and all are added ascending, as for one GPU.
#include <algorithm>

#include "sample_exchange.cuh"
#include "sample_logprobs.cuh"
#include "sample_scan.cuh"

namespace vt {
namespace sample {
namespace {

constexpr int kFinishThreads = 256;

/** A sum is not negative, so its 63 bits fit 64 that are not all ones in either half. */
__device__ __forceinline__ uint4 words_of(double sum, unsigned greater) {
  const auto bits = static_cast<Word>(__double_as_longlong(sum));
  const auto low = static_cast<uint32_t>(bits);
  return make_uint4(static_cast<uint32_t>(bits >> 32), low & 0x7fffffffu, low >> 31, greater);
}
__device__ __forceinline__ double sum_of(const uint4& words) {
  const Word low = words.y | words.z << 31;
  return __longlong_as_double(static_cast<long long>(static_cast<Word>(words.x) << 32 | low));
}

/** An entry of a list in 8 bytes, neither half all ones: an id lies in the other order there. */
__device__ __forceinline__ uint2 halves_of(Word word) {
  if (word == kNone) return make_uint2(0, 0);
  return make_uint2(static_cast<uint32_t>(word >> 32), static_cast<uint32_t>(ranked_id(word)));
}
__device__ __forceinline__ Word entry_of(uint32_t key, uint32_t id) {
  return key == 0 ? kNone : static_cast<Word>(key) << 32 | ~id;
}

/** To place `at` of all ranks' inboxes, by one warp. */
__device__ __forceinline__ void send_to_all(const ShardParams& params, uint64_t epoch, int64_t at,
                                            const uint4& words) {
  const int rank = threadIdx.x % 32;
  if (rank >= num_boards(params)) return;
  send(slot(params, rank, params.group.rank, epoch) + at, words);
}

/** With lists of up to 32 * kKept. */
template <int kKept>
__global__ void __launch_bounds__(32 * kMaxWarps, 2)
    tell_parts(const __grid_constant__ ShardParams params, const int num_tiles) {
  Shared& shared = block_shared<Shared>();
  const VtCudaSample& sample = params.sample;
  const uint64_t epoch = begin_round(params);
  const int index = blockIdx.x / cluster_size();
  Chosen chosen;
  if (!has_round(params, index, chosen)) return;
  Row row = begin_part(params, index, num_tiles, shared);
  scan_logits(row);
  cluster_sync();

  const int warp = threadIdx.x / 32;
  for (int t = warp; t * kTile < row.count; t += blockDim.x / 32) {
    const TileSum tile = sum_tile(row, t, chosen.greatest, chosen.logit);
    const unsigned greater = __reduce_add_sync(~0u, tile.greater);
    send_to_all(params, epoch, sums_at(params, index) + row.rank * num_tiles + t,
                words_of(tile.sum, greater));
  }
  const Alternatives alternatives = alternatives_of(sample, shared);
  const int64_t at = alternatives_at(params, index);
  const int32_t* named = shared.params.logprob_ids;
  for (int i = warp; i < alternatives.num_named; i += blockDim.x / 32) {
    const int id = named[i];
    if (id < row.begin || id >= row.begin + row.count) continue;
    send_to_all(params, epoch, at + i, make_uint4(__float_as_uint(row.logits[id]), 0, 0, 0));
  }
  if (alternatives.num_top <= 0) return;
  const BestIds<kKept> best_ids(row, alternatives.num_top);
  best_ids.list();
  cluster_sync();
  if (row.rank == 0 && warp == 0) {
    uint2 before = make_uint2(0, 0);
    best_ids.merge([&](int k, Word best) {
      const uint2 entry = halves_of(best);
      const bool is_second = k % 2 != 0;
      const uint2 first = is_second ? before : entry;
      const uint2 second = is_second ? entry : make_uint2(0, 0);
      if (is_second || k + 1 == alternatives.num_top) {
        send_to_all(params, epoch, at + k / 2, make_uint4(first.x, first.y, second.x, second.y));
      }
      before = entry;
    });
  }
  cluster_sync();  // block 0 has read the others' lists
}

struct FinishShared {
  Shared row;
  Word lists[kMaxRanks][VT_CUDA_MAX_LOGPROBS];
  float named[VT_CUDA_MAX_LOGPROB_IDS];
};

/** What ranks told of the alternatives. All threads of the block. */
__device__ void take_alternatives(const ShardParams& params, Patience& patience, uint64_t epoch,
                                  int index, const Alternatives& alternatives,
                                  FinishShared& shared) {
  const VtCudaGroup& group = params.group;
  const int64_t at = alternatives_at(params, index);
  const int pairs = (alternatives.num_top + 1) / 2;
  for (int i = threadIdx.x; i < pairs * group.num_ranks; i += blockDim.x) {
    const int rank = i / pairs;
    const int pair = i % pairs;
    const uint4 words = take(slot(params, group.rank, rank, epoch) + at + pair, rank, patience);
    shared.lists[rank][2 * pair] = entry_of(words.x, words.y);
    shared.lists[rank][2 * pair + 1] = entry_of(words.z, words.w);
  }
  for (int i = threadIdx.x; i < alternatives.num_named; i += blockDim.x) {
    const int id = shared.row.params.logprob_ids[i];
    const bool exists = id >= 0 && id < params.sample.vocab_size;
    const int rank = exists ? id / params.args.x_columns : 0;
    shared.named[i] = -INFINITY;
    if (!exists) continue;
    uint4* from = slot(params, group.rank, rank, epoch) + at + i;
    shared.named[i] = __uint_as_float(take(from, rank, patience).x);
  }
}

/** A block for each row at a time. */
__global__ void __launch_bounds__(kFinishThreads)
    finish_logprobs(const __grid_constant__ ShardParams params) {
  FinishShared& shared = block_shared<FinishShared>();
  const VtCudaGroup& group = params.group;
  const VtCudaSample& sample = params.sample;
  const uint64_t epoch = begin_round(params);
  Patience patience(group, epoch, params.args.op_index);
  const int tiles_of_rank = params.args.x_columns / kTile;
  const int lane = threadIdx.x % 32;
  for (int index = blockIdx.x; index < sample.num_rows; index += gridDim.x) {
    Chosen chosen;
    if (!has_round(params, index, chosen)) continue;
    load_state(sample, sample.row_of[index], index, shared.row);
    const Alternatives alternatives = alternatives_of(sample, shared.row);
    unsigned greater = 0;
    for (int t = threadIdx.x; t * kTile < sample.vocab_size; t += blockDim.x) {
      const int rank = t / tiles_of_rank;
      uint4* from = slot(params, group.rank, rank, epoch) + sums_at(params, index);
      const uint4 words = take(from + t % tiles_of_rank, rank, patience);
      shared.row.tile_sums[t] = sum_of(words);
      greater += words.w;
    }
    if (greater > 0) atomicAdd(&shared.row.num_greater, greater);
    take_alternatives(params, patience, epoch, index, alternatives, shared);
    __syncthreads();
    if (threadIdx.x < 32) {
      const double log_sum = log(add_tiles(shared.row, sample.vocab_size));
      const LogprobWriter writer(sample, index, chosen.greatest, log_sum);
      if (lane == 0) writer.id(chosen.logit, shared.row.num_greater);
      const auto entry = [&](int rank, int k) { return shared.lists[rank][k]; };
      merge_lists<1>(group.num_ranks, alternatives.num_top, entry, [&](int k, Word best) {
        if (lane == 0) writer.top(k, best);
      });
      for (int i = lane; i < alternatives.num_named; i += 32) writer.named(i, shared.named[i]);
    }
    __syncthreads();
  }
}

/** Where a library carries: slots with room for the longest list of alternatives that a row of this
 * launch may ask for. */
ShardParams second_round(const ShardParams& params) {
  Places places = {};
  places.alternatives = params.args.x_columns / kTile;
  places.each = places.alternatives +
                std::max(params.sample.num_named, (std::max(0, params.sample.num_top) + 1) / 2);
  return carried(params, places, static_cast<int64_t>(params.sample.num_rows) * places.each);
}

}  // namespace

int tell_logprobs(const ShardParams& first_round, void* stream) {
  const ShardParams params = is_carried(first_round) ? second_round(first_round) : first_round;
  const VtCudaSample& sample = params.sample;
  const Shape shape = shape_of(sample.num_rows, params.args.x_columns);
  const size_t logit_bytes = static_cast<size_t>(shape.tiles) * kTile * sizeof(float);
  const size_t shared_bytes = std::max(logit_bytes, list_bytes(shape.threads, sample.num_top));
  const auto tell_parts_of = sample.num_top > 32 ? tell_parts<kMostKept> : tell_parts<1>;
  const int result =
      launch_clusters("sampleSharded", tell_parts_of, shape.blocks,
                      dim3(sample.num_rows * shape.blocks), dim3(shape.threads), shared_bytes,
                      sample.flags, stream, params, shape.tiles);
  if (result != 0 || (is_carried(params) && carry(params, stream) != 0)) return -1;
  return launch_clusters("sampleSharded", finish_logprobs, 1,
                         dim3(std::min(sample.num_rows, params.group.max_blocks)),
                         dim3(kFinishThreads), 0, taking_flags(params), stream, params);
}

}  // namespace sample
}  // namespace vt
