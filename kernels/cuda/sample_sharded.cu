// sampleSharded: rows of logits of which every rank has a run of ids. Three launches: each rank finds
// the best of its own ids of a row that needs no more, or sends its logits of one that does; then it
// takes what the others sent, and answers rows of the first kind; then vt_cuda_sample answers those
// of the second. Only the second launch waits for other ranks, so only its grid must run at once.
//
// A best id is the one that vt_cuda_sample would find among this rank's: the argmax of logit, or of
// z plus noise, both of which belong to an id, wherever it lies.
#include <algorithm>

#include "group.cuh"
#include "group_check.h"
#include "sample_draw.cuh"
#include "sample_edit.cuh"
#include "sample_scan.cuh"

namespace vt {
namespace sample {
namespace {

struct ShardParams {
  VtCudaGroup group;
  VtCudaSampleSharded args;
  VtCudaSample sample;
};

/** What a rank tells of a row, 16 bytes: the key of the value, the id, this, and nothing more. */
enum Told : uint32_t { kIdle, kNoId, kBestId, kNotFit, kAllLogits };

constexpr int kFinishThreads = 256;

__device__ __forceinline__ uint4 told_of(Word best) {
  if (best == kUnfit) return make_uint4(0, 0, kNotFit, 0);
  if (best == kNone) return make_uint4(0, 0, kNoId, 0);
  return make_uint4(static_cast<uint32_t>(best >> 32), ranked_id(best), kBestId, 0);
}

/** Of row `index`, by block 0 of its cluster. */
__device__ void tell_ranks(const ShardParams& params, uint64_t epoch, int index,
                           const uint4& words) {
  const VtCudaGroup& group = params.group;
  const int rank = threadIdx.x;
  if (cluster_rank() != 0 || rank >= group.num_ranks) return;
  if (rank == group.rank) {
    static_cast<uint4*>(params.args.words)[index] = words;
  } else {
    send(inbox(group, rank, group.rank, epoch) + index, words);
  }
}

/** Where the logits of row `index` lie in a slot, behind what is told of all rows. */
__device__ __forceinline__ int64_t logits_at(const ShardParams& params, int index) {
  return params.sample.num_rows + 1 + static_cast<int64_t>(index) * (params.args.x_columns / 4);
}

__device__ void send_logits(const ShardParams& params, uint64_t epoch, const Row& row, int index) {
  const VtCudaGroup& group = params.group;
  const auto* from = reinterpret_cast<const uint4*>(
      params.args.x + static_cast<int64_t>(index) * params.args.x_stride);
  const int64_t at = logits_at(params, index);
  const int step = row.num_blocks * static_cast<int>(blockDim.x);
  for (int i = row.rank * static_cast<int>(blockDim.x) + threadIdx.x;
       i < params.args.x_columns / 4; i += step) {
    const uint4 values = from[i];
    for (int p = 0; p + 1 < group.num_ranks; p++) {
      send(inbox(group, peer_of(group, p), group.rank, epoch) + at + i, values);
    }
  }
}

/** The same for the same tokens at the same places; by one block. */
__device__ uint32_t checksum_of(const int32_t* tokens, int count, Shared& shared) {
  uint32_t sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    uint32_t h = static_cast<uint32_t>(tokens[i]) * 0x9E3779B1u + static_cast<uint32_t>(i);
    h = (h ^ h >> 15) * 0x85EBCA77u;
    sum += h ^ h >> 13;
  }
  sum = __reduce_add_sync(~0u, sum);
  if (threadIdx.x % 32 == 0) shared.warps[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / 32; w++) {
    sum += static_cast<uint32_t>(shared.warps[w]);
  }
  return something(sum);
}

/** Whether the best id of each rank does not tell all. */
__device__ __forceinline__ bool needs_all(const VtCudaSample& sample, const Shared& shared) {
  const VtCudaRowParams& p = shared.params;
  const bool cuts = p.min_p > 0.0f || p.top_k > 0 || p.top_p < 1.0f;
  return shared.judged_id >= 0 || (sample.num_top >= 0 && p.num_logprobs >= 0) ||
         (cuts && p.temperature >= kGreedyBelow);
}

/** The best of this rank's ids. Barriers of the cluster. */
__device__ Word best_of_part(Row& row, const int32_t* history) {
  const Shared& shared = *row.shared;
  Word best;
  if (has_edits(shared)) {
    best = scan_edited(row, history);
  } else {
    cluster_arrive();
    best = scan_logits(row);
    cluster_wait();  // all blocks are there
  }
  best = cluster_max(row, best);
  const float temperature = shared.params.temperature;
  if (best == kUnfit || best == kNone || temperature < kGreedyBelow) return best;
  Draw draw(row, temperature, -INFINITY, shared.num_tokens);
  const float z_max = __fdiv_rn(ranked_value(best), temperature);
  return cluster_max(row, draw.run(z_max, ranked_id(best)));
}

__global__ void __launch_bounds__(32 * kMaxWarps, 2)
    sample_part(const __grid_constant__ ShardParams params, const int num_tiles) {
  extern __shared__ float4 logits_in_shared[];
  __shared__ Shared shared;
  const VtCudaSample& sample = params.sample;
  start_next();
  const uint64_t epoch = epoch_of(params.group, params.args.ordinal);
  wait_for_previous();
  Row row;
  row.num_blocks = cluster_size();
  row.rank = cluster_rank();
  const int index = blockIdx.x / row.num_blocks;
  if (index == sample.num_rows) {
    if (row.rank != 0) return;
    const uint32_t sum = checksum_of(params.args.tokens, params.args.num_tokens, shared);
    return tell_ranks(params, epoch, index, make_uint4(sum, 0, 0, 0));
  }
  const int table_row = sample.row_of[index];
  if (table_row >= 0) load_state(sample, table_row, index, shared);
  if (table_row < 0 || shared.finished != 0) {
    return tell_ranks(params, epoch, index, make_uint4(0, 0, kIdle, 0));
  }
  if (needs_all(sample, shared)) {
    tell_ranks(params, epoch, index, make_uint4(0, 0, kAllLogits, 0));
    return send_logits(params, epoch, row, index);
  }
  row.first = params.group.rank * params.args.x_columns;
  row.logits = params.args.x + static_cast<int64_t>(index) * params.args.x_stride - row.first;
  row.z = reinterpret_cast<float*>(logits_in_shared);
  row.shared = &shared;
  row.vocab_size = min(sample.vocab_size, row.first + params.args.x_columns);
  row.num_tiles = num_tiles;
  row.begin = row.first + row.rank * num_tiles * kTile;
  row.count = max(0, min(num_tiles * kTile, row.vocab_size - row.begin));
  row.turn = 0;
  const int32_t* history =
      sample.history + static_cast<int64_t>(table_row) * sample.history_stride;
  tell_ranks(params, epoch, index, told_of(best_of_part(row, history)));
}

/** Row `index` of all ranks to its place in all_logits. All threads of the block. */
__device__ void take_logits(const ShardParams& params, Patience& patience, uint64_t epoch,
                            int index) {
  const VtCudaGroup& group = params.group;
  const int columns = params.args.x_columns;
  float* out = params.args.all_logits + static_cast<int64_t>(index) * params.sample.logits_stride;
  const auto* mine = reinterpret_cast<const uint4*>(
      params.args.x + static_cast<int64_t>(index) * params.args.x_stride);
  const int64_t at = logits_at(params, index);
  for (int rank = 0; rank < group.num_ranks; rank++) {
    for (int i = threadIdx.x; i < columns / 4; i += blockDim.x) {
      const uint4 values =
          rank == group.rank
              ? mine[i]
              : take(inbox(group, group.rank, rank, epoch) + at + i, rank, patience);
      const uint32_t bits[4] = {values.x, values.y, values.z, values.w};
      const int first = rank * columns + 4 * i;
#pragma unroll
      for (int e = 0; e < 4; e++) {
        if (first + e < params.sample.vocab_size) out[first + e] = __uint_as_float(bits[e]);
      }
    }
  }
}

/** The row's answer, of what all ranks told. */
__device__ void answer_row(const VtCudaSample& sample, int index, const uint4* told,
                           int num_ranks) {
  Word best = kNone;
  for (int rank = 0; rank < num_ranks; rank++) {
    const uint4 words = told[rank];
    if (words.z == kNotFit) best = kUnfit;
    if (words.z != kBestId) continue;
    best = max(best, static_cast<Word>(words.x) << 32 | ~words.y);
  }
  const bool is_idle = told[0].z == kIdle;
  const bool has_id = best != kNone && best != kUnfit;
  sample.token_ids[index] = has_id ? ranked_id(best) : -1;
  sample.row_flags[index] = has_id || is_idle ? 0 : 1;
  if (sample.num_top >= 0) sample.ranks[index] = 0;
}

/** Of two the second is named, of more the one with which fewest agree. */
__device__ void compare_checksums(const ShardParams& params, uint64_t epoch, const uint4* told) {
  const int num_ranks = params.group.num_ranks;
  int fewest = num_ranks;
  int odd = 0;
  for (int rank = 0; rank < num_ranks; rank++) {
    int agree = 0;
    for (int other = 0; other < num_ranks; other++) agree += told[other].x == told[rank].x;
    if (agree <= fewest) {
      fewest = agree;
      odd = rank;
    }
  }
  if (fewest == num_ranks) return;
  report_group(params.group, VT_CUDA_GROUP_DISAGREES, odd, params.args.op_index, epoch);
}

__global__ void __launch_bounds__(kFinishThreads)
    finish_parts(const __grid_constant__ ShardParams params) {
  __shared__ uint4 told[kMaxRanks];
  const VtCudaGroup& group = params.group;
  const VtCudaSample& sample = params.sample;
  start_next();
  const uint64_t epoch = epoch_of(group, params.args.ordinal);
  wait_for_previous();
  Patience patience(group, epoch, params.args.op_index);
  const int rank = threadIdx.x;
  for (int index = blockIdx.x; index <= sample.num_rows; index += gridDim.x) {
    if (rank == group.rank) {
      told[rank] = static_cast<const uint4*>(params.args.words)[index];
    } else if (rank < group.num_ranks) {
      told[rank] = take(inbox(group, group.rank, rank, epoch) + index, rank, patience);
    }
    __syncthreads();
    const bool is_checksum = index == sample.num_rows;
    const bool has_all = !is_checksum && told[group.rank].z == kAllLogits;
    if (has_all) take_logits(params, patience, epoch, index);
    if (threadIdx.x == 0 && is_checksum) compare_checksums(params, epoch, told);
    if (threadIdx.x == 0 && !is_checksum) {
      params.args.rest[index] = has_all ? sample.row_of[index] : VT_CUDA_ROW_ANSWERED;
      if (!has_all) answer_row(sample, index, told, group.num_ranks);
    }
    __syncthreads();
  }
}

bool are_few(int num_rows) { return num_rows * kMaxCluster <= num_multiprocessors(); }

/** Of a row: so that several share a multiprocessor, or all multiprocessors are used. */
int blocks_of(int num_rows, int tiles) {
  int blocks = 1;
  while (blocks < kMaxCluster && tiles > blocks * (are_few(num_rows) ? 1 : 24)) blocks *= 2;
  return blocks;
}

int most_rows(const VtCudaGroup& group, int x_columns) {
  const int64_t each = 16 + int64_t{4} * x_columns;
  return static_cast<int>(std::min<int64_t>((group.slot_bytes - 16) / each, 1 << 20));
}

template <typename T>
void move_on(T*& rows, int64_t count) {
  if (rows != nullptr) rows += count;
}

/** Rows from `first` on. */
VtCudaSample rows_from(VtCudaSample sample, int first, int count) {
  const int64_t top = static_cast<int64_t>(first) * std::max(0, sample.num_top);
  sample.num_rows = count;
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
  VT_REQUIRE(aligned16(a.x, 0) && a.x_stride % 4 == 0 && aligned16(a.words, 0),
             "sampleSharded: rows must be 16-byte aligned");
  VT_REQUIRE(a.x_columns <= kMaxCluster * kMaxTiles * kTile, "sampleSharded: %d columns",
             a.x_columns);
  VT_REQUIRE(most_rows(*a.group, a.x_columns) > 0,
             "sampleSharded: a row of %d columns does not fit the inbox", a.x_columns);
  return 0;
}

int launch_parts(const ShardParams& params, void* stream) {
  const VtCudaSample& sample = params.sample;
  const int tiles = params.args.x_columns / kTile;
  const int blocks = blocks_of(sample.num_rows, tiles);
  const int tiles_each = (tiles + blocks - 1) / blocks;
  const int threads = are_few(sample.num_rows) || tiles_each > 16 ? 512 : 256;
  const size_t shared_bytes = static_cast<size_t>(tiles_each) * kTile * sizeof(float);
  int result = launch_clusters("sampleSharded", sample_part, blocks,
                               dim3((sample.num_rows + 1) * blocks), dim3(threads), shared_bytes,
                               sample.flags, stream, params, tiles_each);
  if (result != 0) return result;
  const int finishing = std::min(sample.num_rows + 1, params.group.max_blocks);
  result = launch("sampleSharded", finish_parts, dim3(finishing), dim3(kFinishThreads), 0,
                  sample.flags, stream, params);
  if (result != 0) return result;
  VtCudaSample rest = sample;
  rest.row_of = params.args.rest;
  rest.logits = params.args.all_logits;
  return vt_cuda_sample(&rest, stream);
}

}  // namespace
}  // namespace sample
}  // namespace vt

extern "C" int vt_cuda_sample_sharded(const VtCudaSampleSharded* args, void* stream) {
  using namespace vt::sample;
  if (check(*args) != 0) return -1;
  const int most = most_rows(*args->group, args->x_columns);
  ShardParams params = {};
  params.group = *args->group;
  for (int first = 0; first < args->sample->num_rows; first += most) {
    params.args = *args;
    params.args.ordinal += first / most;
    params.args.x += static_cast<int64_t>(first) * args->x_stride;
    params.args.all_logits += static_cast<int64_t>(first) * args->sample->logits_stride;
    params.sample = rows_from(*args->sample, first, std::min(most, args->sample->num_rows - first));
    const int result = launch_parts(params, stream);
    if (result != 0) return result;
  }
  return 0;
}

extern "C" int vt_cuda_sample_sharded_epochs(const VtCudaGroup* group, int32_t num_rows,
                                             int32_t x_columns) {
  const int most = std::max(1, vt::sample::most_rows(*group, x_columns));
  return (num_rows + most - 1) / most;
}
