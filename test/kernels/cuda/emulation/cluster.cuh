// kernels/cuda/cluster.cuh for a CPU.
#pragma once

#include "common.cuh"

namespace vt {

template <typename... Params, typename... Args>
int launch_clusters(const char*, void (*kernel)(Params...), int cluster_size, dim3 grid, dim3 block,
                    size_t shared_bytes, int, void* stream, Args... args) {
  emulation::machine->launch(device_of(stream), grid.x, block.x, cluster_size, shared_bytes,
                             [=] { kernel(args...); });
  return 0;
}

inline char* shared_begin(emulation::Block& block) {
  return reinterpret_cast<char*>(block.shared.data());
}
template <typename T>
T& block_shared() {
  static const char type = 0;
  emulation::Block& block = *emulation::machine->current->block;
  if (block.object_type != nullptr && block.object_type != &type) {
    std::vector<uint64_t>& object = block.more_objects[&type];
    if (object.empty()) object.assign((sizeof(T) + 15) / 8, 0xa5a5a5a5a5a5a5a5u);
    return *reinterpret_cast<T*>(object.data());
  }
  if (block.shared.empty()) {
    block.object_type = &type;
    block.object_bytes = (sizeof(T) + 15) / 16 * 16;
    const size_t words = (block.object_bytes + emulation::machine->current->kernel->shared_bytes) / 8;
    block.shared.assign(words + 1, 0xa5a5a5a5a5a5a5a5u);
  }
  return *reinterpret_cast<T*>(shared_begin(block));
}
/// After block_shared.
inline float4* dynamic_shared() {
  emulation::Block& block = *emulation::machine->current->block;
  return reinterpret_cast<float4*>(shared_begin(block) + block.object_bytes);
}

inline emulation::Cluster& own_cluster() {
  const emulation::Fiber& fiber = *emulation::machine->current;
  return fiber.kernel->clusters[fiber.block->index / fiber.kernel->cluster_size];
}
inline void cluster_arrive() {
  emulation::Cluster& cluster = own_cluster();
  emulation::machine->current->cluster_generation = cluster.generation;
  if (++cluster.arrived == cluster.size) {
    cluster.arrived = 0;
    cluster.generation++;
    for (emulation::Fiber* fiber : cluster.waiting) emulation::machine->wake(fiber);
    cluster.waiting.clear();
  }
}
inline void cluster_wait() {
  emulation::Cluster& cluster = own_cluster();
  if (cluster.generation != emulation::machine->current->cluster_generation) return;
  cluster.waiting.push_back(emulation::machine->current);
  emulation::machine->sleep();
}
inline int cluster_size() { return emulation::machine->current->kernel->cluster_size; }
inline int cluster_rank() { return emulation::machine->current->block->index % cluster_size(); }
inline void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}
/// What an mbarrier's 8 bytes hold here.
struct TransactionBarrier {
  int32_t bytes;
  int16_t pending;
  int16_t phase;

  void settle() {
    if (pending != 0 || bytes != 0) return;
    pending = 1;
    phase ^= 1;
  }
};

/// An address of shared memory is its place in the block's; of another block's, with 1 + its rank
/// in the highest bits.
inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const char*>(pointer) -
                               shared_begin(*emulation::machine->current->block));
}
inline char* shared_of(int rank, uint32_t address) {
  const emulation::Fiber& fiber = *emulation::machine->current;
  emulation::Kernel& kernel = *fiber.kernel;
  const int first = fiber.block->index / kernel.cluster_size * kernel.cluster_size;
  emulation::Block& block = kernel.blocks[first + rank];
  if (block.shared.empty()) abort();  // a block that has not begun
  return shared_begin(block) + address;
}
inline TransactionBarrier& own_barrier(uint32_t address) {
  return *reinterpret_cast<TransactionBarrier*>(
      shared_begin(*emulation::machine->current->block) + address);
}
constexpr int kRankBits = 4, kAddressBits = 32 - kRankBits;
inline uint32_t address_in(uint32_t address, int rank) {
  return address | static_cast<uint32_t>(rank + 1) << kAddressBits;
}
template <typename T>
T* in_cluster(uint32_t address) {
  emulation::machine->yield();
  return reinterpret_cast<T*>(shared_of(static_cast<int>(address >> kAddressBits) - 1,
                                        address & ((1u << kAddressBits) - 1)));
}
inline void store_in_cluster(uint32_t address, unsigned long long value) {
  *in_cluster<unsigned long long>(address) = value;
}
inline uint32_t load_in_cluster_u32(uint32_t address) { return *in_cluster<uint32_t>(address); }
inline unsigned long long load_in_cluster_u64(uint32_t address) {
  return *in_cluster<unsigned long long>(address);
}
inline void add_in_cluster(uint32_t address, uint32_t value) {
  *in_cluster<uint32_t>(address) += value;
}
inline unsigned long long load_of(int rank, const unsigned long long* mine) {
  return load_in_cluster_u64(address_in(shared_address(mine), rank));
}
inline void add_to(int rank, uint32_t* mine, uint32_t value) {
  add_in_cluster(address_in(shared_address(mine), rank), value);
}
inline void or_to(int rank, uint32_t* mine, uint32_t bits) {
  *in_cluster<uint32_t>(address_in(shared_address(mine), rank)) |= bits;
}
inline void barrier_init(uint32_t address, int) { own_barrier(address) = {0, 1, 0}; }
inline void fence_barrier_init() {}
inline void barrier_expect(uint32_t address, int bytes) {
  TransactionBarrier& barrier = own_barrier(address);
  barrier.bytes += bytes;
  barrier.pending--;
  barrier.settle();
}
inline void barrier_wait(uint32_t address, int parity) {
  while (own_barrier(address).phase == parity) emulation::machine->yield();
}
inline void send_in_cluster(int rank, float* mine, float value, uint32_t barrier) {
  emulation::machine->yield();
  std::memcpy(shared_of(rank, shared_address(mine)), &value, 4);
  auto& there = *reinterpret_cast<TransactionBarrier*>(shared_of(rank, barrier));
  there.bytes -= 4;
  there.settle();
}
/// What the copy engine asks for.
inline void check_bulk(const void* from, int bytes) {
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0 || bytes % 16 != 0) abort();
}
inline void copy_bulk(uint32_t to, const void* from, int bytes, uint32_t barrier) {
  check_bulk(from, bytes);
  emulation::machine->yield();
  std::memcpy(shared_begin(*emulation::machine->current->block) + to, from, bytes);
  own_barrier(barrier).bytes -= bytes;
  own_barrier(barrier).settle();
}
inline void prefetch_bulk(const void* from, int bytes) { check_bulk(from, bytes); }
inline void fence_async() {}

}  // namespace vt
