// Rows of sampleSharded whose threshold is searched for (sample_search.cuh): a launch for each step,
// in which a rank takes what all told in the step before, and tells what its ids of the narrower
// range weigh; a library carries between two launches. In the last step ranks tell which of their ids
// would be drawn too: of those above the range, and of each bin, which is one key then. So the last
// launch answers the row.
#include <algorithm>

#include "sample_answer.cuh"
#include "sample_draw.cuh"
#include "sample_edit.cuh"
#include "sample_search.cuh"

namespace vt {
namespace sample {
namespace {

constexpr int kFinishThreads = 256;

/** With its noise, ranked. */
__device__ __forceinline__ Word noisy(float z, int id, const Shared& shared) {
  const uint32_t word = noise_word(shared.params.seed, shared.num_tokens, id);
  return ranked(__fadd_rn(z, gumbel(word)), id);
}

/** f(z, place) for this block's ids with a z from `least` on: those that are listed, or all. */
template <typename F>
__device__ __forceinline__ void for_each_listed(const Row& row, const RangeList& listed, float least,
                                                F f) {
  const bool is_listed = listed.most > 0 && *listed.count <= listed.most;
  const int count = is_listed ? *listed.count : row.count;
  const float temperature = row.shared->params.temperature;
  for (int k = threadIdx.x; k < count; k += blockDim.x) {
    const int i = is_listed ? listed.places[k] : k;
    const float z = __fdiv_rn(__ldcg(row.logits + row.begin + i), temperature);
    if (z >= least && z > -INFINITY) f(z, i);
  }
}

/**
 * This block's ids of the range, by bin; the best that this thread has found above it, of those that
 * are listed and not drawn yet. Only threads of the block meet.
 */
template <bool kScans>
__device__ __forceinline__ Word weigh(const Row& row, const Search& search, const Course& course,
                                      float z_max, bool is_last, const RangeList& listed,
                                      SearchShared& shared) {
  const bool is_first = Course::is_first(course.taken());
  const bool lists = kScans && Course::lists(course.taken());
  const bool by_mass = course.is_by_mass(course.taken());
  for (int b = threadIdx.x; b < kFirstBins; b += blockDim.x) shared.weights[b] = 0;
  if (threadIdx.x == 0) shared.row.num_listed = 0;
  __syncthreads();
  const FirstBins first_bins(z_max, search.high);
  const int shift = shift_of(search);
  Word passed = kNone;
  const auto see = [&](float z, int i) {
    const uint32_t key = key_of(z);
    if (key > search.high) {
      if (!kScans && is_last && key <= search.drawn) {
        passed = max(passed, noisy(z, row.begin + i, shared.row));
      }
      return;
    }
    const Word weight = by_mass ? mass_of(z, z_max) : 1;
    if (weight == 0) return;
    const int bin =
        is_first ? first_bins.of(z) : static_cast<int>((search.high - key) >> shift);
    add_weight(reinterpret_cast<uint32_t*>(&shared.weights[bin]), weight);
    if (lists) {
      const int at = atomicAdd(&shared.row.num_listed, 1);
      if (at < listed.most) listed.places[at] = i;
    }
    if (!kScans && is_last) {
      atomicMax(&shared.best()[bin], noisy(z, row.begin + i, shared.row));
    }
  };
  const float low = value_of(search.low);
  const float least = by_mass ? fmaxf(low, z_max - kMassReach) : low;
  if (kScans) {
    for_each_from(row, shared.row.params.temperature, least, see);
  } else {
    for_each_listed(row, listed, least, see);
  }
  if (!lists || listed.most <= 0) return passed;
  __syncthreads();
  if (threadIdx.x == 0) *listed.count = shared.row.num_listed;
  return passed;
}

/** The draw among this rank's ids above the range; `greatest` of its logits. Barriers of the
 * cluster. */
__device__ Word best_above(Row& row, const Search& search, Word greatest) {
  const Shared& shared = *row.shared;
  const float temperature = shared.params.temperature;
  const float least = value_of(search.high + 1);
  const float z_max = __fdiv_rn(ranked_value(greatest), temperature);
  if (greatest == kNone || !(z_max >= least)) return kNone;
  Draw draw(row, temperature, least, shared.num_tokens);
  return cluster_max(row, draw.run(z_max, ranked_id(greatest)));
}

template <bool kScans>
__global__ void __launch_bounds__(32 * kMaxWarps, 2)
    search_step(const __grid_constant__ ShardParams params, const __grid_constant__ SearchStep step,
                const int num_tiles) {
  SearchShared& shared = block_shared<SearchShared>();
  begin_round(params);
  const int index = blockIdx.x / cluster_size();
  if (params.args.rest[index] < 0) return;
  Row row = begin_part(params, index, num_tiles, shared.row);
  const VtCudaRowParams& p = shared.row.params;
  const Course course(p, step);
  if (course.taken() < 0 && !step.draws() && !step.is_last()) return;
  const float* unedited = row.logits;
  if (has_edits(shared.row)) row.logits = edited_logits(params, index);
  if (kScans) start_scan(row);
  cluster_arrive();
  const float z_max = __fdiv_rn(value_of(search_of(params, index).greatest), p.temperature);
  Search search = search_before(params, step, index, course, z_max, shared);
  const Word greatest_of_block = kScans ? finish_scan(row) : kNone;
  cluster_wait();  // all blocks are there
  const bool is_searched = search.low <= search.high;
  Word passed = kNone;
  if (is_searched) {
    const RangeList listed = range_list(params, row, index);
    passed = weigh<kScans>(row, search, course, z_max, step.is_last(), listed, shared);
  }
  if (kScans && step.draws()) {
    search.best = best_above(row, search, cluster_max(row, greatest_of_block));
    search.drawn = search.high;
  } else if (step.is_last()) {
    search.best = max(search.best, cluster_max(row, passed));
  }
  cluster_sync();

  Word* out = step_words(params, step.slots, params.group.rank, index);
  const auto logit_of = [&](Word best) -> Word {
    return best == kNone ? 0 : __float_as_uint(unedited[ranked_id(best)]);
  };
  if (row.rank == 0 && threadIdx.x == 0) {
    search_of(params, index) = search;
    if (step.is_last()) {
      out[0] = search.best;
      out[1] = logit_of(search.best);
    }
  }
  if (is_searched) {
    if (step.is_last()) out += kLastWeights;
    const int num_bins = Course::is_first(course.taken()) ? kFirstBins : kStepBins;
    const int threads = row.num_blocks * static_cast<int>(blockDim.x);
    for (int b = row.rank * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
         b < num_bins; b += threads) {
      out[b] = cluster_weight(row, reinterpret_cast<const uint32_t*>(&shared.weights[b]));
      if (!step.is_last()) continue;
      Word best = kNone;
      for (int r = 0; r < row.num_blocks; r++) best = max(best, load_of(r, &shared.best()[b]));
      const uint32_t id = best == kNone ? ~0u : static_cast<uint32_t>(ranked_id(best));
      out[kStepBins + b] = logit_of(best) << 32 | id;
    }
  }
  cluster_sync();  // the others have read this block's
}

/** The best of ids that this thread has seen, and its logit. */
struct Best {
  Word word = kNone;
  uint32_t logit = 0;

