// A CUDA runtime call that must succeed, or a KernelError with its file and line.
#pragma once

#include <cuda_runtime.h>

#include "../../check.h"

namespace vt {

inline void check_cuda(cudaError_t error, const char* call, const char* file, int line) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // Where the error is not a sticky one, the next call must not report it.
  fail_at(file, line, "%s: %s", call, cudaGetErrorString(error));
}

}  // namespace vt

#define VT_CUDA(call) ::vt::check_cuda((call), #call, __FILE__, __LINE__)
