// Ranks on one host: their activations lie side by side in shared memory, so that a part of another
// rank is read where it was made, and they meet by counters there. Waiting spins for a moment, then
// sleeps; a rank that stands still for the whole of a timeout is given up, by name.
#pragma once

#include <memory>
#include <string>

#include "communicator.h"

namespace vt {

struct RankGroup {
  int rank, num_ranks;
  std::string path;
  /// A rank that others wait for is lost if it runs no op for so long.
  int timeout_ms;
};

/// Joins the group; every rank must want the same number of bytes. Throws KernelError.
std::unique_ptr<Communicator> join_shared_ranks(const RankGroup& group, std::size_t memory_bytes);

}  // namespace vt
