// allReduce, with rmsNorm of the sum behind it where asked for: the kernels' bodies. Which of them
// serves a call, and how it is cut, is all_reduce.cu's business; how ranks wait, group.cuh's.
//
// What it computes: a rank's part is x in f32. sum = part of rank 0, + that of rank 1, .., + bias,
// + residual, each addition in f32; out = sum rounded once. norm_out as rmsNorm of out: the same
// tree (elementwise.cuh), so the same bits.
//
// Launch: a row is a cluster of `split` blocks; each has an equal share of the warps of rmsNorm's
// tree, and a thread for each of their 16-byte pieces of out. Where a tree's thread has several
// pieces, they are different threads here, which hand its sum on in shared memory.
//
// One-shot: each thread sends its 8 values to all others, as 4 pairs of words, and waits for those
// of the others. Word pairs lie so that a warp's are contiguous. Blocks beyond the rows fetch the
// next kernel's weights into L2, once memory is idle.
//
// Two-shot: rank r has the rows r, r + num_ranks, ..; its blocks read their parts from all ranks,
// add them up, and write out and norm_out to all.
#ifndef VT_CUDA_ALL_REDUCE_CUH_
#define VT_CUDA_ALL_REDUCE_CUH_

#include "cluster.cuh"
#include "elementwise.cuh"
#include "group.cuh"

namespace vt {

constexpr int kMaxReduceThreads = 512;
/** One instruction fetches so much. */
constexpr int kPrefetchBytes = 16 * 1024;

struct AllReduceParams {
  VtCudaGroup group;
  VtCudaAllReduce args;
  int split;       // blocks of a row
  int row_blocks;  // those beyond only prefetch
};

/** Sums of the tree's warps, of two rows in turn, and what its threads hand on. */
struct ReduceShared {
  float warps[2][16];
  float chain[kMaxReduceThreads];
};

/** Which piece of a row a thread has. */
struct RowShare {
  int tree;    // threads of the tree in this block
  int member;  // of the tree, in this block
  int turn;    // the member's pieces come in turns
  int num_turns;
  int warp;    // of the whole tree
  int piece;   // -1: none
};

__device__ __forceinline__ RowShare share_of(int columns, int split) {
  const int whole = norm_threads(columns);
  RowShare share;
  share.tree = whole / split;
  share.member = threadIdx.x % share.tree;
  share.turn = threadIdx.x / share.tree;
  share.num_turns = blockDim.x / share.tree;
  const int first = static_cast<int>(blockIdx.x) % split * share.tree;
  share.warp = (first + share.member) / 32;
  const int piece = first + share.member + share.turn * whole;
  share.piece = piece < columns / 8 ? piece : -1;
  return share;
}

/** Bias and norm weight of a thread's piece. */
struct ReduceWeights {
  uint4 bias, norm;
};

__device__ __forceinline__ ReduceWeights load_weights(const VtCudaAllReduce& args, int piece) {
  ReduceWeights weights = {};
  if (piece < 0) return weights;
  if (args.bias != nullptr) weights.bias = static_cast<const uint4*>(args.bias)[piece];
  if (args.norm_out != nullptr) weights.norm = static_cast<const uint4*>(args.norm_weight)[piece];
  return weights;
}

__device__ __forceinline__ void add8(float (&sum)[8], const float (&more)[8]) {
#pragma unroll
  for (int e = 0; e < 8; e++) sum[e] = __fadd_rn(sum[e], more[e]);
}

/** Bias and residual; then `sum` is what out holds, and `packed` its bytes. */
template <typename T>
__device__ __forceinline__ void finish_sum(const VtCudaAllReduce& args,
                                           const ReduceWeights& weights, const uint4& residual,
                                           float (&sum)[8], uint4& packed) {
  float more[8];
  if (args.bias != nullptr) {
    load8(reinterpret_cast<const T*>(&weights.bias), more);
    add8(sum, more);
  }
  if (args.residual != nullptr) {
    load8(reinterpret_cast<const T*>(&residual), more);
    add8(sum, more);
  }
  store8(reinterpret_cast<T*>(&packed), sum);
  load8(reinterpret_cast<const T*>(&packed), sum);
}

/**
 * The normalised piece of a row; every thread of the cluster calls it, `parity` alternating from
 * row to row.
 */
template <typename T>
__device__ __forceinline__ uint4 normalise(const VtCudaAllReduce& args, const RowShare& share,
                                           int split, ReduceShared& shared, int parity,
                                           const ReduceWeights& weights, float (&values)[8]) {
  float sum = 0.0f;
  for (int turn = 0; turn < share.num_turns; turn++) {
    if (turn > 0) __syncthreads();
    if (turn != share.turn) continue;
    if (turn > 0) sum = shared.chain[share.member];
    if (share.piece >= 0) sum = sum_of_squares(values, sum);
    shared.chain[share.member] = sum;
  }
  if (share.turn == share.num_turns - 1) {
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) {
      for (int block = 0; block < split; block++) {
        store_shared_of(block, &shared.warps[parity][share.warp], sum);
      }
    }
  }
  cluster_sync();
  const int num_warps = norm_threads(args.columns) / 32;
  float total = 0.0f;
  for (int w = 0; w < num_warps; w++) total = __fadd_rn(total, shared.warps[parity][w]);
  const float scale = norm_scale(total, args.columns, args.eps);
  float weight[8];
  load8(reinterpret_cast<const T*>(&weights.norm), weight);
  apply_norm(values, scale, weight);
  uint4 packed;
  store8(reinterpret_cast<T*>(&packed), values);
  return packed;
}

