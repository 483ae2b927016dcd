// Numbers in registers: dtypes and their packed pairs, and instructions on one value that C has no
// name for. Part of common.cuh.
#ifndef VT_CUDA_NUMBERS_CUH_
#define VT_CUDA_NUMBERS_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace vt {

template <typename T>
__device__ __forceinline__ float to_f32(T value) {
  if constexpr (sizeof(T) == 4) {
    return value;
  } else if constexpr (std::is_same_v<T, __half>) {
    return __half2float(value);
  } else {
    return __bfloat162float(value);
  }
}

template <typename T>
__device__ __forceinline__ T from_f32(float value) {
  if constexpr (sizeof(T) == 4) {
    return value;
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(value);
  } else {
    return __float2bfloat16_rn(value);
  }
}

/** Two neighbours as one 32-bit word, the first in the low half. */
template <typename T>
__device__ __forceinline__ uint32_t pack2(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<uint32_t*>(&pair);
  } else {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t*>(&pair);
  }
}

template <typename T>
__device__ __forceinline__ float2 unpack2(uint32_t word) {
  if constexpr (std::is_same_v<T, __half>) {
    return __half22float2(*reinterpret_cast<__half2*>(&word));
  } else {
    return __bfloat1622float2(*reinterpret_cast<__nv_bfloat162*>(&word));
  }
}

/** Eight neighbours, 16 bytes in memory. */
template <typename T>
__device__ __forceinline__ void load8(const T* from, float (&values)[8]) {
  const uint4 words = *reinterpret_cast<const uint4*>(from);
  const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 pair = unpack2<T>(pairs[i]);
    values[2 * i] = pair.x;
    values[2 * i + 1] = pair.y;
  }
}

/** The same of 32 bytes. */
__device__ __forceinline__ void load8(const float* from, float (&values)[8]) {
  const float4 low = reinterpret_cast<const float4*>(from)[0];
  const float4 high = reinterpret_cast<const float4*>(from)[1];
  const float all[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
  for (int e = 0; e < 8; e++) values[e] = all[e];
}

/** load8 of words that were read before. */
template <typename T>
__device__ __forceinline__ void unpack8(const uint4& words, float (&values)[8]) {
  load8(reinterpret_cast<const T*>(&words), values);
}

template <typename T>
__device__ __forceinline__ void store8(T* to, const float (&values)[8]) {
  *reinterpret_cast<uint4*>(to) =
      make_uint4(pack2<T>(values[0], values[1]), pack2<T>(values[2], values[3]),
                 pack2<T>(values[4], values[5]), pack2<T>(values[6], values[7]));
}

__device__ __forceinline__ void add8(float (&sum)[8], const float (&more)[8]) {
#pragma unroll
  for (int e = 0; e < 8; e++) sum[e] = __fadd_rn(sum[e], more[e]);
}

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/** Of a normal number. */
__device__ __forceinline__ float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/** a * b, as (low, high). Not by 64-bit C, of which the compiler adds zero to each high half. */
__device__ __forceinline__ uint2 mul_wide(uint32_t a, uint32_t b) {
  uint2 product;
  asm("{\n"
      ".reg .u64 product;\n"
      "mul.wide.u32 product, %2, %3;\n"
      "mov.b64 {%0, %1}, product;\n"
      "}\n"
      : "=r"(product.x), "=r"(product.y)
      : "r"(a), "r"(b));
  return product;
}

/** NaN if either is. */
__device__ __forceinline__ float max_or_nan(float a, float b) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}

__device__ __forceinline__ float rcp_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace vt

#endif  // VT_CUDA_NUMBERS_CUH_
