// A libnccl.so.2 for ranks that are processes of one host without GPUs: parts travel through a file
// that all have mapped, when their stream's turn comes. Its calls are "in progress" for a while, as
// NCCL's are in a group that does not block; its own sums are added from the last rank to the
// first, so that they can be told from ours. FAKE_NCCL says what goes wrong: "old", or "error N"
// (the Nth call fails later).
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "cuda_runtime.h"

namespace {

constexpr int kMaxRanks = 8;
constexpr std::size_t kBoxBytes = 64 << 10;
enum : int { kSuccess = 0, kInvalidUsage = 5, kRemoteError = 6, kInProgress = 7 };

/// From one rank to another; full while `filled`.
struct Box {
  std::atomic<std::uint32_t> filled;
  char bytes[kBoxBytes];
};
struct Shared {
  std::atomic<int> num_joined;
  Box boxes[kMaxRanks][kMaxRanks];
};

struct Transfer {
  bool sends;
  int peer;
  char* data;
  std::size_t bytes, done;
};

std::string wanted() {
  const char* text = std::getenv("FAKE_NCCL");
  return text == nullptr ? "" : text;
}

}  // namespace

struct FakeComm {
  Shared* shared;
  int rank, num_ranks;
  std::atomic<bool> is_aborted{false}, has_failed{false};
  /// Looks at it that still find it busy.
  std::atomic<int> num_busy{0};
  int num_calls = 0;

