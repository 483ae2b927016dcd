// What a kernel's source has of CUDA itself, for the emulated block: its keywords and warp functions
// (values: cuda_values.h). Names of our own are in device.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "block.h"
#include "memory.h"
#include "test/kernels/cuda/cuda_values.h"

#define __device__
#define __host__
#define __global__
#define __shared__ thread_local
#define __grid_constant__
#define __forceinline__ inline
#define __noinline__
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

/// `first_block`: the cluster's.
extern emulated::Dim first_block, gridDim;
#define blockIdx \
  (emulated::Dim{first_block.x + emulated::block_rank(), first_block.y, first_block.z})
#define blockDim (emulated::Dim{static_cast<unsigned>(emulated::num_threads()), 1, 1})
#define threadIdx (emulated::Dim{static_cast<unsigned>(emulated::this_thread()), 0, 0})

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct CUtensorMap {
  emulated::TensorMap map;
};

inline std::int32_t atomicAdd(std::int32_t* to, std::int32_t value) {
  const std::int32_t before = *to;
  *to += value;
  return before;
}

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
