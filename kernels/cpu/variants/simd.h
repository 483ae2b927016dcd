// The vector type that every CPU kernel is written in, one definition per instruction set: AVX-512
// (16 lanes), AVX2 with FMA and F16C (8), or the compiler's generic vectors (4), which any target
// can compile. Kernels differ between instruction sets in lanes and in whether vfma rounds once;
// everything else is the same source. Everything here lives in the variant's own namespace and
// nothing of the standard library is used, so that no code compiled with special flags can be
// picked by the linker for the rest of the addon.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#if !defined(__clang__)
// GCC's own AVX-512 headers set off this warning.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#endif

#include "../../dtype.h"

#define VT_INLINE inline __attribute__((always_inline))
#define VT_UNROLL _Pragma("GCC unroll 32")

namespace vt {
namespace VT_VARIANT {

#if defined(__AVX512F__)

typedef __m512 vf;
typedef __m512i vi;
constexpr int kLanes = 16;

VT_INLINE vf vzero() { return _mm512_setzero_ps(); }
VT_INLINE vf vset(float x) { return _mm512_set1_ps(x); }
VT_INLINE vf vload(const float* p) { return _mm512_loadu_ps(p); }
VT_INLINE void vstore(float* p, vf x) { _mm512_storeu_ps(p, x); }
VT_INLINE vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
VT_INLINE vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
VT_INLINE vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
VT_INLINE vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
VT_INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
VT_INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
VT_INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
VT_INLINE vf vround(vf x) { return _mm512_roundscale_ps(x, 8); }
/// value where x >= bound or x is NaN, else 0
VT_INLINE vf vselect_below(vf x, vf bound, vf value) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ), value);
}
VT_INLINE bool vany_at_least(vf x, vf bound) {
  return _mm512_cmp_ps_mask(x, bound, _CMP_GE_OQ) != 0;
}
VT_INLINE vf vpow2(vf n) {
  const vi bits = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 23));
}
VT_INLINE void vload_bf16_pair(const void* p, vf& low, vf& high) {
  const vi x = _mm512_loadu_si512(p);
  low = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
  high = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
VT_INLINE vf vload_bf16(const void* p) {
  const __m256i x = _mm256_loadu_si256(static_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
VT_INLINE vf vload_f16(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}

#elif defined(__AVX2__)

typedef __m256 vf;
typedef __m256i vi;
constexpr int kLanes = 8;

VT_INLINE vf vzero() { return _mm256_setzero_ps(); }
VT_INLINE vf vset(float x) { return _mm256_set1_ps(x); }
VT_INLINE vf vload(const float* p) { return _mm256_loadu_ps(p); }
VT_INLINE void vstore(float* p, vf x) { _mm256_storeu_ps(p, x); }
VT_INLINE vf vadd(vf a, vf b) { return _mm256_add_ps(a, b); }
VT_INLINE vf vsub(vf a, vf b) { return _mm256_sub_ps(a, b); }
VT_INLINE vf vmul(vf a, vf b) { return _mm256_mul_ps(a, b); }
VT_INLINE vf vdiv(vf a, vf b) { return _mm256_div_ps(a, b); }
VT_INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
VT_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
VT_INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
VT_INLINE vf vround(vf x) { return _mm256_round_ps(x, 8); }
/// value where x >= bound or x is NaN, else 0
VT_INLINE vf vselect_below(vf x, vf bound, vf value) {
  return _mm256_and_ps(value, _mm256_cmp_ps(x, bound, _CMP_NLT_UQ));
}
VT_INLINE bool vany_at_least(vf x, vf bound) {
  return _mm256_movemask_ps(_mm256_cmp_ps(x, bound, _CMP_GE_OQ)) != 0;
}
VT_INLINE vf vpow2(vf n) {
  const vi bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
}
VT_INLINE void vload_bf16_pair(const void* p, vf& low, vf& high) {
  const vi x = _mm256_loadu_si256(static_cast<const vi*>(p));
  low = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
  high = _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
VT_INLINE vf vload_bf16(const void* p) {
  const __m128i x = _mm_loadu_si128(static_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
VT_INLINE vf vload_f16(const void* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}

#else

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));
typedef uint16_t vh __attribute__((vector_size(8)));
constexpr int kLanes = 4;

// A C cast between vector types of one size keeps the bits.
VT_INLINE vf vselect(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
VT_INLINE vf vzero() { return vf{}; }
VT_INLINE vf vset(float x) { return vf{x, x, x, x}; }
VT_INLINE vf vload(const float* p) {
  vf x;
  memcpy(&x, p, sizeof x);
  return x;
}
VT_INLINE void vstore(float* p, vf x) { memcpy(p, &x, sizeof x); }
VT_INLINE vf vadd(vf a, vf b) { return a + b; }
VT_INLINE vf vsub(vf a, vf b) { return a - b; }
VT_INLINE vf vmul(vf a, vf b) { return a * b; }
VT_INLINE vf vdiv(vf a, vf b) { return a / b; }
VT_INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
// As x86 has it: the second operand where one is NaN.
VT_INLINE vf vmax(vf a, vf b) { return vselect(a > b, a, b); }
VT_INLINE vf vmin(vf a, vf b) { return vselect(a < b, a, b); }
VT_INLINE vf vround(vf x) {  // |x| < 2^22
  const vf magic = vset(12582912.0f);
  return (x + magic) - magic;
}
/// value where x >= bound or x is NaN, else 0
VT_INLINE vf vselect_below(vf x, vf bound, vf value) { return vselect(x < bound, vzero(), value); }
VT_INLINE bool vany_at_least(vf x, vf bound) {
  const vi mask = x >= bound;
  return (mask[0] | mask[1] | mask[2] | mask[3]) != 0;
}
VT_INLINE vf vpow2(vf n) { return (vf)((__builtin_convertvector(n, vi) + 127) << 23); }
VT_INLINE void vload_bf16_pair(const void* p, vf& low, vf& high) {
  vu x;
  memcpy(&x, p, sizeof x);
  low = (vf)(x << 16);
  high = (vf)(x & 0xffff0000u);
}
VT_INLINE vu vload_u16(const void* p) {
  vh x;
  memcpy(&x, p, sizeof x);
  return __builtin_convertvector(x, vu);
}
VT_INLINE vf vload_bf16(const void* p) { return (vf)(vload_u16(p) << 16); }
VT_INLINE vf vload_f16(const void* p) {
  const vu x = vload_u16(p);
  // The exponent is rebased by a multiplication, which also makes subnormals right.
  const vf magnitude = (vf)((x & 0x7fffu) << 13) * vset(5.192296858534828e33f);  // 2^112
  const vu special = (vu)((x & 0x7c00u) == 0x7c00u) & 0x7f800000u;
  return (vf)((vu)magnitude | special | ((x & 0x8000u) << 16));
}

#endif

/// Sum of the lanes by one tree: halves are added until one lane is left.
VT_INLINE float hsum(vf x) {
  float a[kLanes];
  vstore(a, x);
  VT_UNROLL
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) a[i] = a[i] + a[i + width];
  return a[0];
}

VT_INLINE float hmax(vf x) {
  float a[kLanes];
  vstore(a, x);
  VT_UNROLL
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) a[i] = a[i] > a[i + width] ? a[i] : a[i + width];
  return a[0];
}

/// e^x within 1 ulp or so for x in [-87, 88], clamped outside; exp(0) is exactly 1; NaN stays.
VT_INLINE vf vexp(vf x) {
  x = vmin(vset(88.0f), vmax(vset(-87.3f), x));
  const vf n = vround(vmul(x, vset(1.44269504088896341f)));
  // x - n ln2, ln2 in two parts
  vf r = vfma(n, vset(-0.693359375f), x);
  r = vfma(n, vset(2.12194440e-4f), r);
  vf p = vset(1.9875691500e-4f);
  p = vfma(p, r, vset(1.3981999507e-3f));
  p = vfma(p, r, vset(8.3334519073e-3f));
  p = vfma(p, r, vset(4.1665795894e-2f));
  p = vfma(p, r, vset(1.6666665459e-1f));
  p = vfma(p, r, vset(5.0000001201e-1f));
  p = vadd(vfma(p, vmul(r, r), r), vset(1.0f));
  return vmul(p, vpow2(n));
}

/// Widens kLanes elements of `dtype` in their order.
template <Dtype dtype>
VT_INLINE vf vload_as(const void* p) {
  if constexpr (dtype == Dtype::f32) return vload(static_cast<const float*>(p));
  if constexpr (dtype == Dtype::bf16) return vload_bf16(p);
  if constexpr (dtype == Dtype::f16) return vload_f16(p);
}

/// Widens 2 * kLanes elements of one k of a weight panel (see kernels/cpu/pack.h).
template <Dtype dtype>
VT_INLINE void vload_panel(const char* p, vf& low, vf& high) {
  if constexpr (dtype == Dtype::f32) {
    low = vload(reinterpret_cast<const float*>(p));
    high = vload(reinterpret_cast<const float*>(p) + kLanes);
  } else if constexpr (dtype == Dtype::bf16) {
    vload_bf16_pair(p, low, high);
  } else {
    low = vload_f16(p);
    high = vload_f16(p + 2 * kLanes);
  }
}

}  // namespace VT_VARIANT
}  // namespace vt
