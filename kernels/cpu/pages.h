// A large block of memory straight from the system: zero, lazily touched, in huge pages where the
// system has them. Owner of weights, arena, KV cache and row table.
#pragma once

#include <cstddef>
#include <utility>

namespace vt {

class Pages {
 public:
  Pages() = default;
  /// Throws KernelError naming `owner` when the system refuses.
  Pages(std::size_t bytes, const char* owner);
  ~Pages();
  Pages(Pages&& other) noexcept { swap(other); }
  Pages& operator=(Pages&& other) noexcept {
    swap(other);
    return *this;
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  std::size_t bytes() const { return bytes_; }
  char* data() const { return static_cast<char*>(data_); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void swap(Pages& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace vt