  __device__ __forceinline__ void see(Word other, uint32_t its_logit) {
    if (other <= word) return;
    word = other;
    logit = its_logit;
  }
};

/** A block for each row at a time; `end` is behind the last step. A cluster is one block. */
__global__ void __launch_bounds__(kFinishThreads)
    finish_search(const __grid_constant__ ShardParams params,
                  const __grid_constant__ SearchStep end) {
  SearchShared& shared = block_shared<SearchShared>();
  begin_round(params);
  Row row;
  row.shared = &shared.row;
  row.rank = 0;
  row.num_blocks = 1;
  row.turn = 0;
  const int num_ranks = params.group.num_ranks;
  for (int index = blockIdx.x; index < params.sample.num_rows; index += gridDim.x) {
    const int table_row = params.args.rest[index];
    if (table_row < 0) continue;
    load_state(params.sample, table_row, index, shared.row);
    const VtCudaRowParams& p = shared.row.params;
    const Course course(p, end);
    const Search last = search_of(params, index);
    const float z_max = __fdiv_rn(value_of(last.greatest), p.temperature);
    const Search search = search_before(params, end, index, course, z_max, shared);
    // Bins of one key, from the greatest down to the threshold.
    const int num_bins = last.low <= last.high ? static_cast<int>(last.high - search.low) + 1 : 0;
    Best best;
    for (int i = threadIdx.x; i < num_bins * num_ranks; i += blockDim.x) {
      const int b = i / num_ranks;
      const Word told = __ldcg(step_words(params, end.before, i % num_ranks, index) + kLastBest + b);
      const int id = static_cast<int>(static_cast<uint32_t>(told));
      if (id >= 0) best.see(noisy(value_of(last.high - b), id, shared.row), told >> 32);
    }
    if (static_cast<int>(threadIdx.x) < num_ranks) {
      const Word* told = step_words(params, end.before, threadIdx.x, index);
      best.see(__ldcg(told), static_cast<uint32_t>(__ldcg(told + 1)));
    }
    const Word drawn = cluster_max(row, best.word);
    if (drawn != kNone && best.word == drawn) shared.row.chosen = best.logit;
    __syncthreads();
    if (threadIdx.x == 0) {
      Heard heard;
      heard.best = drawn;
      heard.logit = __uint_as_float(shared.row.chosen);
      heard.greatest = last.unedited;
      answer_row(params, index, heard);
    }
    __syncthreads();
  }
}

/** Steps lie in two halves of the board by turns: a launch tells while others take yet. */
StepSlots slots_of(const ShardParams& params, int step, int count) {
  StepSlots slots;
  const bool is_last = step + 1 == count;
  slots.row_words = is_last ? (count == 1 ? kLastWeights : kLastWords)
                            : (step % kSearchSteps == 0 ? kFirstBins : kStepBins);
  const int64_t rows = params.sample.num_rows;
  slots.bytes = (8 * rows * slots.row_words + 63) / 64 * 64;
  slots.offset = step % 2 == 0 ? 0 : params.group.slot_bytes * params.group.num_ranks / 128 * 64;
  return slots;
}

SearchStep step_of(const ShardParams& params, int index) {
  SearchStep step = {};
  step.index = index;
  step.count = params.args.search_steps;
  if (index < step.count) step.slots = slots_of(params, index, step.count);
  if (index > 0) step.before = slots_of(params, index - 1, step.count);
  return step;
}

}  // namespace

int most_rows_searched(const VtCudaGroup& group) {
  return static_cast<int>(
      std::min<int64_t>((group.slot_bytes / 2 - 64) / (8 * kFirstBins), 1 << 20));
}

int search_thresholds(const ShardParams& params, void* stream) {
  const VtCudaSample& sample = params.sample;
  const Shape shape = shape_of(sample.num_rows, params.args.x_columns);
  const size_t logit_bytes = static_cast<size_t>(shape.tiles) * kTile * sizeof(float);
  for (int i = 0; i < params.args.search_steps; i++) {
    const SearchStep step = step_of(params, i);
    const int flags = i == 0 ? sample.flags : taking_flags(params);
    const int result = launch_clusters(
        "sampleSharded", step.scans() ? search_step<true> : search_step<false>, shape.blocks,
        dim3(sample.num_rows * shape.blocks), dim3(shape.threads),
        step.scans() ? logit_bytes : size_t{0}, flags, stream, params, step, shape.tiles);
    if (result != 0 || carry(params, step.slots.offset, step.slots.bytes, stream) != 0) return -1;
  }
  return launch_clusters("sampleSharded", finish_search, 1,
                         dim3(std::min(sample.num_rows, params.group.max_blocks)),
                         dim3(kFinishThreads), 0, taking_flags(params), stream, params,
                         step_of(params, params.args.search_steps));
}

}  // namespace sample
}  // namespace vt
