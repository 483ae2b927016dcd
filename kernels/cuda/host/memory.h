// Device and pinned memory with an owner's name, and the KV cache's address range, which is
// reserved before graphs are captured and mapped after free memory is known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace vt {

/// owner -> bytes, in the order of first use.
class Ledger {
 public:
  void add(const std::string& owner, std::size_t bytes, bool on_device = true);
  const std::vector<std::pair<std::string, std::size_t>>& entries() const { return entries_; }
  /// Of all owners, on the device.
  std::size_t device_bytes() const { return device_bytes_; }

 private:
  std::vector<std::pair<std::string, std::size_t>> entries_;
  std::size_t device_bytes_ = 0;
};

/// cudaMalloc.
struct DeviceAllocator {
  static constexpr bool kOnDevice = true;
  /// Zeroed, for every stream; throws KernelError naming the owner.
  static void* allocate(std::size_t bytes, const std::string& owner);
  static void free(void* data) noexcept;
};

/// Pinned host memory mapped into the device: one address on both sides.
struct PinnedAllocator {
  static constexpr bool kOnDevice = false;
  /// Zeroed; throws KernelError naming the owner.
  static void* allocate(std::size_t bytes, const std::string& owner);
  static void free(void* data) noexcept;
};

/// Memory of one kind that has an owner; empty where it has no bytes.
template <class Memory>
class Buffer {
 public:
  Buffer() = default;
  Buffer(std::size_t bytes, const std::string& owner, Ledger& ledger) : Buffer() {
    if (bytes == 0) return;
    data_ = Memory::allocate(bytes, owner);
    bytes_ = bytes;
    ledger.add(owner, bytes, Memory::kOnDevice);
  }
  ~Buffer() {
    if (data_ != nullptr) Memory::free(data_);
  }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  template <typename T = char>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

using DeviceBuffer = Buffer<DeviceAllocator>;
using PinnedBuffer = Buffer<PinnedAllocator>;

/// [block][layer][K|V][kvHead][blockSize][headDim] at an address that is known before its size.
class KvCache {
 public:
  /// Reserves address space for `max_bytes`; none for 0.
  explicit KvCache(std::size_t max_bytes);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  void* base() const { return reinterpret_cast<void*>(base_); }
  /// What mapping `bytes` takes of the device: it is given out in whole units.
  std::size_t mapped_bytes(std::size_t bytes) const;
  /// Backs the first `bytes` with memory, zeroed. Once.
  void map(std::size_t bytes, Ledger& ledger);

 private:
  void release();

  std::uint64_t base_ = 0;
  std::size_t unit_ = 1, reserved_ = 0, mapped_ = 0;
  /// Of physical memory, in order, each at most kChunkBytes.
  std::vector<std::uint64_t> handles_;
};

}  // namespace vt
