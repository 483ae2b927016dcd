// Masks, bias and penalties: section 3 of docs/sampling.md. The blocks share the work of reading
// the row's history and lists once, and mark in a word for each id what happens to it; the words
// lie where the logits will.
#ifndef VT_CUDA_SAMPLE_EDIT_CUH_
#define VT_CUDA_SAMPLE_EDIT_CUH_

#include "sample_scan.cuh"

namespace vt {
namespace sample {

/** An id's word: how often it was generated, and these. */
constexpr uint32_t kInPrompt = 1u << 31;
constexpr uint32_t kMasked = 1u << 30;
constexpr uint32_t kBiased = 1u << 29;
constexpr uint32_t kAllowed = 1u << 28;
constexpr uint32_t kCount = kAllowed - 1;

__device__ __forceinline__ bool below_min_tokens(const Shared& shared) {
  return below_min_tokens(shared.params, shared.num_tokens);
}

__device__ __forceinline__ bool has_edits(const Shared& shared) {
  return has_edits(shared.params, shared.num_tokens);
}

/** Reaches the word of any id of the row, in whichever block it lies. */
class Marks {
 public:
  __device__ explicit Marks(const Row& row)
      : words_(reinterpret_cast<uint32_t*>(row.z)),
        ids_per_block_(row.num_tiles * kTile),
        first_(row.first),
        vocab_size_(row.vocab_size) {}

  __device__ void set(int id, uint32_t bits) const {
    if (valid(id)) or_to(rank(id), word(id), bits);
  }
  __device__ void count(int id) const {
    if (valid(id)) add_to(rank(id), word(id), 1);
  }

 private:
  __device__ bool valid(int id) const { return id >= first_ && id < vocab_size_; }
  __device__ int rank(int id) const { return (id - first_) / ids_per_block_; }
  __device__ uint32_t* word(int id) const {
    return words_ + (id - first_ - rank(id) * ids_per_block_);
  }

