// What all CUDA kernels share: launches, numbers, targets, and thin names for the instructions they
// are built from (mma.sync, ldmatrix, cp.async, bulk copies with mbarriers, dependent launch).
#ifndef VT_CUDA_COMMON_CUH_
#define VT_CUDA_COMMON_CUH_

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "launch.cuh"
#include "numbers.cuh"

namespace vt {

// ---- targets. An instruction that one does not have is a trap there: the host chooses kernels,
// and kernels choose paths, that do without.

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define VT_HAS_SM_90 1
#define VT_SM_90(...) __VA_ARGS__
#else
#define VT_HAS_SM_90 0
#define VT_SM_90(...) __trap()
#endif
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define VT_HAS_WGMMA 1
#else
#define VT_HAS_WGMMA 0
#endif

// ---- matrix instructions. A fragment's place: lane / 4 is its row (A, C) or column (B), lane % 4
// its pair of columns (A, C) or rows (B).

/** c[16][8] += a[16][16] * b[16][8]: one step of an output's f32 chain. */
template <typename T>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/** Four 8x8 matrices; lane i gives the address of row i % 8 of matrix i / 8. */
__device__ __forceinline__ void ldmatrix4(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ void ldmatrix4_trans(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/**
 * Two 8x8 matrices, of which a lane has column lane / 4 of rows lane % 4 * 2 and the next in a word
 * each: rows to memory. Lane i < 16 gives the address of row i % 8 of matrix i / 8.
 */
__device__ __forceinline__ void store_matrix2_trans(uint32_t address, uint32_t first,
                                                    uint32_t second) {
  VT_SM_90(asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(
                            address),
                        "r"(first), "r"(second)
                        : "memory"));
}

// ---- asynchronous copies

/** 16 bytes; zeros instead of the source where `valid` is false. */
__device__ __forceinline__ void copy16_async(uint32_t destination, const void* source, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(destination),
               "l"(source), "r"(valid ? 16 : 0)
               : "memory");
}

__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/** Waits until at most `kPending` of this thread's groups are under way. */
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ void barrier_init(uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void barrier_expect(uint32_t barrier, int bytes) {
  VT_SM_90(asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
                        "r"(bytes)
                        : "memory"));
}

#if VT_HAS_SM_90
#define VT_TRY_WAIT "try_wait"  // sleeps a while
#else
#define VT_TRY_WAIT "test_wait"
#endif

__device__ __forceinline__ void barrier_wait(uint32_t barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier." VT_TRY_WAIT
      ".parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

/** Whether the phase has completed; asked early, so that its answer is there when it is needed. */
__device__ __forceinline__ bool barrier_ready(uint32_t barrier, int parity) {
  uint32_t ready;
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.u32 %0, 1, 0, done;\n"
      "}\n"
      : "=r"(ready)
      : "r"(barrier), "r"(parity)
      : "memory");
  return ready != 0;
}

/** Makes barrier_init visible to the copy engine, where there is one. */
__device__ __forceinline__ void fence_barrier_init() {
#if VT_HAS_SM_90
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/** Data read once: first to leave the L2 cache. */
__device__ __forceinline__ uint64_t evict_first_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ __forceinline__ uint64_t evict_last_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

/** As copy16_async, with an L2 policy. */
__device__ __forceinline__ void copy16_async(uint32_t destination, const void* source, bool valid,
                                             uint64_t policy) {
  asm volatile(
      "cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(destination),
      "l"(source), "r"(valid ? 16 : 0), "l"(policy)
      : "memory");
}

/** Arrives on `barrier` once all copies this thread has begun have landed. */
__device__ __forceinline__ void barrier_arrive_after_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/** The 128 bytes that hold `at`, to the L2 cache. */
__device__ __forceinline__ void prefetch_line(const void* at) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at) : "memory");
}

/** Fetches a tensor map before its first use; nothing without a copy engine. */
__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
#if VT_HAS_SM_90
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
#endif
}

/**
 * The box of `map` at these coordinates by the copy engine, zeros outside the tensor; its bytes are
 * counted down on `barrier`.
 */
__device__ __forceinline__ void copy_box(uint32_t destination, const CUtensorMap* map,
                                         const int (&at)[4], uint32_t barrier, uint64_t policy) {
  VT_SM_90(asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%2, %3, %4, %5}], [%6], %7;" ::"r"(destination),
      "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(barrier), "l"(policy)
      : "memory"));
}

/** `counter` goes up by one, and from `last` to 0. What it was; joins the blocks that count. */
__device__ __forceinline__ uint32_t count_and_wrap(uint32_t* counter, uint32_t last) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(counter), "r"(last)
               : "memory");
  return before;
}

/** A barrier of the first kThreads threads of the block. */
template <int kThreads>
__device__ __forceinline__ void sync_first() {
  asm volatile("bar.sync 1, %0;" ::"n"(kThreads) : "memory");
}

/** The same, of the first `threads`, a multiple of 32. */
__device__ __forceinline__ void sync_first(int threads) {
  asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
}

// ---- dependent launch

/** Lets the next kernel of the stream start its prologue. */
__device__ __forceinline__ void start_next() {
#if VT_HAS_SM_90
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/** Until the kernels before this one have finished and their writes are visible. */
__device__ __forceinline__ void wait_for_previous() {
#if VT_HAS_SM_90
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace vt

#endif  // VT_CUDA_COMMON_CUH_
