// sampleSharded: rows of logits of which every rank has a run of ids. Three launches: each rank tells
// the others the best of its own ids of a row that needs no more, or some candidates, or all its
// logits; then it takes what the others told, and answers rows of the first two kinds; then
// vt_cuda_sample answers those of the third. Only the second launch waits for other ranks, so only
// its grid must run at once.
//
// A best id is the one that vt_cuda_sample would find among this rank's: the argmax of logit, or of
// z plus noise, both of which belong to an id, wherever it lies.
#include <algorithm>

#include "group_check.h"
#include "sample_candidates.cuh"
#include "sample_edit.cuh"
#include "sample_scan.cuh"

namespace vt {
namespace sample {
namespace {

constexpr int kFinishThreads = 256;

__device__ __forceinline__ uint4 told_of(Word best) {
  if (best == kUnfit) return make_uint4(0, 0, kNotFit, 0);
  if (best == kNone) return make_uint4(0, 0, kNoId, 0);
  return make_uint4(static_cast<uint32_t>(best >> 32), ranked_id(best), kBestId, 0);
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

/** What tells a row: kBestId, kCandidates or kAllLogits. */
__device__ __forceinline__ Told told_by(const VtCudaSample& sample, const Shared& shared) {
  const VtCudaRowParams& p = shared.params;
  if (shared.judged_id >= 0 || (sample.num_top >= 0 && p.num_logprobs >= 0)) return kAllLogits;
  const bool cuts = p.min_p > 0.0f || p.top_k > 0 || p.top_p < 1.0f;
  if (!cuts || p.temperature < kGreedyBelow) return kBestId;
  return has_candidates(p) ? kCandidates : kAllLogits;
}

/** This rank's greatest logit, after section 3 of docs/sampling.md. Barriers of the cluster. */
__device__ Word greatest_logit(Row& row, const int32_t* history) {
  Word best;
  if (has_edits(*row.shared)) {
    best = scan_edited(row, history);
  } else {
    cluster_arrive();
    best = scan_logits(row);
    cluster_wait();  // all blocks are there
  }
  return cluster_max(row, best);
}

/** The best of this rank's ids, whose greatest logit is `best`. Barriers of the cluster. */
__device__ Word best_of_part(Row& row, Word best) {
  const Shared& shared = *row.shared;
  const float temperature = shared.params.temperature;
  if (temperature < kGreedyBelow) return best;
  Draw draw(row, temperature, -INFINITY, shared.num_tokens);
  const float z_max = __fdiv_rn(ranked_value(best), temperature);
  return cluster_max(row, draw.run(z_max, ranked_id(best)));
}

__global__ void __launch_bounds__(32 * kMaxWarps, 2)
    sample_part(const __grid_constant__ ShardParams params, const int num_tiles) {
  Shared& shared = block_shared<Shared>();
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
  if (table_row >= 0) {
    prepare_copy(shared);
    load_state(sample, table_row, index, shared);
  }
  if (table_row < 0 || shared.finished != 0) {
    return tell_ranks(params, epoch, index, make_uint4(0, 0, kIdle, 0));
  }
  const auto tell_all = [&] {
    tell_ranks(params, epoch, index, make_uint4(0, 0, kAllLogits, 0));
    send_logits(params, epoch, row, index);
  };
  const Told told = told_by(sample, shared);
  if (told == kAllLogits) return tell_all();
  row.first = params.group.rank * params.args.x_columns;
  row.logits = params.args.x + static_cast<int64_t>(index) * params.args.x_stride - row.first;
  row.z = reinterpret_cast<float*>(dynamic_shared());
  row.shared = &shared;
  row.vocab_size = min(sample.vocab_size, row.first + params.args.x_columns);
  row.num_tiles = num_tiles;
  row.begin = row.first + row.rank * num_tiles * kTile;
  row.count = max(0, min(num_tiles * kTile, row.vocab_size - row.begin));
  row.turn = 0;
  const int32_t* history =
      sample.history + static_cast<int64_t>(table_row) * sample.history_stride;
  const Word best = greatest_logit(row, history);
  if (best == kUnfit || best == kNone) return tell_ranks(params, epoch, index, told_of(best));
  if (told == kBestId) {
    return tell_ranks(params, epoch, index, told_of(best_of_part(row, best)));
  }
  const int count = send_candidates(params, epoch, row, index, best);
  if (count > kMaxCandidates) return tell_all();
  tell_ranks(params, epoch, index, make_uint4(count, 0, kCandidates, 0));
}

/** The best of the ids that ranks told; kUnfit if a rank said so. */
__device__ Word best_of_ranks(const uint4* told, int num_ranks) {
  Word best = kNone;
  for (int rank = 0; rank < num_ranks; rank++) {
    const uint4 words = told[rank];
    if (words.z == kNotFit) return kUnfit;
    if (words.z != kBestId) continue;
    best = max(best, static_cast<Word>(words.x) << 32 | ~words.y);
  }
  return best;
}

/** By one thread. */
__device__ void answer_row(const VtCudaSample& sample, int index, bool is_idle, Word best) {
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

/** What ranks told of a row, in all of a block's threads. */
struct Heard {
  bool has_candidates, has_all;
};

__device__ __forceinline__ Heard heard_of(const uint4* told, int num_ranks) {
  Heard heard = {false, false};
  for (int rank = 0; rank < num_ranks; rank++) {
    heard.has_candidates |= told[rank].z == kCandidates;
    heard.has_all |= told[rank].z == kAllLogits;
  }
  return heard;
}

/** The row's logits, or what stands for those that a rank did not send. All of the block. */
__device__ void gather_row(const ShardParams& params, Patience& patience, uint64_t epoch,
                           int index, const uint4* told, const Candidates& candidates) {
  for (int rank = 0; rank < params.group.num_ranks; rank++) {
    if (told[rank].z == kAllLogits) {
      take_logits(params, patience, epoch, index, rank);
    } else {
      fill_logits(params, index, rank, told[rank].z == kNotFit ? NAN : -INFINITY);
    }
  }
  __syncthreads();
  place_candidates(params, index, candidates);
}

struct FinishShared {
  uint4 told[kMaxRanks];
  Candidates candidates;
  Shared row;
};

/** A block for each row at a time, and one for the checksums. A cluster is one block. */
__global__ void __launch_bounds__(kFinishThreads)
    finish_parts(const __grid_constant__ ShardParams params) {
  FinishShared& shared = block_shared<FinishShared>();
  uint4(&told)[kMaxRanks] = shared.told;
  Candidates& candidates = shared.candidates;
  const VtCudaGroup& group = params.group;
  const VtCudaSample& sample = params.sample;
  start_next();
  const uint64_t epoch = epoch_of(group, params.args.ordinal);
  wait_for_previous();
  Patience patience(group, epoch, params.args.op_index);
  const int rank = threadIdx.x;
  for (int index = blockIdx.x; index <= sample.num_rows; index += gridDim.x) {
    if (rank < group.num_ranks) {
      told[rank] = take(inbox(group, group.rank, rank, epoch) + index, rank, patience);
    }
    if (rank == 0) candidates.count = 0;
    __syncthreads();
    if (index == sample.num_rows) {
      if (rank == 0) compare_checksums(params, epoch, told);
      return;
    }
    const Heard heard = heard_of(told, group.num_ranks);
    Word best = best_of_ranks(told, group.num_ranks);
    if (heard.has_candidates) {
      take_candidates(params, patience, epoch, index, told, candidates);
      load_state(sample, sample.row_of[index], index, shared.row);
      if (best == kNone && !heard.has_all) best = draw_candidate(candidates, shared.row);
    }
    if (heard.has_all) gather_row(params, patience, epoch, index, told, candidates);
    if (rank == 0) {
      params.args.rest[index] = heard.has_all ? sample.row_of[index] : VT_CUDA_ROW_ANSWERED;
      if (!heard.has_all) answer_row(sample, index, told[0].z == kIdle, best);
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
  VT_REQUIRE(aligned16(a.x, 0) && a.x_stride % 4 == 0,
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
  result = launch_clusters("sampleSharded", finish_parts, 1, dim3(finishing), dim3(kFinishThreads),
                           0, sample.flags, stream, params);
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
