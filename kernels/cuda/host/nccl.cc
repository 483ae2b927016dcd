#include "nccl.h"

#include <dlfcn.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "../../check.h"
#include "find_library.h"

namespace vt {

namespace {

const LibraryName kLibrary = {"libnccl.so.2", {"nccl"}};
/// The first whose communicators can be asked for without waiting, in all calls.
constexpr int kLeastVersion = 21800;
/// Between two looks at what NCCL's own threads do: to queue something takes them some 50 us, less
/// than the shortest sleep, and to join seconds.
constexpr auto kSpin = std::chrono::milliseconds(1), kNap = kSpin;
/// A call connects ranks at most once, and with ranks that live that is quick.
constexpr int kCallTimeoutMs = 30'000;

}  // namespace

std::unique_ptr<Nccl> Nccl::load(const std::string& search_path, std::string& why) {
  std::unique_ptr<Nccl> result(new Nccl());
  result->library_ = open_library(kLibrary, search_path, result->path_);
  if (result->library_ == nullptr) {
    why = "NCCL (" + kLibrary.file +
          ") was not found: install NVIDIA's package libnccl2, or pip's nvidia-nccl-cu13, or name "
          "its folder in VLLM_TS_CUDA_LIBS";
    return nullptr;
  }
  why = result->find_functions();
  if (why.empty()) return result;
  why = result->path_ + ": " + why;
  return nullptr;
}

std::string Nccl::find_functions() {
#define VT_NCCL_FIND(name, parameters)                                                        \
  if ((nccl_.name = reinterpret_cast<decltype(nccl_.name)>(dlsym(library_, "nccl" #name))) == \
      nullptr)                                                                                \
    return "nccl" #name " is missing";
  VT_NCCL_FUNCTIONS(VT_NCCL_FIND)
  VT_NCCL_FIND(GetErrorString, )
  VT_NCCL_FIND(GetLastError, )
#undef VT_NCCL_FIND
  if (nccl_.GetVersion(&version_) != nccl::kSuccess) return "it does not say its version";
  if (version_ < kLeastVersion) return "NCCL " + version() + " is too old: 2.18 is needed";
  return "";
}

std::string Nccl::version() const {
  return std::to_string(version_ / 10000) + "." + std::to_string(version_ / 100 % 100) + "." +
         std::to_string(version_ % 100);
}

Nccl::~Nccl() { abort(); }

std::string Nccl::describe(nccl::Result result) const {
  const char* last = nccl_.GetLastError(comm_);
  return std::string(nccl_.GetErrorString(result)) +
         (last != nullptr && *last != '\0' ? std::string(": ") + last : "");
}

void Nccl::fail(const char* what, nccl::Result result) const {
  VT_FAIL("NCCL, %s: %s", what, describe(result).c_str());
}

std::string Nccl::make_id() const {
  nccl::UniqueId id = {};
  const nccl::Result result = nccl_.GetUniqueId(&id);
  if (result != nccl::kSuccess) fail("a new group", result);
  return std::string(id.bytes, sizeof id.bytes);
}

void Nccl::join(const std::string& id, int rank, int num_ranks, int timeout_ms) {
  nccl::UniqueId unique = {};
  VT_CHECK(id.size() == sizeof unique.bytes, "rank 0 sent %zu bytes for NCCL's id", id.size());
  std::memcpy(unique.bytes, id.data(), id.size());
  nccl::Config config;
  config.blocking = 0;
  const std::lock_guard<std::mutex> lock(mutex_);
  const nccl::Result result = nccl_.CommInitRankConfig(&comm_, num_ranks, unique, rank, &config);
  settle("joining the ranks", result, timeout_ms);
}

/// The communicator works by itself until it says that it is done: with a peer that is gone it
/// may never.
void Nccl::settle(const char* what, nccl::Result result, int timeout_ms) {
  const auto begin = std::chrono::steady_clock::now();
  while (result == nccl::kInProgress) {
    VT_CHECK(!is_aborted_, "NCCL, %s: the group was ended", what);
    const auto taken = std::chrono::steady_clock::now() - begin;
    VT_CHECK(taken < std::chrono::milliseconds(timeout_ms), "NCCL, %s: it did not end within %d s",
             what, timeout_ms / 1000);
    if (taken < kSpin)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(kNap);
    const nccl::Result asked = nccl_.CommGetAsyncError(comm_, &result);
    if (asked != nccl::kSuccess) result = asked;
  }
  if (result != nccl::kSuccess) fail(what, result);
}

template <typename Call>
void Nccl::queue(const char* what, const Call& call) {
  // Within together() the lock is held.
  std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
  if (!is_together_) lock.lock();
  VT_CHECK(!is_aborted_ && comm_ != nullptr, "NCCL, %s: the group was ended", what);
  const nccl::Result result = call();
  if (is_together_ && result == nccl::kInProgress) return;
  settle(what, result, kCallTimeoutMs);
}

void Nccl::all_gather(const void* from, void* to, std::size_t bytes, cudaStream_t stream) {
  queue("all-gather",
        [&] { return nccl_.AllGather(from, to, bytes, nccl::kBytes, comm_, stream); });
}

void Nccl::all_reduce(const float* from, float* to, std::size_t count, cudaStream_t stream) {
  queue("all-reduce",
        [&] { return nccl_.AllReduce(from, to, count, nccl::kF32, nccl::kSum, comm_, stream); });
}

void Nccl::together(const std::function<void()>& body) {
  const std::lock_guard<std::mutex> lock(mutex_);
  VT_CHECK(!is_aborted_ && comm_ != nullptr, "NCCL: the group was ended");
  const nccl::Result begun = nccl_.GroupStart();
  if (begun != nccl::kSuccess) fail("a group of messages", begun);
  is_together_ = true;
  try {
    body();
  } catch (...) {
    is_together_ = false;
    nccl_.GroupEnd();
    throw;
  }
  is_together_ = false;
  settle("a group of messages", nccl_.GroupEnd(), kCallTimeoutMs);
}

void Nccl::send(const void* from, std::size_t bytes, int rank, cudaStream_t stream) {
  if (bytes == 0) return;
  queue("send", [&] { return nccl_.Send(from, bytes, nccl::kBytes, rank, comm_, stream); });
}

void Nccl::receive(void* to, std::size_t bytes, int rank, cudaStream_t stream) {
  if (bytes == 0) return;
  queue("receive", [&] { return nccl_.Recv(to, bytes, nccl::kBytes, rank, comm_, stream); });
}

std::string Nccl::error() const {
  std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  // A call that is under way finds its errors itself.
  if (!lock.owns_lock() || is_aborted_ || comm_ == nullptr) return "";
  nccl::Result result = nccl::kSuccess;
  const nccl::Result asked = nccl_.CommGetAsyncError(comm_, &result);
  if (asked != nccl::kSuccess) result = asked;
  return result == nccl::kSuccess || result == nccl::kInProgress ? "" : describe(result);
}

void Nccl::abort() {
  // A call that waits sees this, and lets go of the lock.
  is_aborted_ = true;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (comm_ != nullptr) nccl_.CommAbort(comm_);
  comm_ = nullptr;
}

}  // namespace vt
