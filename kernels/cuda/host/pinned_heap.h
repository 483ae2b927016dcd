// Pinned memory in pieces of any size, for the lists of rows that have them (biases, allowed ids,
// bad words). Grows by whole chunks and keeps them.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "memory.h"

namespace vt {

class PinnedHeap {
 public:
  /// 64-byte aligned. Throws KernelError where the system has no more.
  char* allocate(std::size_t bytes);
  /// `bytes` as it was allocated.
  void free(char* piece, std::size_t bytes);

 private:
  /// What it grows by is not part of the plan.
  Ledger ledger_;
  std::vector<PinnedBuffer> chunks_;
  std::size_t used_ = 0;
  /// By size: pieces that were given back.
  std::map<std::size_t, std::vector<char*>> free_;
};

}  // namespace vt
