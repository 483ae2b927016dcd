// kernels/cuda/peer_memory.cuh for a CPU: each access takes effect at once, and others may come
// between any two.
#pragma once

#include "common.cuh"

namespace vt {

inline void let_others() {
  if (emulation::machine->draw(8) == 0) emulation::machine->yield();
}

/// How often a value was sent to where one that nobody has taken still lay.
inline int num_lost = 0;

/// Four values, from any of them on.
inline void store_relaxed(uint4* to, const uint4& v) {
  const uint32_t values[4] = {v.x, v.y, v.z, v.w};
  constexpr uint32_t kEmpty = 0xffffffffu;
  for (uint32_t i = 0; i < 4; i++)
    if (values[i] != kEmpty && reinterpret_cast<uint32_t*>(to)[i] != kEmpty) num_lost++;
  const uint32_t first = emulation::machine->draw(4);
  for (uint32_t i = first; i < first + 4; i++) {
    reinterpret_cast<uint32_t*>(to)[i % 4] = values[i % 4];
    let_others();
  }
}
inline uint4 load_relaxed(const uint4* from) {
  uint32_t values[4];
  const uint32_t first = emulation::machine->draw(4);
  for (uint32_t i = first; i < first + 4; i++) {
    values[i % 4] = reinterpret_cast<const uint32_t*>(from)[i % 4];
    let_others();
  }
  return {values[0], values[1], values[2], values[3]};
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
inline uint64_t global_timer_ns() { return emulation::machine->now_ns; }

}  // namespace vt
