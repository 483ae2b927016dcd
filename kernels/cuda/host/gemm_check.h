// Whether an algorithm of cuBLASLt gives the bits of our own kernels: both compute a linear over
// random numbers on the device, and the outputs are compared.
#pragma once

#include <memory>

#include "cublaslt.h"
#include "memory.h"

namespace vt {

/// Random operands of one linear, at most `max_n` of its rows and `max_m` of x, and its outputs.
class GemmCheck {
 public:
  GemmCheck(const VtCudaLinear& shape, int max_n, int max_m);
  ~GemmCheck();

  /// The linear at m over these operands, written to `out` number 0 or 1.
  VtCudaLinear operands(int m, int out) const;
  /// Runs both and compares. False too where cuBLASLt refuses.
  bool equal(const CublasLt& library, const lt::Algorithm& algorithm, int m, void* workspace,
             std::size_t workspace_bytes);
  void* stream() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vt
