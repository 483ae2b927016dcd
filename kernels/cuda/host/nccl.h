// NCCL as this library uses it: found and loaded at run time, one communicator, calls that never
// block for ever. What is exchanged, and in what order it is added, is not known here.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "nccl_api.h"

namespace vt {

class Nccl {
 public:
  /// Null where it is absent, too old, or lacks something, with the reason in `why`.
  static std::unique_ptr<Nccl> load(const std::string& search_path, std::string& why);
  /// Aborts: it waits for no other rank.
  ~Nccl();
  Nccl(const Nccl&) = delete;
  Nccl& operator=(const Nccl&) = delete;

  /// "2.28.3"
  std::string version() const;
  const std::string& path() const { return path_; }

  /// What one rank makes and all join by.
  std::string make_id() const;
  /// Joins the others on the current device. Throws KernelError after `timeout_ms`.
  void join(const std::string& id, int rank, int num_ranks, int timeout_ms);

  // Queued on a stream, which may be captured. They throw KernelError, also after abort().
  void all_gather(const void* from, void* to, std::size_t bytes, cudaStream_t stream);
  void all_reduce(const float* from, float* to, std::size_t count, cudaStream_t stream);
  /// What send() and receive() queue in `body` goes in one step. Zero bytes are nothing.
  void together(const std::function<void()>& body);
  void send(const void* from, std::size_t bytes, int rank, cudaStream_t stream);
  void receive(void* to, std::size_t bytes, int rank, cudaStream_t stream);

  /// What has gone wrong since, "" while all is well. Any thread.
  std::string error() const;
  /// Ends what runs and what waits, on the device and in calls; then calls throw. Any thread.
  void abort();

 private:
  Nccl() = default;
  std::string find_functions();
  /// `call` with the communicator, then until NCCL has queued it.
  template <typename Call>
  void queue(const char* what, const Call& call);
  void settle(const char* what, nccl::Result result, int timeout_ms);
  /// What NCCL says of it.
  std::string describe(nccl::Result result) const;
  [[noreturn]] void fail(const char* what, nccl::Result result) const;

  void* library_ = nullptr;
  std::string path_;
  int version_ = 0;
  nccl::Functions nccl_ = {};
  /// Held for as long as a call takes.
  mutable std::mutex mutex_;
  std::atomic<bool> is_aborted_{false};
  bool is_together_ = false;
  nccl::Comm comm_ = nullptr;
};

}  // namespace vt
