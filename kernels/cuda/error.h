// How a call of the C ABI fails: it keeps the reason and returns -1.
#ifndef VT_CUDA_ERROR_H_
#define VT_CUDA_ERROR_H_

namespace vt {

/** Keeps the message for vt_cuda_error() and returns -1. */
int fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace vt

#define VT_REQUIRE(condition, ...)                  \
  do {                                              \
    if (!(condition)) return vt::fail(__VA_ARGS__); \
  } while (0)

#endif  // VT_CUDA_ERROR_H_
