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
inline void store_shared_of(int rank, float* mine, float value) {
  const emulation::Fiber& fiber = *emulation::machine->current;
  emulation::Kernel& kernel = *fiber.kernel;
  const int first = fiber.block->index / kernel.cluster_size * kernel.cluster_size;
  const auto offset =
      reinterpret_cast<char*>(mine) - static_cast<char*>(fiber.block->shared.get());
  std::memcpy(static_cast<char*>(kernel.blocks[first + rank].shared.get()) + offset, &value, 4);
}
inline void prefetch_bulk(const void*, int) {}

}  // namespace vt
