// kernels/cuda/common.cuh for a CPU: what the bodies of collectives use of CUDA, over fibers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda_values.h"
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

struct dim3 {
  explicit dim3(int count) : x(count) {}
  int x;
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
template <typename T>
T atomicMax(T* at, T value) {
  const T old = *at;
  *at = std::max(old, value);
  return old;
}

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
inline void load8(const float* from, float (&values)[8]) { std::copy_n(from, 8, values); }
template <typename T>
inline void unpack8(const uint4& words, float (&values)[8]) {
  load8(reinterpret_cast<const T*>(&words), values);
}
template <typename T>
inline void store8(T* to, const float (&values)[8]) {
  for (int e = 0; e < 8; e++) to[e].bits = round_bf16(values[e]);
}

inline void add8(float (&sum)[8], const float (&more)[8]) {
  for (int e = 0; e < 8; e++) sum[e] += more[e];
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
