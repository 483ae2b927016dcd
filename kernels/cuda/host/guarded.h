// The border of the C ABI for what throws.
#ifndef VT_CUDA_HOST_GUARDED_H_
#define VT_CUDA_HOST_GUARDED_H_

#include <exception>
#include <type_traits>

#include "../error.h"

namespace vt {

/// body()'s result, 0 if it has none; -1, with its message kept, if it throws.
template <typename Body>
int guarded(const Body& body) {
  try {
    if constexpr (std::is_void_v<decltype(body())>) {
      body();
      return 0;
    } else {
      return body();
    }
  } catch (const std::exception& error) {
    return fail("%s", error.what());
  }
}

}  // namespace vt

#endif  // VT_CUDA_HOST_GUARDED_H_
