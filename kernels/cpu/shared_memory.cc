#include "shared_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <thread>
#include <utility>

#include "../check.h"

namespace vt {

namespace {

/// The file that the memory is: without a name on Linux, since a folder may lie on a disk, and
/// /dev/shm is small in containers.
int make_file(const std::string& path) {
#ifdef __linux__
  (void)path;
  return memfd_create("vllm-ts", MFD_CLOEXEC | MFD_ALLOW_SEALING);
#else
  return ::open((path + ".new").c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
#endif
}

}  // namespace

SharedMemory::SharedMemory(std::string path, int file, std::size_t bytes)
    : path_(std::move(path)), file_(file), bytes_(bytes) {}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::exchange(other.file_, -1)),
      bytes_(other.bytes_),
      data_(std::exchange(other.data_, nullptr)),
      published_(std::exchange(other.published_, false)) {}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
  if (file_ >= 0) close(file_);
  if (published_) unlink(path_.c_str());
}

SharedMemory SharedMemory::map(const std::string& path, int file, std::size_t bytes) {
  SharedMemory memory(path, file, bytes);
  int flags = MAP_SHARED;
#ifdef MAP_NORESERVE
  flags |= MAP_NORESERVE;
#endif
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, file, 0);
  VT_CHECK(data != MAP_FAILED, "%s: mmap of %zu bytes: %s", path.c_str(), bytes, strerror(errno));
  memory.data_ = static_cast<char*>(data);
  return memory;
}

SharedMemory SharedMemory::create(const std::string& path, std::size_t bytes) {
  const int file = make_file(path);
  VT_CHECK(file >= 0, "%s: no shared memory: %s", path.c_str(), strerror(errno));
  SharedMemory guard(path, file, bytes);
  VT_CHECK(fchmod(file, 0600) == 0 && ftruncate(file, static_cast<off_t>(bytes)) == 0,
           "%s: no shared memory of %zu bytes: %s", path.c_str(), bytes, strerror(errno));
#ifdef __linux__
  // A size that changes would end whoever has it mapped.
  VT_CHECK(fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0, "%s: seals: %s",
           path.c_str(), strerror(errno));
#endif
  guard.file_ = -1;
  return map(path, file, bytes);
}

void SharedMemory::publish() {
#ifdef __linux__
  const std::string target = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(file_);
  const int failed = symlink(target.c_str(), path_.c_str());
#else
  const int failed = rename((path_ + ".new").c_str(), path_.c_str());
#endif
  VT_CHECK(failed == 0, "%s: %s", path_.c_str(), strerror(errno));
  published_ = true;
}

SharedMemory SharedMemory::open(const std::string& path, std::size_t bytes, int timeout_ms) {
  constexpr int poll_ms = 5;
  int file = -1;
  for (int waited_ms = 0; file < 0; waited_ms += poll_ms) {
    file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (file >= 0) break;
    VT_CHECK(errno == ENOENT, "%s: %s", path.c_str(), strerror(errno));
    VT_CHECK(waited_ms < timeout_ms, "%s: rank 0 made no shared memory within %d s", path.c_str(),
             timeout_ms / 1000);
    std::this_thread::sleep_for(std::chrono::milliseconds(poll_ms));
  }
  SharedMemory guard(path, file, bytes);
  struct stat status;
  VT_CHECK(fstat(file, &status) == 0, "%s: %s", path.c_str(), strerror(errno));
  VT_CHECK(S_ISREG(status.st_mode) && static_cast<std::size_t>(status.st_size) == bytes,
           "%s has %lld bytes, expected %zu: the ranks run different programs", path.c_str(),
           static_cast<long long>(status.st_size), bytes);
  guard.file_ = -1;
  return map(path, file, bytes);
}

}  // namespace vt
