// allReduce, with rmsNorm of the sum behind it where asked for: the kernels' bodies. Which of them
// serves a call, and how it is cut, is all_reduce.cu's business; how ranks wait, group.cuh's.
//
// What it computes: a rank's part is x in f32. sum = part of rank 0, + that of rank 1, .., + bias,
// + residual, each addition in f32; out = sum rounded once. norm_out as rmsNorm of out: the same
// tree (elementwise.cuh), so the same bits.
//
// One-shot: each thread sends its 8 values to all others, and waits for those of the others:
// 4 (n-1) bytes of a value cross each rank's link. Sent: as one-shot, but the linear in front has
// sent them (linear_send.cuh). Two-shot: row r belongs to rank r % n. Clusters send the
// parts of all rows to their owners, then finish their own and send the sums to all others, which
// take the norm themselves: 6 (n-1) / n bytes a value, in two trips.
#ifndef VT_CUDA_ALL_REDUCE_CUH_
#define VT_CUDA_ALL_REDUCE_CUH_

#include "all_reduce_row.cuh"
#include "group.cuh"

namespace vt {

struct AllReduceParams {
  VtCudaGroup group;
  VtCudaAllReduce args;
  int split;  // blocks of a row
};

/** 8 values of a part; in an inbox the second four lie `stride` fours behind the first. */
struct Part {
  uint4 low, high;

