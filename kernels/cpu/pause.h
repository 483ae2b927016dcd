// The hint to a core that a thread spins. Nothing where the instruction set has none.
#pragma once

namespace vt {

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace vt
