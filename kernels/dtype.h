// Element types of weights, activations and the KV cache, numbered as `dtypes` in
// kernels/program.ts.
#pragma once

#include <cstdint>
#include <cstring>

namespace vt {

enum class Dtype : int { f32, f16, bf16, i32, u8 };

constexpr int kNumDtypes = 5;
constexpr int dtype_bytes(Dtype dtype) {
  return dtype == Dtype::u8 ? 1 : dtype == Dtype::f16 || dtype == Dtype::bf16 ? 2 : 4;
}
constexpr const char* dtype_name(Dtype dtype) {
  return dtype == Dtype::f32    ? "f32"
         : dtype == Dtype::f16  ? "f16"
         : dtype == Dtype::bf16 ? "bf16"
         : dtype == Dtype::i32  ? "i32"
                                : "u8";
}

}  // namespace vt
