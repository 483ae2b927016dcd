// What ranks tell each other beside the device: messages while they load, then, if asked for, news
// of where each is. Ranks of one host meet at unix sockets, those of several over TCP
// (kernels/host/tcp_join.h). Knows nothing of what is in the messages, nor of devices.
#pragma once

#include <string>
#include <vector>

#include "../../host/tcp_join.h"

namespace vt {

/// Ranks of one host, which alone can reach the folder of `path`: sockets are `path` and the rank.
TcpGroup local_group(const std::string& path, int rank, int num_ranks, int timeout_ms);

class RankExchange {
 public:
  /// Waits until all ranks have joined; each may be `timeout_ms` behind another, here and in
  /// meet(). Throws KernelError that names one that does not come.
  RankExchange(const TcpGroup& group, int timeout_ms);
  RankExchange(const RankExchange&) = delete;
  RankExchange& operator=(const RankExchange&) = delete;

  /// The messages of all ranks to this round, by rank; all have come to it. Throws KernelError that
  /// names the rank if one does not come.
  std::vector<std::string> meet(const std::string& message);

  /// By rank, closed for this one; for TcpNews, once.
  std::vector<Socket> take_news_sockets();

 private:
  struct Peer;
  void check_all_came(const std::vector<Peer>& peers) const;

  const int rank_, num_ranks_, timeout_ms_;
  TcpConnections connections_;
};

}  // namespace vt
