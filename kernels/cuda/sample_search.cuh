// Search: the threshold of a row whose logits lie on several ranks, where what is exchanged has a
// size that parameters alone tell. It is the threshold of sample_threshold.cuh: a top-k, and behind
// it a top-p, each narrows a range of keys that holds its bound in kSearchSteps steps. In a step
// every rank tells the weights of its ids of the range by bin, and all take the same bin from the
// sum of what all told. Weights are integers, so the sum has no order.
//
// Bins of the first step are even ones of z, crossed with the high bits of keys: what is left is a
// run of at most 2^24 keys, of which each of the steps behind it takes 8 bits. A range after the
// last of them is one key.
//
// Two steps of a selection go through all ids of a rank. The second lists those that are in the
// range, for the two behind it; in the last selection it draws among those above, too.
#ifndef VT_CUDA_SAMPLE_SEARCH_CUH_
#define VT_CUDA_SAMPLE_SEARCH_CUH_

#include "sample_exchange.cuh"
#include "sample_threshold.cuh"

namespace vt {
namespace sample {

constexpr int kSearchSteps = VT_CUDA_SEARCH_STEPS;
constexpr int kBinBits = 8;
constexpr int kStepBins = 1 << kBinBits;
constexpr int kBitsBehindFirst = (kSearchSteps - 1) * kBinBits;
constexpr int kFirstBins = kBins + (1 << (32 - kBitsBehindFirst));

/**
 * Where a row's search is. Ids with keys above `high` stay, those below `low` do not; there is
 * nothing to search if low > high. Equal on all ranks, but for `best`.
 */
struct Search {
  /** Keys of the row's greatest logit: after section 3 of docs/sampling.md; as it came out of the
   * model, or 0 where the row has no logprob. */
  uint32_t greatest, unedited;
  uint32_t low, high;
  /** Weight that ids from `low` to `high` must give, from the greatest down. */
  Word target;
  /** Of this rank's ids with keys above `drawn` the one that would be drawn, ranked. */
  Word best;
  uint32_t drawn, unused;
};
static_assert(sizeof(Search) == 4 * VT_CUDA_SEARCH_SCRATCH, "what vt_cuda_collective.h has of it");

/** Of row `index`, behind what rows have of args.rest for themselves. */
__device__ __forceinline__ Search& search_of(const ShardParams& params, int index) {
  const int64_t first = int64_t{VT_CUDA_SAMPLE_SCRATCH - VT_CUDA_SEARCH_SCRATCH} *
                        params.sample.num_rows;
  return reinterpret_cast<Search*>(params.args.rest + first)[index];
}

/** Where a row's rank keeps its logits after section 3, in the room of all ranks'; -`first` of the
 * rank's ids, as row.logits. */
__device__ __forceinline__ float* edited_logits(const ShardParams& params, int index) {
  return params.args.all_logits + static_cast<int64_t>(index) * params.sample.logits_stride -
         static_cast<int64_t>(params.group.rank) * params.args.x_columns;
}

/** A block's ids of the range, as places in row.z, in the room of all ranks' logits that is not the
 * rank's own: `count` of them, which are not listed if there are more than `most`. */
struct RangeList {
  int32_t* count;
  int32_t* places;
  int most;
};

__device__ __forceinline__ RangeList range_list(const ShardParams& params, const Row& row,
                                                int index) {
  const int begin = params.args.x_columns;
  const int each = max(0, params.sample.logits_stride - begin) / row.num_blocks;
  float* at = params.args.all_logits + static_cast<int64_t>(index) * params.sample.logits_stride +
              begin + row.rank * each;
  return {reinterpret_cast<int32_t*>(at), reinterpret_cast<int32_t*>(at) + 1, each - 1};
}

/** What one step's slots hold. */
struct StepSlots {
  int64_t offset, bytes; /* in the board, behind its head; of a slot */
  int row_words;
};

/** A step of a round, and the one before it. */
struct SearchStep {
  int index, count;
  StepSlots slots, before;

