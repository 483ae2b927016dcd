// What is used of NCCL 2, declared here so that its header is not needed to build: the numbers and
// layouts are those of its C API, which is stable within the major version.
#pragma once

#include <cuda_runtime.h>

#include <climits>
#include <cstddef>

namespace vt::nccl {

/// ncclComm_t
using Comm = struct CommObject*;
/// ncclResult_t
using Result = int;
constexpr Result kSuccess = 0, kInProgress = 7;

/// ncclUniqueId
struct UniqueId {
  char bytes[128];
};

/// ncclDataType_t
enum DataType : int { kBytes = 0, kF32 = 7 };
/// ncclRedOp_t
constexpr int kSum = 0;

/// ncclConfig_t as of 2.18; a newer library takes what is not in it from its defaults.
struct Config {
  std::size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = 21800;
  int blocking = INT_MIN;
  int cluster_size = INT_MIN, min_ctas = INT_MIN, max_ctas = INT_MIN;
  const char* net_name = nullptr;
  int split_share = INT_MIN;
  int unused = INT_MIN;
};
static_assert(sizeof(Config) == 48);

// X(name, parameters): nccl<name>, which returns a Result.
#define VT_NCCL_FUNCTIONS(X)                                                                      \
  X(GetVersion, (int*))                                                                           \
  X(GetUniqueId, (UniqueId*))                                                                     \
  X(CommInitRankConfig, (Comm*, int num_ranks, UniqueId, int rank, Config*))                      \
  X(CommGetAsyncError, (Comm, Result*))                                                           \
  X(CommAbort, (Comm))                                                                            \
  X(AllReduce,                                                                                    \
    (const void* from, void* to, std::size_t count, int type, int operation, Comm, cudaStream_t)) \
  X(AllGather, (const void* from, void* to, std::size_t count, int type, Comm, cudaStream_t))     \
  X(Send, (const void* from, std::size_t count, int type, int rank, Comm, cudaStream_t))          \
  X(Recv, (void* to, std::size_t count, int type, int rank, Comm, cudaStream_t))                  \
  X(GroupStart, ())                                                                               \
  X(GroupEnd, ())

struct Functions {
#define VT_NCCL_MEMBER(name, parameters) Result(*name) parameters;
  VT_NCCL_FUNCTIONS(VT_NCCL_MEMBER)
#undef VT_NCCL_MEMBER
  const char* (*GetErrorString)(Result);
  /// May be told null: of the last call that made no communicator.
  const char* (*GetLastError)(Comm);
};

}  // namespace vt::nccl
