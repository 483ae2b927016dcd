// Sleeping until a word of shared memory changes. Elsewhere than on Linux it is a short nap, after
// which the caller looks again.
#pragma once

#include <atomic>
#include <climits>
#include <cstdint>
#include <ctime>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace vt {

static_assert(sizeof(std::atomic<std::uint32_t>) == 4 &&
              std::atomic<std::uint32_t>::is_always_lock_free);

/// Returns when the word is not `seen`, when it is woken, or after `max_ms` at the latest.
inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, long max_ms) {
#ifdef __linux__
  const timespec timeout = {max_ms / 1000, max_ms % 1000 * 1000000};
  syscall(SYS_futex, &word, FUTEX_WAIT, seen, &timeout, nullptr, 0);
#else
  (void)max_ms;
  const timespec nap = {0, 50000};
  if (word.load() == seen) nanosleep(&nap, nullptr);
#endif
}

inline void futex_wake_all(std::atomic<std::uint32_t>& word) {
#ifdef __linux__
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
#else
  (void)word;
#endif
}

}  // namespace vt