  __host__ __device__ bool is_last() const { return index + 1 == count; }
  /** Whether it goes through all ids, or through those that are listed. */
  __host__ __device__ bool scans() const { return count == 1 || index % kSearchSteps < 2; }
  /** The last that does. */
  __host__ __device__ bool draws() const { return index == max(0, count - 3); }
};

/** Words of the last step's row: the best id above the range, ranked, and its logit; weights; the
 * best id of each bin, with the bits of its logit above it. */
constexpr int kLastWeights = 2;
constexpr int kLastBest = kLastWeights + kStepBins;
constexpr int kLastWords = kLastBest + kStepBins;

/** What `rank` tells of row `index`. */
__device__ __forceinline__ Word* step_words(const ShardParams& params, const StepSlots& slots,
                                            int rank, int index) {
  char* begin = static_cast<char*>(params.group.boards[params.group.rank]) + VT_CUDA_INBOX_OFFSET;
  return reinterpret_cast<Word*>(begin + slots.offset + rank * slots.bytes) +
         static_cast<int64_t>(index) * slots.row_words;
}

/** How a row goes through the steps of a round: it ends with the last of them. */
class Course {
 public:
  __device__ Course(const VtCudaRowParams& p, const SearchStep& step)
      : num_selections_((p.top_k > 0 ? 1 : 0) + (p.top_p < 1.0f ? 1 : 0)),
        has_top_k_(p.top_k > 0),
        taken_(step.index - (step.count - kSearchSteps * num_selections_)) {}

  /** Steps of its own before this one; below 0: it has not begun. */
  __device__ int taken() const { return taken_; }
  __device__ bool is_searched() const { return num_selections_ > 0; }
  /** Of the `taken`-th step. */
  __device__ bool is_by_mass(int taken) const { return !has_top_k_ || taken >= kSearchSteps; }
  __device__ static bool is_first(int taken) { return taken % kSearchSteps == 0; }
  __device__ static bool lists(int taken) { return taken % kSearchSteps == 1; }
  /** Whether a selection by mass begins behind one by count. */
  __device__ bool begins_mass(int taken) const {
    return num_selections_ == 2 && taken == kSearchSteps;
  }

 private:
  const int num_selections_;
  const bool has_top_k_;
  const int taken_;
};

/** Bins of the steps behind the first: 2^shift keys each. */
__device__ __forceinline__ int shift_of(const Search& search) {
  return max(0, 32 - kBinBits - __clz(search.high - search.low));
}

/** Of the first step; `high` is the key of z_max. */
class FirstBins {
 public:
  __device__ FirstBins(float z_max, uint32_t high)
      : even_(z_max), top_(high >> kBitsBehindFirst) {}

  __device__ int of(float z) const {
    return even_.of(z) + static_cast<int>(top_ - (key_of(z) >> kBitsBehindFirst));
  }

  /** Narrows low and high to keys that are in even bin `e` and in `bin`; whether there are any. Of
   * all e there is one: both parts of a bin's number fall as keys rise. */
  __device__ bool narrow(int bin, int e, uint32_t& low, uint32_t& high) const {
    const uint32_t run = top_ - static_cast<uint32_t>(bin - e);
    if (bin < e || run > top_) return false;
    low = max(low, run << kBitsBehindFirst);
    high = min(high, run << kBitsBehindFirst | ((1u << kBitsBehindFirst) - 1));
    if (e < kBins - 1) low = max(low, key_of(even_.edge(e + 1)));
    if (e > 0) high = min(high, key_of(even_.edge(e)) - 1);
    return low <= high;
  }

 private:
  const EvenBins even_;
  const uint32_t top_;
};

struct SearchShared {
  Shared row;
  /** Of this block's ids; or of all ranks'. */
  Word weights[kFirstBins];
  uint32_t low, high;

