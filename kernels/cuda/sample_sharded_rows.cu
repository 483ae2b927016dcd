// The first round of sampleSharded: each rank tells the others the best of its own ids of a row, or
// some candidates; then it takes what the others told, and answers the rows that this decides. Grids
// that wait for other ranks run at once.
//
// A best id is the one that vt_cuda_sample would find among this rank's: the argmax of logit, or of
// z plus noise, both of which belong to an id, wherever it lies.
#include <algorithm>

#include "sample_answer.cuh"
#include "sample_edit.cuh"
#include "sample_logprobs.cuh"
#include "sample_scan.cuh"
#include "sample_search.cuh"
#include "sample_told.cuh"

namespace vt {
namespace sample {
namespace {

constexpr int kFinishThreads = 256;

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

/** What tells a row: kBestId, kCandidates, kLikeliest, kAllLogits, kSearched or kJudged. */
__device__ __forceinline__ Told told_by(const ShardParams& params, const Shared& shared) {
  const VtCudaRowParams& p = shared.params;
  if (shared.judged_id >= 0) return kJudged;
  const bool cuts = p.min_p > 0.0f || p.top_k > 0 || p.top_p < 1.0f;
  if (!cuts || p.temperature < kGreedyBelow) return kBestId;
  return told_of_cut(p, params);
}

/** This rank's greatest logit, edited by section 3 of docs/sampling.md or not. By the cluster. */
__device__ Word greatest_logit(Row& row, bool is_edited, const int32_t* history) {
  Word best;
  if (is_edited) {
    best = scan_edited(row, history);
  } else {
    cluster_arrive();
    best = scan_logits(row);
    cluster_wait();  // all blocks are there
  }
  return cluster_max(row, best);
}

/** The same of an edited row, as its logits came out of the model; once. */
__device__ Word greatest_unedited(Row& row) {
  fence_async();  // the copy engine writes where threads have written
  __syncthreads();
  return cluster_max(row, scan_logits(row));
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

/** For a search, which finds other rows' in the model's. */
__device__ void keep_edited(const ShardParams& params, const Row& row, int index) {
  float* out = edited_logits(params, index) + row.begin;
  for (int i = threadIdx.x; i < row.count; i += blockDim.x) out[i] = row.z[i];
}

/** What this rank tells of a row; its candidates are on their way then. Barriers of the cluster. */
__device__ RowNews news_of_part(const ShardParams& params, uint64_t epoch, Row& row, int index,
                                Told by, const int32_t* history) {
  const Shared& shared = *row.shared;
  const bool is_edited = by != kJudged && has_edits(shared);
  const Word greatest = greatest_logit(row, is_edited, history);
  RowNews news;
  news.kind = by;
  if (greatest == kUnfit) {
    news.kind = kNotFit;
    return news;
  }
  if (by == kSearched && is_edited) keep_edited(params, row, index);
  if (by == kJudged) {
    const int id = shared.judged_id;
    news.value = id >= row.first && id < row.vocab_size ? 1 : 0;
    if (news.value != 0) news.logit = row.logits[id];
  } else if (greatest_z(shared, greatest) == -INFINITY) {
    news.kind = kNoId;
  } else if (by == kSearched) {
    news.value = static_cast<uint32_t>(greatest >> 32);
  } else if (by == kBestId || greatest_z(shared, greatest) == INFINITY) {
    // Of an infinite z the least id is drawn, whatever min-p, top-k and top-p say.
    const Word best = best_of_part(row, greatest);
    news.kind = kBestId;
    news.value = static_cast<uint32_t>(best >> 32);
    news.id = ranked_id(best);
    news.logit = row.logits[news.id];
  } else {
    news = send_candidates(params, epoch, row, index, greatest, by);
  }
  if (has_logprob(params.sample, shared)) {
    const Word unedited = is_edited ? greatest_unedited(row) : greatest;
    news.greatest = key_of(unedited == kNone ? -INFINITY : ranked_value(unedited));
  }
  return news;
}

/** The same of a row whose best ids the head's linear has found, from this rank's first id on: of
 * those greedy with nothing else asked. By a warp. */
__device__ RowNews news_of_best(const ShardParams& params, int index) {
  const Word best = best_of_head(params.sample, index);
  RowNews news;
  news.kind = best == kUnfit ? kNotFit : best == kNone ? kNoId : kBestId;
  if (news.kind != kBestId) return news;
  news.value = static_cast<uint32_t>(best >> 32);
  news.id = params.group.rank * params.args.x_columns + ranked_id(best);
  return news;
}

__global__ void __launch_bounds__(32 * kMaxWarps, 2)
    sample_part(const __grid_constant__ ShardParams params, const int num_tiles) {
  Shared& shared = block_shared<Shared>();
  const VtCudaSample& sample = params.sample;
  const uint64_t epoch = begin_round(params);
  const int index = blockIdx.x / cluster_size();
  if (index == sample.num_rows) {
    if (cluster_rank() != 0) return;
    const uint32_t sum = checksum_of(params.args.tokens, params.args.num_tokens, shared);
    return tell_ranks(params, epoch, index, make_uint4(sum, 0, 0, 0));
  }
  if (has_best(sample, index)) {
    if (cluster_rank() != 0 || threadIdx.x >= 32) return;
    return tell_ranks(params, epoch, index, words_of(news_of_best(params, index)));
  }
  const int table_row = sample.row_of[index];
  if (table_row >= 0) {
    prepare_copy(shared);
    load_state(sample, table_row, index, shared);
  }
  RowNews news;
  if (table_row >= 0 && shared.finished == 0) {
    Row row = part_of_row(params, index, num_tiles, shared);
    news.kind = told_by(params, shared);
    if (news.kind != kAllLogits) {
      const int32_t* history =
          sample.history + static_cast<int64_t>(table_row) * sample.history_stride;
      news = news_of_part(params, epoch, row, index, news.kind, history);
    }
  }
  tell_ranks(params, epoch, index, words_of(news));
}

__device__ __forceinline__ Heard heard_of(const uint4* told, int num_ranks) {
  Heard heard;
  for (int rank = 0; rank < num_ranks; rank++) {
    const RowNews news = news_of(told[rank]);
    heard.has_candidates |= news.kind == kCandidates || news.kind == kLikeliest;
    heard.is_likeliest |= news.kind == kLikeliest;
    heard.needs_more |= news.kind == kAllLogits || news.kind == kSearched;
    heard.is_judged |= news.kind == kJudged;
    heard.is_idle |= news.kind == kIdle;
    heard.greatest = max(heard.greatest, news.greatest);
    if (news.kind == kSearched) heard.greatest_edited = max(heard.greatest_edited, news.value);
    if (news.kind == kNotFit) heard.best = kUnfit;
    if (news.kind == kJudged && news.value != 0) heard.logit = news.logit;
    if (news.kind != kBestId) continue;
    const Word best = static_cast<Word>(news.value) << 32 | ~static_cast<uint32_t>(news.id);
    if (best <= heard.best) continue;
    heard.best = best;
    heard.logit = news.logit;
  }
  return heard;
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
  const uint64_t epoch = begin_round(params);
  Patience patience(group, epoch, params.args.op_index);
  const int rank = threadIdx.x;
  for (int index = blockIdx.x; index <= sample.num_rows; index += gridDim.x) {
    if (rank < group.num_ranks) {
      told[rank] = take(slot(params, group.rank, rank, epoch) + index, rank, patience);
    }
    if (rank == 0) candidates.count = 0;
    __syncthreads();
    if (index == sample.num_rows) {
      if (rank == 0) compare_checksums(params, epoch, told);
      return;
    }
    Heard heard = heard_of(told, group.num_ranks);
    const bool is_fit = heard.best != kUnfit;
    if (heard.has_candidates) {
      take_candidates(params, patience, epoch, index, told, candidates);
      if (heard.best == kNone && !heard.needs_more) {
        load_state(sample, sample.row_of[index], index, shared.row);
        heard.best = draw_candidate(params, told, candidates, heard.is_likeliest, shared.row);
        heard.needs_more = heard.best == kUnfit;
        heard.logit = logit_of(candidates, heard.best, shared.row);
      }
    }
    if (rank == 0) {
      const bool is_left = heard.needs_more && is_fit;
      params.args.rest[index] = is_left ? sample.row_of[index] : VT_CUDA_ROW_ANSWERED;
      if (!is_left) {
        answer_row(params, index, heard);
      } else if (is_carried(params)) {
        Search& search = search_of(params, index);
        search.greatest = heard.greatest_edited;
        search.unedited = heard.greatest;
      } else if (sample.num_top >= 0) {
        choose(params, index, {Chosen::kNoRound, 0, 0});
      }
    }
    __syncthreads();
  }
}

}  // namespace

int tell_rows(const ShardParams& params, void* stream) {
  const VtCudaSample& sample = params.sample;
  const Shape shape = shape_of(sample.num_rows, params.args.x_columns);
  const size_t shared_bytes = static_cast<size_t>(shape.tiles) * kTile * sizeof(float);
  const int result = launch_clusters(
      "sampleSharded", sample_part, shape.blocks, dim3((sample.num_rows + 1) * shape.blocks),
      dim3(shape.threads), shared_bytes, sample.flags, stream, params, shape.tiles);
  if (result != 0 || (is_carried(params) && carry(params, stream) != 0)) return -1;
  const int finishing = std::min(sample.num_rows + 1, params.group.max_blocks);
  return launch_clusters("sampleSharded", finish_parts, 1, dim3(finishing), dim3(kFinishThreads), 0,
                         taking_flags(params), stream, params);
}

}  // namespace sample
}  // namespace vt