  uint32_t* words_;
  int ids_per_block_, first_, vocab_size_;
};

/** Whether all ids of a word but the last are the tail of the generated tokens. */
__device__ inline bool is_next(const int32_t* word, int length, const int32_t* history,
                               const Shared& shared) {
  const int prefix = length - 1;
  if (prefix > shared.num_tokens - shared.params.num_prompt_tokens) return false;
  const int32_t* tail = history + shared.num_tokens - prefix;
  for (int i = 0; i < prefix; i++) {
    if (word[i] != tail[i]) return false;
  }
  return true;
}

/** Marks all that section 3 names; the words are zero before. Every thread of the cluster. */
__device__ inline void mark(const Row& row, const int32_t* history) {
  const Shared& shared = *row.shared;
  const VtCudaRowParams& p = shared.params;
  const Marks marks(row);
  const int first = row.rank * static_cast<int>(blockDim.x) + threadIdx.x;
  const int step = row.num_blocks * static_cast<int>(blockDim.x);
  const bool repetition = p.repetition_penalty != 1.0f;
  if (repetition || p.frequency_penalty != 0.0f || p.presence_penalty != 0.0f) {
    const int prompt = p.num_prompt_tokens;
    for (int i = (repetition ? 0 : prompt) + first; i < shared.num_tokens; i += step) {
      if (i < prompt) {
        marks.set(history[i], kInPrompt);
      } else {
        marks.count(history[i]);
      }
    }
  }
  for (int i = first; i < p.num_allowed_ids; i += step) marks.set(p.allowed_ids[i], kAllowed);
  for (int i = first; i < p.num_biases; i += step) marks.set(p.bias_ids[i], kBiased);
  if (below_min_tokens(shared)) {
    for (int i = first; i < p.num_stop_ids; i += step) marks.set(p.stop_ids[i], kMasked);
  }
  for (int i = first; i < p.num_bad_words; i += step) {
    const int32_t* word = p.bad_word_ids + p.bad_word_starts[i];
    const int length = p.bad_word_starts[i + 1] - p.bad_word_starts[i];
    if (length > 0 && is_next(word, length, history, shared)) {
      marks.set(word[length - 1], kMasked);
    }
  }
}

/** The biases of this block's ids, in their order, to Shared::biases. The first warp. */
__device__ inline void list_biases(const Row& row) {
  Shared& shared = *row.shared;
  const VtCudaRowParams& p = shared.params;
  const int lane = threadIdx.x;
  int listed = 0;
  for (int base = 0; base < p.num_biases; base += 32) {
    const int i = base + lane;
    const int id = i < p.num_biases ? p.bias_ids[i] : -1;
    const bool here = id >= row.begin && id < row.begin + row.count;
    const uint32_t found = __ballot_sync(~0u, here);
    const int at = listed + __popc(found & ((1u << lane) - 1));
    if (here && at < kMaxBiases) {
      shared.biases.ids[at] = id;
      shared.biases.values[at] = p.biases[i];
    }
    listed += __popc(found);
  }
  if (lane == 0) shared.num_listed = listed;
}

__device__ __noinline__ inline float biased(float z, int id, const Shared& shared) {
  const bool listed = shared.num_listed <= kMaxBiases;
  const int n = listed ? shared.num_listed : shared.params.num_biases;
  const int32_t* ids = listed ? shared.biases.ids : shared.params.bias_ids;
  const float* values = listed ? shared.biases.values : shared.params.biases;
  for (int i = 0; i < n; i++) {
    if (ids[i] == id) z = __fadd_rn(z, fminf(100.0f, fmaxf(-100.0f, values[i])));
  }
  return z;
}

__device__ __noinline__ inline float edited(float x, int id, uint32_t word, const Shared& shared) {
  const VtCudaRowParams& p = shared.params;
  if ((word & kMasked) != 0 || (p.num_allowed_ids > 0 && (word & kAllowed) == 0)) return -INFINITY;
  float z = (word & kBiased) != 0 ? biased(x, id, shared) : x;
  const uint32_t count = word & kCount;
  if (p.repetition_penalty != 1.0f && ((word & kInPrompt) != 0 || count != 0)) {
    z = z > 0.0f ? __fdiv_rn(z, p.repetition_penalty) : __fmul_rn(z, p.repetition_penalty);
  }
  if (count != 0) {
    if (p.frequency_penalty != 0.0f) {
      z = __fsub_rn(z, __fmul_rn(p.frequency_penalty, static_cast<float>(count)));
    }
    if (p.presence_penalty != 0.0f) z = __fsub_rn(z, p.presence_penalty);
  }
  return z;
}

/** As scan_logits, with section 3 applied. Barriers of the cluster. */
__device__ inline Word scan_edited(Row& row, const int32_t* history) {
  const int whole = whole_groups(row);
  if (threadIdx.x == 0 && whole > 0) prefetch_bulk(row.logits + row.begin, 16 * whole);
  uint4* words = reinterpret_cast<uint4*>(row.z);
  for (int i = threadIdx.x; i < row.num_tiles * kTile / 4; i += blockDim.x) {
    words[i] = make_uint4(0, 0, 0, 0);
  }
  cluster_sync();
  mark(row, history);
  if (threadIdx.x < 32) list_biases(row);
  cluster_sync();
  const Shared& shared = *row.shared;
  // With allowed ids, ids without a mark change too.
  const uint32_t all = shared.params.num_allowed_ids > 0 ? kMasked : 0;
  float4* groups = reinterpret_cast<float4*>(row.z);
  Scan scan;
#pragma unroll 2
  for (int i = threadIdx.x; 4 * i < row.count; i += blockDim.x) {
    float4 x = load_group(row, i, whole);
    scan.check(x);
    const uint4 word = words[i];
    if ((word.x | word.y | word.z | word.w | all) != 0) {
      const int id = row.begin + 4 * i;
      x = make_float4(edited(x.x, id, word.x, shared), edited(x.y, id + 1, word.y, shared),
                      edited(x.z, id + 2, word.z, shared), edited(x.w, id + 3, word.w, shared));
    }
    groups[i] = x;
    scan.add(x, i);
  }
  fence_async();  // the logits may be copied over z, for logprobs
  return scan.result(row);
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_EDIT_CUH_
