// What a kernel's source has of CUDA itself, for the emulated block: its keywords, types, intrinsics
// and warp functions. Names of our own are in device.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "block.h"
#include "memory.h"

#define __device__
#define __host__
#define __global__
#define __shared__ thread_local
#define __grid_constant__
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

/// `first_block`: the cluster's.
extern emulated::Dim first_block, gridDim;
#define blockIdx \
  (emulated::Dim{first_block.x + emulated::block_rank(), first_block.y, first_block.z})
#define blockDim (emulated::Dim{static_cast<unsigned>(emulated::num_threads()), 1, 1})
#define threadIdx (emulated::Dim{static_cast<unsigned>(emulated::this_thread()), 0, 0})

struct __half {
  std::uint16_t bits;
};
struct __nv_bfloat16 {
  std::uint16_t bits;
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
struct int2 {
  int x, y;
};
struct int4 {
  int x, y, z, w;
};
struct uint2 {
  std::uint32_t x, y;
};
struct uint4 {
  std::uint32_t x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct CUtensorMap {
  emulated::TensorMap map;
};

using std::max;
using std::min;

template <typename T>
T __ldcg(const T* from) {
  return *from;
}
template <typename T>
void __stcg(T* to, T value) {
  *to = value;
}
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline std::uint32_t atomicCAS(std::uint32_t* at, std::uint32_t expected, std::uint32_t value) {
  const std::uint32_t old = *at;
  if (old == expected) *at = value;
  return old;
}
inline std::int32_t atomicAdd(std::int32_t* to, std::int32_t value) {
  const std::int32_t before = *to;
  *to += value;
  return before;
}
inline std::uint32_t __float_as_uint(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float __uint_as_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint4 make_uint4(std::uint32_t x, std::uint32_t y, std::uint32_t z, std::uint32_t w) {
  return {x, y, z, w};
}
inline float2 make_float2(float x, float y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int __ffs(std::uint32_t bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline int __clz(int x) { return __builtin_clz(static_cast<unsigned>(x)); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __frcp_rn(float a) { return 1.0f / a; }

template <typename T>
T from_lane(T value, int lane) {
  std::uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  word = emulated::meet_warp(word)[lane];
  std::memcpy(&value, &word, sizeof(T));
  return value;
}
inline int own_lane() { return emulated::this_thread() % 32; }
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return from_lane(value, lane);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return from_lane(value, own_lane() ^ mask);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, int delta) {
  return from_lane(value, own_lane() < delta ? own_lane() : own_lane() - delta);
}
inline bool __all_sync(unsigned, bool value) {
  const std::uint64_t* values = emulated::meet_warp(value);
  bool all = true;
  for (int i = 0; i < 32; i++) all &= values[i] != 0;
  return all;
}
inline void __threadfence() {}
inline void __syncwarp() { emulated::meet_warp(0); }
inline void __syncthreads() { emulated::named_barrier(0, emulated::num_threads(), true); }
/// Of a block alone.
inline int __syncthreads_or(int value) {
  static int any = 0;
  any |= value;
  __syncthreads();
  const int result = any;
  __syncthreads();
  any = 0;
  return result;
}
