// Logprobs of raw logits, section 1 of docs/sampling.md: a sum of exponentials over tiles of 1,024
// ids, the rank of an id, and the alternatives: ids that the row names, or the best ones, which
// each warp lists for itself and block 0 merges.
#ifndef VT_CUDA_SAMPLE_LOGPROBS_CUH_
#define VT_CUDA_SAMPLE_LOGPROBS_CUH_

#include "sample.cuh"

namespace vt {
namespace sample {

/** Of a warp's list: a lane has every 32nd entry. One is as much as 32 of the best take. */
constexpr int kMostKept = VT_CUDA_MAX_LOGPROBS / 32;

/** Bytes of the lists of a block, over the start of row.z. */
inline size_t list_bytes(int threads, int num_top) {
  return static_cast<size_t>(threads / 32) * (num_top > 0 ? num_top : 0) * sizeof(Word);
}

/**
 * Row.z must hold the logits as they are. Every method with a barrier: all of the cluster. Lists of
 * up to 32 * kKept.
 */
template <int kKept>
class Logprobs {
 public:
  /**
   * Of logits row `index` of the step, whose greatest logit is `max`. `num_named` > 0: the row
   * names so many ids; its row of the table is `table_row`.
   */
  __device__ Logprobs(const Row& row, const VtCudaSample& args, int index, float max, int table_row,
                      int num_named)
      : row_(row),
        shared_(*row.shared),
        args_(args),
        index_(index),
        max_(max),
        table_row_(table_row),
        num_named_(num_named),
        num_top_(row.shared->judged_id >= 0
                     ? args.num_top
                     : min(args.num_top, row.shared->params.num_logprobs)),
        lane_(threadIdx.x % 32),
        warp_(threadIdx.x / 32),
        num_warps_(blockDim.x / 32) {}

  /** Writes all that the step returns for `id`. Barriers of the cluster. */
  __device__ void write(int id) {
    const float x = row_.logits[id];
    add_up(x);
    const bool has_list = num_top_ > 0 && num_named_ == 0;
    if (has_list) list_best();
    cluster_sync();
    if (row_.rank == 0 && warp_ == 0) {
      const double log_sum = log(total());
      if (lane_ == 0) {
        args_.logprobs[index_] = logprob(x, log_sum);
        args_.ranks[index_] = 1 + static_cast<int>(shared_.num_greater);
      }
      if (has_list) merge(log_sum);
      if (num_named_ > 0) write_named(log_sum);
    }
    cluster_sync();  // block 0 has read the others' lists
  }

 private:
  __device__ float logprob(float x, double log_sum) const {
    return static_cast<float>((static_cast<double>(x) - static_cast<double>(max_)) - log_sum);
  }

  /** Tile sums, and how many logits are greater than x, to block 0. */
  __device__ void add_up(float x) {
    unsigned greater = 0;
    for (int t = warp_; t * kTile < row_.count; t += num_warps_) {
      double sum = 0;
#pragma unroll 8
      for (int i = t * kTile + lane_; i < min(row_.count, (t + 1) * kTile); i += 32) {
        const float z = row_.z[i];
        sum += static_cast<double>(expf(__fsub_rn(z, max_)));
        greater += z > x ? 1 : 0;
      }
#pragma unroll
      for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
      if (lane_ == 0) {
        double* to = &shared_.tile_sums[row_.rank * row_.num_tiles + t];
        store_in_cluster(address_in(shared_address(to), 0), __double_as_longlong(sum));
      }
    }
    greater = __reduce_add_sync(~0u, greater);
    if (lane_ == 0) add_in_cluster(address_in(shared_address(&shared_.num_greater), 0), greater);
  }

  __device__ double total() const {
    double sum = 0;
#pragma unroll 8
    for (int t = 0; t * kTile < row_.vocab_size; t++) sum += shared_.tile_sums[t];
    return sum;
  }

