#include "pinned_heap.h"

#include <algorithm>
#include <utility>

namespace vt {

namespace {

constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
constexpr std::size_t kSmallest = 256;

/// Sizes are powers of two, so that a piece fits others later.
std::size_t size_class(std::size_t bytes) {
  std::size_t size = kSmallest;
  while (size < bytes) size *= 2;
  return size;
}

}  // namespace

char* PinnedHeap::allocate(std::size_t bytes) {
  const std::size_t size = size_class(bytes);
  std::vector<char*>& known = free_[size];
  if (!known.empty()) {
    char* piece = known.back();
    known.pop_back();
    return piece;
  }
  if (chunks_.empty() || used_ + size > chunks_.back().bytes()) {
    chunks_.emplace_back(std::max(kChunkBytes, size), "lists of rows", ledger_);
    used_ = 0;
  }
  char* piece = chunks_.back().as<char>() + used_;
  used_ += size;
  return piece;
}

void PinnedHeap::free(char* piece, std::size_t bytes) {
  free_[size_class(bytes)].push_back(piece);
}

}  // namespace vt
