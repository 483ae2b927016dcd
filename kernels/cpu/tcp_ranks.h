// Ranks on several hosts: each sends its part to every other over TCP, in messages that begin with
// where it is. Between the meetings nothing is copied; a rank that stands still for the whole of a
// timeout, or is gone, is given up by name.
#pragma once

#include <memory>

#include "../host/tcp_join.h"
#include "communicator.h"

namespace vt {

/// Joins the group; every rank must want the same number of bytes. `level` becomes the lowest of
/// all ranks. Throws KernelError.
std::unique_ptr<Communicator> join_tcp_ranks(const TcpGroup& group, std::size_t memory_bytes,
                                             int* level);

}  // namespace vt
