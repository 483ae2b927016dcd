// libvt_cuda.so, loaded only where there is a driver for it: every function of vt_cuda_backend.h
// by pointer. Nothing of CUDA is needed to build this.
#pragma once

#include <string>
#include <vector>

#include "../cuda/vt_cuda_backend.h"

namespace vt {

// X(member, function)
#define VT_CUDA_FUNCTIONS(X)            \
  X(abi, vt_cuda_abi)                   \
  X(error, vt_cuda_error)               \
  X(device, vt_cuda_device)             \
  X(load, vt_cuda_backend_load)         \
  X(submit, vt_cuda_backend_submit)     \
  X(wait, vt_cuda_backend_wait)         \
  X(position, vt_cuda_backend_position) \
  X(stop, vt_cuda_backend_stop)         \
  X(close, vt_cuda_backend_close)       \
  X(buffer, vt_cuda_backend_buffer)

struct CudaLibrary {
#define VT_CUDA_MEMBER(member, function) decltype(&function) member;
  VT_CUDA_FUNCTIONS(VT_CUDA_MEMBER)
#undef VT_CUDA_MEMBER
};

/// The library, from the first of `folders` that has it, opened once for the process. Throws
/// KernelError with a line for the user: no driver, no library, or one of another build.
const CudaLibrary& open_cuda_library(const std::vector<std::string>& folders);

/// The reason that the library gave on this thread, as a KernelError.
[[noreturn]] void throw_cuda_error(const CudaLibrary& library);

}  // namespace vt
