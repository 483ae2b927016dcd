// Keys and values of the next attention on their way to the L2 cache: VtCudaKeysAhead. A small
// kernel between two linears has blocks behind its own for it, which ask for their piece and end,
// while memory has little to do. Knows nothing of what the kernel itself computes.
#ifndef VT_CUDA_KEYS_AHEAD_CUH_
#define VT_CUDA_KEYS_AHEAD_CUH_

#include "attention.cuh"
#include "cluster.cuh"

namespace vt {

/** Threads that ask for a piece, each for as many bytes of it. */
constexpr int kFetchers = 16;

inline int check_keys_ahead(const char* op, const VtCudaKeysAhead& a) {
  if (a.num_pieces == 0) return 0;
  VT_REQUIRE(a.num_pieces > 0 && a.first_piece >= 0 && a.num_works > 0,
             "%s: keys ahead: %d pieces from %d on, of %d works", op, a.num_pieces, a.first_piece,
             a.num_works);
  VT_REQUIRE(a.block_size > 0 && a.block_size % kFetchers == 0 && a.head_dim % 8 == 0,
             "%s: keys ahead: blocks of %d, head_dim %d", op, a.block_size, a.head_dim);
  VT_REQUIRE(aligned16(a.kv_cache, 0), "%s: keys ahead: kv_cache must be 16-byte aligned", op);
  return 0;
}

/** A launch's grid, and behind it the blocks that fetch, a piece each. */
inline dim3 with_fetchers(dim3 grid, const VtCudaKeysAhead& a) {
  grid.x += (a.num_pieces + grid.y - 1) / grid.y;
  return grid;
}

__device__ __forceinline__ void fetch_piece(const VtCudaKeysAhead& a, int piece) {
  if (threadIdx.x >= kFetchers) return;
  const int index = piece % a.num_works;
  const int num_works = __ldcg(a.work_counts);
  // Read before it is known whether the list is so long: there is room for num_works.
  const AttentionWork work = load_work(a.decode_work, index);
  if (index >= num_works) return;
  const int block_of_row = work.key_begin / a.block_size + piece / a.num_works;
  if (block_of_row * a.block_size >= work.key_end) return;
  const int64_t block =
      __ldcg(a.block_tables + static_cast<int64_t>(work.row) * a.max_num_blocks + block_of_row);
  const int bytes = 2 * a.num_kv_heads * a.block_size * a.head_dim * 2 / kFetchers;
  const char* layer = static_cast<const char*>(a.kv_cache) +
                      (block * a.num_layers + a.layer) * (static_cast<int64_t>(bytes) * kFetchers);
  prefetch_bulk(layer + threadIdx.x * bytes, bytes);
}

/**
 * Whether this block is one behind the first `num_blocks` of the launch's first dimension: then it
 * has asked for its piece, and there is nothing else for it to do.
 */
__device__ __forceinline__ bool fetches_keys(const VtCudaKeysAhead& a, int num_blocks) {
  const int column = static_cast<int>(blockIdx.x) - num_blocks;
  if (column < 0) return false;
  const int piece = column * static_cast<int>(gridDim.y) + static_cast<int>(blockIdx.y);
  if (piece < a.num_pieces) fetch_piece(a, a.first_piece + piece);
  return true;
}

}  // namespace vt

#endif  // VT_CUDA_KEYS_AHEAD_CUH_
