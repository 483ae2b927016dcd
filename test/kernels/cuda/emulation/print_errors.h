// vt::fail of a program that runs kernels here: what it says goes to stderr. For one file a program.
#pragma once

#include <cstdarg>
#include <cstdio>

namespace vt {

int fail(const char* format, ...) {
  va_list list;
  va_start(list, format);
  std::vfprintf(stderr, format, list);
  va_end(list);
  std::fprintf(stderr, "\n");
  return -1;
}

}  // namespace vt
