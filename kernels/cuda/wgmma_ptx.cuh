// Thin names for Hopper's warpgroup matrix instructions (sm_90a): wgmma and what goes with it.
//
// wgmma is asynchronous: between its issue and the wait for its group, nobody touches its
// accumulators, its register operand, or its shared memory. The compiler sees no such thing in a
// statement, so keep() ties the registers to a place behind the wait.
#ifndef VT_CUDA_WGMMA_PTX_CUH_
#define VT_CUDA_WGMMA_PTX_CUH_

#include "common.cuh"

namespace vt {

/** Of every thread of the warpgroup, from now on. */
template <int kRegisters>
__device__ __forceinline__ void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
__device__ __forceinline__ void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

/** What this thread has written to shared memory may be read by wgmma and the copy engine. */
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/** Before the first wgmma, and where others have written its registers since the last. */
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/** Until at most `kPending` groups are under way. */
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

template <int kTiles>
__device__ __forceinline__ void keep(float (&d)[kTiles][4]) {
#pragma unroll
  for (int j = 0; j < kTiles; j++) {
#pragma unroll
    for (int e = 0; e < 4; e++) asm volatile("" : "+f"(d[j][e]));
  }
}

template <int kTiles>
__device__ __forceinline__ void keep(uint32_t (&a)[kTiles][4]) {
#pragma unroll
  for (int j = 0; j < kTiles; j++) {
#pragma unroll
    for (int e = 0; e < 4; e++) asm volatile("" : "+r"(a[j][e]));
  }
}

__device__ __forceinline__ void store_shared(uint32_t address, uint32_t word) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(word) : "memory");
}

/** To a multiple of 8. */
__device__ __forceinline__ void store_shared(uint32_t address, float2 pair) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(pair.x), "f"(pair.y)
               : "memory");
}

/** Of a multiple of 16. */
__device__ __forceinline__ uint4 load_shared(uint32_t address) {
  uint4 words;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "r"(address)
               : "memory");
  return words;
}

/** Barrier `id` (0 is __syncthreads, 1 sync_first) of `num_threads`, who come here or arrive. */
__device__ __forceinline__ void sync_named(int id, int num_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(num_threads) : "memory");
}

__device__ __forceinline__ void arrive_named(int id, int num_threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(num_threads) : "memory");
}

// Register lists of 2 to 32 tiles (n 16 to 256), and their operands.
#define VT_TILE(d, j) "+f"((d)[j][0]), "+f"((d)[j][1]), "+f"((d)[j][2]), "+f"((d)[j][3])
#define VT_TILES_2(d, j) VT_TILE(d, j), VT_TILE(d, j + 1)
#define VT_TILES_3(d, j) VT_TILES_2(d, j), VT_TILE(d, j + 2)
#define VT_TILES_4(d, j) VT_TILES_2(d, j), VT_TILES_2(d, j + 2)
#define VT_TILES_6(d, j) VT_TILES_4(d, j), VT_TILES_2(d, j + 4)
#define VT_TILES_8(d, j) VT_TILES_4(d, j), VT_TILES_4(d, j + 4)
#define VT_TILES_9(d, j) VT_TILES_8(d, j), VT_TILE(d, j + 8)
#define VT_TILES_10(d, j) VT_TILES_8(d, j), VT_TILES_2(d, j + 8)
#define VT_TILES_12(d, j) VT_TILES_8(d, j), VT_TILES_4(d, j + 8)
#define VT_TILES_13(d, j) VT_TILES_12(d, j), VT_TILE(d, j + 12)
#define VT_TILES_14(d, j) VT_TILES_12(d, j), VT_TILES_2(d, j + 12)
#define VT_TILES_16(d, j) VT_TILES_8(d, j), VT_TILES_8(d, j + 8)
#define VT_TILES_28(d, j) VT_TILES_16(d, j), VT_TILES_12(d, j + 16)
#define VT_TILES_32(d, j) VT_TILES_16(d, j), VT_TILES_16(d, j + 16)
#define VT_NAMES_8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define VT_NAMES_12 VT_NAMES_8 ",%8,%9,%10,%11"
#define VT_NAMES_16 VT_NAMES_12 ",%12,%13,%14,%15"
#define VT_NAMES_24 VT_NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define VT_NAMES_32                                              \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,"   \
  "%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define VT_NAMES_64                                              \
  VT_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47," \
              "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define VT_NAMES_36 VT_NAMES_32 ",%32,%33,%34,%35"
#define VT_NAMES_40 VT_NAMES_36 ",%36,%37,%38,%39"
#define VT_NAMES_48 \
  VT_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define VT_NAMES_52 VT_NAMES_48 ",%48,%49,%50,%51"
#define VT_NAMES_56 VT_NAMES_52 ",%52,%53,%54,%55"
#define VT_NAMES_112                                                                  \
  VT_NAMES_64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"      \
              "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"       \
              "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110," \
              "%111"
#define VT_NAMES_128                                                                  \
  VT_NAMES_64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"      \
              "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"       \
              "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110," \
              "%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124," \
              "%125,%126,%127"