  /** Each warp's best ids, best first, over the start of row.z. */
  __device__ void list_best() {
    Word best = kNone;
#pragma unroll 4
    for (int i = threadIdx.x; i < row_.count; i += blockDim.x) best = max(best, at(i));
    Word kept[kKept];
#pragma unroll
    for (int q = 0; q < kKept; q++) {
      kept[q] = kNone;
      const int end = kKept == 1 ? num_top_ : min(num_top_ - 32 * q, 32);
      for (int k = 0; k < end; k++) {
        const Word top = warp_max(best);
        if (lane_ == k) kept[q] = top;
        if (top == kNone) continue;
        // The lane that had it needs its next: the warp looks through that lane's ids.
        const int owner = __ffs(__ballot_sync(~0u, best == top)) - 1;
        Word next = kNone;
        for (int i = warp_ * 32 + owner + lane_ * blockDim.x; i < row_.count;
             i += 32 * blockDim.x) {
          const Word word = at(i);
          if (word < top) next = max(next, word);
        }
        next = warp_max(next);
        if (lane_ == owner) best = next;
      }
    }
    __syncthreads();
#pragma unroll
    for (int q = 0; q < kKept; q++) {
      const int k = 32 * q + lane_;
      if (k < num_top_) lists()[warp_ * num_top_ + k] = kept[q];
    }
  }

  /** By one warp: of each id that the row names. Ids outside the vocabulary have none. */
  __device__ void write_named(double log_sum) const {
    const int32_t* ids = shared_.params.logprob_ids;
    float* to = args_.named_logprobs + static_cast<int64_t>(table_row_) * args_.num_named;
    for (int i = lane_; i < num_named_; i += 32) {
      const int id = ids[i];
      const bool has = id >= 0 && id < row_.vocab_size;
      to[i] = has ? logprob(row_.logits[id], log_sum) : -INFINITY;
    }
  }

  __device__ Word at(int i) const { return ranked(row_.z[i], row_.begin + i); }

  __device__ void merge(double log_sum) const {
    constexpr int kLists = kMaxCluster * kMaxWarps / 32;  // of a lane
    const int num_lists = row_.num_blocks * num_warps_;
    const int num_top = num_top_;
    Word heads[kLists];
    int taken[kLists];
#pragma unroll
    for (int q = 0; q < kLists; q++) {
      taken[q] = 0;
      heads[q] = lane_ + 32 * q < num_lists ? entry(lane_ + 32 * q, 0) : kNone;
    }
    for (int k = 0; k < num_top; k++) {
      Word best = kNone;
#pragma unroll
      for (int q = 0; q < kLists; q++) best = max(best, heads[q]);
      best = warp_max(best);
      if (lane_ == 0) {
        const int64_t at = static_cast<int64_t>(index_) * args_.num_top + k;
        args_.top_ids[at] = best == kNone ? -1 : ranked_id(best);
        args_.top_logprobs[at] =
            best == kNone ? -INFINITY : logprob(ranked_value(best), log_sum);
      }
#pragma unroll
      for (int q = 0; q < kLists; q++) {
        if (best == kNone || heads[q] != best) continue;
        taken[q]++;
        heads[q] = taken[q] < num_top ? entry(lane_ + 32 * q, taken[q]) : kNone;
      }
    }
  }

  __device__ Word* lists() const { return reinterpret_cast<Word*>(row_.z); }

  /** Entry k of a list of the cluster. */
  __device__ Word entry(int list, int k) const {
    const int rank = list / num_warps_;
    const Word* at = lists() + (list - rank * num_warps_) * num_top_ + k;
    return load_of(rank, at);
  }

  const Row& row_;
  Shared& shared_;
  const VtCudaSample& args_;
  const int index_;
  const float max_;
  const int table_row_, num_named_;
  const int num_top_;  // of the row's own list; that of a prompt token has all there is room for
  const int lane_, warp_, num_warps_;
};

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_LOGPROBS_CUH_
