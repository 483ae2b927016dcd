// kernels/cuda/common.cuh for a CPU: what the bodies of collectives use of CUDA, over fibers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "error.h"
#include "fibers.h"
#include "vt_cuda.h"

#define __device__
#define __host__
#define __forceinline__ inline
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __noinline__
#define VT_HAS_SM_90 1

struct float4 {
  float x, y, z, w;
};
struct int4 {
  int x, y, z, w;
};
struct uint2 {
  uint32_t x, y;
};
struct uint4 {
  uint32_t x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
struct dim3 {
  explicit dim3(int count) : x(count) {}
  int x;
};
struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};

namespace emulation {
struct Index {
  enum class Of { thread, block, block_size, grid } of;
  struct X {
    const Of of;
    operator unsigned() const {
      const Fiber& fiber = *machine->current;
      switch (of) {
        case Of::thread:
          return static_cast<unsigned>(fiber.thread);
        case Of::block:
          return static_cast<unsigned>(fiber.block->index);
        case Of::block_size:
          return static_cast<unsigned>(fiber.kernel->block_size);
        default:
          return static_cast<unsigned>(fiber.kernel->grid);
      }
    }
  };
};
}  // namespace emulation

namespace {
struct Dimension {
  emulation::Index::X x;
};
const Dimension threadIdx{{emulation::Index::Of::thread}}, blockIdx{{emulation::Index::Of::block}};
const Dimension blockDim{{emulation::Index::Of::block_size}}, gridDim{{emulation::Index::Of::grid}};
}  // namespace

inline void __syncthreads() {
  emulation::machine->meet(emulation::machine->current->block->threads);
}
inline int __syncthreads_or(int value) {
  return emulation::machine->meet(emulation::machine->current->block->threads, value != 0) ? 1 : 0;
}
/// f(values of the warp's threads, by lane), which all of them have given.
template <typename T, typename F>
auto of_warp(T value, F f) {
  emulation::Fiber& fiber = *emulation::machine->current;
  emulation::Block& block = *fiber.block;
  const int warp = fiber.thread / 32;
  std::memcpy(&block.lanes[fiber.thread], &value, sizeof value);
  emulation::machine->meet(block.warps[warp]);
  T values[32];
  for (int lane = 0; lane < 32; lane++)
    std::memcpy(&values[lane], &block.lanes[32 * warp + lane], sizeof value);
  emulation::machine->meet(block.warps[warp]);
  return f(values);
}
inline int own_lane() { return emulation::machine->current->thread % 32; }
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return of_warp(value, [=](const T* values) { return values[own_lane() ^ mask]; });
}
template <typename T>
T __shfl_up_sync(unsigned, T value, int delta) {
  const int from = own_lane() < delta ? own_lane() : own_lane() - delta;
  return of_warp(value, [=](const T* values) { return values[from]; });
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return of_warp(value, [=](const T* values) { return values[lane]; });
}
inline uint32_t __ballot_sync(unsigned, bool value) {
  return of_warp(value, [](const bool* values) {
    uint32_t bits = 0;
    for (int lane = 0; lane < 32; lane++) bits |= static_cast<uint32_t>(values[lane]) << lane;
    return bits;
  });
}
inline bool __any_sync(unsigned, bool value) { return __ballot_sync(~0u, value) != 0; }
inline uint32_t __reduce_max_sync(unsigned, uint32_t value) {
  return of_warp(value, [](const uint32_t* values) { return *std::max_element(values, values + 32); });
}
inline uint32_t __reduce_add_sync(unsigned, uint32_t value) {
  return of_warp(value, [](const uint32_t* values) {
    uint32_t sum = 0;
    for (int lane = 0; lane < 32; lane++) sum += values[lane];
    return sum;
  });
}
inline void __syncwarp() {
  const emulation::Fiber& fiber = *emulation::machine->current;
  emulation::machine->meet(fiber.block->warps[fiber.thread / 32]);
}
template <typename T>
T atomicAdd(T* at, T value) {
  const T old = *at;
  *at += value;
  return old;
}
inline uint32_t atomicMax(uint32_t* at, uint32_t value) {
  const uint32_t old = *at;
  *at = std::max(old, value);
  return old;
}
template <typename T>
T __ldcg(const T* from) {
  return *from;
}
inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
inline int __ffs(uint32_t bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline int __clz(uint32_t bits) { return bits == 0 ? 32 : __builtin_clz(bits); }
inline long long __double_as_longlong(double value) {
  long long bits;
  std::memcpy(&bits, &value, 8);
  return bits;
}
using std::max;
using std::min;

inline uint32_t atomicCAS(uint32_t* at, uint32_t expected, uint32_t value) {
  const uint32_t old = *at;
  if (old == expected) *at = value;
  return old;
}
inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline int __float_as_int(float value) { return static_cast<int>(__float_as_uint(value)); }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<uint32_t>(bits)); }
inline double __longlong_as_double(long long bits) {
  double value;
  std::memcpy(&value, &bits, 8);
  return value;
}
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }

namespace vt {

enum class Target { sm_80, sm_90, sm_90a };
inline Target target() { return Target::sm_90a; }
inline int num_multiprocessors() { return 8; }

inline float exp2_approx(float x) { return std::exp2(x); }
inline uint2 mul_wide(uint32_t a, uint32_t b) {
  const uint64_t product = static_cast<uint64_t>(a) * b;
  return {static_cast<uint32_t>(product), static_cast<uint32_t>(product >> 32)};
}
inline float log2_approx(float x) { return std::log2(x); }
inline float rcp_approx(float x) { return 1.0f / x; }
inline float max_or_nan(float a, float b) { return a != a ? a : b != b ? b : std::max(a, b); }
inline float widen(uint16_t bits) { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }
inline uint16_t round_bf16(float value) {
  const uint32_t bits = __float_as_uint(value);
  if (value != value) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// Both 16-bit dtypes are bfloat16 here.
template <typename T>
inline void load8(const T* from, float (&values)[8]) {
  for (int e = 0; e < 8; e++) values[e] = widen(from[e].bits);
}
template <typename T>
inline void unpack8(const uint4& words, float (&values)[8]) {
  load8(reinterpret_cast<const T*>(&words), values);
}
template <typename T>
inline void store8(T* to, const float (&values)[8]) {
  for (int e = 0; e < 8; e++) to[e].bits = round_bf16(values[e]);
}

inline bool aligned16(const void* pointer, int64_t stride) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride % 8 == 0;
}

/// A stream is the number of its device, plus one.
inline int device_of(void* stream) {
  return static_cast<int>(reinterpret_cast<intptr_t>(stream)) - 1;
}

template <typename... Params, typename... Args>
int launch(const char*, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, int,
           void* stream, Args... args) {
  emulation::machine->launch(device_of(stream), grid.x, block.x, 1, shared_bytes,
                             [=] { kernel(args...); });
  return 0;
}

inline uint32_t count_and_wrap(uint32_t* counter, uint32_t last) {
  const uint32_t before = *counter;
  *counter = before >= last ? 0 : before + 1;
  return before;
}

inline void start_next() { emulation::machine->allow_next(); }
inline void wait_for_previous() {
  emulation::Kernel* before = emulation::machine->current->kernel->before;
  if (before == nullptr || before->has_ended()) return;
  before->waiting.push_back(emulation::machine->current);
  emulation::machine->sleep();
}

}  // namespace vt
