// Which device there is, and whether this library has code for it. Asks in an order that works on a
// machine without a driver, and makes no context.
#include <algorithm>
#include <cstring>
#include <string>

#include "../common.cuh"
#include "../vt_cuda_backend.h"

namespace vt {
namespace {

/// What nvcc compiled for, as compute capability * 100. Code for 9.0a runs on 9.0 alone, that for
/// 8.0 would on 8.6 and 8.9, whose blocks have less shared memory than the kernels take.
constexpr int kTargets[] = {__CUDA_ARCH_LIST__};
/// VT_CUDA_PTX: of which there is PTX too, which the driver compiles for what is newer; 0: of none.
#ifndef VT_CUDA_PTX
#define VT_CUDA_PTX 0
#endif
constexpr std::size_t kSharedBytes = 227 << 10;

std::string targets() {
  std::string list;
  for (const int target : kTargets) {
    if (!list.empty()) list += ", ";
    list += std::to_string(target / 100) + "." + std::to_string(target / 10 % 10);
  }
  return VT_CUDA_PTX > 0 ? list + " and newer" : list;
}

int find_device(VtCudaDevice* device) {
  int driver = 0;
  const cudaError_t asked = cudaDriverGetVersion(&driver);
  VT_REQUIRE(asked == cudaSuccess && driver > 0, "no NVIDIA driver is installed");
  VT_REQUIRE(driver >= CUDART_VERSION / 1000 * 1000,
             "the NVIDIA driver is too old: it supports CUDA %d.%d, CUDA %d.0 is needed (driver "
             "580 or newer)",
             driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000);
  int count = 0;
  const cudaError_t counted = cudaGetDeviceCount(&count);
  VT_REQUIRE(counted != cudaErrorNoDevice && (counted != cudaSuccess || count > 0),
             "no NVIDIA GPU is visible (CUDA_VISIBLE_DEVICES decides which are)");
  VT_REQUIRE(counted == cudaSuccess, "the NVIDIA driver does not work: %s",
             cudaGetErrorString(counted));
  cudaDeviceProp prop;
  const cudaError_t described = cudaGetDeviceProperties(&prop, 0);
  VT_REQUIRE(described == cudaSuccess, "the NVIDIA GPU does not answer: %s",
             cudaGetErrorString(described));
  const int capability = prop.major * 100 + prop.minor * 10;
  const bool is_newer = VT_CUDA_PTX > 0 && capability > VT_CUDA_PTX * 10;
  VT_REQUIRE(!is_newer || prop.sharedMemPerBlockOptin >= kSharedBytes,
             "%s has compute capability %d.%d and %zu KiB of shared memory a block: the CUDA "
             "library needs %zu",
             prop.name, prop.major, prop.minor, prop.sharedMemPerBlockOptin >> 10,
             kSharedBytes >> 10);
  VT_REQUIRE(is_newer || std::find(std::begin(kTargets), std::end(kTargets), capability) !=
                             std::end(kTargets),
             "%s has compute capability %d.%d, the CUDA library has code for %s", prop.name,
             prop.major, prop.minor, targets().c_str());
  std::memset(device, 0, sizeof *device);
  std::snprintf(device->name, sizeof device->name, "%.*s",
                static_cast<int>(sizeof device->name) - 1, prop.name);
  device->compute_major = prop.major;
  device->compute_minor = prop.minor;
  device->driver_version = driver;
  device->total_bytes = prop.totalGlobalMem;
  return 0;
}

}  // namespace
}  // namespace vt

extern "C" int vt_cuda_device(VtCudaDevice* device) {
  const int found = vt::find_device(device);
  cudaGetLastError();
  return found;
}
