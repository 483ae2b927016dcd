#include "weight_rows.h"

#include <algorithm>
#include <cmath>

#include "../common.cuh"
#include "cuda_error.h"

namespace vt {
namespace {

constexpr int kThreads = 256;

/// kWidth neighbours, moved as one where they fit 16 bytes.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth > 16 ? 16 : sizeof(T) * kWidth) Pack {
  T values[kWidth];
};

/// Where a row of the checkpoint lies: gate rows, then up rows -> groups of both.
__device__ int64_t row_place(const WeightPlace& weight, int64_t row) {
  if (weight.interleave == 0) return row;
  const int64_t group = weight.interleave;
  const int64_t half = weight.rows / 2;
  const int64_t in_half = row < half ? row : row - half;
  return in_half / group * 2 * group + in_half % group + (row < half ? 0 : group);
}

template <typename From, typename To, int kWidth>
__global__ void __launch_bounds__(kThreads)
    place_kernel(const WeightPlace weight, int64_t first_row, int64_t num_rows, const From* source) {
  const int64_t packs = weight.columns / kWidth;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t p = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; p < num_rows * packs;
       p += step) {
    const int64_t row = p / packs;
    const int64_t column = p % packs * kWidth;
    const auto in = *reinterpret_cast<const Pack<From, kWidth>*>(source + p * kWidth);
    Pack<To, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; i++) out.values[i] = from_f32<To>(to_f32(in.values[i]));
    To* to = static_cast<To*>(weight.data) + row_place(weight, first_row + row) * weight.stride;
    *reinterpret_cast<Pack<To, kWidth>*>(to + column) = out;
  }
}

__host__ __device__ inline uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    make_up_kernel(const WeightPlace weight, int64_t first_row, const MadeUpPart part, uint32_t key,
                   float scale, bool is_vector) {
  const int64_t packs = weight.columns / kWidth;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t p = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
       p < part.num_rows * packs; p += step) {
    const int64_t row = p / packs;
    const int64_t column = p % packs * kWidth;
    const int64_t tensor_row = part.first_row + row;
    const uint32_t row_key = mix(key + static_cast<uint32_t>(tensor_row));
    const uint32_t first = static_cast<uint32_t>(part.first_column + column);
    const int64_t present = tensor_row < part.tensor_rows ? part.tensor_columns : 0;
    Pack<T, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; i++) {
      const uint32_t bits = mix(row_key + (first + i) * 0x9e3779b9u);
      const float unit = __fadd_rn(__fmul_rn(static_cast<float>(bits >> 8), 0x1p-23f), -1.0f);
      const float value = is_vector ? 1.0f : __fmul_rn(unit, scale);
      out.values[i] = from_f32<T>(first + i < present ? value : 0.0f);
    }
    T* to = static_cast<T*>(weight.data) + row_place(weight, first_row + row) * weight.stride;
    *reinterpret_cast<Pack<T, kWidth>*>(to + column) = out;
  }
}

/// Calls body with a value of the type that `dtype` names.
template <typename Body>
void with_type(Dtype dtype, const Body& body) {
  if (dtype == Dtype::f32) {
    body(float{});
  } else if (dtype == Dtype::f16) {
    body(__half{});
  } else if (dtype == Dtype::bf16) {
    body(__nv_bfloat16{});
  } else {
    VT_FAIL("weights in %s are not supported on cuda yet", dtype_name(dtype));
  }
}

unsigned num_blocks(int64_t threads) {
  const int64_t most = static_cast<int64_t>(num_multiprocessors()) * 16;
  return static_cast<unsigned>(std::clamp((threads + kThreads - 1) / kThreads, int64_t{1}, most));
}

bool in_packs(const WeightPlace& weight) {
  return weight.columns % 8 == 0 && weight.stride % 8 == 0;
}

}  // namespace

void place_rows(const WeightPlace& weight, std::int64_t first_row, std::int64_t num_rows,
                const void* source, Dtype dtype, void* stream) {
  with_type(dtype, [&](auto from) {
    with_type(weight.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      const bool packs = in_packs(weight);
      const auto kernel = packs ? place_kernel<From, To, 8> : place_kernel<From, To, 1>;
      kernel<<<num_blocks(num_rows * weight.columns / (packs ? 8 : 1)), kThreads, 0,
               static_cast<cudaStream_t>(stream)>>>(weight, first_row, num_rows,
                                                    static_cast<const From*>(source));
      VT_CUDA(cudaGetLastError());
    });
  });
}

void make_up_rows(const WeightPlace& weight, std::int64_t row, const MadeUpPart& part,
                  std::int64_t seed, std::uint32_t tensor, void* stream) {
  if (part.num_rows == 0) return;
  const std::uint64_t bits = static_cast<std::uint64_t>(seed);
  const uint32_t high = mix(static_cast<uint32_t>(bits >> 32));
  const uint32_t key = mix(tensor + mix(high ^ static_cast<uint32_t>(bits)));
  const bool is_vector = weight.stride == 1;
  const float scale = std::sqrt(3.0f / static_cast<float>(part.tensor_columns));
  with_type(weight.dtype, [&](auto to) {
    using To = decltype(to);
    const bool packs = in_packs(weight);
    const auto kernel = packs ? make_up_kernel<To, 8> : make_up_kernel<To, 1>;
    kernel<<<num_blocks(part.num_rows * weight.columns / (packs ? 8 : 1)), kThreads, 0,
             static_cast<cudaStream_t>(stream)>>>(weight, row, part, key, scale, is_vector);
    VT_CUDA(cudaGetLastError());
  });
}

}  // namespace vt
