#include "tcp_news.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "../check.h"

namespace vt {

namespace {

enum : std::int32_t { kPosition, kFailure };
constexpr char kMagic[4] = {'v', 't', 'N', '1'};
/// What the last words of a rank may take to leave.
constexpr int kLastWordsMs = 100;

}  // namespace

TcpNews::TcpNews(int rank, std::vector<Socket> sockets, int beat_ms)
    : rank_(rank), beat_ms_(beat_ms), peers_(sockets.size()) {
  for (std::size_t i = 0; i < sockets.size(); i++) peers_[i].socket = std::move(sockets[i]);
  VT_CHECK(pipe(wake_pipe_) == 0, "no pipe: %s", strerror(errno));
  for (const int fd : wake_pipe_) {
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  }
  thread_ = std::thread([this] { run(); });
}

TcpNews::~TcpNews() {
  stopping_.store(true);
  wake();
  thread_.join();
  for (const int fd : wake_pipe_) close(fd);
  for (Peer& peer : peers_) {
    if (!peer.socket.is_open()) continue;
    // What lies unread would turn the end into a reset, which may overtake the last words.
    shutdown(peer.socket.fd(), SHUT_WR);
    char unread[1024];
    while (peer.socket.receive(unread, sizeof unread) > 0) continue;
  }
}

void TcpNews::blame(int rank, const std::string& reason) {
  if (!take_blame(rank, reason)) return;
  Frame frame{};
  memcpy(frame.magic, kMagic, sizeof kMagic);
  frame.kind = kFailure;
  frame.rank = rank;
  strncpy(frame.reason, reason.c_str(), sizeof frame.reason - 1);
  tell_all(frame);
}

GroupFailure TcpNews::failure() const {
  std::lock_guard<std::mutex> lock(failure_mutex_);
  return failure_;
}

/// False if somebody was blamed before.
bool TcpNews::take_blame(int rank, const std::string& reason) {
  std::lock_guard<std::mutex> lock(failure_mutex_);
  if (failure_.rank >= 0) return false;
  failure_ = {rank, "rank " + std::to_string(rank) + " " + reason};
  is_well_.store(false, std::memory_order_release);
  return true;
}

void TcpNews::run() {
  std::vector<pollfd> polled(peers_.size() + 1);
  std::uint64_t told = own_position_.load();
  while (!stopping_.load()) {
    // Closed ones have the descriptor -1, which poll() passes over.
    for (std::size_t i = 0; i < peers_.size(); i++) polled[i] = {peers_[i].socket.fd(), POLLIN, 0};
    polled.back() = {wake_pipe_[0], POLLIN, 0};
    poll(polled.data(), polled.size(), beat_ms_);
    for (std::size_t i = 0; i < peers_.size(); i++)
      if (polled[i].revents != 0) read(static_cast<int>(i));
    const std::uint64_t position = own_position_.load(std::memory_order_relaxed);
    if (position == told) continue;
    told = position;
    Frame frame{};
    memcpy(frame.magic, kMagic, sizeof kMagic);
    frame.kind = kPosition;
    frame.rank = rank_;
    frame.position = position;
    tell_all(frame);
  }
}

void TcpNews::read(int rank) {
  Peer& peer = peers_[rank];
  for (;;) {
    char* frame = reinterpret_cast<char*>(&peer.frame);
    const std::ptrdiff_t bytes =
        peer.socket.receive(frame + peer.num_received, sizeof(Frame) - peer.num_received);
    if (bytes == 0) return;
    if (bytes < 0) {
      blame(rank, "is gone: its connection has ended");
      break;
    }
    peer.num_received += bytes;
    if (peer.num_received < sizeof(Frame)) continue;
    peer.num_received = 0;
    const Frame& news = peer.frame;
    if (memcmp(news.magic, kMagic, sizeof kMagic) != 0 || news.rank < 0 ||
        news.rank >= static_cast<int>(peers_.size())) {
      blame(rank, "sends what is no message");
      break;
    }
    if (news.kind == kPosition)
      peer.position.store(news.position, std::memory_order_relaxed);
    else
      take_blame(news.rank, std::string(news.reason, strnlen(news.reason, sizeof news.reason)));
  }
  std::lock_guard<std::mutex> lock(send_mutex_);
  peer.socket.close();
}

void TcpNews::tell_all(const Frame& frame) {
  std::lock_guard<std::mutex> lock(send_mutex_);
  for (Peer& peer : peers_)
    if (peer.socket.is_open()) tell(peer, frame);
}

/// A position is left out where the one before has not left yet: a newer one follows.
void TcpNews::tell(Peer& peer, const Frame& frame) {
  const bool is_last_word = frame.kind == kFailure;
  if (is_last_word && !flush(peer)) {
    pollfd writable = {peer.socket.fd(), POLLOUT, 0};
    poll(&writable, 1, kLastWordsMs);
  }
  if (!flush(peer)) return;
  const std::ptrdiff_t bytes = peer.socket.send(&frame, sizeof frame);
  if (bytes <= 0) return;
  peer.unsent.assign(reinterpret_cast<const char*>(&frame) + bytes, sizeof frame - bytes);
}

bool TcpNews::flush(Peer& peer) {
  if (peer.unsent.empty()) return true;
  const std::ptrdiff_t bytes = peer.socket.send(peer.unsent.data(), peer.unsent.size());
  if (bytes > 0) peer.unsent.erase(0, bytes);
  return peer.unsent.empty();
}

void TcpNews::wake() {
  const char byte = 0;
  (void)!write(wake_pipe_[1], &byte, 1);
}

}  // namespace vt