template <typename T>
__device__ __forceinline__ uint4* piece_of(void* rows, int64_t row, int stride, int piece) {
  return reinterpret_cast<uint4*>(static_cast<T*>(rows) + row * stride + piece * 8);
}

/** 8 values of a part, 4 pairs of words, `stride` pairs apart. */
__device__ __forceinline__ void send(WordPair* to, int stride, uint32_t tag,
                                     const float (&values)[8]) {
#pragma unroll
  for (int j = 0; j < 4; j++) {
    store_relaxed(to + j * stride,
                  WordPair{word_of(tag, values[2 * j]), word_of(tag, values[2 * j + 1])});
  }
}

/** Issues the reads of a part; take() says whether all of it was there. */
struct Received {
  WordPair pairs[4];

  __device__ void look(const WordPair* from, int stride) {
#pragma unroll
    for (int j = 0; j < 4; j++) pairs[j] = load_relaxed(from + j * stride);
  }
  __device__ bool is_there(uint32_t tag) const {
    return has_tag(pairs[0], tag) && has_tag(pairs[1], tag) && has_tag(pairs[2], tag) &&
           has_tag(pairs[3], tag);
  }
  __device__ void take(float (&values)[8]) const {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      values[2 * j] = value_of(pairs[j].first);
      values[2 * j + 1] = value_of(pairs[j].second);
    }
  }
};

__device__ __forceinline__ void prefetch_share(const AllReduceParams& params) {
  const int block = static_cast<int>(blockIdx.x) - params.row_blocks;
  const int num_blocks = static_cast<int>(gridDim.x) - params.row_blocks;
  const char* from = static_cast<const char*>(params.args.prefetch);
  for (int64_t at = static_cast<int64_t>(block * blockDim.x + threadIdx.x) * kPrefetchBytes;
       at < params.args.prefetch_bytes;
       at += static_cast<int64_t>(num_blocks) * blockDim.x * kPrefetchBytes) {
    const int64_t left = params.args.prefetch_bytes - at;
    prefetch_bulk(from + at, static_cast<int>(left < kPrefetchBytes ? left : kPrefetchBytes));
  }
}

