// The best ids of a row, best first: each warp of its cluster lists its own, block 0 merges the
// lists. What a list is for, and where it goes, is the caller's.
#ifndef VT_CUDA_SAMPLE_BEST_IDS_CUH_
#define VT_CUDA_SAMPLE_BEST_IDS_CUH_

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
 * By one warp: emit(k, word), in all lanes, with the k-th best of `num_lists` <= 32 * kLists lists
 * of `length` entries, each best first; entry(list, k) reads one. kNone where there are no more.
 */
template <int kLists, typename Entry, typename Emit>
__device__ __forceinline__ void merge_lists(int num_lists, int length, const Entry& entry,
                                            const Emit& emit) {
  const int lane = threadIdx.x % 32;
  Word heads[kLists];
  int taken[kLists];
#pragma unroll
  for (int q = 0; q < kLists; q++) {
    taken[q] = 0;
    heads[q] = lane + 32 * q < num_lists ? entry(lane + 32 * q, 0) : kNone;
  }
  for (int k = 0; k < length; k++) {
    Word best = kNone;
#pragma unroll
    for (int q = 0; q < kLists; q++) best = max(best, heads[q]);
    best = warp_max(best);
    emit(k, best);
#pragma unroll
    for (int q = 0; q < kLists; q++) {
      if (best == kNone || heads[q] != best) continue;
      taken[q]++;
      heads[q] = taken[q] < length ? entry(lane + 32 * q, taken[q]) : kNone;
    }
  }
}

/** Of the logits in row.z, which must lie there as they are. Lists of up to 32 * kKept. */
template <int kKept>
class BestIds {
 public:
  __device__ BestIds(const Row& row, int num_top)
      : row_(row),
        num_top_(num_top),
        lane_(threadIdx.x % 32),
        warp_(threadIdx.x / 32),
        num_warps_(blockDim.x / 32) {}

  /** Each warp's, over the start of row.z. All threads of the block; barriers of it. */
  __device__ void list() const {
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

  /** By a warp of block 0, after a barrier of the cluster, and before another. See merge_lists. */
  template <typename Emit>
  __device__ void merge(const Emit& emit) const {
    const auto entry = [&](int list, int k) {
      const int rank = list / num_warps_;
      return load_of(rank, lists() + (list - rank * num_warps_) * num_top_ + k);
    };
    merge_lists<kMaxCluster * kMaxWarps / 32>(row_.num_blocks * num_warps_, num_top_, entry, emit);
  }

 private:
  __device__ Word at(int i) const { return ranked(row_.z[i], row_.begin + i); }
  __device__ Word* lists() const { return reinterpret_cast<Word*>(row_.z); }

  const Row& row_;
  const int num_top_;
  const int lane_, warp_, num_warps_;
};

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_BEST_IDS_CUH_
