// Thin names for thread block clusters (sm_90): blocks that run together and reach each other's
// shared memory. Addresses are of shared memory, as shared_address() gives them. On sm_80 a block is
// a cluster of its own.
#ifndef VT_CUDA_CLUSTER_CUH_
#define VT_CUDA_CLUSTER_CUH_

#include "common.cuh"

namespace vt {

/** The block's one object of this type. */
template <typename T>
__device__ __forceinline__ T& block_shared() {
  __shared__ T object;
  return object;
}

/** The block's memory that its launch asked for, behind block_shared()'s. */
__device__ __forceinline__ float4* dynamic_shared() {
  extern __shared__ float4 of_launch[];
  return of_launch;
}

__device__ __forceinline__ int cluster_rank() {
  uint32_t rank = 0;
#if VT_HAS_SM_90
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
  return static_cast<int>(rank);
}

__device__ __forceinline__ int cluster_size() {
  uint32_t size = 1;
#if VT_HAS_SM_90
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
#endif
  return static_cast<int>(size);
}

/**
 * The barrier of all threads of the cluster, in halves. What was written before an arrival, also to
 * shared memory of others, is seen after the wait. Before the first access to another block's
 * memory, and after the last, a barrier must say that the block is there.
 */
__device__ __forceinline__ void cluster_arrive() {
#if VT_HAS_SM_90
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
#endif
}

/**
 * An arrival that says only that this block is there, and barriers of its own that were initialised
 * before a fence_barrier_init(): no fence for what was written, which would be one of the device.
 */
__device__ __forceinline__ void cluster_arrive_relaxed() {
#if VT_HAS_SM_90
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
#endif
}

__device__ __forceinline__ void cluster_wait() {
#if VT_HAS_SM_90
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#else
  __syncthreads();
#endif
}

__device__ __forceinline__ void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

/** Where block `rank` of the cluster has what this block has at `address`. */
__device__ __forceinline__ uint32_t address_in(uint32_t address, int rank) {
  uint32_t there = address;
#if VT_HAS_SM_90
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
#endif
  return there;
}

#if VT_HAS_SM_90
#define VT_SHARED ".shared::cluster"
#define VT_SCOPE ".cluster"
#else
#define VT_SHARED ".shared"
#define VT_SCOPE ".cta"
#endif

__device__ __forceinline__ void store_in_cluster(uint32_t address, unsigned long long value) {
  asm volatile("st" VT_SHARED ".u64 [%0], %1;" ::"r"(address), "l"(value) : "memory");
}

/**
 * `value` to where block `rank` of the cluster has what this block has at `mine`; its bytes are
 * counted down, there, on the barrier that this block has at `barrier`.
 */
__device__ __forceinline__ void send_in_cluster(int rank, float* mine, float value,
                                                uint32_t barrier) {
#if VT_HAS_SM_90
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(
                   address_in(shared_address(mine), rank)),
               "r"(__float_as_uint(value)), "r"(address_in(barrier, rank))
               : "memory");
#else
  __trap();
#endif
}

/** The same of two values, to where `rank` has what this block has at address `mine`. */
__device__ __forceinline__ void send_in_cluster(int rank, uint32_t mine, float2 values,
                                                uint32_t barrier) {
  VT_SM_90(asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, [%3];" ::"r"(
          address_in(mine, rank)),
      "r"(__float_as_uint(values.x)), "r"(__float_as_uint(values.y)), "r"(address_in(barrier, rank))
      : "memory"));
}

__device__ __forceinline__ uint32_t load_in_cluster_u32(uint32_t address) {
  uint32_t value;
  asm volatile("ld" VT_SHARED ".u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
  return value;
}

__device__ __forceinline__ unsigned long long load_in_cluster_u64(uint32_t address) {
  unsigned long long value;
  asm volatile("ld" VT_SHARED ".u64 %0, [%1];" : "=l"(value) : "r"(address) : "memory");
  return value;
}

__device__ __forceinline__ void add_in_cluster(uint32_t address, uint32_t value) {
  asm volatile("red.relaxed" VT_SCOPE VT_SHARED ".add.u32 [%0], %1;" ::"r"(address), "r"(value)
               : "memory");
}

__device__ __forceinline__ void or_in_cluster(uint32_t address, uint32_t value) {
  asm volatile("red.relaxed" VT_SCOPE VT_SHARED ".or.b32 [%0], %1;" ::"r"(address), "r"(value)
               : "memory");
}

#undef VT_SHARED
#undef VT_SCOPE

// Where block `rank` of the cluster has what this block has at `mine`, in its shared memory; without
// clusters `mine` may point anywhere.

__device__ __forceinline__ unsigned long long load_of(int rank, const unsigned long long* mine) {
#if VT_HAS_SM_90
  return load_in_cluster_u64(address_in(shared_address(mine), rank));
#else
  return *mine;
#endif
}

__device__ __forceinline__ void add_to(int rank, uint32_t* mine, uint32_t value) {
#if VT_HAS_SM_90
  add_in_cluster(address_in(shared_address(mine), rank), value);
#else
  atomicAdd(mine, value);
#endif
}

__device__ __forceinline__ void or_to(int rank, uint32_t* mine, uint32_t bits) {
#if VT_HAS_SM_90
  or_in_cluster(address_in(shared_address(mine), rank), bits);
#else
  atomicOr(mine, bits);
#endif
}

/**
 * An arrival on a barrier of any block of the cluster, by its address_in(). Says that this thread
 * has read, not what it wrote: for that it would need the scope of the cluster, and a slow fence.
 */
__device__ __forceinline__ void barrier_arrive_in_cluster(uint32_t barrier) {
  VT_SM_90(
      asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory"));
}

/**
 * As copy_box, into each block of the cluster whose bit of `ranks` is set: to the same place there,
 * counted down on the same barrier there.
 */
__device__ __forceinline__ void copy_box_to(unsigned ranks, uint32_t destination,
                                            const CUtensorMap* map, const int (&at)[4],
                                            uint32_t barrier, uint64_t policy) {
  VT_SM_90(asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster.L2::cache_hint [%0], [%1, {%2, %3, %4, %5}], [%6], %7, %8;" ::"r"(
          destination),
      "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(barrier),
      "h"(static_cast<uint16_t>(ranks)), "l"(policy)
      : "memory"));
}

/** What this thread wrote to shared memory comes before copies begun after the next barrier. */
__device__ __forceinline__ void fence_async() {
#if VT_HAS_SM_90
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/** By the copy engine; addresses and size are multiples of 16; counted down on `barrier`. */
__device__ __forceinline__ void copy_bulk(uint32_t destination, const void* source, int bytes,
                                          uint32_t barrier) {
  VT_SM_90(asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1], %2, [%3];" ::"r"(destination),
      "l"(source), "r"(bytes), "r"(barrier)
      : "memory"));
}

/** As copy_bulk, to the L2 cache only; nothing without a copy engine. */
__device__ __forceinline__ void prefetch_bulk(const void* source, int bytes) {
#if VT_HAS_SM_90
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(source), "r"(bytes) : "memory");
#endif
}

}  // namespace vt

#endif  // VT_CUDA_CLUSTER_CUH_
