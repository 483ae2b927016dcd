#include "tcp_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "../check.h"

// Elsewhere than on Linux a broken pipe is a signal, which node ignores.
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

namespace vt {

namespace {

/// What bind() and connect() take.
struct Address {
  sockaddr_storage bytes;
  socklen_t size;
};

Address unix_address(const std::string& path) {
  Address address{};
  auto* to = reinterpret_cast<sockaddr_un*>(&address.bytes);
  VT_CHECK(path.size() < sizeof to->sun_path, "%s is too long for a unix socket", path.c_str());
  to->sun_family = AF_UNIX;
  std::memcpy(to->sun_path, path.c_str(), path.size() + 1);
  address.size = sizeof *to;
  return address;
}

Address resolve(const std::string& address) {
  if (!address.empty() && address.front() == '/') return unix_address(address);
  const std::size_t colon = address.rfind(':');
  VT_CHECK(colon != std::string::npos, "%s is no HOST:PORT", address.c_str());
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found);
  VT_CHECK(failed == 0, "%s: %s", address.c_str(), gai_strerror(failed));
  Address numeric{};
  numeric.size = found->ai_addrlen;
  std::memcpy(&numeric.bytes, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  return numeric;
}

/// The two pieces of a head and its body that are left after `done` bytes.
int remaining(const void* head, std::size_t head_bytes, const void* body, std::size_t body_bytes,
              std::size_t done, iovec* pieces) {
  int count = 0;
  const auto add = [&](const void* data, std::size_t bytes, std::size_t skip) {
    if (skip >= bytes) return;
    char* begin = static_cast<char*>(const_cast<void*>(data));
    pieces[count++] = {begin + skip, bytes - skip};
  };
  add(head, head_bytes, done);
  add(body, body_bytes, done > head_bytes ? done - head_bytes : 0);
  return count;
}

std::ptrdiff_t moved(ssize_t result, bool is_end) {
  if (result > 0) return result;
  if (result == 0) return is_end ? -1 : 0;
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
}

}  // namespace

Socket::Socket(int fd) : fd_(fd) {
  if (fd < 0) return;
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

Socket::~Socket() { close(); }

void Socket::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Socket Socket::listen_at(const std::string& address, int backlog) {
  const Address to = resolve(address);
  Socket socket(::socket(to.bytes.ss_family, SOCK_STREAM, 0));
  int on = 1;
  if (socket.is_open() &&
      (setsockopt(socket.fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
       bind(socket.fd_, reinterpret_cast<const sockaddr*>(&to.bytes), to.size) != 0 ||
       listen(socket.fd_, backlog) != 0)) {
    const int error = errno;
    socket.close();
    errno = error;
  }
  return socket;
}

Socket Socket::connect_to(const std::string& address) {
  const Address to = resolve(address);
  Socket socket(::socket(to.bytes.ss_family, SOCK_STREAM, 0));
  if (socket.is_open() &&
      connect(socket.fd_, reinterpret_cast<const sockaddr*>(&to.bytes), to.size) != 0 &&
      errno != EINPROGRESS) {
    const int error = errno;
    socket.close();
    errno = error;
  }
  return socket;
}

Socket Socket::accept() const { return Socket(::accept(fd_, nullptr, nullptr)); }

int Socket::error() const {
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

std::ptrdiff_t Socket::send(const void* data, std::size_t bytes) const {
  return moved(::send(fd_, data, bytes, MSG_NOSIGNAL), false);
}

std::ptrdiff_t Socket::receive(void* data, std::size_t bytes) const {
  return moved(::recv(fd_, data, bytes, 0), true);
}

std::ptrdiff_t Socket::send(const void* head, std::size_t head_bytes, const void* body,
                            std::size_t body_bytes, std::size_t done) const {
  iovec pieces[2];
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = remaining(head, head_bytes, body, body_bytes, done, pieces);
  return moved(sendmsg(fd_, &message, MSG_NOSIGNAL), false);
}

std::ptrdiff_t Socket::receive(void* head, std::size_t head_bytes, void* body,
                               std::size_t body_bytes, std::size_t done) const {
  iovec pieces[2];
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = remaining(head, head_bytes, body, body_bytes, done, pieces);
  return moved(recvmsg(fd_, &message, 0), true);
}

}  // namespace vt
