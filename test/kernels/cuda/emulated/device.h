// Stands in for kernels/cuda/common.cuh, cluster.cuh, peer_memory.cuh and wgmma_ptx.cuh, so that a
// kernel's source compiles for the CPU and runs in emulated blocks: include it before the .cu file.
#pragma once
#define VT_CUDA_COMMON_CUH_
#define VT_CUDA_CLUSTER_CUH_
#define VT_CUDA_PEER_MEMORY_CUH_
#define VT_CUDA_WGMMA_PTX_CUH_

#include "cuda_names.h"
#include "kernels/cuda/error.h"
#include "kernels/cuda/vt_cuda.h"

#ifndef VT_HAS_SM_90
#define VT_HAS_SM_90 1
#endif
#define VT_HAS_WGMMA 1

namespace vt {

/// The block's shared memory, as the kernels of this file declare it: those of a header, which
/// files share, outside of the file's own namespace.
#ifdef VT_KERNEL_IN_HEADER
inline thread_local __align__(1024) std::uint8_t shared[emulated::kSharedBytes];
#else
namespace {
thread_local __align__(1024) std::uint8_t shared[emulated::kSharedBytes];
}  // namespace
#endif

inline bool aligned16(const void* pointer, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0 && stride % 8 == 0;
}

enum class Target { sm_80, sm_90, sm_90a };
static Target target() { return VT_HAS_SM_90 ? Target::sm_90a : Target::sm_80; }
inline int max_shared_bytes() { return emulated::kSharedBytes; }
inline int multiprocessors = 3;
inline int num_multiprocessors() { return multiprocessors; }

// Of this file, as `shared` is: another file has the same template of another kernel.
namespace {

/// Runs the clusters of a grid one after another.
template <typename Kernel, typename... Args>
int launch_clusters(const char*, Kernel kernel, int cluster, dim3 grid, dim3 block,
                    std::size_t shared_bytes, int, void*, Args... args) {
  if (grid.x % cluster != 0) emulated::give_up("a grid of broken clusters");
  if (shared_bytes > emulated::kSharedBytes) emulated::give_up("too much shared memory");
  gridDim = {grid.x, grid.y, grid.z};
  for (unsigned y = 0; y < grid.y; y++)
    for (unsigned x = 0; x < grid.x; x += cluster) {
      first_block = {x, y, 0};
      emulated::begin_cluster(cluster, shared, static_cast<std::uint32_t>(shared_bytes));
      emulated::run_cluster(cluster, static_cast<int>(block.x), [&] { kernel(args...); });
      emulated::end_cluster();
    }
  return 0;
}

template <typename Kernel, typename... Args>
int launch(const char* op, Kernel kernel, dim3 grid, dim3 block, std::size_t shared_bytes,
           int flags, void* stream, Args... args) {
  return launch_clusters(op, kernel, 1, grid, block, shared_bytes, flags, stream, args...);
}

}  // namespace

template <typename Kernel>
int max_clusters(Kernel, int cluster, dim3, std::size_t) {
  return std::max(1, multiprocessors / cluster);
}

inline int make_tensor_map(CUtensorMap* map, const void* data, const std::int64_t (&sizes)[4],
                           const std::int64_t (&strides)[3], const int (&box)[4]) {
  map->map.data = static_cast<const std::uint8_t*>(data);
  for (int d = 0; d < 4; d++) {
    map->map.sizes[d] = sizes[d];
    map->map.box[d] = box[d];
    if (d > 0) map->map.strides[d - 1] = strides[d - 1];
    if (box[d] > 256 || (d > 0 && strides[d - 1] % 16 != 0)) return fail("no such tensor map");
  }
  return box[0] == 64 ? 0 : fail("a box that is not 128 bytes wide");
}

template <typename T>
constexpr emulated::Element element_of =
    std::is_same_v<T, __half> ? emulated::Element::f16 : emulated::Element::bf16;

template <typename T>
T from_f32(float value) {
  if constexpr (std::is_same_v<T, float>) return value;
  else return {emulated::from_float(element_of<T>, value)};
}
template <typename T>
float to_f32(T value) {
  return emulated::to_float(element_of<T>, value.bits);
}
template <typename T>
std::uint32_t pack2(float low, float high) {
  return from_f32<T>(low).bits | static_cast<std::uint32_t>(from_f32<T>(high).bits) << 16;
}
template <typename T>
float2 unpack2(std::uint32_t word) {
  return {emulated::to_float(element_of<T>, static_cast<std::uint16_t>(word)),
          emulated::to_float(element_of<T>, static_cast<std::uint16_t>(word >> 16))};
}

template <typename T>
void load8(const T* from, float (&values)[8]) {
  for (int e = 0; e < 8; e++) values[e] = to_f32(from[e]);
}
inline void load8(const float* from, float (&values)[8]) { std::copy_n(from, 8, values); }
template <typename T>
void unpack8(const uint4& words, float (&values)[8]) {
  load8(reinterpret_cast<const T*>(&words), values);
}
template <typename T>
void store8(T* to, const float (&values)[8]) {
  for (int e = 0; e < 8; e++) to[e] = from_f32<T>(values[e]);
}

inline void add8(float (&sum)[8], const float (&more)[8]) {
  for (int e = 0; e < 8; e++) sum[e] += more[e];
}

template <typename T>
void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  emulated::mma_m16n8k16(element_of<T>, c, a, b0, b1);
}
inline void ldmatrix4(std::uint32_t (&r)[4], std::uint32_t address) {
  emulated::ldmatrix4(r, address, false);
}
inline void ldmatrix4_trans(std::uint32_t (&r)[4], std::uint32_t address) {
  emulated::ldmatrix4(r, address, true);
}

