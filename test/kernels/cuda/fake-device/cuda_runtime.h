// What host code of several ranks uses of CUDA's runtime, for a machine without a GPU: a stream is
// a thread that runs what is queued on it, memory is the process's own. nccl_run.cc implements it.
#pragma once

#include <cstddef>

enum cudaError_t : int { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
using cudaStream_t = struct FakeStream*;

struct cudaIpcMemHandle_t {
  char reserved[64];
};
struct cudaDeviceProp {
  int multiProcessorCount;
  struct {
    char bytes[16];
  } uuid;
};
constexpr unsigned cudaIpcMemLazyEnablePeerAccess = 1;

cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int device);
enum cudaDeviceAttr : int { cudaDevAttrComputeCapabilityMajor = 75 };
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaMemset(void* memory, int value, std::size_t bytes);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer);
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* memory);
cudaError_t cudaIpcOpenMemHandle(void** memory, cudaIpcMemHandle_t handle, unsigned flags);
cudaError_t cudaIpcCloseMemHandle(void* memory);
/// Also for the fake NCCL, which finds it in the program that loads it.
extern "C" cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data);
