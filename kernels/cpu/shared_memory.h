// Memory that the processes of one host share under a path. The first to come makes it; its size
// cannot change while it is mapped.
#pragma once

#include <cstddef>
#include <string>

namespace vt {

class SharedMemory {
 public:
  /// Zeroed, readable by this user alone. `path` must not exist; it names the memory when
  /// publish() was called.
  static SharedMemory create(const std::string& path, std::size_t bytes);
  /// Waits for the path to appear. Throws KernelError if it does not, or names memory of another
  /// size.
  static SharedMemory open(const std::string& path, std::size_t bytes, int timeout_ms);

  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&&) = delete;
  ~SharedMemory();

  void publish();
  char* data() const { return data_; }

 private:
  SharedMemory(std::string path, int file, std::size_t bytes);
  static SharedMemory map(const std::string& path, int file, std::size_t bytes);

  std::string path_;
  int file_;
  std::size_t bytes_;
  char* data_ = nullptr;
  bool published_ = false;
};

}  // namespace vt