inline void store_matrix2_trans(std::uint32_t address, std::uint32_t first, std::uint32_t second) {
  emulated::store_matrix2_trans(address, first, second);
}

inline float max_or_nan(float a, float b) { return a != a ? a : b > a || b != b ? b : a; }
inline float exp2_approx(float x) { return std::exp2(x); }
inline float rcp_approx(float x) { return 1.0f / x; }
inline std::uint32_t shared_address(const void* p) { return emulated::address_of(p); }
inline void copy16_async(std::uint32_t to, const void* from, bool valid, std::uint64_t = 0) {
  emulated::copy16(to, from, valid);
}
inline void commit_copies() { emulated::commit_copies(); }
template <int kPending>
void wait_copies() {
  emulated::wait_copies(kPending);
}
inline void barrier_init(std::uint32_t barrier, int count) {
  emulated::mbarrier_init(barrier, count);
}
inline void barrier_arrive(std::uint32_t barrier) { emulated::mbarrier_arrive(barrier, 0); }
inline void barrier_expect(std::uint32_t barrier, int bytes) {
  emulated::mbarrier_arrive(barrier, bytes);
}
inline void barrier_wait(std::uint32_t barrier, int parity) {
  emulated::block_until([=] { return emulated::mbarrier_done(barrier, parity); });
}
inline bool barrier_ready(std::uint32_t barrier, int parity) {
  const bool ready = emulated::mbarrier_done(barrier, parity);
  if (!ready) emulated::look_again();
  return ready;
}
inline void barrier_arrive_after_copies(std::uint32_t barrier) {
  emulated::arrive_after_copies(barrier);
}
inline std::uint32_t count_and_wrap(std::uint32_t* counter, std::uint32_t last) {
  const std::uint32_t before = *counter;
  *counter = before >= last ? 0 : before + 1;
  return before;
}
inline void fence_barrier_init() {}
inline void prefetch_map(const CUtensorMap*) {}
inline void prefetch_line(const void*) {}
inline void prefetch_bulk(const void* from, int bytes) {
  emulated::fetched.push_back({static_cast<const std::uint8_t*>(from), bytes});
}
inline void copy_box(std::uint32_t to, const CUtensorMap* map, const int (&at)[4],
                     std::uint32_t barrier, std::uint64_t) {
  emulated::copy_box(to, map->map, at, barrier, 1u << emulated::block_rank());
}
inline void copy_box_to(unsigned ranks, std::uint32_t to, const CUtensorMap* map,
                        const int (&at)[4], std::uint32_t barrier, std::uint64_t) {
  emulated::copy_box(to, map->map, at, barrier, ranks);
}
inline int cluster_rank() { return emulated::block_rank(); }
inline int cluster_size() { return emulated::num_blocks(); }
/// The arrival and the wait in one, at the latter.
inline void cluster_arrive_relaxed() {}
inline void cluster_wait() { emulated::cluster_barrier(); }
inline float4* dynamic_shared() { return reinterpret_cast<float4*>(emulated::own_memory()); }
inline void send_in_cluster(int rank, std::uint32_t mine, float2 values, std::uint32_t barrier) {
  emulated::send(emulated::in_cluster(mine, rank), &values, emulated::in_cluster(barrier, rank));
}
inline void cluster_sync() { emulated::cluster_barrier(); }
inline std::uint32_t address_in(std::uint32_t address, int rank) {
  return emulated::in_cluster(address, rank);
}
inline void barrier_arrive_in_cluster(std::uint32_t barrier) { barrier_arrive(barrier); }
inline std::uint64_t evict_first_policy() { return 0; }
inline std::uint64_t evict_last_policy() { return 0; }
template <int kThreads>
void sync_first() {
  emulated::named_barrier(1, kThreads, true);
}
inline void sync_first(int threads) { emulated::named_barrier(1, threads, true); }
inline void start_next() {}
inline void wait_for_previous() {}

