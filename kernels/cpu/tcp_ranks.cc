#include "tcp_ranks.h"

#include <poll.h>
#include <string.h>

#include <algorithm>
#include <chrono>

#include "../host/tcp_news.h"
#include "pages.h"
#include "rank_places.h"

namespace vt {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

/// Looks at every connection before the first sleep: about 20 us.
constexpr int kSpins = 20;
/// Longest sleep before a waiting rank looks around.
constexpr int kNapMs = 20;
/// A sleep that took longer was no sleep: this process stood still.
constexpr milliseconds kOwnPause{500};
/// From the end of a rank's data to the news of why.
constexpr milliseconds kNewsTime{300};
/// What ranks may take from the first that joins to the last.
constexpr int kJoinTimeoutMs = 60000;

/// Begins every message; ranks are of one byte order.
struct Header {
  char magic[4];
  std::uint32_t meeting;
  std::uint64_t position;
  std::uint32_t checksum;
  std::uint32_t reserved;
  std::uint64_t body_bytes;
};
static_assert(sizeof(Header) == 32);
constexpr char kMagic[4] = {'v', 't', 'D', '1'};

/// The exchange with one rank, and how far it is in this meeting.
struct Peer {
  Socket socket;
  /// Its part.
  std::vector<float> part;
  Header header;
  std::size_t num_sent, num_received;
  /// Its header says that it brings something else.
  bool is_elsewhere;
  bool has_ended = false;
  /// Where it was when it was last looked at, what had been moved then, and when either changed.
  std::uint64_t position = 0;
  std::size_t num_moved = 0;
  Clock::time_point moved;
};

class TcpRanks : public Communicator {
 public:
  TcpRanks(const TcpGroup& group, TcpConnections connections, std::size_t memory_bytes)
      : rank_(group.rank),
        num_ranks_(group.num_ranks),
        timeout_ms_(group.timeout_ms),
        memory_(memory_bytes, "activations"),
        peers_(group.num_ranks),
        arrivals_(group.num_ranks),
        news_(group.rank, std::move(connections.sockets[static_cast<int>(TcpKind::news)]),
              news_beat_ms(group.timeout_ms)) {
    for (int rank = 0; rank < num_ranks_; rank++)
      peers_[rank].socket = std::move(connections.sockets[static_cast<int>(TcpKind::data)][rank]);
  }
  ~TcpRanks() override { TcpRanks::leave("has ended"); }

  int num_ranks() const override { return num_ranks_; }
  char* memory() const override { return memory_.data(); }
  const GroupFailure& failure() const override { return failure_; }

  bool meet(const Place& place, const float* data, std::size_t count) override {
    if (failed()) return false;
    begin(place, data, count);
    for (int i = 0; i < kSpins; i++)
      if (exchange()) return agree(place) || take_failure();
    for (Peer& peer : peers_) peer.moved = Clock::now();
    Clock::time_point looked = Clock::now();
    while (!exchange()) {
      if (!news_.is_well()) return take_failure();
      nap();
      const Clock::time_point now = Clock::now();
      // Who was not there itself to look (a server that is stopped and goes on) blames nobody.
      const bool stood_still = now - looked > kOwnPause;
      looked = now;
      for (int rank = 0; rank < num_ranks_; rank++)
        if (is_pending(rank)) look_after(rank, place, now, stood_still);
    }
    return agree(place) || take_failure();
  }

  const float* part(int rank) const override {
    return rank == rank_ ? data_ : peers_[rank].part.data();
  }

  void set_position(double step, int op_index) override {
    news_.set_position(pack_position(step, op_index));
  }

  void leave(const std::string& why) override { news_.blame(rank_, why); }

 private:
  std::size_t message_bytes() const { return sizeof(Header) + header_.body_bytes; }
  bool has_sent(const Peer& peer) const { return peer.num_sent == message_bytes(); }
  bool has_come(const Peer& peer) const {
    return peer.is_elsewhere || peer.num_received == message_bytes();
  }
  bool is_pending(int rank) const {
    return rank != rank_ && !(has_sent(peers_[rank]) && has_come(peers_[rank]));
  }

  void begin(const Place& place, const float* data, std::size_t count) {
    data_ = data;
    memcpy(header_.magic, kMagic, sizeof kMagic);
    header_.meeting++;
    header_.position = pack_position(place.step, place.op_index);
    header_.checksum = place.checksum;
    header_.body_bytes = count * sizeof(float);
    for (Peer& peer : peers_) {
      if (peer.part.size() < count) peer.part.resize(count);
      peer.num_sent = peer.num_received = 0;
      peer.is_elsewhere = false;
    }
  }

