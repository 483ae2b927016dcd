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

int make_tensor_map(CUtensorMap* map, const void* data, int64_t rows, int64_t columns,
                    int64_t row_stride, int box_rows, int box_columns) {
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
  const bool grouped = columns % 64 == 0;
  VT_REQUIRE(grouped || box_columns == 64, "a box of %d columns of %lld", box_columns,
             static_cast<long long>(columns));
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(grouped ? 64 : columns),
                               static_cast<cuuint64_t>(rows),
                               static_cast<cuuint64_t>(grouped ? columns / 64 : 1)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(row_stride) * 2, 128};
  const cuuint32_t box[3] = {64, static_cast<cuuint32_t>(box_rows),
                             static_cast<cuuint32_t>(box_columns / 64)};
  const cuuint32_t steps[3] = {1, 1, 1};
  CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(data), sizes, strides, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  VT_REQUIRE(result == CUDA_SUCCESS,
             "no tensor map of %lld x %lld, row stride %lld, box rows %d: driver error %d",
             static_cast<long long>(rows), static_cast<long long>(columns),
             static_cast<long long>(row_stride), box_rows, static_cast<int>(result));
  return 0;
}

}  // namespace vt

extern "C" {

int vt_cuda_abi(void) { return VT_CUDA_ABI; }

const char* vt_cuda_error(void) { return vt::error_text; }
}
