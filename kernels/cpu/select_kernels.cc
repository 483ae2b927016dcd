// Picks the variant at run time: the best one that was built and that this processor has.
#include <algorithm>
#include <iterator>

#include "backend.h"

namespace vt {

namespace {

const char* const kLevels[] = {"portable", "avx2", "avx512"};

}  // namespace

int kernel_level(const std::string& name) {
  return static_cast<int>(std::find(std::begin(kLevels), std::end(kLevels), name) - kLevels);
}

const KernelTable& kernels_of_level(int level) {
  VT_CHECK(level >= 0 && level < static_cast<int>(std::size(kLevels)), "no CPU variant %d", level);
  return select_kernels(kLevels[level]);
}

const KernelTable& select_kernels(const std::string& name) {
#ifdef VT_HAVE_AVX512
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && (name.empty() || name == "avx512")) return avx512::kernels();
#endif
#ifdef VT_HAVE_AVX2
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("f16c");
  if (has_avx2 && (name.empty() || name == "avx2")) return avx2::kernels();
#endif
  if (name.empty() || name == "portable") return portable::kernels();
  VT_FAIL("no CPU variant %s here", name.c_str());
}

}  // namespace vt
