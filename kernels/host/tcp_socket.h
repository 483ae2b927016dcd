// A socket that never blocks and closes with its owner. Addresses are numeric, "10.0.0.1:29503" or
// "[fd00::1]:29503", or paths of unix sockets, "/run/..". Knows nothing of what is sent.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

namespace vt {

class Socket {
 public:
  Socket() = default;
  /// Takes the descriptor; makes it close-on-exec and non-blocking, without Nagle's delay.
  explicit Socket(int fd);
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket();

  /// Throws KernelError for an address that is none; else -1 and errno where it does not work.
  static Socket listen_at(const std::string& address, int backlog);
  /// Begins to connect; writable when that is done, and error() says how it went.
  static Socket connect_to(const std::string& address);
  /// No socket where nobody waits.
  Socket accept() const;

  int fd() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  void close();
  /// Of a connect that is done: 0 or errno.
  int error() const;

  /// Bytes that were moved: 0 if none can be now, -1 if the connection has ended.
  std::ptrdiff_t send(const void* data, std::size_t bytes) const;
  std::ptrdiff_t receive(void* data, std::size_t bytes) const;
  /// The same for a head and a body behind it, of which `done` bytes have been moved before.
  std::ptrdiff_t send(const void* head, std::size_t head_bytes, const void* body,
                      std::size_t body_bytes, std::size_t done) const;
  std::ptrdiff_t receive(void* head, std::size_t head_bytes, void* body, std::size_t body_bytes,
                         std::size_t done) const;

 private:
  int fd_ = -1;
};

}  // namespace vt
