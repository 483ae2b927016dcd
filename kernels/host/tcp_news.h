// What ranks on several hosts tell each other beside their data: where each one is, and that the
// group has failed, and why. A thread of its own sends and reads it, so that a rank is heard while
// it computes, and hears while it waits.
#pragma once

#include <algorithm>
#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "group_failure.h"
#include "tcp_socket.h"

namespace vt {

/// How often to tell positions where a rank is lost after `timeout_ms` without a new one.
inline int news_beat_ms(int timeout_ms) { return std::clamp(timeout_ms / 8, 10, 250); }

class TcpNews {
 public:
  /// `sockets` by rank, closed for the rank itself. Positions are told every `beat_ms`.
  TcpNews(int rank, std::vector<Socket> sockets, int beat_ms);
  ~TcpNews();

  /// Where this rank is; cheap.
  void set_position(std::uint64_t position) {
    own_position_.store(position, std::memory_order_relaxed);
  }
  /// Where another was when it last said so.
  std::uint64_t position_of(int rank) const {
    return peers_[rank].position.load(std::memory_order_relaxed);
  }

  bool is_well() const { return is_well_.load(std::memory_order_acquire); }
  /// The group has failed; the first word counts, and is told to the others. Any thread.
  void blame(int rank, const std::string& reason);
  GroupFailure failure() const;

 private:
  /// As it is sent; ranks are of one byte order.
  struct Frame {
    char magic[4];
    std::int32_t kind, rank;
    std::int32_t reserved;
    std::uint64_t position;
    char reason[232];
  };
  static_assert(sizeof(Frame) == 256);

  struct Peer {
    Socket socket;
    std::atomic<std::uint64_t> position{0};
    /// What has come of the next frame.
    Frame frame{};
    std::size_t num_received = 0;
    /// What of the last frame has not left yet.
    std::string unsent;
  };

  void run();
  void read(int rank);
  /// False where a frame's end has not left yet.
  static bool flush(Peer& peer);
  void tell(Peer& peer, const Frame& frame);
  void tell_all(const Frame& frame);
  bool take_blame(int rank, const std::string& reason);
  void wake();

  const int rank_;
  const int beat_ms_;
  std::vector<Peer> peers_;
  std::atomic<std::uint64_t> own_position_{0};
  std::atomic<bool> is_well_{true}, stopping_{false};
  mutable std::mutex failure_mutex_;
  GroupFailure failure_;
  /// Sending is the thread's, and blame()'s.
  std::mutex send_mutex_;
  int wake_pipe_[2] = {-1, -1};
  std::thread thread_;
};

}  // namespace vt
