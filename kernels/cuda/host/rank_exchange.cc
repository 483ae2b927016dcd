#include "rank_exchange.h"

#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "../../check.h"

namespace vt {

namespace {

constexpr int kPollMs = 100;
/// Messages are handles and names.
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 20;

}  // namespace

TcpGroup local_group(const std::string& path, int rank, int num_ranks, int timeout_ms) {
  // Who can reach the folder need show nothing.
  const std::string tokens(static_cast<std::size_t>(num_ranks) * kNumTcpKinds * kTokenBytes, '\0');
  TcpGroup group{rank, num_ranks, timeout_ms, {}, tokens, tokens};
  for (int r = 0; r < num_ranks; r++) group.addresses.push_back(path + "." + std::to_string(r));
  return group;
}

/// A round's exchange with one rank.
struct RankExchange::Peer {
  std::uint64_t size = 0;
  std::string text;
  std::size_t num_sent = 0, num_received = 0;
  bool is_told = false, has_come = false;
};

RankExchange::RankExchange(const TcpGroup& group, int timeout_ms)
    : rank_(group.rank),
      num_ranks_(group.num_ranks),
      timeout_ms_(timeout_ms),
      connections_(join_tcp_group(group, {0, 0}, timeout_ms)) {
  // All have connected.
  const std::string& own = group.addresses[group.rank];
  if (own.front() == '/') unlink(own.c_str());
}

std::vector<std::string> RankExchange::meet(const std::string& message) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms_);
  const std::uint64_t size = message.size();
  const std::vector<Socket>& sockets = connections_.sockets[static_cast<int>(TcpKind::data)];
  std::vector<Peer> peers(num_ranks_);
  std::vector<pollfd> polled;
  for (;;) {
    polled.clear();
    for (int rank = 0; rank < num_ranks_; rank++) {
      Peer& peer = peers[rank];
      if (rank == rank_) continue;
      if (!peer.is_told) {
        const auto bytes =
            sockets[rank].send(&size, sizeof size, message.data(), size, peer.num_sent);
        VT_CHECK(bytes >= 0, "rank %d ended while rank %d was loading", rank, rank_);
        peer.num_sent += bytes;
        peer.is_told = peer.num_sent == sizeof size + size;
      }
      while (!peer.has_come) {
        const auto bytes = sockets[rank].receive(&peer.size, sizeof peer.size, peer.text.data(),
                                                 peer.text.size(), peer.num_received);
        VT_CHECK(bytes >= 0, "rank %d ended while rank %d was loading", rank, rank_);
        if (bytes == 0) break;
        peer.num_received += bytes;
        if (peer.num_received < sizeof peer.size) continue;
        VT_CHECK(peer.size <= kMostBytes, "rank %d sends what is no message", rank);
        peer.text.resize(peer.size);
        peer.has_come = peer.num_received == sizeof peer.size + peer.size;
      }
      const int events = (peer.is_told ? 0 : POLLOUT) | (peer.has_come ? 0 : POLLIN);
      if (events != 0) polled.push_back({sockets[rank].fd(), static_cast<short>(events), 0});
    }
    if (polled.empty()) break;
    poll(polled.data(), polled.size(), kPollMs);
    if (std::chrono::steady_clock::now() >= until) check_all_came(peers);
  }
  std::vector<std::string> messages;
  for (int rank = 0; rank < num_ranks_; rank++)
    messages.push_back(rank == rank_ ? message : std::move(peers[rank].text));
  return messages;
}

void RankExchange::check_all_came(const std::vector<Peer>& peers) const {
  for (int rank = 0; rank < num_ranks_; rank++)
    VT_CHECK(rank == rank_ || (peers[rank].is_told && peers[rank].has_come),
             "rank %d did not get as far as this one (%d) within %d s of loading", rank, rank_,
             timeout_ms_ / 1000);
}

std::vector<Socket> RankExchange::take_news_sockets() {
  return std::move(connections_.sockets[static_cast<int>(TcpKind::news)]);
}

}  // namespace vt
