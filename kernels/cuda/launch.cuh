// The host's side of kernels: what the current device runs, how a tensor is described to the copy
// engine, and launches. Part of common.cuh.
#ifndef VT_CUDA_LAUNCH_CUH_
#define VT_CUDA_LAUNCH_CUH_

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "error.h"
#include "vt_cuda.h"

namespace vt {

/** What the code was compiled for that the current device runs, ascending. */
enum class Target {
  sm_80,   // no copy engine, clusters or dependent launch
  sm_90,   // as PTX for what comes after: no wgmma
  sm_90a,  // everything
};
Target target();
/** Shared memory that a block may have on the target and the current device. */
int max_shared_bytes();
/** The number of multiprocessors of the current device, read once. */
int num_multiprocessors();
/**
 * Describes a tensor of 2-byte elements to the copy engine: `sizes` with the contiguous dimension
 * first, `strides` (bytes) of the others. A box lands densely in shared memory, its first dimension
 * being 64 elements; 16-byte piece i of 128-byte row r lies at place i ^ (r % 8). Zeros beyond the
 * tensor.
 */
int make_tensor_map(CUtensorMap* map, const void* data, const int64_t (&sizes)[4],
                    const int64_t (&strides)[3], const int (&box)[4]);

/** Whether `pointer` and rows of `stride` 2-byte elements keep 16-byte alignment. */
inline bool aligned16(const void* pointer, int64_t stride) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride % 8 == 0;
}

/** Lets a kernel's blocks have so much shared memory. */
template <typename... Params>
cudaError_t allow_shared(void (*kernel)(Params...), size_t bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(bytes));
}

/** Clusters of `size` blocks along x. */
inline cudaLaunchAttribute clusters_of(int size) {
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = size;
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = 1;
  return attribute;
}

/**
 * As launch() below, in clusters of `cluster_size` blocks along x; 0: not in clusters. On sm_80 a
 * block is a cluster of its own.
 */
template <typename... Params, typename... Args>
int launch_clusters(const char* op, void (*kernel)(Params...), int cluster_size, dim3 grid,
                    dim3 block, size_t shared_bytes, int flags, void* stream, Args... args) {
  if (shared_bytes > 0) {
    const cudaError_t error = allow_shared(kernel, shared_bytes);
    if (error != cudaSuccess) {
      return fail("%s: %zu bytes of shared memory: %s", op, shared_bytes,
                  cudaGetErrorString(error));
    }
  }
  cudaLaunchAttribute attributes[2];
  int count = 0;
  if (target() >= Target::sm_90) {
    if (cluster_size > 0) attributes[count++] = clusters_of(cluster_size);
    if ((flags & VT_CUDA_DEPENDENT) != 0) {
      attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
  } else if (cluster_size > 1) {
    return fail("%s: clusters of %d blocks need compute capability 9.0", op, cluster_size);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = attributes;
  config.numAttrs = count;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
  if (error != cudaSuccess) return fail("%s: launch: %s", op, cudaGetErrorString(error));
  return 0;
}

/**
 * Launches `kernel(params...)`; with VT_CUDA_DEPENDENT it may start before the kernel in front of
 * it has finished, and must call wait_for_previous() before it reads or writes what that one
 * touches.
 */
template <typename... Params, typename... Args>
int launch(const char* op, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
           int flags, void* stream, Args... args) {
  return launch_clusters(op, kernel, 0, grid, block, shared_bytes, flags, stream, args...);
}

/**
 * How many clusters of `kernel` run at a time. Fewer than the multiprocessors would hold one by one:
 * a cluster stays in one of the chip's groups of them, whose number may not divide by its size.
 */
template <typename... Params>
int max_clusters(void (*kernel)(Params...), int cluster_size, dim3 block, size_t shared_bytes) {
  cudaLaunchAttribute attribute = clusters_of(cluster_size);
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(cluster_size);
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int count = 0;
  if (allow_shared(kernel, shared_bytes) != cudaSuccess ||
      cudaOccupancyMaxActiveClusters(&count, kernel, &config) != cudaSuccess || count < 1) {
    return 1;
  }
  return count;
}

}  // namespace vt

#endif  // VT_CUDA_LAUNCH_CUH_
