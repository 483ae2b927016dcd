#include "cuda_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <memory>
#include <mutex>

#include "../check.h"

namespace vt {

namespace {

/// The driver's own library: without it ours could be loaded, but would find no device.
constexpr const char* kDriver = "libcuda.so.1";
constexpr const char* kName = "libvt_cuda.so";

std::string dl_error() {
  const char* reason = dlerror();
  return reason == nullptr ? "unknown reason" : reason;
}

std::unique_ptr<CudaLibrary> open_from(const std::vector<std::string>& folders) {
  VT_CHECK(dlopen(kDriver, RTLD_LAZY | RTLD_LOCAL) != nullptr,
           "there is no NVIDIA driver (%s cannot be loaded)", kDriver);
  std::string path;
  for (const std::string& folder : folders) {
    path = folder + "/" + kName;
    if (access(path.c_str(), R_OK) == 0) break;
    path.clear();
  }
  VT_CHECK(!path.empty(), "%s is not built; `npm run build:cuda` makes it", kName);
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) VT_FAIL("%s: %s", path.c_str(), dl_error().c_str());
  auto library = std::make_unique<CudaLibrary>();
#define VT_CUDA_LOOK_UP(member, function)                                                  \
  library->member = reinterpret_cast<decltype(library->member)>(dlsym(handle, #function)); \
  VT_CHECK(library->member != nullptr, "%s: %s is missing", path.c_str(), #function);
  VT_CUDA_FUNCTIONS(VT_CUDA_LOOK_UP)
#undef VT_CUDA_LOOK_UP
  VT_CHECK(library->abi() == VT_CUDA_ABI, "%s has ABI %d, but this build needs %d", path.c_str(),
           library->abi(), VT_CUDA_ABI);
  return library;
}

}  // namespace

const CudaLibrary& open_cuda_library(const std::vector<std::string>& folders) {
  // Never closed: the driver keeps threads of its own.
  static std::mutex mutex;
  static std::unique_ptr<CudaLibrary> library;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!library) library = open_from(folders);
  return *library;
}

void throw_cuda_error(const CudaLibrary& library) {
  const char* reason = library.error();
  throw KernelError(__FILE__, __LINE__,
                    reason == nullptr || *reason == '\0' ? "unknown CUDA error" : reason);
}

}  // namespace vt