// A, B in shared memory, both in rows along k. Operands after the list: a, b, whether to add.
#define VT_WGMMA_SHARED(n, type, names, tiles, a_, b_, add_, d)                            \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " add_                                \
               ", 0;\n"                                                                    \
               "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" names   \
               "}, " a_ ", " b_ ", add, 1, 1, 0, 0;\n}\n"                                  \
               : tiles                                                                     \
               : "l"(a), "l"(b), "r"(static_cast<int>(add)))
#define VT_WGMMA_SHARED_OF(n, tiles, names, a_, b_, add_)                                   \
  if constexpr (kHalf) {                                                                    \
    VT_WGMMA_SHARED(#n, "f16", VT_NAMES_##names, VT_TILES_##tiles(d, 0), a_, b_, add_, d);  \
  } else {                                                                                  \
    VT_WGMMA_SHARED(#n, "bf16", VT_NAMES_##names, VT_TILES_##tiles(d, 0), a_, b_, add_, d); \
  }
#define VT_WGMMA_REGISTERS(n, type, names, tiles, a_, b_, add_, d)                         \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " add_                                \
               ", 0;\n"                                                                    \
               "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" names   \
               "}, {" a_ "}, " b_ ", add, 1, 1, 1;\n}\n"                                   \
               : tiles                                                                     \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)))

/**
 * d[64][8 kTiles] = (add ? d : 0) + a[64][16] * b[8 kTiles][16]^T: one step of each output's f32
 * chain. a, b: descriptors of panels (see wgmma.cuh), rows along k. The warpgroup's warp w has rows
 * 16 w .., as mma.sync lays out its m16.
 */
template <typename T, int kTiles>
__device__ __forceinline__ void wgmma(float (&d)[kTiles][4], uint64_t a, uint64_t b, bool add) {
  constexpr bool kHalf = std::is_same_v<T, __half>;
  if constexpr (kTiles == 2) {
    VT_WGMMA_SHARED_OF(16, 2, 8, "%8", "%9", "%10");
  } else if constexpr (kTiles == 3) {
    VT_WGMMA_SHARED_OF(24, 3, 12, "%12", "%13", "%14");
  } else if constexpr (kTiles == 4) {
    VT_WGMMA_SHARED_OF(32, 4, 16, "%16", "%17", "%18");
  } else if constexpr (kTiles == 6) {
    VT_WGMMA_SHARED_OF(48, 6, 24, "%24", "%25", "%26");
  } else if constexpr (kTiles == 8) {
    VT_WGMMA_SHARED_OF(64, 8, 32, "%32", "%33", "%34");
  } else if constexpr (kTiles == 9) {
    VT_WGMMA_SHARED_OF(72, 9, 36, "%36", "%37", "%38");
  } else if constexpr (kTiles == 10) {
    VT_WGMMA_SHARED_OF(80, 10, 40, "%40", "%41", "%42");
  } else if constexpr (kTiles == 12) {
    VT_WGMMA_SHARED_OF(96, 12, 48, "%48", "%49", "%50");
  } else if constexpr (kTiles == 13) {
    VT_WGMMA_SHARED_OF(104, 13, 52, "%52", "%53", "%54");
  } else if constexpr (kTiles == 14) {
    VT_WGMMA_SHARED_OF(112, 14, 56, "%56", "%57", "%58");
  } else if constexpr (kTiles == 16) {
    VT_WGMMA_SHARED_OF(128, 16, 64, "%64", "%65", "%66");
  } else if constexpr (kTiles == 28) {
    VT_WGMMA_SHARED_OF(224, 28, 112, "%112", "%113", "%114");
  } else if constexpr (kTiles == 32) {
    VT_WGMMA_SHARED_OF(256, 32, 128, "%128", "%129", "%130");
  } else {
    static_assert(kTiles == 2, "no register list of so many tiles");
  }
}

/** The same with a as mma.sync's fragment of each warp's 16 rows, and b in rows along n. */
template <typename T, int kTiles>
__device__ __forceinline__ void wgmma_rows_of_k(float (&d)[kTiles][4], const uint32_t (&a)[4],
                                                uint64_t b, bool add) {
  constexpr bool kHalf = std::is_same_v<T, __half>;
  static_assert(kTiles == 8 || kTiles == 16);
  if constexpr (kTiles == 8 && kHalf) {
    VT_WGMMA_REGISTERS("64", "f16", VT_NAMES_32, VT_TILES_8(d, 0), "%32,%33,%34,%35", "%36", "%37",
                       d);
  } else if constexpr (kTiles == 8) {
    VT_WGMMA_REGISTERS("64", "bf16", VT_NAMES_32, VT_TILES_8(d, 0), "%32,%33,%34,%35", "%36",
                       "%37", d);
  } else if constexpr (kHalf) {
    VT_WGMMA_REGISTERS("128", "f16", VT_NAMES_64, VT_TILES_16(d, 0), "%64,%65,%66,%67", "%68",
                       "%69", d);
  } else {
    VT_WGMMA_REGISTERS("128", "bf16", VT_NAMES_64, VT_TILES_16(d, 0), "%64,%65,%66,%67", "%68",
                       "%69", d);
  }
}

#undef VT_WGMMA_REGISTERS
#undef VT_WGMMA_SHARED_OF
#undef VT_WGMMA_SHARED

}  // namespace vt

#endif  // VT_CUDA_WGMMA_PTX_CUH_
