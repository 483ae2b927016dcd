// Scalar conversions between f32 and the 16-bit formats, to nearest, ties to even.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../dtype.h"

namespace vt {

inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float float_of(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline float bf16_to_f32(std::uint16_t x) { return float_of(static_cast<std::uint32_t>(x) << 16); }

inline std::uint16_t f32_to_bf16(float x) {
  const std::uint32_t bits = bits_of(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float f16_to_f32(std::uint16_t x) {
  const std::uint32_t sign = (x & 0x8000u) << 16, magnitude = x & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_of(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  return float_of(sign | bits_of(float_of(magnitude << 13) * 5.192296858534828e33f));  // 2^112
}

inline std::uint16_t f32_to_f16(float x) {
  const std::uint32_t sign = (bits_of(x) >> 16) & 0x8000u;
  const float magnitude = std::fabs(x);
  if (magnitude != magnitude) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 65520.0f) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (magnitude < 6.103515625e-05f)  // subnormal: units of 2^-24
    return static_cast<std::uint16_t>(
        sign | static_cast<std::uint32_t>(std::nearbyint(magnitude * 16777216.0f)));
  const std::uint32_t bits = bits_of(magnitude);
  const std::uint32_t rounded = bits + 0xfffu + ((bits >> 13) & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - (112u << 23)) >> 13));
}

/// Element i of an array of `dtype` (a float format), widened.
inline float load_float(const char* data, Dtype dtype, std::int64_t i) {
  if (dtype == Dtype::f32) {
    float x;
    std::memcpy(&x, data + 4 * i, sizeof x);
    return x;
  }
  std::uint16_t x;
  std::memcpy(&x, data + 2 * i, sizeof x);
  return dtype == Dtype::bf16 ? bf16_to_f32(x) : f16_to_f32(x);
}

inline void store_float(char* data, Dtype dtype, std::int64_t i, float value) {
  if (dtype == Dtype::f32) {
    std::memcpy(data + 4 * i, &value, sizeof value);
    return;
  }
  const std::uint16_t x = dtype == Dtype::bf16 ? f32_to_bf16(value) : f32_to_f16(value);
  std::memcpy(data + 2 * i, &x, sizeof x);
}

}  // namespace vt
