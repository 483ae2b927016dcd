// kernels/cuda/cluster.cuh for a CPU.
#pragma once

#include "common.cuh"

namespace vt {

template <typename Params>
int launch_clusters(const char*, void (*kernel)(Params), int cluster_size, dim3 grid, dim3 block,
                    size_t, int, void* stream, const Params& params) {
  emulation::machine->launch(device_of(stream), grid.x, block.x, cluster_size,
                             [kernel, params] { kernel(params); });
  return 0;
}

template <typename T>
T& block_shared() {
  emulation::Block& block = *emulation::machine->current->block;
  if (block.shared == nullptr) block.shared = std::make_shared<T>();
  return *static_cast<T*>(block.shared.get());
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
  }
}
inline void cluster_wait() {
  emulation::Cluster& cluster = own_cluster();
  while (cluster.generation == emulation::machine->current->cluster_generation)
    emulation::machine->yield();
}
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

/// An address of shared memory is its place in the block's one object.
inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(
      static_cast<const char*>(pointer) -
      static_cast<const char*>(emulation::machine->current->block->shared.get()));
}
inline char* shared_of(int rank, uint32_t address) {
  const emulation::Fiber& fiber = *emulation::machine->current;
  emulation::Kernel& kernel = *fiber.kernel;
  const int first = fiber.block->index / kernel.cluster_size * kernel.cluster_size;
  return static_cast<char*>(kernel.blocks[first + rank].shared.get()) + address;
}
inline TransactionBarrier& own_barrier(uint32_t address) {
  return *reinterpret_cast<TransactionBarrier*>(
      static_cast<char*>(emulation::machine->current->block->shared.get()) + address);
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

}  // namespace vt
