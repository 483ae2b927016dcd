// The draw: the argmax of z plus Gumbel noise. Noise has an upper bound, so an id whose z plus that
// bound stays below the best value so far needs none; starting from a likely id, few are left.
#include <algorithm>
#include <cmath>

#include "philox.h"
#include "sampler.h"

namespace vt {

namespace {

/// Above -ln(-ln(1 - 2^-24)), the noise of the greatest u.
constexpr float kMaxNoise = 16.75f;

float gumbel(std::uint32_t word) {
  const float u = (static_cast<float>(word >> 9) + 0.5f) * 1.1920928955078125e-07f;  // 2^-23
  return -std::log(-std::log(u));
}

}  // namespace

Drawn draw(const KernelTable& kernels, std::uint64_t seed, int position, const float* z,
           const IdsOfZ& ids, int num_ids, float threshold, std::int32_t likely) {
  const auto value_of = [&](std::int32_t i) {
    const auto id = static_cast<std::uint32_t>(ids[i]);
    const PhiloxWords words = philox(seed, static_cast<std::uint32_t>(position), id >> 2);
    return z[i] + gumbel(words.word[id & 3]);
  };
  Drawn best = {likely, value_of(likely)};
  for (std::int32_t i = 0;; i++) {
    i = kernels.find_at_least(z, i, num_ids, std::max(threshold, best.value - kMaxNoise));
    if (i >= num_ids) return best;
    if (z[i] == -INFINITY) continue;
    const float value = value_of(i);
    if (value > best.value || (value == best.value && i < best.index)) best = {i, value};
  }
}

}  // namespace vt
