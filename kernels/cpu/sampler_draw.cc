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

std::int32_t draw(const KernelTable& kernels, std::uint64_t seed, int position, const float* z,
                  int vocab_size, float threshold, std::int32_t likely) {
  const auto value_of = [&](std::int32_t id) {
    const PhiloxWords words =
        philox(seed, static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(id) >> 2);
    return z[id] + gumbel(words.word[id & 3]);
  };
  std::int32_t best_id = likely;
  float best = value_of(likely);
  for (std::int32_t id = 0;; id++) {
    id = kernels.find_at_least(z, id, vocab_size, std::max(threshold, best - kMaxNoise));
    if (id >= vocab_size) return best_id;
    if (z[id] == -INFINITY) continue;
    const float value = value_of(id);
    if (value > best || (value == best && id < best_id)) {
      best = value;
      best_id = id;
    }
  }
}

}  // namespace vt