  /// Moves what can be moved now. True when the meeting is over: all have come and been told, or
  /// one of them is at another place.
  bool exchange() {
    bool all_have_come = true, all_are_told = true, one_is_elsewhere = false;
    for (int rank = 0; rank < num_ranks_; rank++) {
      if (rank == rank_) continue;
      Peer& peer = peers_[rank];
      if (!has_sent(peer)) send(peer);
      if (!has_come(peer)) receive(peer);
      all_are_told &= has_sent(peer);
      all_have_come &= has_come(peer);
      one_is_elsewhere |= peer.is_elsewhere;
    }
    return all_have_come && (all_are_told || one_is_elsewhere);
  }

  void send(Peer& peer) {
    const std::ptrdiff_t bytes =
        peer.socket.send(&header_, sizeof header_, data_, header_.body_bytes, peer.num_sent);
    // The end of a connection is seen where it is read.
    if (bytes > 0) peer.num_sent += bytes;
  }

  void receive(Peer& peer) {
    while (!has_come(peer)) {
      const std::ptrdiff_t bytes =
          peer.socket.receive(&peer.header, sizeof peer.header, peer.part.data(),
                              header_.body_bytes, peer.num_received);
      peer.has_ended = bytes < 0;
      if (bytes <= 0) return;
      peer.num_received += bytes;
      if (peer.num_received < sizeof(Header)) continue;
      const Header& its = peer.header;
      peer.is_elsewhere = memcmp(its.magic, kMagic, sizeof kMagic) != 0 ||
                          its.meeting != header_.meeting || its.body_bytes != header_.body_bytes ||
                          !(arrival_of(its) == arrival_of(header_));
    }
  }

  static Arrival arrival_of(const Header& header) { return {header.position, header.checksum}; }

  void nap() {
    polled_.clear();
    for (int rank = 0; rank < num_ranks_; rank++) {
      const Peer& peer = peers_[rank];
      if (!is_pending(rank) || peer.has_ended) continue;
      const int events = (has_sent(peer) ? 0 : POLLOUT) | (has_come(peer) ? 0 : POLLIN);
      polled_.push_back({peer.socket.fd(), static_cast<short>(events), 0});
    }
    poll(polled_.data(), polled_.size(), polled_.empty() ? 1 : kNapMs);
  }

  /// One that has not come: has it moved, and if not, for how long?
  void look_after(int rank, const Place& place, Clock::time_point now, bool stood_still) {
    Peer& peer = peers_[rank];
    // Bytes that come or go are a sign of life, too.
    const std::uint64_t position = news_.position_of(rank);
    const std::size_t num_moved = peer.num_sent + peer.num_received;
    if (position != peer.position || num_moved != peer.num_moved || stood_still) peer.moved = now;
    peer.position = position;
    peer.num_moved = num_moved;
    if (peer.has_ended && now - peer.moved > kNewsTime)
      news_.blame(rank, "is gone: its connection has ended");
    else if (now - peer.moved >= milliseconds(timeout_ms_))
      news_.blame(rank, why_absent(place, position, timeout_ms_));
  }

  /// Every rank has come: are they at one place?
  bool agree(const Place& place) {
    for (int rank = 0; rank < num_ranks_; rank++)
      arrivals_[rank] = arrival_of(rank == rank_ ? header_ : peers_[rank].header);
    const int odd = odd_one_out(arrivals_.data(), num_ranks_);
    if (odd >= 0) {
      news_.blame(odd, why_odd(arrivals_[odd], place));
      return false;
    }
    for (int rank = 0; rank < num_ranks_; rank++)
      if (rank != rank_ && peers_[rank].is_elsewhere) {
        news_.blame(rank, "brings something else to the same meeting");
        return false;
      }
    return true;
  }

  bool take_failure() {
    failure_ = news_.failure();
    return false;
  }

  const int rank_, num_ranks_, timeout_ms_;
  Pages memory_;
  /// By rank; the rank's own is not used.
  std::vector<Peer> peers_;
  std::vector<Arrival> arrivals_;
  std::vector<pollfd> polled_;
  /// What this rank sends in this meeting.
  Header header_{};
  const float* data_ = nullptr;
  GroupFailure failure_;
  TcpNews news_;
};

}  // namespace

std::unique_ptr<Communicator> join_tcp_ranks(const TcpGroup& group, std::size_t memory_bytes,
                                             int* level) {
  TcpConnections connections = join_tcp_group(group, {memory_bytes, *level}, kJoinTimeoutMs);
  *level = connections.lowest_level;
  return std::make_unique<TcpRanks>(group, std::move(connections), memory_bytes);
}

}  // namespace vt
