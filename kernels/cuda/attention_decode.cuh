// How a block of decode attention walks the work list, and the merge of a row's parts.
#ifndef VT_CUDA_ATTENTION_DECODE_CUH_
#define VT_CUDA_ATTENTION_DECODE_CUH_

#include "attention.cuh"
#include "cluster.cuh"

namespace vt {

constexpr int kGroupKeys = 256;
/** Threads that fold tiles, or merge parts. */
constexpr int kFolders = 128;

/** Keys of a work between two multiples of 256. */
struct Group {
  int item;  // work * num_kv_heads + KV head
  int round;
  int key;
  AttentionWork work;
};

/**
 * The groups of a block, in order: all of an item, then the next item. The list goes from long works
 * to short ones, and blocks take them there and back, so that each has as much to do. Or, by
 * clusters, one chunk of the item that is the cluster's: that of the block's rank in it.
 */
struct Walk {
  const VtCudaAttention& args;
  int num_items;
  int size;  // of a cluster
  bool by_clusters;

  __device__ __forceinline__ Walk(const VtCudaAttention& of, bool has_cluster)
      : args(of),
        num_items(__ldcg(of.work_counts) * of.num_kv_heads),
        size(has_cluster ? cluster_size() : 1),
        by_clusters(false) {
    if (!has_cluster) return;
    by_clusters = __ldcg(of.work_counts + 3) != 0;
    // In a launch that has fewer, blocks take whole rows one by one.
    by_clusters &= num_items <= static_cast<int>(gridDim.x) / size;
  }

  /** The block's first group. */
  __device__ __forceinline__ void start(Group& g) const {
    g.round = 0;
    begin(g, blockIdx.x);
    if (size == 1) return;
    // Read before it is known which it will be.
    Group shared_out;
    shared_out.round = 0;
    begin(shared_out, blockIdx.x / size);
    if (!by_clusters) return;
    g = shared_out;
    if (g.item >= num_items) return;
    const int end = g.work.key_end;
    for (int i = cluster_rank(); i > 0 && g.key < end; i--) g.key = chunk_end(g.key);
    g.work.key_begin = g.key;
    g.work.key_end = min(chunk_end(g.key), end);
    if (g.key >= end) g.item = num_items;
  }

  __device__ __forceinline__ void begin(Group& g, int item) const {
    g.item = item;
    if (g.item >= args.max_decode_work * args.num_kv_heads) return;
    // Read before num_items is known: the list has room for max_decode_work.
    g.work = load_work(args.decode_work, g.item / args.num_kv_heads);
    g.key = g.work.key_begin;
  }

  __device__ __forceinline__ int end(const Group& g) const {
    return min((g.key / kGroupKeys + 1) * kGroupKeys, g.work.key_end);
  }

  __device__ __forceinline__ int num_tiles(const Group& g) const {
    return (end(g) - g.key + kTileKeys - 1) / kTileKeys;
  }

  __device__ __forceinline__ bool ends_item(const Group& g) const {
    return end(g) == g.work.key_end;
  }

  __device__ __forceinline__ void advance(Group& g) const {
    if (g.item >= num_items) return;
    if (ends_item(g)) {
      if (by_clusters) {
        g.item = num_items;
        return;
      }
      const int after = gridDim.x - 1 - blockIdx.x;
      g.round ^= 1;
      begin(g, g.item + 1 + 2 * static_cast<int>(g.round != 0 ? after : blockIdx.x));
    } else {
      g.key = end(g);
    }
  }
};

/** The row's output from its parts, chunks ascending; by kFolders threads. */
template <typename T, int kDim, int kBatch>
__device__ __forceinline__ void merge_parts(const VtCudaAttention& args, const AttentionWork& work,
                                            int kv_head, float c) {
  const int group = args.num_heads / args.num_kv_heads;
  constexpr int kPart = 16 * (kDim + 2);
  const int64_t step = static_cast<int64_t>(args.num_kv_heads) * kPart;
  const float* parts = static_cast<const float*>(args.scratch) +
                       (static_cast<int64_t>(work.first) * args.num_kv_heads + kv_head) * kPart;
  for (int i = threadIdx.x * 4; i < work.num_queries * group * kDim; i += kFolders * 4) {
    const int r = i / kDim;
    float m = -INFINITY;
    float l = 0.0f;
    float4 o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int w0 = 0; w0 < work.count; w0 += kBatch) {
      float2 sums[kBatch];
      float4 part[kBatch];
#pragma unroll
      for (int w = 0; w < kBatch; w++) {
        const float* from = parts + min(w0 + w, work.count - 1) * step;
        sums[w] = __ldcg(reinterpret_cast<const float2*>(from + 16 * kDim + r * 2));
        part[w] = __ldcg(reinterpret_cast<const float4*>(from + i));
      }
#pragma unroll
      for (int w = 0; w < kBatch; w++) {
        if (w0 + w >= work.count) break;
        const Merge merge = merge_sums(m, l, sums[w].x, sums[w].y, c);
        o.x = merge_value(o.x, part[w].x, merge);
        o.y = merge_value(o.y, part[w].y, merge);
        o.z = merge_value(o.z, part[w].z, merge);
        o.w = merge_value(o.w, part[w].w, merge);
      }
    }
    const float inverse = __frcp_rn(l);
    const int64_t token = work.query_start + r / group;
    const uint2 packed = {pack2<T>(__fmul_rn(o.x, inverse), __fmul_rn(o.y, inverse)),
                          pack2<T>(__fmul_rn(o.z, inverse), __fmul_rn(o.w, inverse))};
    *reinterpret_cast<uint2*>(static_cast<T*>(args.out) + token * args.out_stride +
                              (kv_head * group + r % group) * kDim + i % kDim) = packed;
  }
}

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_DECODE_CUH_
