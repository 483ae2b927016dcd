// How ranks on several hosts find each other: a rank listens at its address and dials those of
// lower ranks, twice each, for data and for news. A connection counts once both ends have shown the
// token that this pair alone was given for it; whoever shows another is turned away.
#pragma once

#include <string>
#include <vector>

#include "tcp_socket.h"

namespace vt {

enum class TcpKind : int { data, news };
constexpr int kNumTcpKinds = 2;
constexpr std::size_t kTokenBytes = 32;

struct TcpGroup {
  int rank, num_ranks;
  /// A rank that others wait for is lost if it runs no op for so long.
  int timeout_ms;
  /// Where each rank listens.
  std::vector<std::string> addresses;
  /// [num_ranks][kNumTcpKinds][kTokenBytes]: shown to each rank, and expected of it.
  std::string shown, expected;
};

/// What ranks of one group must have in common, or settle.
struct TcpOffer {
  std::uint64_t memory_bytes;
  /// The lowest of all ranks is what each gets back.
  int level;
};

struct TcpConnections {
  /// [kNumTcpKinds][num_ranks]; closed for the rank itself.
  std::vector<Socket> sockets[kNumTcpKinds];
  int lowest_level;
};

/// Throws KernelError that names the rank which does not come, or is of another program.
TcpConnections join_tcp_group(const TcpGroup& group, const TcpOffer& offer, int timeout_ms);

}  // namespace vt