  /** By bin, in the last step. */
  __device__ Word* best() { return weights + kStepBins; }
};

/** Nothing more is searched: ids stay from `low` on. */
__device__ __forceinline__ void decide(Search& search) { search.high = search.low - 1; }

/** Searches from `low` on. Of an infinite z_max it has an answer whatever parameters say. */
__device__ __forceinline__ void begin_selection(Search& search, float z_max) {
  search.high = key_of(z_max);
  if (z_max < INFINITY) return;
  search.low = search.high;
  decide(search);
}

/** Before a row's first step: by min-p. */
__device__ __forceinline__ void begin_search(Search& search, const Course& course, float min_p,
                                             float z_max) {
  const float least = min_p > 0.0f ? __fadd_rn(z_max, logf(min_p)) : -INFINITY;
  search.low = max(key_of(least), key_of(-INFINITY) + 1);
  begin_selection(search, z_max);
  if (!course.is_searched()) decide(search);
}

/** Adds to SearchShared::weights what all ranks told of the row in the step before. */
__device__ inline void add_told(const ShardParams& params, const StepSlots& slots, int index,
                                int first_word, int num_bins, Word* weights) {
  for (int b = threadIdx.x; b < num_bins; b += blockDim.x) {
    Word sum = 0;
    for (int rank = 0; rank < params.group.num_ranks; rank++) {
      sum += __ldcg(step_words(params, slots, rank, index) + first_word + b);
    }
    weights[b] = sum;
  }
  __syncthreads();
}

/**
 * The range behind a step, of whose bins SearchShared has the weights; `taken`: the step's place in
 * the row's course. All threads of the block; barriers of it.
 */
__device__ inline void narrow(Search& search, const Course& course, int taken, float z_max,
                              SearchShared& shared) {
  const bool is_first = Course::is_first(taken);
  const VtCudaRowParams& p = shared.row.params;
  const int num_bins = is_first ? kFirstBins : kStepBins;
  const int each = (num_bins + static_cast<int>(blockDim.x) - 1) / static_cast<int>(blockDim.x);
  const int begin = min(num_bins, static_cast<int>(threadIdx.x) * each);
  const int end = min(num_bins, begin + each);
  Word mine = 0;
  for (int b = begin; b < end; b++) mine += shared.weights[b];
  Word above = warp_prefix(mine);
  const int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 31) shared.row.warps[warp] = above;
  __syncthreads();
  Word total = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / 32; w++) {
    if (w < warp) above += shared.row.warps[w];
    total += shared.row.warps[w];
  }
  above -= mine;
  if (is_first) {
    search.target = course.is_by_mass(taken) ? share_of(total, p.top_p) : Word(p.top_k);
  }
  __syncthreads();
  if (total < search.target) return decide(search);
  for (int b = begin; b < end; b++) {
    const Word weight = shared.weights[b];
    if (above < search.target && above + weight >= search.target) {
      shared.row.chosen = b;
      shared.row.above_chosen = above;
    }
    above += weight;
  }
  __syncthreads();
  const int bin = static_cast<int>(shared.row.chosen);
  search.target -= shared.row.above_chosen;
  if (!is_first) {
    const int shift = shift_of(search);
    search.high -= static_cast<uint32_t>(bin) << shift;
    const uint32_t width = (1u << shift) - 1;
    if (search.high - search.low > width) search.low = search.high - width;
    return;
  }
  const FirstBins bins(z_max, search.high);
  for (int e = threadIdx.x; e < kBins; e += blockDim.x) {
    uint32_t low = search.low;
    uint32_t high = search.high;
    if (!bins.narrow(bin, e, low, high)) continue;
    shared.low = low;
    shared.high = high;
  }
  __syncthreads();
  search.low = shared.low;
  search.high = shared.high;
}

/**
 * Where the row's search is before the step `taken` of its own, or behind the last; `step` has the
 * slots of the one before. All threads of the block; barriers of it.
 */
__device__ inline Search search_before(const ShardParams& params, const SearchStep& step, int index,
                                       const Course& course, float z_max, SearchShared& shared) {
  Search search = search_of(params, index);
  const int taken = course.taken();
  if (taken <= 0 || !course.is_searched()) {
    begin_search(search, course, shared.row.params.min_p, z_max);
    return search;
  }
  if (search.low <= search.high) {
    const bool was_last = step.index == step.count;
    add_told(params, step.before, index, was_last ? kLastWeights : 0,
             Course::is_first(taken - 1) ? kFirstBins : kStepBins, shared.weights);
    narrow(search, course, taken - 1, z_max, shared);
  }
  if (course.begins_mass(taken)) begin_selection(search, z_max);
  return search;
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_SEARCH_CUH_
