// The library itself: its version, its error text, and what it asks the device once.
#include <cstdarg>
#include <cstdio>

#include "common.cuh"

namespace vt {

namespace {
thread_local char error_text[512] = "";
}

int fail(const char* format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(error_text, sizeof(error_text), format, list);
  va_end(list);
  return -1;
}

namespace {

constexpr int kMarkers[] = {32, 64, 128};  // by Target

/** Does nothing; its largest block says what it was compiled for. */
#if VT_HAS_WGMMA
__global__ void __launch_bounds__(kMarkers[2]) marker() {}
#elif VT_HAS_SM_90
__global__ void __launch_bounds__(kMarkers[1]) marker() {}
#else
__global__ void __launch_bounds__(kMarkers[0]) marker() {}
#endif

}  // namespace

Target target() {
  static const Target found = [] {
    cudaFuncAttributes attributes;
    if (cudaFuncGetAttributes(&attributes, marker) != cudaSuccess) return Target::sm_90a;
    return attributes.maxThreadsPerBlock <= kMarkers[0]   ? Target::sm_80
           : attributes.maxThreadsPerBlock <= kMarkers[1] ? Target::sm_90
                                                          : Target::sm_90a;
  }();
  return found;
}

int max_shared_bytes() {
  static const int bytes = [] {
    const int of_target = (target() == Target::sm_80 ? 163 : 227) * 1024;
    int device = 0;
    int value = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
            cudaSuccess) {
      return of_target;
    }
    return value < of_target ? value : of_target;
  }();
  return bytes;
}

int num_multiprocessors() {
  static const int count = [] {
    int device = 0;
    int value = 0;
    if (cudaGetDevice(&device) != cudaSuccess) return 1;
    if (cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
      return 1;
    }
    return value;
  }();
  return count;
}

int make_tensor_map(CUtensorMap* map, const void* data, const int64_t (&sizes)[4],
                    const int64_t (&strides)[3], const int (&box)[4]) {
  // The driver is reached through the runtime, so that the library loads where there is none.
  static const auto encode = [] {
    void* symbol = nullptr;
    cudaDriverEntryPointQueryResult found;
    cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000,
                                                         cudaEnableDefault, &found);
    return error == cudaSuccess && found == cudaDriverEntryPointSuccess
               ? reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(symbol)
               : nullptr;
  }();
  VT_REQUIRE(encode != nullptr, "the driver has no cuTensorMapEncodeTiled");
  cuuint64_t size[4];
  cuuint64_t stride[3];
  cuuint32_t box_size[4];
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  for (int d = 0; d < 4; d++) {
    size[d] = static_cast<cuuint64_t>(sizes[d]);
    box_size[d] = static_cast<cuuint32_t>(box[d]);
    if (d > 0) stride[d - 1] = static_cast<cuuint64_t>(strides[d - 1]);
  }
  CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(data), size, stride,
             box_size, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  VT_REQUIRE(result == CUDA_SUCCESS,
             "no tensor map of %lld x %lld x %lld x %lld, row stride %lld bytes: driver error %d",
             static_cast<long long>(sizes[3]), static_cast<long long>(sizes[2]),
             static_cast<long long>(sizes[1]), static_cast<long long>(sizes[0]),
             static_cast<long long>(strides[0]), static_cast<int>(result));
  return 0;
}

}  // namespace vt

extern "C" {

int vt_cuda_abi(void) { return VT_CUDA_ABI; }

const char* vt_cuda_error(void) { return vt::error_text; }
}
