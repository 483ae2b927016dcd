// What Node cannot do and the processes of a server need: to die with the parent, to bind a
// listening socket before anything else and hand it down, and to raise the limit of open files.
// Knows nothing of what is served.
#include <fcntl.h>
#include <napi.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>

namespace {

/// Throws a JavaScript Error with `code` (EADDRINUSE, ...) and `syscall`, as Node's own do.
[[noreturn]] void throw_errno(Napi::Env env, int error, const char* syscall,
                              const std::string& what) {
  const char* code = "EIO";
  switch (error) {
    case EADDRINUSE:
      code = "EADDRINUSE";
      break;
    case EADDRNOTAVAIL:
      code = "EADDRNOTAVAIL";
      break;
    case EACCES:
      code = "EACCES";
      break;
    case EPERM:
      code = "EPERM";
      break;
    case ENOENT:
      code = "ENOENT";
      break;
    case EMFILE:
      code = "EMFILE";
      break;
    case EAFNOSUPPORT:
      code = "EAFNOSUPPORT";
      break;
    case EEXIST:
      code = "EEXIST";
      break;
    case ENAMETOOLONG:
      code = "ENAMETOOLONG";
      break;
    default:
      break;
  }
  Napi::Error e = Napi::Error::New(env, std::string(syscall) + " " + what + ": " + strerror(error));
  e.Set("code", Napi::String::New(env, code));
  e.Set("syscall", Napi::String::New(env, syscall));
  throw e;
}

/// Closes on exit unless released.
struct Fd {
  int value;
  explicit Fd(int fd) : value(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (value >= 0) close(value);
  }
  int release() {
    int fd = value;
    value = -1;
    return fd;
  }
};

int open_socket(int family) {
#ifdef SOCK_CLOEXEC
  return socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
#else
  int fd = socket(family, SOCK_STREAM, 0);
  if (fd >= 0) fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
#endif
}

Napi::Object listening(Napi::Env env, int fd, int port) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("fd", fd);
  result.Set("port", port);
  return result;
}

/// Binds and listens on one address; returns the fd, or -1 with errno and `syscall` set.
int try_listen(const addrinfo& address, int backlog, const char** syscall) {
  *syscall = "socket";
  Fd fd(open_socket(address.ai_family));
  if (fd.value < 0) return -1;
  int on = 1;
  setsockopt(fd.value, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  *syscall = "bind";
  if (bind(fd.value, address.ai_addr, address.ai_addrlen) != 0) return -1;
  *syscall = "listen";
  if (listen(fd.value, backlog) != 0) return -1;
  return fd.release();
}

/// listenTcp(host, port, backlog) -> {fd, port}; port 0 takes a free one.
Napi::Value listen_tcp(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::string host = info[0].As<Napi::String>();
  std::string port = std::to_string(info[1].As<Napi::Number>().Int32Value());
  int backlog = info[2].As<Napi::Number>().Int32Value();
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  int status = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (status != 0)
    throw Napi::Error::New(env, "unknown host " + host + ": " + gai_strerror(status));
  int fd = -1;
  int error = 0;
  const char* syscall = "bind";
  for (addrinfo* a = found; a != nullptr && fd < 0; a = a->ai_next) {
    fd = try_listen(*a, backlog, &syscall);
    if (fd < 0) error = errno;
    if (error == EADDRINUSE) break;  // "localhost": never slip to ::1 because 127.0.0.1 is taken.
  }
  freeaddrinfo(found);
  if (fd < 0) throw_errno(env, error, syscall, host + ":" + port);
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length);
  int real_port = bound.ss_family == AF_INET6
                      ? ntohs(reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port)
                      : ntohs(reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  return listening(env, fd, real_port);
}

/// listenUnix(path, backlog) -> {fd, port: 0}. A socket file that nobody listens on is replaced.
Napi::Value listen_unix(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::string path = info[0].As<Napi::String>();
  int backlog = info[1].As<Napi::Number>().Int32Value();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) throw_errno(env, ENAMETOOLONG, "bind", path);
  memcpy(address.sun_path, path.data(), path.size());
  const auto* raw = reinterpret_cast<const sockaddr*>(&address);
  Fd fd(open_socket(AF_UNIX));
  if (fd.value < 0) throw_errno(env, errno, "socket", path);
  if (bind(fd.value, raw, sizeof address) != 0) {
    if (errno != EADDRINUSE) throw_errno(env, errno, "bind", path);
    struct stat file {};
    if (lstat(path.c_str(), &file) != 0 || !S_ISSOCK(file.st_mode))
      throw_errno(env, EEXIST, "bind", path);
    Fd probe(open_socket(AF_UNIX));
    if (connect(probe.value, raw, sizeof address) == 0 || errno != ECONNREFUSED)
      throw_errno(env, EADDRINUSE, "bind", path);
    unlink(path.c_str());
    if (bind(fd.value, raw, sizeof address) != 0) throw_errno(env, errno, "bind", path);
  }
  if (listen(fd.value, backlog) != 0) throw_errno(env, errno, "listen", path);
  return listening(env, fd.release(), 0);
}

