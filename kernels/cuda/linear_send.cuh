// A linear's sums straight to the ranks: into the inboxes, this rank's own too, as reduce_one_shot
// of all_reduce.cuh would send them. So the collective behind it neither waits for the border
// between two kernels nor reads x.
//
// Of a row in a slot the first halves of all pieces of 8 columns lie side by side, in fours, and
// behind them the second halves. A store across the link is a four, so lanes exchange what they
// have until each has one: a tile of sums of a warp is 32 of them.
#ifndef VT_CUDA_LINEAR_SEND_CUH_
#define VT_CUDA_LINEAR_SEND_CUH_

#include "group.cuh"

namespace vt {

/** Most rows of a linear that sends. */
constexpr int kMostSentRows = 16;

/** Where sums go instead of to `out`. */
struct Outbox {
  VtCudaGroup group;
  int ordinal;  // of the collective behind the linear
};

/** Whether a collective of so many rows and columns takes parts that are sent (all_reduce.cu). */
bool may_be_sent(const VtCudaGroup& group, int num_rows, int columns);

/**
 * Two lanes whose numbers differ in bit `distance` trade a word: the lower one gives its `second`,
 * the upper one its `first`, and each has the other's in place of it.
 */
__device__ __forceinline__ void trade(uint32_t& first, uint32_t& second, int distance, int lane) {
  const bool is_upper = (lane & distance) != 0;
  const uint32_t got = __shfl_xor_sync(~0u, is_upper ? first : second, distance);
  if (is_upper) {
    first = got;
  } else {
    second = got;
  }
}

/** Register k of lane j becomes register j of lane k, in fours of lanes that are 4 apart. */
__device__ __forceinline__ void transpose_fours(uint32_t (&v)[4], int lane) {
  trade(v[0], v[2], 8, lane);
  trade(v[1], v[3], 8, lane);
  trade(v[0], v[1], 4, lane);
  trade(v[2], v[3], 4, lane);
}

/**
 * Tile `tile` of a unit's sums, of `rows` rows and `columns` (a multiple of 16) in all; the whole
 * warp calls it. A wide unit has two runs of 8 columns, and of a tile 8 rows: sum[run * 2 + h] is
 * column lane / 4 of row lane % 4 * 2 + h. A narrow one has 8 columns and 16 rows: sum[h * 2 + c]
 * is column lane % 4 * 2 + c of row lane / 4 + 8 h.
 */
template <bool kWide>
__device__ __forceinline__ void send_tile(const VtCudaGroup& group, uint64_t epoch, int rows,
                                          int columns, int unit, int tile,
                                          const float (&sum)[4]) {
  const int lane = threadIdx.x % 32;
  uint32_t v[4];
#pragma unroll
  for (int e = 0; e < 4; e++) v[e] = __float_as_uint(sum[e]);
  int row, piece, half;
  if (kWide) {
    transpose_fours(v, lane);
    row = tile * 8 + lane % 4 * 2 + lane / 4 % 2;
    piece = unit * 2 + lane / 8 % 2;
    half = lane / 16;
  } else {
    // Of neighbours, the even one takes the first row's four columns, the odd one the second's.
    trade(v[0], v[2], 1, lane);
    trade(v[1], v[3], 1, lane);
    row = tile * 16 + lane / 4 + lane % 2 * 8;
    piece = unit;
    half = lane % 4 / 2;
  }
  const int pieces = columns / 8;
  if (row >= rows || piece >= pieces) return;
  const int64_t at = static_cast<int64_t>(row) * 2 * pieces + half * pieces + piece;
#pragma unroll 1
  for (int i = 1; i <= group.num_ranks; i++) {
    int to = group.rank + i;
    if (to >= group.num_ranks) to -= group.num_ranks;
    send(inbox(group, to, group.rank, epoch) + at, make_uint4(v[0], v[1], v[2], v[3]));
  }
}

}  // namespace vt

#endif  // VT_CUDA_LINEAR_SEND_CUH_
