// Decode attention of a short row by one block a KV head (or a chunk, in clusters), for steps of
// few rows, which wait for it: what lies between the queries and the output is as short as it can
// be. Old keys are in registers and old values in shared memory before the kernel in front has
// finished; behind it only queries and the new token are read, by the warps that need them, and
// three barriers are left. The bits are those of attention.cuh.
//
// Keys are the m16 operand and queries, of which 8 will do, the n8 one; so are values, transposed,
// and weights: half the products of the other way round, and no rows that nobody asks for. A lane
// has columns (heads) 2 (lane % 4) and the next of rows (keys, or dims) lane / 4 and lane / 4 + 8.
#ifndef VT_CUDA_ATTENTION_DECODE_SHORT_CUH_
#define VT_CUDA_ATTENTION_DECODE_SHORT_CUH_

#include "attention_short_row.cuh"

namespace vt {

/** What a lane has of the warp's scores, or weights: [product][half of its rows, head]. */
template <int kDim>
using ShortScores = float[Short<kDim>::kProducts][4];

/**
 * Of two heads of each of two lanes that lie four apart, the lane where lane / 4 is even gets both
 * of the first, the other one both of the second.
 */
__device__ __forceinline__ void join_heads(float& first, float& second, int lane) {
  const bool odd = (lane & 4) != 0;
  const float taken = __shfl_xor_sync(~0u, odd ? first : second, 4);
  if (odd) {
    first = taken;
  } else {
    second = taken;
  }
}

/** Queries are there, and the new key in shared memory where the warp's tile has it. */
template <typename T, int kDim>
__device__ __forceinline__ void short_scores(
    const ShortRow<T, kDim>& row, const uint32_t (&keys)[Short<kDim>::kProducts][kDim / 16][4],
    const uint32_t (&queries)[kDim / 16][2], const uint8_t* shared, ShortScores<kDim>& s) {
  constexpr int kProducts = Short<kDim>::kProducts;
#pragma unroll
  for (int i = 0; i < kProducts; i++) {
#pragma unroll
    for (int e = 0; e < 4; e++) s[i][e] = 0.0f;
  }
#pragma unroll
  for (int k = 0; k < kDim / 16; k++) {
#pragma unroll
    for (int i = 0; i < kProducts; i++) mma<T>(s[i], keys[i][k], queries[k][0], queries[k][1]);
  }
  if (row.has_new()) {
    // Every row of this product is the new key.
    wait_copies<0>();
    __syncwarp();
    const uint32_t* from =
        reinterpret_cast<const uint32_t*>(shared + Short<kDim>::kNewKey) + row.lane % 4;
    float of_new[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int k = 0; k < kDim / 16; k++) {
      const uint32_t a[4] = {from[k * 8], from[k * 8], from[k * 8 + 4], from[k * 8 + 4]};
      mma<T>(of_new, a, queries[k][0], queries[k][1]);
    }
#pragma unroll
    for (int i = 0; i < 2 * kProducts; i++) {
      if (row.key_of(i, row.lane / 4) != row.new_key) continue;
      s[i / 2][i % 2 * 2] = of_new[0];
      s[i / 2][i % 2 * 2 + 1] = of_new[1];
    }
  }
  const int window = row.work.window;
  if (window > 0 || row.num_valid < kTileKeys) {
    const int first_seen = window > 0 ? row.work.seq_len - window - row.key0 : 0;
#pragma unroll
    for (int i = 0; i < 2 * kProducts; i++) {
      const int key = row.key_of(i, row.lane / 4);
      if (key < row.num_valid && key >= first_seen) continue;
      s[i / 2][i % 2 * 2] = -INFINITY;
      s[i / 2][i % 2 * 2 + 1] = -INFINITY;
    }
  }
}

/** The largest score of the warp's keys for each of the lane's two heads. */
template <int kDim>
__device__ __forceinline__ float2 short_maximum(const ShortScores<kDim>& s) {
  float m[2];
#pragma unroll
  for (int e = 0; e < 2; e++) {
    m[e] = fmaxf(s[0][e], s[0][2 + e]);
#pragma unroll
    for (int i = 1; i < Short<kDim>::kProducts; i++) {
      m[e] = fmaxf(m[e], fmaxf(s[i][e], s[i][2 + e]));
    }
  }
#pragma unroll
  for (int d = 4; d < 32; d *= 2) {
#pragma unroll
    for (int e = 0; e < 2; e++) m[e] = fmaxf(m[e], __shfl_xor_sync(~0u, m[e], d));
  }
  return make_float2(m[0], m[1]);
}

/**
 * The sum of the warp's weights, for the first of the lane's heads where lane / 4 is even, else for
 * the second, as tile_weights adds them; of two warps a tile each has one of its last two terms.
 * Lanes below 8 have it, or 16 to 23.
 */
template <int kDim>
__device__ __forceinline__ float short_sum(const ShortScores<kDim>& weights, int lane) {
  constexpr int kHalves = 2 * Short<kDim>::kProducts;
  float p[kHalves][2];
#pragma unroll
  for (int i = 0; i < kHalves; i++) {
#pragma unroll
    for (int e = 0; e < 2; e++) p[i][e] = weights[i / 2][i % 2 * 2 + e];
    join_heads(p[i][0], p[i][1], lane);
  }
  float sum = __fadd_rn(p[0][0], p[0][1]);
#pragma unroll
  for (int i = 1; i < kHalves; i++) sum = __fadd_rn(__fadd_rn(sum, p[i][0]), p[i][1]);
  if constexpr (Short<kDim>::kWarpsOfTile == 1) {
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 8));
    return __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 16));
  } else {
    // The keys of lanes from 16 on come after those of the others.
    sum = __shfl_xor_sync(~0u, sum, 16);
#pragma unroll
    for (int i = 0; i < kHalves; i++) sum = __fadd_rn(__fadd_rn(sum, p[i][0]), p[i][1]);
    return __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 8));
  }
}

