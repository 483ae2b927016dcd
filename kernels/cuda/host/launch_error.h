// A call of vt_cuda.h that must succeed, or a KernelError with its reason.
#pragma once

#include "../../check.h"
#include "../vt_cuda.h"

namespace vt {

inline void check_launch(int result, const char* file, int line) {
  if (result != 0) fail_at(file, line, "%s", vt_cuda_error());
}

}  // namespace vt

#define VT_LAUNCH(call) ::vt::check_launch((call), __FILE__, __LINE__)
