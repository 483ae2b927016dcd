#include "pages.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "../check.h"

namespace vt {

Pages::Pages(std::size_t bytes, const char* owner) : bytes_(bytes) {
  if (bytes == 0) return;
#ifdef MAP_NORESERVE
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
#else
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#endif
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  VT_CHECK(data != MAP_FAILED, "%s: no memory for %zu bytes (%s)", owner, bytes, strerror(errno));
#ifdef MADV_HUGEPAGE
  constexpr std::size_t huge_page = std::size_t{2} << 20;
  if (bytes >= huge_page) madvise(data, bytes, MADV_HUGEPAGE);
#endif
  data_ = data;
}

Pages::~Pages() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace vt
