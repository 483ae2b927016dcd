// Shared memory of the emulated block, asynchronous copies into it, and the matrix instructions
// that read it. Descriptors and swizzles are decoded here from what the PTX manual says of them, on
// purpose without the kernels' own arithmetic.
#pragma once

#include <cstdint>
#include <vector>

namespace emulated {

constexpr std::uint32_t kSharedBytes = 227 << 10;
/// Where dynamic shared memory begins: not at 0, but as the kernels ask, at a multiple of 1,024.
constexpr std::uint32_t kSharedBase = 1024;

/// Fills the blocks' shared memory with NaN and forgets what was under way. `shared` is that of the
/// first; kernels in clusters may only use pointers that own_memory() gave.
void begin_cluster(int num_blocks, std::uint8_t* shared, std::uint32_t bytes);
void end_cluster();

/// An address in this block, as every block of the cluster has it, also says whose it is from here:
/// the block's rank + 1 above kRankShift, 0 for the thread's own.
constexpr int kRankShift = 24;
std::uint32_t in_cluster(std::uint32_t address, int rank);
std::uint32_t address_of(const void* pointer);
std::uint8_t* own_memory();
std::uint8_t* at(std::uint32_t address, std::uint32_t bytes);

// cp.async, by thread
void copy16(std::uint32_t destination, const void* source, bool valid);
void commit_copies();
void wait_copies(int pending);
/// cp.async.mbarrier.arrive.noinc: an arrival once all that the thread has begun has landed.
void arrive_after_copies(std::uint32_t barrier);
/// fence.proxy.async: what this thread wrote may now be read by wgmma.
void fence_async_proxy();

/// What was asked for by cp.async.bulk.prefetch.L2, which nobody waits for.
struct Fetched {
  const std::uint8_t* from;
  int bytes;
};
inline std::vector<Fetched> fetched;

/// A tensor of 2-byte elements and a box of it, 128-byte rows swizzled.
struct TensorMap {
  const std::uint8_t* data;
  std::int64_t sizes[4], strides[3];
  int box[4];
};
/// st.async: 8 bytes to a block of the cluster, counted on its barrier.
void send(std::uint32_t destination, const void* bytes, std::uint32_t barrier);
/// To each block of `ranks` (bits), at the same place, its bytes counted on the same barrier.
void copy_box(std::uint32_t destination, const TensorMap& map, const int (&at)[4],
              std::uint32_t barrier, unsigned ranks);

enum class Element { f16, bf16 };
float to_float(Element element, std::uint16_t bits);
std::uint16_t from_float(Element element, float value);

/// One step of a chain: c + 16 products. The order inside a step is the hardware's own; here it is
/// one sum in float64, for mma.sync and wgmma alike.
float chain_step(float c, const float (&a)[16], const float (&b)[16]);

/// mma.sync m16n8k16 and ldmatrix x4, by warp.
void mma_m16n8k16(Element element, float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                  std::uint32_t b1);
void ldmatrix4(std::uint32_t (&r)[4], std::uint32_t address, bool transposed);

/// Lanes 0 to 15 give addresses of the rows of two matrices.
void store_matrix2_trans(std::uint32_t address, std::uint32_t first, std::uint32_t second);

/// wgmma m64nNk16: `d` has N / 2 floats; `a` four words of registers, or null: a_descriptor.
void wgmma(Element element, int n, float* d, const std::uint32_t* a, std::uint64_t a_descriptor,
           std::uint64_t b_descriptor, bool add, bool b_transposed);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int pending);

}  // namespace emulated