// ---- kernels/cuda/peer_memory.cuh, of one rank

template <typename T>
void store_relaxed(T* to, const T& value) {
  *to = value;
}
template <typename T>
T load_relaxed(const T* from) {
  return *from;
}
template <typename T>
void store_release(T* to, T value) {
  *to = value;
}
inline std::uint64_t global_timer_ns() {
  static std::uint64_t now = 1000;
  return ++now;
}

// ---- kernels/cuda/wgmma_ptx.cuh

template <int kRegisters>
void more_registers() {}
template <int kRegisters>
void fewer_registers() {}
inline void fence_async_proxy() { emulated::fence_async_proxy(); }
inline void wgmma_fence() { emulated::wgmma_fence(); }
inline void wgmma_commit() { emulated::wgmma_commit(); }
template <int kPending>
void wgmma_wait() {
  emulated::wgmma_wait(kPending);
}
template <int kTiles>
void keep(float (&)[kTiles][4]) {}
template <int kTiles>
void keep(std::uint32_t (&)[kTiles][4]) {}
template <typename T, int kTiles>
void wgmma(float (&d)[kTiles][4], std::uint64_t a, std::uint64_t b, bool add) {
  emulated::wgmma(element_of<T>, kTiles * 8, &d[0][0], nullptr, a, b, add, false);
}
template <typename T, int kTiles>
void wgmma_rows_of_k(float (&d)[kTiles][4], const std::uint32_t (&a)[4], std::uint64_t b,
                     bool add) {
  emulated::wgmma(element_of<T>, kTiles * 8, &d[0][0], a, 0, b, add, true);
}
inline void store_shared(std::uint32_t address, std::uint32_t word) {
  std::memcpy(emulated::at(address, 4), &word, 4);
}
inline void store_shared(std::uint32_t address, float2 pair) {
  std::memcpy(emulated::at(address, 8), &pair, 8);
}
inline uint4 load_shared(std::uint32_t address) {
  uint4 words;
  std::memcpy(&words, emulated::at(address, 16), 16);
  return words;
}
inline void sync_named(int id, int num_threads) { emulated::named_barrier(id, num_threads, true); }
inline void arrive_named(int id, int num_threads) {
  emulated::named_barrier(id, num_threads, false);
}

}  // namespace vt