/** kPeers: room for the parts of so many others. */
template <typename T, int kPeers>
__device__ __forceinline__ void reduce_one_shot(const AllReduceParams& params,
                                                ReduceShared& shared) {
  const VtCudaGroup& group = params.group;
  const VtCudaAllReduce& args = params.args;
  start_next();
  if (static_cast<int>(blockIdx.x) >= params.row_blocks) {
    wait_for_previous();
    prefetch_share(params);
    return;
  }
  // Before a block writes to another's shared memory it must have begun.
  cluster_arrive();
  const RowShare share = share_of(args.columns, params.split);
  const int64_t row = blockIdx.x / params.split;
  const ReduceWeights weights = load_weights(args, share.piece);
  const uint64_t epoch = epoch_of(group, args.ordinal);
  const uint32_t tag = tag_of(epoch);
  const int pieces = args.columns / 8;
  const int64_t at = row * 4 * pieces + share.piece;
  wait_for_previous();

  float own[8] = {};
  uint4 residual = {};
  uint4 packed = {};
  if (share.piece >= 0) {
    const float4* x =
        reinterpret_cast<const float4*>(args.x + row * args.x_stride + share.piece * 8);
    const float4 low = x[0];
    const float4 high = x[1];
    own[0] = low.x, own[1] = low.y, own[2] = low.z, own[3] = low.w;
    own[4] = high.x, own[5] = high.y, own[6] = high.z, own[7] = high.w;
#pragma unroll
    for (int p = 0; p < kPeers; p++) {
      if (p + 1 >= group.num_ranks) break;
      const int peer = p < group.rank ? p : p + 1;
      send(inbox(group, peer, group.rank, epoch) + at, pieces, tag, own);
    }
    if (args.residual != nullptr) {
      residual = *piece_of<T>(const_cast<void*>(args.residual), row, args.residual_stride,
                              share.piece);
    }
    Received parts[kPeers];
    Patience patience(group, epoch, args.op_index);
    for (;;) {
      int missing = -1;
#pragma unroll
      for (int p = 0; p < kPeers; p++) {
        if (p + 1 >= group.num_ranks) break;
        parts[p].look(inbox(group, group.rank, p < group.rank ? p : p + 1, epoch) + at, pieces);
      }
#pragma unroll
      for (int p = kPeers - 1; p >= 0; p--) {
        if (p + 1 < group.num_ranks && !parts[p].is_there(tag)) {
          missing = p < group.rank ? p : p + 1;
        }
      }
      if (missing < 0 || patience.is_over(missing)) break;
    }
    patience.over();
    // Part p is that of rank p, or p + 1: this rank's own comes in between.
    float sum[8];
#pragma unroll
    for (int p = 0; p < kPeers; p++) {
      if (p + 1 >= group.num_ranks) break;
      float part[8];
      parts[p].take(part);
      if (p == 0 && group.rank == 0) {
#pragma unroll
        for (int e = 0; e < 8; e++) sum[e] = own[e];
      }
      if (p == 0 && group.rank != 0) {
#pragma unroll
        for (int e = 0; e < 8; e++) sum[e] = part[e];
      } else {
        add8(sum, part);
      }
      if (p + 1 == group.rank) add8(sum, own);
    }
#pragma unroll
    for (int e = 0; e < 8; e++) own[e] = sum[e];
    finish_sum<T>(args, weights, residual, own, packed);
    *piece_of<T>(args.out, row, args.out_stride, share.piece) = packed;
  }
  cluster_wait();
  if (args.norm_out != nullptr) {
    packed = normalise<T>(args, share, params.split, shared, 0, weights, own);
    if (share.piece >= 0) *piece_of<T>(args.norm_out, row, args.norm_stride, share.piece) = packed;
  }
  clear_stale(group, epoch, static_cast<int64_t>(args.num_rows) * args.columns * 8);
}

template <typename T>
__device__ __forceinline__ void reduce_two_shot(const AllReduceParams& params,
                                                ReduceShared& shared) {
  const VtCudaGroup& group = params.group;
  const VtCudaAllReduce& args = params.args;
  start_next();
  cluster_arrive();
  const RowShare share = share_of(args.columns, params.split);
  const ReduceWeights weights = load_weights(args, share.piece);
  const uint64_t epoch = epoch_of(group, args.ordinal);
  const int64_t step =
      static_cast<int64_t>(gridDim.x / params.split) * group.num_ranks;
  cluster_wait();
  wait_for_previous();
  const bool well = meet(group, 0, epoch, args.op_index) && share.piece >= 0;
  int parity = 0;
  for (int64_t row = static_cast<int64_t>(blockIdx.x / params.split) * group.num_ranks + group.rank;
       row < args.num_rows; row += step) {
    float sum[8] = {};
    uint4 packed = {};
    if (well) {
      const float* x = args.x + row * args.x_stride + share.piece * 8;
      float4 parts[kMaxRanks][2];
#pragma unroll
      for (int rank = 0; rank < kMaxRanks; rank++) {
        if (rank >= group.num_ranks) break;
        const float4* part = reinterpret_cast<const float4*>(in_arena_of(group, rank, x));
        parts[rank][0] = load_relaxed(part);
        parts[rank][1] = load_relaxed(part + 1);
      }
      uint4 residual = {};
      if (args.residual != nullptr) {
        residual = *piece_of<T>(const_cast<void*>(args.residual), row, args.residual_stride,
                                share.piece);
      }
#pragma unroll
      for (int rank = 0; rank < kMaxRanks; rank++) {
        if (rank >= group.num_ranks) break;
        const float4 low = parts[rank][0];
        const float4 high = parts[rank][1];
        const float part[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        if (rank == 0) {
#pragma unroll
          for (int e = 0; e < 8; e++) sum[e] = part[e];
        } else {
          add8(sum, part);
        }
      }
      finish_sum<T>(args, weights, residual, sum, packed);
      uint4* out = piece_of<T>(args.out, row, args.out_stride, share.piece);
      for (int rank = 0; rank < group.num_ranks; rank++) *in_arena_of(group, rank, out) = packed;
    }
    if (args.norm_out == nullptr) continue;
    packed = normalise<T>(args, share, params.split, shared, parity, weights, sum);
    parity ^= 1;
    if (!well) continue;
    uint4* out = piece_of<T>(args.norm_out, row, args.norm_stride, share.piece);
    for (int rank = 0; rank < group.num_ranks; rank++) *in_arena_of(group, rank, out) = packed;
  }
  meet(group, 1, epoch, args.op_index);
  clear_stale(group, epoch, 0);
}

}  // namespace vt

#endif  // VT_CUDA_ALL_REDUCE_CUH_
