#include "tcp_join.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include <algorithm>
#include <chrono>

#include "../check.h"

namespace vt {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kRetry{50};
/// What a stranger may take to say who it is.
constexpr milliseconds kGreetingTime{5000};
/// Strangers that are listened to at once, beside ranks.
constexpr int kMaxStrangers = 32;

/// The first and only words of both ends; ranks are of one byte order.
struct Greeting {
  char magic[4];
  std::int32_t kind, from, to, num_ranks, level;
  std::uint64_t memory_bytes;
  char token[kTokenBytes];
};
static_assert(sizeof(Greeting) == 64);
constexpr char kMagic[4] = {'v', 't', 'R', '1'};

/// In a time that does not tell where they differ.
bool same_token(const char* a, const char* b) {
  unsigned char difference = 0;
  for (std::size_t i = 0; i < kTokenBytes; i++) difference |= a[i] ^ b[i];
  return difference == 0;
}

/// A connection that is being made.
struct Attempt {
  Socket socket;
  /// Whom it was dialled to, and for what; -1 for one that was accepted.
  int rank = -1, kind = -1;
  bool is_connected = false;
  Clock::time_point deadline;
  Greeting greeting{};
  std::size_t num_received = 0;
};

class Joiner {
 public:
  Joiner(const TcpGroup& group, const TcpOffer& offer, int timeout_ms)
      : group_(group), offer_(offer), timeout_ms_(timeout_ms), errors_(group.num_ranks) {
    for (auto& sockets : joined_.sockets) sockets.resize(group.num_ranks);
    joined_.lowest_level = offer.level;
    num_missing_ = kNumTcpKinds * (group.num_ranks - 1);
  }

  TcpConnections run() {
    const Clock::time_point end = Clock::now() + milliseconds(timeout_ms_);
    listen();
    Clock::time_point next_dial = Clock::now();
    while (num_missing_ > 0) {
      const Clock::time_point now = Clock::now();
      if (now >= end) fail();
      if (now >= next_dial) {
        dial();
        next_dial = now + kRetry;
      }
      wait(kRetry);
      for (Attempt& attempt : attempts_)
        if (!go_on(attempt)) attempt.socket.close();
      attempts_.erase(std::remove_if(attempts_.begin(), attempts_.end(),
                                     [](const Attempt& a) { return !a.socket.is_open(); }),
                      attempts_.end());
      accept();
    }
    return std::move(joined_);
  }

 private:
  Socket& place_of(int kind, int rank) { return joined_.sockets[kind][rank]; }
  const std::string& address_of(int rank) const { return group_.addresses[rank]; }
  /// Offset of a pair's token.
  static std::size_t token_at(int rank, int kind) {
    return (static_cast<std::size_t>(rank) * kNumTcpKinds + kind) * kTokenBytes;
  }

  /// The highest rank is dialled by nobody.
  void listen() {
    if (group_.rank == group_.num_ranks - 1) return;
    const std::string& address = address_of(group_.rank);
    listener_ = Socket::listen_at(address, 2 * group_.num_ranks + kMaxStrangers);
    VT_CHECK(listener_.is_open(), "rank %d cannot listen on %s: %s", group_.rank, address.c_str(),
             strerror(errno));
  }

  void dial() {
    for (int rank = 0; rank < group_.rank; rank++)
      for (int kind = 0; kind < kNumTcpKinds; kind++) {
        const bool is_tried = std::any_of(
            attempts_.begin(), attempts_.end(),
            [&](const Attempt& attempt) { return attempt.rank == rank && attempt.kind == kind; });
        if (is_tried || place_of(kind, rank).is_open()) continue;
        Attempt attempt;
        attempt.socket = Socket::connect_to(address_of(rank));
        attempt.rank = rank;
        attempt.kind = kind;
        attempt.deadline = Clock::now() + kGreetingTime;
        if (attempt.socket.is_open())
          attempts_.push_back(std::move(attempt));
        else
          errors_[rank] = strerror(errno);
      }
  }

  void wait(milliseconds most) {
    polled_.clear();
    if (listener_.is_open()) polled_.push_back({listener_.fd(), POLLIN, 0});
    for (const Attempt& attempt : attempts_) {
      const bool connects = attempt.rank >= 0 && !attempt.is_connected;
      const short events = connects ? POLLOUT : POLLIN;
      polled_.push_back({attempt.socket.fd(), events, 0});
    }
    poll(polled_.data(), polled_.size(), static_cast<int>(most.count()));
  }

  void accept() {
    if (!listener_.is_open()) return;
    for (;;) {
      Attempt attempt;
      attempt.socket = listener_.accept();
      if (!attempt.socket.is_open()) return;
      attempt.deadline = Clock::now() + kGreetingTime;
      if (attempts_.size() >= static_cast<std::size_t>(2 * group_.num_ranks + kMaxStrangers))
        continue;
      attempts_.push_back(std::move(attempt));
    }
  }

