// Rows of sampleSharded of which every rank needs all logits: each sends its own to the others, and
// puts what they send together. All ranks know which rows these are when this launch begins; where
// there are none, it ends at once. All its blocks run at once, and send before they wait.
#include <algorithm>

#include "sample_exchange.cuh"

namespace vt {
namespace sample {
namespace {

constexpr int kThreads = 256;
/** Fours of a piece, and of a thread's part of it: looks that are on their way at a time. */
constexpr int kPiece = 1024;
constexpr int kEach = kPiece / kThreads;

__host__ __device__ __forceinline__ int pieces_of(int x_columns) {
  return (x_columns / 4 + kPiece - 1) / kPiece;
}

__device__ __forceinline__ bool is_gathered(const ShardParams& params, int index) {
  return index < params.sample.num_rows && params.args.rest[index] >= 0;
}

/** f(row, part) for this block's share of `num_parts` parts of each row that is gathered. */
template <typename F>
__device__ __forceinline__ void for_each_part(const ShardParams& params, int num_parts, F f) {
  const int lane = threadIdx.x % 32;
  int mine = blockIdx.x;
  for (int base = 0; base < params.sample.num_rows; base += 32) {
    uint32_t found = __ballot_sync(~0u, is_gathered(params, base + lane));
    for (; found != 0; found &= found - 1) {
      const int index = base + __ffs(found) - 1;
      for (; mine < num_parts; mine += gridDim.x) f(index, mine);
      mine -= num_parts;
    }
  }
}

/** Piece `piece` of row `index`, to the other ranks. */
__device__ __forceinline__ void send_piece(const ShardParams& params, uint64_t epoch, int index,
                                           int piece) {
  const VtCudaGroup& group = params.group;
  const auto* from = reinterpret_cast<const uint4*>(
      params.args.x + static_cast<int64_t>(index) * params.args.x_stride);
  const int64_t at = logits_at(params, index);
  const int count = params.args.x_columns / 4;
  uint4 values[kEach];
#pragma unroll
  for (int e = 0; e < kEach; e++) {
    const int i = piece * kPiece + e * kThreads + static_cast<int>(threadIdx.x);
    if (i < count) values[e] = from[i];
  }
  for (int p = 0; p < group.num_ranks - 1; p++) {
    uint4* to = slot(params, peer_of(group, p), group.rank, epoch) + at;
#pragma unroll
    for (int e = 0; e < kEach; e++) {
      const int i = piece * kPiece + e * kThreads + static_cast<int>(threadIdx.x);
      if (i < count) send(to + i, values[e]);
    }
  }
}

/** Piece `piece` of rank `rank`'s logits of row `index`, to its place in all_logits. */
__device__ __forceinline__ void take_piece(const ShardParams& params, Patience& patience,
                                           uint64_t epoch, int index, int rank, int piece) {
  const VtCudaGroup& group = params.group;
  const int columns = params.args.x_columns;
  float* out = params.args.all_logits + static_cast<int64_t>(index) * params.sample.logits_stride;
  const bool is_aligned = reinterpret_cast<uintptr_t>(out) % 16 == 0;
  const auto* mine = reinterpret_cast<const uint4*>(
      params.args.x + static_cast<int64_t>(index) * params.args.x_stride);
  uint4* from = slot(params, group.rank, rank, epoch) + logits_at(params, index);
  const bool is_own = rank == group.rank;
  const int count = columns / 4;
  const auto place = [&](int e) {
    return piece * kPiece + e * kThreads + static_cast<int>(threadIdx.x);
  };
  uint4 looks[kEach];
#pragma unroll
  for (int e = 0; e < kEach; e++) {
    if (place(e) < count) looks[e] = is_own ? mine[place(e)] : load_relaxed(from + place(e));
  }
#pragma unroll
  for (int e = 0; e < kEach; e++) {
    const int i = place(e);
    if (i >= count) break;
    const uint4 values = is_own ? looks[e] : take(from + i, looks[e], rank, patience);
    const int first = rank * columns + 4 * i;
    if (is_aligned && first + 4 <= params.sample.vocab_size) {
      *reinterpret_cast<uint4*>(out + first) = values;
      continue;
    }
    const uint32_t bits[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      if (first + k < params.sample.vocab_size) out[first + k] = __uint_as_float(bits[k]);
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    gather_rows(const __grid_constant__ ShardParams params) {
  const VtCudaGroup& group = params.group;
  const uint64_t epoch = begin_round(params);
  // All rows at one look, since most often there are none.
  bool any = false;
  for (int i = threadIdx.x; i < params.sample.num_rows; i += kThreads) {
    any |= is_gathered(params, i);
  }
  if (!__syncthreads_or(any)) return;
  const int num_pieces = pieces_of(params.args.x_columns);
  for_each_part(params, num_pieces, [&](int index, int piece) {
    send_piece(params, epoch, index, piece);
  });
  // Whose logits are late may be waiting in finish_parts for a third rank.
  Patience patience(group, epoch, params.args.op_index, true);
  for_each_part(params, num_pieces * group.num_ranks, [&](int index, int part) {
    const int rank = part / num_pieces;
    take_piece(params, patience, epoch, index, rank, part - rank * num_pieces);
  });
}

}  // namespace

int gather_logits(const ShardParams& params, void* stream) {
  const int64_t parts = static_cast<int64_t>(params.sample.num_rows) * params.group.num_ranks *
                        pieces_of(params.args.x_columns);
  const auto blocks = static_cast<int>(std::min<int64_t>(parts, params.group.max_blocks));
  return launch("sampleSharded", gather_rows, dim3(blocks), dim3(kThreads), 0,
                params.sample.flags, stream, params);
}

}  // namespace sample
}  // namespace vt