  __device__ void load(const float* x) {
    low = reinterpret_cast<const uint4*>(x)[0];
    high = reinterpret_cast<const uint4*>(x)[1];
  }
  __device__ void send_to(uint4* to, int stride) const {
    send(to, low);
    send(to + stride, high);
  }
  __device__ bool look(const uint4* from, int stride) {
    low = load_relaxed(from);
    high = load_relaxed(from + stride);
    return is_there(low) && is_there(high);
  }
  __device__ static void put_back_nothing(uint4* at, int stride) {
    vt::put_back_nothing(at);
    vt::put_back_nothing(at + stride);
  }
  __device__ void values(float (&to)[8]) const {
    const uint32_t bits[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int e = 0; e < 8; e++) to[e] = __uint_as_float(bits[e]);
  }
};

/**
 * Waits for the parts of all others, `at` fours into their slots, and adds them and `own` up in the
 * order of ranks. kPeers: room for so many others.
 */
template <int kPeers>
__device__ __forceinline__ void add_parts(const VtCudaGroup& group, uint64_t epoch, int op_index,
                                          int64_t at, int stride, const Part& own,
                                          float (&sum)[8]) {
  Part parts[kPeers];
  Patience patience(group, epoch, op_index);
  for (;;) {
    int missing = -1;
#pragma unroll
    for (int p = kPeers - 1; p >= 0; p--) {
      if (p + 1 >= group.num_ranks) continue;
      const int peer = peer_of(group, p);
      if (!parts[p].look(inbox(group, group.rank, peer, epoch) + at, stride)) missing = peer;
    }
    if (missing < 0 || patience.is_over(missing)) break;
  }
  patience.over();
  float mine[8];
  own.values(mine);
#pragma unroll
  for (int p = 0; p < kPeers; p++) {
    if (p + 1 >= group.num_ranks) break;
    uint4* from = inbox(group, group.rank, peer_of(group, p), epoch) + at;
    Part::put_back_nothing(from, stride);
    float part[8];
    parts[p].values(part);
    // Part p is that of rank p, or p + 1: this rank's own comes in between.
    if (p == 0) {
#pragma unroll
      for (int e = 0; e < 8; e++) sum[e] = group.rank == 0 ? mine[e] : part[e];
    }
    if (p > 0 || group.rank == 0) add8(sum, part);
    if (p + 1 == group.rank) add8(sum, mine);
  }
}

/** What a thread of a cluster that has one row knows before it waits for the kernel in front. */
struct OneRow {
  RowShare share;
  ReduceWeights weights;
  int64_t row;
  int pieces;  // of a row
  int64_t at;  // of the thread's piece in a slot, in fours
  uint64_t epoch;
};

/** cluster_begun must follow. */
__device__ __forceinline__ OneRow begin_row(const AllReduceParams& params, ReduceShared& shared) {
  const VtCudaAllReduce& args = params.args;
  start_next();
  OneRow of;
  of.share = share_of(args.columns, params.split);
  cluster_begin(of.share, shared);
  of.row = blockIdx.x / params.split;
  of.weights = load_weights(args, of.share.piece);
  of.pieces = args.columns / 8;
  of.at = of.row * 2 * of.pieces + of.share.piece;
  of.epoch = epoch_of(params.group, args.ordinal);
  return of;
}

template <typename T, int kPeers>
__device__ __forceinline__ void reduce_one_shot(const AllReduceParams& params,
                                                ReduceShared& shared) {
  const VtCudaGroup& group = params.group;
  const VtCudaAllReduce& args = params.args;
  const OneRow of = begin_row(params, shared);
  wait_for_previous();
  float sum[8] = {};
  if (of.share.piece >= 0) {
    Part own;
    own.load(args.x + of.row * args.x_stride + of.share.piece * 8);
#pragma unroll
    for (int p = 0; p < kPeers; p++) {
      if (p + 1 >= group.num_ranks) break;
      own.send_to(inbox(group, peer_of(group, p), group.rank, of.epoch) + of.at, of.pieces);
    }
    const uint4 residual = load_residual<T>(args, of.row, of.share.piece);
    add_parts<kPeers>(group, of.epoch, args.op_index, of.at, of.pieces, own, sum);
    *piece_of<T>(args.out, of.row, args.out_stride, of.share.piece) =
        finish_sum<T>(args, of.weights, residual, sum);
  }
  cluster_begun(of.share);
  normalise<T>(args, of.share, shared, 0, of.row, of.weights, sum);
}

/**
 * Waits for the parts of all ranks, this one too, and adds them up in the order of ranks. This
 * rank's own linear is as a rule the one to wait for first, for as long as it takes: one look at it
 * keeps less of that linear's memory busy than one at all parts.
 */
template <int kPeers>
__device__ __forceinline__ void add_sent_parts(const VtCudaGroup& group, uint64_t epoch,
                                               int op_index, int64_t at, int stride,
                                               float (&sum)[8]) {
  Part parts[kPeers + 1];
  Patience patience(group, epoch, op_index);
  const uint4* own = inbox(group, group.rank, group.rank, epoch) + at;
  while (!is_there(load_relaxed(own)) && !patience.is_over(group.rank)) {
  }
  for (;;) {
    int missing = -1;
#pragma unroll
    for (int rank = kPeers; rank >= 0; rank--) {
      if (rank >= group.num_ranks) continue;
      if (!parts[rank].look(inbox(group, group.rank, rank, epoch) + at, stride)) missing = rank;
    }
    if (missing < 0 || patience.is_over(missing)) break;
  }
  patience.over();
#pragma unroll
  for (int rank = 0; rank <= kPeers; rank++) {
    if (rank >= group.num_ranks) break;
    uint4* from = inbox(group, group.rank, rank, epoch) + at;
    Part::put_back_nothing(from, stride);
    float part[8];
    parts[rank].values(part);
    if (rank == 0) {
#pragma unroll
      for (int e = 0; e < 8; e++) sum[e] = part[e];
    } else {
      add8(sum, part);
    }
  }
}

/**
 * reduce_one_shot of parts that the linear in front sends. That one lets this kernel start when it
 * may write itself, so whatever came before it has ended: the residual is there, and what lies in
 * this half of the inbox is of this epoch, so there is nothing to wait for but the parts. Outputs
 * may lie where the linear reads its x: it has read all of it once one row's sums are all there, as
 * they are behind the norm's exchange. This kernel ends after the linear, since what follows waits
 * for this one alone.
 */
template <typename T, int kPeers>
__device__ __forceinline__ void reduce_sent(const AllReduceParams& params, ReduceShared& shared) {
  const VtCudaGroup& group = params.group;
  const VtCudaAllReduce& args = params.args;
  const OneRow of = begin_row(params, shared);
  float sum[8] = {};
  uint4 packed = {};
  if (of.share.piece >= 0) {
    const uint4 residual = load_residual<T>(args, of.row, of.share.piece);
    add_sent_parts<kPeers>(group, of.epoch, args.op_index, of.at, of.pieces, sum);
    packed = finish_sum<T>(args, of.weights, residual, sum);
  }
  cluster_begun(of.share);
  const auto store_sum = [&] {
    if (of.share.piece < 0) return;
    *piece_of<T>(args.out, of.row, args.out_stride, of.share.piece) = packed;
  };
  if (args.norm_out == nullptr) {
    wait_for_previous();
    store_sum();
    return;
  }
  normalise<T>(args, of.share, shared, 0, of.row, of.weights, sum, store_sum);
  wait_for_previous();
}

template <typename T, int kPeers>
__device__ __forceinline__ void reduce_two_shot(const AllReduceParams& params,
                                                ReduceShared& shared) {
  const VtCudaGroup& group = params.group;
  const VtCudaAllReduce& args = params.args;
  start_next();
  const RowShare share = share_of(args.columns, params.split);
  cluster_begin(share, shared);
  const ReduceWeights weights = load_weights(args, share.piece);
  const int64_t first = blockIdx.x / params.split;
  const int64_t step = gridDim.x / params.split;
  const int ranks = group.num_ranks;
  const int pieces = args.columns / 8;
  // Of a row in a slot: parts, in fours; sums, behind all parts.
  const auto part_at = [&](int64_t row) { return row / ranks * 2 * pieces + share.piece; };
  const int64_t sums = static_cast<int64_t>((args.num_rows + ranks - 1) / ranks) * 2 * pieces;
  const auto sum_at = [&](int64_t row) { return sums + row / ranks * pieces + share.piece; };
  const auto part_of = [&](int64_t row) { return args.x + row * args.x_stride + share.piece * 8; };
  const bool has_piece = share.piece >= 0;
  const uint64_t epoch = epoch_of(group, args.ordinal);
  wait_for_previous();

  for (int64_t row = first; row < args.num_rows && has_piece; row += step) {
    const int owner = static_cast<int>(row % ranks);
    if (owner == group.rank) continue;
    Part own;
    own.load(part_of(row));
    own.send_to(inbox(group, owner, group.rank, epoch) + part_at(row), pieces);
  }
  cluster_begun(share);
  int turn = 0;
  for (int64_t row = first; row < args.num_rows; row += step) {
    if (row % ranks != group.rank) continue;
    float sum[8] = {};
    if (has_piece) {
      Part own;
      own.load(part_of(row));
      const uint4 residual = load_residual<T>(args, row, share.piece);
      add_parts<kPeers>(group, epoch, args.op_index, part_at(row), pieces, own, sum);
      const uint4 packed = finish_sum<T>(args, weights, residual, sum);
#pragma unroll
      for (int p = 0; p < kPeers; p++) {
        if (p + 1 >= ranks) break;
        send(inbox(group, peer_of(group, p), group.rank, epoch) + sum_at(row), packed);
      }
      *piece_of<T>(args.out, row, args.out_stride, share.piece) = packed;
    }
    normalise<T>(args, share, shared, turn++, row, weights, sum);
  }
  for (int64_t row = first; row < args.num_rows; row += step) {
    const int owner = static_cast<int>(row % ranks);
    if (owner == group.rank) continue;
    float sum[8] = {};
    if (has_piece) {
      Patience patience(group, epoch, args.op_index, true);
      const uint4 packed =
          take(inbox(group, group.rank, owner, epoch) + sum_at(row), owner, patience);
      *piece_of<T>(args.out, row, args.out_stride, share.piece) = packed;
      unpack8<T>(packed, sum);
    }
    normalise<T>(args, share, shared, turn++, row, weights, sum);
  }
}

}  // namespace vt

#endif  // VT_CUDA_ALL_REDUCE_CUH_
