// Which cuBLASLt algorithm serves which linear: what `npm run tune:cuda` measured and found equal
// to our own kernels bit for bit.
#pragma once

#include <cstdint>
#include <string>

#include "../vt_cuda.h"
#include "cublaslt_api.h"

namespace vt {

/// What is added to a sum before it is rounded.
enum class Addend : int { none, bias, residual, both };

inline Addend addend_of(const VtCudaLinear& args) {
  return static_cast<Addend>((args.bias != nullptr ? 1 : 0) + (args.residual != nullptr ? 2 : 0));
}

/// Classes of m: up to 16, 32, 64, 128, 192, 256, 512, ..., 16384, and above. One algorithm serves a
/// class.
constexpr int kNumGemmClasses = 13;
/// Largest m of a class; that of the last is the largest that was tuned.
constexpr int gemm_class_end(int index) {
  return index < 4 ? 16 << index : index == 4 ? 192 : 16 << (index - 1);
}
constexpr int gemm_class(int m) {
  int index = 0;
  while (index < kNumGemmClasses - 1 && m > gemm_class_end(index)) index++;
  return index;
}

struct GemmTableRow {
  const char* device;
  /// Of cuBLASLt.
  int version;
  int n, k, dtype, out_dtype;
  Addend addend;
  /// Largest m of its class.
  int max_m;
  /// All zero: our own kernel is ahead.
  lt::Algorithm algorithm;
};

/// The row for a linear in a class of m, or null.
const GemmTableRow* find_gemm(const std::string& device, int version, const VtCudaLinear& shape,
                              int max_m);

}  // namespace vt
