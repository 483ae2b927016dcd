#include "memory.h"

#include <cuda.h>

#include <algorithm>
#include <cstring>

#include "cuda_error.h"

namespace vt {

namespace {

constexpr double kGiB = 1 << 30;
/// Physical memory comes in pieces of this size, so that none has to be found in one go.
constexpr std::size_t kChunkBytes = std::size_t{1} << 30;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

/// The driver's calls for virtual memory, found through the runtime: nothing links against it.
struct VirtualMemory {
  decltype(&cuMemGetAllocationGranularity) granularity;
  decltype(&cuMemAddressReserve) reserve;
  decltype(&cuMemAddressFree) free;
  decltype(&cuMemCreate) create;
  decltype(&cuMemRelease) release;
  decltype(&cuMemMap) map;
  decltype(&cuMemUnmap) unmap;
  decltype(&cuMemSetAccess) set_access;
};

template <typename Function>
void find(const char* name, Function*& function) {
  void* symbol = nullptr;
  cudaDriverEntryPointQueryResult found;
  VT_CUDA(cudaGetDriverEntryPointByVersion(name, &symbol, 12000, cudaEnableDefault, &found));
  VT_CHECK(found == cudaDriverEntryPointSuccess, "the driver has no %s", name);
  function = reinterpret_cast<Function*>(symbol);
}

const VirtualMemory& driver() {
  static const VirtualMemory calls = [] {
    VirtualMemory v;
    find("cuMemGetAllocationGranularity", v.granularity);
    find("cuMemAddressReserve", v.reserve);
    find("cuMemAddressFree", v.free);
    find("cuMemCreate", v.create);
    find("cuMemRelease", v.release);
    find("cuMemMap", v.map);
    find("cuMemUnmap", v.unmap);
    find("cuMemSetAccess", v.set_access);
    return v;
  }();
  return calls;
}

void check_driver(CUresult result, const char* what, std::size_t bytes) {
  VT_CHECK(result == CUDA_SUCCESS, "KV cache: %s of %.2f GiB: driver error %d%s", what,
           static_cast<double>(bytes) / kGiB, static_cast<int>(result),
           result == CUDA_ERROR_OUT_OF_MEMORY ? " (out of memory)" : "");
}

CUmemAllocationProp on_device() {
  int device = 0;
  VT_CUDA(cudaGetDevice(&device));
  CUmemAllocationProp prop = {};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  prop.location.id = device;
  return prop;
}

}  // namespace

void Ledger::add(const std::string& owner, std::size_t bytes, bool on_device) {
  if (on_device) device_bytes_ += bytes;
  for (auto& [name, sum] : entries_) {
    if (name != owner) continue;
    sum += bytes;
    return;
  }
  entries_.emplace_back(owner, bytes);
}

void* DeviceAllocator::allocate(std::size_t bytes, const std::string& owner) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error != cudaSuccess) {
    cudaGetLastError();
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    VT_FAIL("no %.2f GiB of device memory for %s: %s, %.2f of %.2f GiB are free",
            static_cast<double>(bytes) / kGiB, owner.c_str(), cudaGetErrorString(error),
            static_cast<double>(free) / kGiB, static_cast<double>(total) / kGiB);
  }
  // Every stream may use it from here on.
  cudaError_t zeroed = cudaMemset(data, 0, bytes);
  if (zeroed == cudaSuccess) zeroed = cudaStreamSynchronize(nullptr);
  if (zeroed != cudaSuccess) {
    cudaFree(data);
    VT_CUDA(zeroed);
  }
  return data;
}

void DeviceAllocator::free(void* data) noexcept { cudaFree(data); }

void* PinnedAllocator::allocate(std::size_t bytes, const std::string& owner) {
  void* data = nullptr;
  const cudaError_t error =
      cudaHostAlloc(&data, bytes, cudaHostAllocMapped | cudaHostAllocPortable);
  if (error != cudaSuccess) {
    cudaGetLastError();
    VT_FAIL("no %.1f MiB of pinned host memory for %s: %s", static_cast<double>(bytes) / (1 << 20),
            owner.c_str(), cudaGetErrorString(error));
  }
  std::memset(data, 0, bytes);
  return data;
}

void PinnedAllocator::free(void* data) noexcept { cudaFreeHost(data); }

KvCache::KvCache(std::size_t max_bytes) {
  if (max_bytes == 0) return;
  const CUmemAllocationProp prop = on_device();
  check_driver(driver().granularity(&unit_, &prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED),
               "granularity", max_bytes);
  reserved_ = round_up(max_bytes, unit_);
  CUdeviceptr base = 0;
  check_driver(driver().reserve(&base, reserved_, 0, 0, 0), "address space", reserved_);
  base_ = base;
}

KvCache::~KvCache() { release(); }

void KvCache::release() {
  if (base_ == 0) return;
  if (mapped_ > 0) driver().unmap(base_, mapped_);
  for (const std::uint64_t handle : handles_) driver().release(handle);
  driver().free(base_, reserved_);
  base_ = 0;
}

std::size_t KvCache::mapped_bytes(std::size_t bytes) const { return round_up(bytes, unit_); }

void KvCache::map(std::size_t bytes, Ledger& ledger) {
  const std::size_t wanted = mapped_bytes(bytes);
  VT_CHECK(wanted <= reserved_ && mapped_ == 0, "KV cache: %zu bytes of %zu reserved", wanted,
           reserved_);
  if (wanted == 0) return;
  const CUmemAllocationProp prop = on_device();
  while (mapped_ < wanted) {
    const std::size_t size = std::min(wanted - mapped_, kChunkBytes);
    CUmemGenericAllocationHandle handle = 0;
    check_driver(driver().create(&handle, size, &prop, 0), "memory", wanted);
    handles_.push_back(handle);
    check_driver(driver().map(base_ + mapped_, size, 0, handle, 0), "mapping", wanted);
    mapped_ += size;
  }
  CUmemAccessDesc access = {};
  access.location = prop.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  check_driver(driver().set_access(base_, mapped_, &access, 1), "access", wanted);
  // Attention reads whole tiles: what no token has written must be finite.
  VT_CUDA(cudaMemset(base(), 0, mapped_));
  VT_CUDA(cudaStreamSynchronize(nullptr));
  ledger.add("kvCache", mapped_);
}

}  // namespace vt
