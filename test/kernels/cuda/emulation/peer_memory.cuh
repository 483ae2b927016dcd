// kernels/cuda/peer_memory.cuh for a CPU: each access takes effect at once, and others may come
// between any two.
#pragma once

#include "common.cuh"

namespace vt {

struct alignas(16) WordPair {
  uint64_t first, second;
};

inline void let_others() {
  if (emulation::machine->draw(8) == 0) emulation::machine->yield();
}

inline void store_relaxed(WordPair* to, const WordPair& pair) {
  to->first = pair.first;
  let_others();
  to->second = pair.second;
}
inline WordPair load_relaxed(const WordPair* from) {
  WordPair pair;
  pair.second = from->second;
  let_others();
  pair.first = from->first;
  return pair;
}
template <typename T>
inline T load_relaxed(const T* from) {
  let_others();
  return *from;
}
inline void store_relaxed(uint32_t* to, uint32_t value) { *to = value; }
inline void store_release(uint32_t* to, uint32_t value) { *to = value; }
inline void store_release(uint64_t* to, uint64_t value) {
  let_others();
  *to = value;
}
inline uint64_t load_acquire(const uint64_t* from) {
  let_others();
  return *from;
}
inline uint64_t global_timer_ns() { return emulation::machine->now_ns; }

}  // namespace vt