/// dieWithParent(parentPid, fd): this process is killed when the parent dies. On Linux by the
/// kernel; everywhere when the other end of `fd` (>= 0), held by the parent alone, is closed.
Napi::Value die_with_parent(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  pid_t parent = info[0].As<Napi::Number>().Int32Value();
  int fd = info[1].As<Napi::Number>().Int32Value();
#ifdef __linux__
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) throw_errno(env, errno, "prctl", "PR_SET_PDEATHSIG");
#endif
  // The parent may have died before the call: then somebody else is the parent by now.
  if (getppid() != parent) kill(getpid(), SIGKILL);
  if (fd < 0) return env.Undefined();
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  // A thread of its own: the JavaScript thread may be busy or stopped in a debugger.
  std::thread([fd] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    char bytes[64];
    for (;;) {
      pollfd wait{fd, POLLIN, 0};
      if (poll(&wait, 1, -1) < 0 && errno != EINTR) return;
      ssize_t n = read(fd, bytes, sizeof bytes);
      if (n == 0 || (n < 0 && errno == ECONNRESET)) kill(getpid(), SIGKILL);
      if (n < 0 && errno != EINTR && errno != EAGAIN) return;
    }
  }).detach();
  return env.Undefined();
}

/// raiseFileLimit() -> the limit of open files now: the soft limit is set to the hard one.
Napi::Value raise_file_limit(const Napi::CallbackInfo& info) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return Napi::Number::New(info.Env(), 0);
  rlim_t before = limit.rlim_cur;
  limit.rlim_cur =
      limit.rlim_max == RLIM_INFINITY ? std::max<rlim_t>(before, 1 << 20) : limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  return Napi::Number::New(info.Env(), static_cast<double>(limit.rlim_cur));
}

/// requestSlice(ns) -> whether the kernel has taken it (Linux from 6.12 on): a thread that is woken
/// goes before one with a longer slice. For this thread and those that it makes later.
Napi::Value request_slice(const Napi::CallbackInfo& info) {
  bool taken = false;
#ifdef __linux__
  // struct sched_attr of the kernel, version 0 of its layout.
  struct {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } attributes{};
  constexpr unsigned kSize = 48;
  static_assert(sizeof attributes == kSize);
  const bool is_known = syscall(SYS_sched_getattr, 0, &attributes, kSize, 0) == 0;
  // Whoever started us with another policy (chrt) has decided already.
  if (is_known && attributes.policy == 0) {
    attributes.runtime = static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value());
    taken = syscall(SYS_sched_setattr, 0, &attributes, 0) == 0 &&
            syscall(SYS_sched_getattr, 0, &attributes, kSize, 0) == 0 && attributes.runtime != 0;
  }
#endif
  return Napi::Boolean::New(info.Env(), taken);
}

/// isSignalIgnored(number): true where the starter asked for it, as nohup does for SIGHUP.
Napi::Value is_signal_ignored(const Napi::CallbackInfo& info) {
  struct sigaction action {};
  sigaction(info[0].As<Napi::Number>().Int32Value(), nullptr, &action);
  return Napi::Boolean::New(info.Env(), action.sa_handler == SIG_IGN);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("listenTcp", Napi::Function::New(env, listen_tcp));
  exports.Set("listenUnix", Napi::Function::New(env, listen_unix));
  exports.Set("dieWithParent", Napi::Function::New(env, die_with_parent));
  exports.Set("raiseFileLimit", Napi::Function::New(env, raise_file_limit));
  exports.Set("requestSlice", Napi::Function::New(env, request_slice));
  exports.Set("isSignalIgnored", Napi::Function::New(env, is_signal_ignored));
  return exports;
}

}  // namespace

NODE_API_MODULE(os, init)