  /// False if the attempt is over without a connection.
  bool go_on(Attempt& attempt) {
    if (Clock::now() >= attempt.deadline) {
      if (attempt.rank >= 0) errors_[attempt.rank] = "no answer";
      return false;
    }
    if (attempt.rank >= 0 && !attempt.is_connected) {
      pollfd ready = {attempt.socket.fd(), POLLOUT, 0};
      if (poll(&ready, 1, 0) <= 0) return true;
      const int error = attempt.socket.error();
      if (error != 0) errors_[attempt.rank] = strerror(error);
      if (error != 0 || !greet(attempt.socket, attempt.rank, attempt.kind)) return false;
      attempt.is_connected = true;
    }
    char* greeting = reinterpret_cast<char*>(&attempt.greeting);
    const std::ptrdiff_t bytes = attempt.socket.receive(greeting + attempt.num_received,
                                                        sizeof(Greeting) - attempt.num_received);
    if (bytes < 0) {
      if (attempt.rank >= 0) errors_[attempt.rank] = "it turned this rank away";
      return false;
    }
    attempt.num_received += bytes;
    if (attempt.num_received < sizeof(Greeting)) return true;
    take(attempt);
    return false;
  }

  /// Keeps the connection if it is a rank's.
  void take(Attempt& attempt) {
    const Greeting& its = attempt.greeting;
    const bool was_dialled = attempt.rank >= 0;
    if (memcmp(its.magic, kMagic, sizeof kMagic) != 0 || its.to != group_.rank) return;
    if (its.kind < 0 || its.kind >= kNumTcpKinds) return;
    if (was_dialled ? its.from != attempt.rank || its.kind != attempt.kind
                    : its.from <= group_.rank || its.from >= group_.num_ranks)
      return;
    if (!same_token(its.token, group_.expected.data() + token_at(its.from, its.kind))) {
      errors_[its.from] = "it shows a wrong token";
      return;
    }
    Socket& place = place_of(its.kind, its.from);
    if (place.is_open() || (!was_dialled && !greet(attempt.socket, its.from, its.kind))) return;
    // After the answer, so that both learn it.
    VT_CHECK(its.num_ranks == group_.num_ranks && its.memory_bytes == offer_.memory_bytes,
             "rank %d has %lld bytes of activations in a group of %d, expected %lld and %d: the "
             "ranks run different programs",
             its.from, static_cast<long long>(its.memory_bytes), its.num_ranks,
             static_cast<long long>(offer_.memory_bytes), group_.num_ranks);
    place = std::move(attempt.socket);
    joined_.lowest_level = std::min(joined_.lowest_level, its.level);
    num_missing_--;
  }

  /// So few bytes always fit into a fresh connection.
  bool greet(const Socket& socket, int rank, int kind) {
    Greeting own{};
    memcpy(own.magic, kMagic, sizeof kMagic);
    own.kind = kind;
    own.from = group_.rank;
    own.to = rank;
    own.num_ranks = group_.num_ranks;
    own.level = offer_.level;
    own.memory_bytes = offer_.memory_bytes;
    memcpy(own.token, group_.shown.data() + token_at(rank, kind), kTokenBytes);
    return socket.send(&own, sizeof own) == static_cast<std::ptrdiff_t>(sizeof own);
  }

  [[noreturn]] void fail() {
    int rank = 0;
    while (rank == group_.rank || (place_of(0, rank).is_open() && place_of(1, rank).is_open()))
      rank++;
    const std::string why = errors_[rank].empty() ? "" : ": " + errors_[rank];
    VT_FAIL("rank %d (%s) did not join rank %d within %g s%s", rank, address_of(rank).c_str(),
            group_.rank, timeout_ms_ / 1000.0, why.c_str());
  }

  const TcpGroup& group_;
  const TcpOffer offer_;
  const int timeout_ms_;
  Socket listener_;
  std::vector<Attempt> attempts_;
  std::vector<pollfd> polled_;
  TcpConnections joined_;
  int num_missing_;
  /// Why the last attempt with each rank came to nothing.
  std::vector<std::string> errors_;
};

}  // namespace

TcpConnections join_tcp_group(const TcpGroup& group, const TcpOffer& offer, int timeout_ms) {
  const std::size_t token_bytes =
      static_cast<std::size_t>(group.num_ranks) * kNumTcpKinds * kTokenBytes;
  VT_CHECK(group.num_ranks >= 2 && group.num_ranks <= 1024 && group.rank >= 0 &&
               group.rank < group.num_ranks &&
               group.addresses.size() == static_cast<std::size_t>(group.num_ranks) &&
               group.shown.size() == token_bytes && group.expected.size() == token_bytes,
           "rank %d of %d: its addresses and tokens are not those of the group", group.rank,
           group.num_ranks);
  return Joiner(group, offer, timeout_ms).run();
}

}  // namespace vt
