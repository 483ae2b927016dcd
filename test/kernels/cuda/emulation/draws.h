// Made-up cases of a seed: the same on every machine.
#ifndef VT_TEST_EMULATION_DRAWS_H_
#define VT_TEST_EMULATION_DRAWS_H_

#include <cstdint>

class Draws {
 public:
  explicit Draws(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 1) {}
  uint32_t below(uint32_t bound) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33) % bound;
  }
  bool one_in(uint32_t n) { return below(n) == 0; }
  float unit() { return static_cast<float>(below(1 << 24)) * 0x1p-24f; }

 private:
  uint64_t state_;
};

#endif  // VT_TEST_EMULATION_DRAWS_H_
