// A value and its id as one word, so that the best of many is the greatest of their words.
#ifndef VT_CUDA_SAMPLE_WORDS_CUH_
#define VT_CUDA_SAMPLE_WORDS_CUH_

#include "common.cuh"

namespace vt {
namespace sample {

using Word = unsigned long long;

/** Floats in the order of unsigned numbers; -0 equals 0. */
__device__ __forceinline__ uint32_t key_of(float value) {
  const uint32_t bits = __float_as_uint(__fadd_rn(value, 0.0f));
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float value_of(uint32_t key) {
  return __uint_as_float(key >> 31 != 0 ? key & 0x7fffffffu : ~key);
}

/** Orders (value, id) as one number: the greater value, then the lower id. */
__device__ __forceinline__ Word ranked(float value, int id) {
  return static_cast<Word>(key_of(value)) << 32 | ~static_cast<uint32_t>(id);
}
__device__ __forceinline__ float ranked_value(Word word) { return value_of(word >> 32); }
__device__ __forceinline__ int ranked_id(Word word) {
  return static_cast<int>(~static_cast<uint32_t>(word));
}

/** Below all that is ranked, and above. */
constexpr Word kNone = 0;
constexpr Word kUnfit = ~0ull;
/** In place of a row's best ids: it has none, its logits are there. Nothing is ranked so. */
constexpr Word kHasLogits = 1;

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_WORDS_CUH_