  /// All at once, as much as can be moved each time.
  void move(std::vector<Transfer> transfers) {
    for (bool is_done = false; !is_done && !is_aborted;) {
      is_done = true;
      bool moved = false;
      for (Transfer& t : transfers) {
        if (t.done == t.bytes) continue;
        is_done = false;
        Box& box = t.sends ? shared->boxes[rank][t.peer] : shared->boxes[t.peer][rank];
        if ((box.filled.load() != 0) == t.sends) continue;
        const std::size_t count = std::min(kBoxBytes, t.bytes - t.done);
        if (t.sends) {
          std::memcpy(box.bytes, t.data + t.done, count);
          box.filled = 1;
        } else {
          std::memcpy(t.data + t.done, box.bytes, count);
          box.filled = 0;
        }
        t.done += count;
        moved = true;
      }
      if (!moved) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
};

namespace {

using Comm = FakeComm*;
struct Work {
  Comm comm;
  std::vector<Transfer> transfers;
  const char* own;
  char* gathered;
  std::size_t bytes;
  float* sums;
};

thread_local bool is_group = false;
thread_local std::vector<Transfer> group;
thread_local Comm group_comm;
thread_local cudaStream_t group_stream;

int queue(Comm comm, cudaStream_t stream, Work* work) {
  comm->num_calls++;
  if (wanted() == "error " + std::to_string(comm->num_calls)) comm->has_failed = true;
  comm->num_busy = 3;
  cudaLaunchHostFunc(
      stream,
      [](void* data) {
        Work* work = static_cast<Work*>(data);
        work->comm->move(std::move(work->transfers));
        if (work->gathered != nullptr)
          std::memcpy(work->gathered + work->comm->rank * work->bytes, work->own, work->bytes);
        for (std::size_t i = 0; work->sums != nullptr && i < work->bytes / sizeof(float); i++) {
          float sum = 0;
          for (int rank = work->comm->num_ranks; rank-- > 0;)
            sum += reinterpret_cast<float*>(work->gathered + rank * work->bytes)[i];
          work->sums[i] = sum;
        }
        if (work->sums != nullptr) delete[] work->gathered;
        delete work;
      },
      work);
  return kInProgress;
}

int gather(const void* from, void* to, std::size_t bytes, float* sums, Comm comm,
           cudaStream_t stream) {
  auto* own = static_cast<char*>(const_cast<void*>(from));
  auto* all = static_cast<char*>(to);
  auto* work = new Work{comm, {}, own, all, bytes, sums};
  for (int rank = 0; rank < comm->num_ranks; rank++) {
    if (rank == comm->rank) continue;
    work->transfers.push_back({true, rank, own, bytes, 0});
    work->transfers.push_back({false, rank, all + rank * bytes, bytes, 0});
  }
  return queue(comm, stream, work);
}

int transfer(bool sends, void* data, std::size_t bytes, int type, int rank, Comm comm,
             cudaStream_t stream) {
  if (!is_group || type != 0 || rank == comm->rank) return kInvalidUsage;
  group.push_back({sends, rank, static_cast<char*>(data), bytes, 0});
  group_comm = comm;
  group_stream = stream;
  return kInProgress;
}

}  // namespace

extern "C" {

struct FakeId {
  char path[128];
};
struct FakeConfig {
  std::size_t size;
  unsigned magic, version;
  int blocking;
};

int ncclGetVersion(int* version) {
  *version = wanted() == "old" ? 21600 : 22809;
  return kSuccess;
}

int ncclGetUniqueId(FakeId* id) {
  *id = {};
  strcpy(id->path, "/tmp/vt-fake-nccl-XXXXXX");
  const int file = mkstemp(id->path);
  if (file < 0 || ftruncate(file, sizeof(Shared)) != 0) return kRemoteError;
  close(file);
  return kSuccess;
}

int ncclCommInitRankConfig(Comm* comm, int num_ranks, FakeId id, int rank, FakeConfig* config) {
  if (config->size < sizeof(FakeConfig) || config->magic != 0xcafebeef || config->blocking != 0 ||
      num_ranks > kMaxRanks)
    return kInvalidUsage;
  const int file = open(id.path, O_RDWR);
  if (file < 0) return kRemoteError;
  void* mapped = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  *comm = new FakeComm{static_cast<Shared*>(mapped), rank, num_ranks};
  if (++(*comm)->shared->num_joined == num_ranks) unlink(id.path);
  return kInProgress;
}

int ncclCommGetAsyncError(Comm comm, int* error) {
  const bool has_joined = comm->shared->num_joined >= comm->num_ranks;
  if (comm->num_busy > 0) comm->num_busy--;
  *error = comm->has_failed                    ? kRemoteError
           : !has_joined || comm->num_busy > 0 ? kInProgress
                                               : kSuccess;
  return kSuccess;
}

int ncclCommAbort(Comm comm) {
  comm->is_aborted = true;  // Its memory stays: work may still be queued.
  return kSuccess;
}

int ncclAllGather(const void* from, void* to, std::size_t count, int type, Comm comm,
                  cudaStream_t stream) {
  if (type != 0) return kInvalidUsage;
  return gather(from, to, count, nullptr, comm, stream);
}

int ncclAllReduce(const void* from, void* to, std::size_t count, int type, int operation, Comm comm,
                  cudaStream_t stream) {
  if (type != 7 || operation != 0) return kInvalidUsage;
  const std::size_t bytes = count * sizeof(float);
  return gather(from, new char[bytes * comm->num_ranks], bytes, static_cast<float*>(to), comm,
                stream);
}

int ncclSend(const void* from, std::size_t count, int type, int rank, Comm comm,
             cudaStream_t stream) {
  return transfer(true, const_cast<void*>(from), count, type, rank, comm, stream);
}

int ncclRecv(void* to, std::size_t count, int type, int rank, Comm comm, cudaStream_t stream) {
  return transfer(false, to, count, type, rank, comm, stream);
}

int ncclGroupStart() {
  is_group = true;
  return kSuccess;
}

int ncclGroupEnd() {
  is_group = false;
  if (group.empty()) return kSuccess;
  auto* work = new Work{group_comm, std::move(group), nullptr, nullptr, 0, nullptr};
  group.clear();
  return queue(group_comm, group_stream, work);
}

const char* ncclGetErrorString(int result) {
  return result == kRemoteError ? "remote error" : result == kInvalidUsage ? "invalid usage" : "?";
}

const char* ncclGetLastError(Comm) { return "a wire is cut"; }

}  // extern "C"
