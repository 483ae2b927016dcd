#include "readahead.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

namespace vt {

namespace {

/// So that a load that fails does not wait long for its end.
constexpr std::uintptr_t kAtOnce = std::uintptr_t{4} << 20;

}  // namespace

Readahead::Readahead(const VtCudaWeightPart* parts, std::size_t num_parts)
    : thread_([this, parts, num_parts] { run(parts, num_parts); }) {}

Readahead::~Readahead() {
  stopped_ = true;
  wait();
}

void Readahead::wait() {
  if (thread_.joinable()) thread_.join();
}

void Readahead::run(const VtCudaWeightPart* parts, std::size_t num_parts) const {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  for (std::size_t i = 0; i < num_parts; i++) {
    const auto begin = reinterpret_cast<std::uintptr_t>(parts[i].data);
    if (begin == 0) continue;
    const std::uintptr_t end = begin + parts[i].num_bytes;
    for (std::uintptr_t at = begin / page * page; at < end && !stopped_; at += kAtOnce) {
      // A wish: where the system does not grant it, the copies read as they come.
      madvise(reinterpret_cast<void*>(at), std::min(kAtOnce, end - at), MADV_WILLNEED);
    }
  }
}

}  // namespace vt