/** What warps have written for tile `tile` of a chunk, of the lane's two heads. */
template <int kDim, typename Join>
__device__ __forceinline__ float2 of_tile(const float* of_warps, int chunk, int tile, Join join) {
  using S = Short<kDim>;
  const float* from = of_warps + (chunk * S::kWarpsOfChunk + tile * S::kWarpsOfTile) * 8;
  const float2 of = *reinterpret_cast<const float2*>(from);
  if constexpr (S::kWarpsOfTile == 1) return of;
  const float2 second = *reinterpret_cast<const float2*>(from + 8);
  return make_float2(join(of.x, second.x), join(of.y, second.y));
}

/** A chunk's sums for the lane's two heads: attention.cuh's m and l. */
struct ShortSums {
  float m[2] = {-INFINITY, -INFINITY};
  float l[2] = {0.0f, 0.0f};

  /** Over the next tile's maximum: what sums are worth under it. */
  __device__ __forceinline__ float2 raise(float2 of_tile, float c) {
    const float next[2] = {fmaxf(m[0], of_tile.x), fmaxf(m[1], of_tile.y)};
    const float2 alpha = {rescale(m[0], next[0], c), rescale(m[1], next[1], c)};
#pragma unroll
    for (int e = 0; e < 2; e++) m[e] = next[e];
    return alpha;
  }
  __device__ __forceinline__ void add(float2 of_tile, float2 alpha) {
    l[0] = __fmaf_rn(l[0], alpha.x, of_tile.x);
    l[1] = __fmaf_rn(l[1], alpha.y, of_tile.y);
  }
};

/** Chunk `second` into (m, l, o) of a head, of which a lane has kCount values. */
template <int kCount>
__device__ __forceinline__ void merge_second(float& m, float& l, float (&o)[kCount], float second_m,
                                             float second_l, const float (&second)[kCount],
                                             float c) {
  float total_m = -INFINITY;
  float total_l = 0.0f;
  const Merge of_first = merge_sums(total_m, total_l, m, l, c);
  const Merge of_second = merge_sums(total_m, total_l, second_m, second_l, c);
#pragma unroll
  for (int i = 0; i < kCount; i++) {
    o[i] = merge_value(merge_value(0.0f, o[i], of_first), second[i], of_second);
  }
  m = total_m;
  l = total_l;
}

/**
 * By all threads of a block, for its only item: a row of one query, or a chunk of it, which the first
 * block of the cluster merges with its own.
 */
