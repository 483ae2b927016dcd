// Decode attention of a few short rows by clusters: each block takes a chunk of the cluster's item
// and sends what came out into the first one's shared memory, which merges. So no parts go through
// memory and none are counted there, which takes 2 us, a third of the time of a row of two chunks.
// The plan says when (a work a row, work_counts[3]); otherwise the same blocks work apart.
#ifndef VT_CUDA_ATTENTION_DECODE_CLUSTER_CUH_
#define VT_CUDA_ATTENTION_DECODE_CLUSTER_CUH_

#include "attention_decode_ring.cuh"

namespace vt {

/** Of a row that is one work: chunks are those of 256 keys. */
__device__ __forceinline__ int num_chunks(const AttentionWork& work) {
  return (work.seq_len - 1) / kGroupKeys - work.key_begin / kGroupKeys + 1;
}

/** By the first block of a cluster: what it will get for its item; others may have sent before. */
template <int kDim>
__device__ __forceinline__ void expect_parts(const AttentionWork& work, int group, uint32_t base) {
  const int rows = (num_chunks(work) - 1) * work.num_queries * group;
  if (rows > 0) barrier_expect(base + Layout<kDim>::kPartsFull, rows * (kDim + 2) * 4);
}

/**
 * What a warp of folders has of an item: its part of head_dim, n8 tile by tile, of the lane's rows
 * lane / 4 and lane / 4 + 8, of which there are `rows`.
 */
template <int kDim, int kDimTiles>
struct Folded {
  float (&m)[2];
  float (&l)[2];
  float (&o)[kDimTiles][4];
  int rows;
  int warp;
  int lane;

  __device__ __forceinline__ int column(int d) const {
    return (warp * kDimTiles + d) * 8 + lane % 4 * 2;
  }

  /** To the first block of the cluster; this is chunk `chunk` > 0 of the item. */
  __device__ __forceinline__ void send(int chunk, uint32_t base) const {
    using L = Layout<kDim>;
    const uint32_t barrier = base + L::kPartsFull;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int r = lane / 4 + h * 8;
      if (r >= rows) continue;
      const int at = (chunk - 1) * rows + r;
      if (warp == 0 && lane % 4 == 0) {
        send_in_cluster(0, base + L::kPartSums + at * 8, make_float2(m[h], l[h]), barrier);
      }
#pragma unroll
      for (int d = 0; d < kDimTiles; d++) {
        if (column(d) >= kDim) continue;
        send_in_cluster(0, base + L::kParts + (at * kDim + column(d)) * 4,
                        make_float2(o[d][h * 2], o[d][h * 2 + 1]), barrier);
      }
    }
  }

  /** By the first block: all chunks of the item, ascending, as merge_parts. */
  __device__ __forceinline__ void merge(int chunks, float c, const uint8_t* shared,
                                        uint32_t base) const {
    using L = Layout<kDim>;
    barrier_wait(base + L::kPartsFull, 0);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int r = lane / 4 + h * 8;
      if (r >= rows) continue;
      float total_m = -INFINITY;
      float total_l = 0.0f;
      const Merge first = merge_sums(total_m, total_l, m[h], l[h], c);
#pragma unroll
      for (int d = 0; d < kDimTiles; d++) {
#pragma unroll
        for (int e = h * 2; e < h * 2 + 2; e++) o[d][e] = merge_value(0.0f, o[d][e], first);
      }
      for (int chunk = 1; chunk < chunks; chunk++) {
        const int at = (chunk - 1) * rows + r;
        const float2 sums = *reinterpret_cast<const float2*>(shared + L::kPartSums + at * 8);
        const Merge merge = merge_sums(total_m, total_l, sums.x, sums.y, c);
#pragma unroll
        for (int d = 0; d < kDimTiles; d++) {
          const float2 part = *reinterpret_cast<const float2*>(
              shared + L::kParts + (at * kDim + min(column(d), kDim - 2)) * 4);
          o[d][h * 2] = merge_value(o[d][h * 2], part.x, merge);
          o[d][h * 2 + 1] = merge_value(o[d][h * 2 + 1], part.y, merge);
        }
      }
      l[h] = total_l;
    }
  }
};

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_DECODE_CLUSTER_CUH_