template <typename T, int kDim>
__device__ __forceinline__ void attend_short(const ShortWork<T>& work) {
  using S = Short<kDim>;
  constexpr int kSteps = kDim / 16;
  uint8_t* shared = reinterpret_cast<uint8_t*>(dynamic_shared());
  const ShortRow<T, kDim> row(work, shared_address(shared));
  const uint32_t base = row.base;
  const int warp = threadIdx.x / 32;
  const int lane = row.lane;
  const int group = work.group;
  const float c = work.c;

  typename ShortRow<T, kDim>::Places places;
  row.find(places);
  const int newest = row.read_block(work.seq_len - 1);
  const bool has_room = row.has_room(row.tile());
  const uint32_t value_slot = row.value_slot(row.tile());
  row.copy(places, 0, row.key_slot());
  commit_copies();
  if (has_room) row.copy(places, 1, value_slot);
  commit_copies();
  // A lane's piece of the new token: of its values, or of its key.
  constexpr int kPieces = ShortRow<T, kDim>::kPieces;
  const bool of_v = lane < kPieces;
  const int new_key = max(min(row.new_key, kTileKeys - 1), 0);
  const T* new_piece = row.place(newest, work.seq_len - 1) + (of_v ? work.to_values : 0) +
                       lane % kPieces * 8;
  const uint32_t new_place = of_v ? row.value_address(value_slot, new_key, lane)
                                  : base + S::kNewKey + lane % kPieces * 16;
  const T* query = work.queries + lane / 4 * kDim + lane % 4 * 2;
  wait_copies<1>();
  __syncwarp();
  uint32_t keys[S::kProducts][kSteps][4] = {};
  if (row.num_valid > 0) {
#pragma unroll
    for (int i = 0; i < S::kProducts; i++) {
      const int key = row.key_of(i * 2 + lane / 8 % 2, lane % 8);
#pragma unroll
      for (int k = 0; k < kSteps; k++) {
        ldmatrix4(keys[i][k], row.key_address(row.key_slot(), key, k * 2 + lane / 16));
      }
    }
  }
  __syncwarp();
  if (!has_room) row.copy(places, 1, value_slot);
  commit_copies();

  if (work.early) wait_for_previous();
  uint32_t queries[kSteps][2];
#pragma unroll
  for (int i = 0; i < kSteps * 2; i++) {
    const uint32_t* from = reinterpret_cast<const uint32_t*>(query + i * 8);
    queries[i / 2][i % 2] = lane / 4 < group ? __ldcg(from) : 0;
  }
  if (row.has_new() && lane < 2 * kPieces) copy16_async(new_place, new_piece, true);
  commit_copies();
  ShortScores<kDim> s;
  short_scores<T, kDim>(row, keys, queries, shared, s);
  float* maxima = reinterpret_cast<float*>(shared + S::kMaxima) + lane % 4 * 2;
  float* sums = reinterpret_cast<float*>(shared + S::kSums) + lane % 4 * 2;
  const auto maximum_of = [&](int chunk, int t) {
    return of_tile<kDim>(maxima, chunk, t, [](float a, float b) { return fmaxf(a, b); });
  };
  const auto sum_of = [&](int chunk, int t) {
    return of_tile<kDim>(sums, chunk, t, [](float a, float b) { return __fadd_rn(a, b); });
  };
  const float2 most = short_maximum<kDim>(s);
  if (lane < 4) *reinterpret_cast<float2*>(maxima + warp * 8) = most;
  wait_copies<0>();
  __syncthreads();

  ShortSums mine;
  float tile_m[2] = {-INFINITY, -INFINITY};
  float2 alpha[4];
#pragma unroll
  for (int t = 0; t < 4; t++) {
    if (t >= row.tiles()) break;
    alpha[t] = mine.raise(maximum_of(row.chunk, t), c);
    if (t == row.mine) tile_m[0] = mine.m[0], tile_m[1] = mine.m[1];
  }
  if (row.num_valid > 0) {
    uint8_t* weights =
        shared + S::kWeights + (row.chunk * 4 + row.mine) * kTileKeys * 16 + lane % 4 * 4;
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const float shift = __fmul_rn(finite_maximum(tile_m[e]), c);
#pragma unroll
      for (int i = 0; i < 2 * S::kProducts; i++) {
        float& p = s[i / 2][i % 2 * 2 + e];
        p = exp2_approx(__fmaf_rn(p, c, -shift));
      }
    }
#pragma unroll
    for (int i = 0; i < 2 * S::kProducts; i++) {
      *reinterpret_cast<uint32_t*>(weights + row.key_of(i, lane / 4) * 16) =
          pack2<T>(s[i / 2][i % 2 * 2], s[i / 2][i % 2 * 2 + 1]);
    }
  }
  __syncthreads();

  float o[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
  for (int t = 0; t < 4; t++) {
    if (t >= row.tiles()) break;
    const uint32_t values = row.value_slot(row.chunk * row.first_tiles + t);
    const uint32_t weights = base + S::kWeights + ((row.chunk * 4 + t) * kTileKeys + lane) * 16;
    uint32_t a[4][4];
    uint32_t b[2][4];
    ldmatrix4_trans(b[0], weights);
    ldmatrix4_trans(b[1], weights + 32 * 16);
#pragma unroll
    for (int k = 0; k < 4; k++) {
      ldmatrix4_trans(a[k], row.value_address(values, k * 16 + lane / 16 * 8 + lane % 8,
                                              row.dims * 2 + lane / 8 % 2));
    }
#pragma unroll
    for (int e = 0; e < 4; e++) o[e] = __fmul_rn(o[e], e % 2 == 0 ? alpha[t].x : alpha[t].y);
#pragma unroll
    for (int k = 0; k < 4; k++) mma<T>(o, a[k], b[k / 2][k % 2 * 2], b[k / 2][k % 2 * 2 + 1]);
  }
  // In the shadow of the products: sums are not asked for before the end.
  if (row.num_valid > 0) {
    const float sum = short_sum<kDim>(s, lane);
    constexpr int kFirst = S::kWarpsOfTile == 1 ? 0 : 16;
    if (lane >= kFirst && lane < kFirst + 8) sums[warp * 8 + lane / 4 % 2] = sum;
  }
  float4* other = reinterpret_cast<float4*>(shared + S::kOther) + row.dims * 32 + lane;
  if (row.chunk > 0 && row.tiles() > 0) *other = make_float4(o[0], o[1], o[2], o[3]);
  __syncthreads();
  if (row.chunk > 0) return;
#pragma unroll
  for (int t = 0; t < 4; t++) {
    if (t < row.tiles()) mine.add(sum_of(0, t), alpha[t]);
  }
  // From here on the lane has neighbours in dim of one head: its second where lane / 4 is odd.
  const int e = lane / 4 % 2;
  const int head = lane % 4 * 2 + e;
  float m = e == 0 ? mine.m[0] : mine.m[1];
  float l = e == 0 ? mine.l[0] : mine.l[1];
  join_heads(o[0], o[1], lane);
  join_heads(o[2], o[3], lane);
  if (S::kChunks > 1 && row.second_tiles > 0) {
    ShortSums second;
#pragma unroll
    for (int t = 0; t < 4; t++) {
      if (t < row.second_tiles) second.add(sum_of(1, t), second.raise(maximum_of(1, t), c));
    }
    const float4 part = *other;
    float second_o[4] = {part.x, part.y, part.z, part.w};
    join_heads(second_o[0], second_o[1], lane);
    join_heads(second_o[2], second_o[3], lane);
    merge_second(m, l, o, e == 0 ? second.m[0] : second.m[1], e == 0 ? second.l[0] : second.l[1],
                 second_o, c);
  }
  if (head >= group) return;
  const int column = row.dims * 16 + lane / 8 * 2;
  const int parts = Layout<kDim>::kParts + (head * kDim + column) * 4;
  const int part_sums = Layout<kDim>::kPartSums + head * 8;
  if (work.rank > 0) {
    const uint32_t barrier = base + Layout<kDim>::kPartsFull;
    if (row.dims == 0 && lane < 8) {
      send_in_cluster(0, base + part_sums, make_float2(m, l), barrier);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      send_in_cluster(0, base + parts + h * 32, make_float2(o[h * 2], o[h * 2 + 1]), barrier);
    }
    return;
  }
  if (work.chunks > 1) {
    barrier_wait(base + Layout<kDim>::kPartsFull, 0);
    const float2 sent = *reinterpret_cast<const float2*>(shared + part_sums);
    const float2 low = *reinterpret_cast<const float2*>(shared + parts);
    const float2 high = *reinterpret_cast<const float2*>(shared + parts + 32);
    merge_second(m, l, o, sent.x, sent.y, {low.x, low.y, high.x, high.y}, c);
  }
  const float inverse = __frcp_rn(l);
  T* out = work.out + head * kDim + column;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    *reinterpret_cast<uint32_t*>(out + h * 8) =
        pack2<T>(__fmul_rn(o[h * 2], inverse), __fmul_rn(o[h * 2 + 1], inverse));
  }
}

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_DECODE_SHORT_CUH_
