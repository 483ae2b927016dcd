// linear for m <= 64: streams the weight once, at the speed of memory.
//
// What it computes: out[m][n] = round(x[m][:] . weight[n][:] (+ bias) (+ residual)), every output
// one f32 chain of mma.sync m16n8k16, k ascending by 16.
//
// Launch: one block a multiprocessor, each with an equal share of the weight's 8-row tiles, taken
// `warps` units of kTiles tiles at a time. Two producer threads keep the copy engine busy with
// stages of kColumns columns: one box of many rows of weights, one of x (a thread starts a copy
// only every 75 cycles or so: a copy for each row stopped at 60 % of the bandwidth); every other
// warp owns its tiles for the whole of k, so no output is split. A block takes at most 112 KiB of
// shared memory: the next kernel's block fits beside it and fills its stages with weights while
// this one works. Only x, bias, residual and out wait for the kernel before. Fragments are loaded
// kRing - 1 steps ahead: a dependent mma.sync takes 25 cycles, and nothing else may stand in its
// way (the chain of k = 8192 takes about as long as its bytes).
#ifndef VT_CUDA_LINEAR_SKINNY_CUH_
#define VT_CUDA_LINEAR_SKINNY_CUH_

#include "linear.cuh"

namespace vt {

constexpr int kMaxStages = 16;
constexpr int kMaxWarps = 8;
constexpr int kProducers = 2;  // warps: one for the weights, one for x
/** Shared memory of a block: two fit, or where x has four tiles of rows, one. */
template <int kMTiles>
constexpr int kSharedLimit = (kMTiles <= 2 ? 112 : 216) * 1024;
/** Barriers, then a row of zeros that stands for the rows 8..15 of a half tile. */
constexpr int kHeaderBytes = 1024;
constexpr int kZeroRow = 512;

struct SkinnyParams {
  VtCudaLinear args;
  int num_stages;
  CUtensorMap weight_pass;  // boxes of all rows of a pass
  CUtensorMap weight_unit;  // boxes of one unit, for a pass that is not full
  CUtensorMap x;
};

/** kMTiles: tiles of 16 rows of x; 0 is half a tile, m <= 8. */
template <int kMTiles>
constexpr int kStageXRows = kMTiles == 0 ? 8 : kMTiles * 16;

/** What one step of 32 columns needs in registers. */
template <int kMTiles, int kTiles>
struct Fragments {
  uint32_t weight[kTiles][4];
  uint32_t x[kMTiles == 0 ? 1 : kMTiles][2][4];
};

template <typename T, int kMTiles, int kTiles, int kColumns>
__global__ void __launch_bounds__((kMaxWarps + kProducers) * 32, kMTiles <= 2 ? 2 : 1)
    linear_skinny(const __grid_constant__ SkinnyParams params) {
  constexpr int kXRows = kStageXRows<kMTiles>;
  constexpr int kM = kMTiles == 0 ? 1 : kMTiles;
  constexpr int kUnitRows = kTiles * 8;
  constexpr int kSteps = kColumns / 32;
  constexpr int kRing = kMTiles <= 1 && kSteps >= 4 ? 4 : 2;
  extern __shared__ __align__(1024) uint8_t shared[];
  const VtCudaLinear& args = params.args;
  const int num_stages = params.num_stages;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int warps = blockDim.x / 32 - kProducers;
  const int pass_rows = warps * kUnitRows;
  const int x_offset = pass_rows * kColumns * 2;
  const int stage_bytes = (pass_rows + kXRows) * kColumns * 2;
  const uint32_t full = shared_address(shared);
  const uint32_t empty = full + kMaxStages * 8;
  const uint32_t stages = full + kHeaderBytes;

  const int units = (args.n + kUnitRows - 1) / kUnitRows;
  const int unit_begin = static_cast<int>(static_cast<int64_t>(units) * blockIdx.x / gridDim.x);
  const int unit_end = static_cast<int>(static_cast<int64_t>(units) * (blockIdx.x + 1) / gridDim.x);
  const int chunks = (args.k + kColumns - 1) / kColumns;
  const int passes = (unit_end - unit_begin + warps - 1) / warps;
  const int num_steps = passes * chunks;

  start_next();
  if (threadIdx.x == 32) {
    prefetch_map(&params.weight_pass);
    prefetch_map(&params.x);
  }
  if (threadIdx.x == 0) {
    for (int s = 0; s < num_stages; s++) {
      barrier_init(full + s * 8, kProducers);
      barrier_init(empty + s * 8, warps);
    }
    fence_barrier_init();
  }
  if (threadIdx.x < 8) {
    reinterpret_cast<uint4*>(shared + kZeroRow)[threadIdx.x] = make_uint4(0, 0, 0, 0);
  }
  __syncthreads();

  if (warp >= warps) {
    if (lane != 0) return;
    const bool of_x = warp > warps;
    const bool grouped = args.k % 64 == 0;
    const int box_columns = grouped ? kColumns : 64;
    const uint64_t policy = of_x ? evict_last_policy() : evict_first_policy();
    if (of_x) wait_for_previous();
    int stage = 0;
    int parity = 1;
    for (int pass = 0; pass < passes; pass++) {
      const int unit = unit_begin + pass * warps;
      const int rows = of_x ? kXRows : min(unit_end - unit, warps) * kUnitRows;
      const int block_rows = of_x ? kXRows : pass_rows;
      const CUtensorMap* map = of_x ? &params.x : &params.weight_pass;
      const int row = of_x ? 0 : unit * kUnitRows;
      for (int chunk = 0; chunk < chunks; chunk++) {
        const uint32_t barrier = full + stage * 8;
        const uint32_t to = stages + stage * stage_bytes + (of_x ? x_offset : 0);
        barrier_wait(empty + stage * 8, parity);
        barrier_expect(barrier, rows * kColumns * 2);
        for (int c = 0; c < kColumns; c += box_columns) {
          const int column = grouped ? 0 : chunk * kColumns + c;
          const int group = grouped ? chunk * (kColumns / 64) : 0;
          if (rows == block_rows) {
            copy_box(to + c * block_rows * 2, map, column, row, group, barrier, policy);
            continue;
          }
          // Unit by unit; a unit's box has 64 columns.
          for (int r = 0; r < rows; r += kUnitRows) {
            for (int i = 0; i < box_columns; i += 64) {
              copy_box(to + r * 128 + (c + i) * block_rows * 2, &params.weight_unit, column,
                       row + r, group + i / 64, barrier, policy);
            }
          }
        }
        if (++stage == num_stages) stage = 0, parity ^= 1;
      }
    }
    return;
  }

  wait_for_previous();
  // Where the fragments of the step to load next lie. Piece i of row r is at place i ^ (r % 8); a
  // step of 32 columns is half a 128-byte row, so even and odd steps differ in one bit. Addresses
  // move by additions alone: a warp has 25 cycles between two steps of its chain, and a longer way
  // to the next address shows.
  const bool zero_lane = kMTiles == 0 && lane % 16 >= 8;  // of the half tile that is not there
  const uint32_t weight_lane =
      stages + (warp * kUnitRows + lane % 8) * 128 + (((lane / 8) ^ (lane % 8)) << 4);
  const uint32_t x_lane =
      zero_lane ? full + kZeroRow
                : stages + x_offset + (lane % 16) * 128 + (((lane / 16) ^ (lane % 8)) << 4);
  const uint32_t weight_group = pass_rows * 128;
  const uint32_t x_group = zero_lane ? 0 : kXRows * 128;
  uint32_t weight_at[2];
  uint32_t x_at[2][2];
  const auto move_to_stage = [&](int stage) {
    const uint32_t weight = weight_lane + stage * stage_bytes;
    const uint32_t x = x_lane + (zero_lane ? 0 : stage * stage_bytes);
#pragma unroll
    for (int odd = 0; odd < 2; odd++) {
      weight_at[odd] = weight ^ (odd * 64);
      x_at[odd][0] = x ^ (odd * 64);
      x_at[odd][1] = x ^ (odd * 64 + 32);
    }
  };
  const auto load_weight = [&](Fragments<kMTiles, kTiles>& fragments, int odd) {
#pragma unroll
    for (int t = 0; t < kTiles; t++) ldmatrix4(fragments.weight[t], weight_at[odd] + t * 8 * 128);
    weight_at[odd] += weight_group;
  };
  const auto load_x = [&](Fragments<kMTiles, kTiles>& fragments, int odd) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
#pragma unroll
      for (int i = 0; i < kM; i++) ldmatrix4(fragments.x[i][h], x_at[odd][h] + i * 16 * 128);
      x_at[odd][h] += x_group;
    }
  };
  float sum[kTiles][kM][4];
  const auto clear = [&] {
#pragma unroll
    for (int t = 0; t < kTiles; t++) {
#pragma unroll
      for (int i = 0; i < kM; i++) {
#pragma unroll
        for (int e = 0; e < 4; e++) sum[t][i][e] = 0.0f;
      }
    }
  };
  const auto multiply = [&](const Fragments<kMTiles, kTiles>& f, int h) {
#pragma unroll
    for (int i = 0; i < kM; i++) {
#pragma unroll
      for (int t = 0; t < kTiles; t++) {
        mma<T>(sum[t][i], f.x[i][h], f.weight[t][h * 2], f.weight[t][h * 2 + 1]);
      }
    }
  };
  const auto write = [&](int pass) {
    const int unit = unit_begin + pass * warps + warp;
    if (unit >= unit_end) return;
#pragma unroll
    for (int t = 0; t < kTiles; t++) {
#pragma unroll
      for (int i = 0; i < kM; i++) {
#pragma unroll
        for (int h = 0; h < (kMTiles == 0 ? 1 : 2); h++) {
          const int m = i * 16 + h * 8 + lane / 4;
          const int n = unit * kUnitRows + t * 8 + (lane % 4) * 2;
          if (m < args.m) write_pair<T>(args, m, n, sum[t][i][h * 2], sum[t][i][h * 2 + 1]);
        }
      }
    }
  };

  Fragments<kMTiles, kTiles> ring[kRing];
  clear();
  if (num_steps > 0) {
    barrier_wait(full, 0);
    move_to_stage(0);
#pragma unroll
    for (int j = 0; j < kRing - 1; j++) {
      load_weight(ring[j], j % 2);
      load_x(ring[j], j % 2);
    }
  }
  int stage = 0;
  int parity = 0;
  int chunk = 0;
  int pass = 0;
  for (int step = 0; step < num_steps; step++) {
    const bool last = step + 1 == num_steps;
    const int next_stage = stage + 1 == num_stages ? 0 : stage + 1;
    const int next_parity = stage + 1 == num_stages ? parity ^ 1 : parity;
    const bool next_ready = !last && barrier_ready(full + next_stage * 8, next_parity);
#pragma unroll
    for (int j = 0; j < kSteps; j++) {
      // Loads run kRing - 1 steps ahead, across the stage border too, between the chain's links.
      const int ahead = j + kRing - 1;
      multiply(ring[j % kRing], 0);
      if (ahead == kSteps && !last) {
        if (!next_ready) barrier_wait(full + next_stage * 8, next_parity);
        move_to_stage(next_stage);
      }
      if (ahead < kSteps || !last) load_weight(ring[ahead % kRing], ahead % 2);
      multiply(ring[j % kRing], 1);
      if (ahead < kSteps || !last) load_x(ring[ahead % kRing], ahead % 2);
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(empty + stage * 8);
    stage = next_stage;
    parity = next_parity;
    if (++chunk == chunks) {
      write(pass);
      clear();
      chunk = 0;
      pass++;
    }
  }
}

template <typename T, int kMTiles, int kTiles, int kColumns>
int launch_skinny(const VtCudaLinear& args, int warps, void* stream) {
  const int unit_rows = kTiles * 8;
  const int units = (args.n + unit_rows - 1) / unit_rows;
  const int grid = min(num_multiprocessors(), units);
  const int x_rows = kStageXRows<kMTiles>;
  const int stage_bytes = (warps * unit_rows + x_rows) * kColumns * 2;
  const int stages = min(kMaxStages, (kSharedLimit<kMTiles> - kHeaderBytes) / stage_bytes);
  VT_REQUIRE(stages >= 2, "linear: tuning asks for stages of %d bytes", stage_bytes);
  SkinnyParams params = {args, stages, {}, {}, {}};
  const int box_columns = args.k % 64 == 0 ? kColumns : 64;
  if (make_tensor_map(&params.weight_pass, args.weight, args.n, args.k, args.weight_stride,
                      warps * unit_rows, box_columns) != 0 ||
      make_tensor_map(&params.weight_unit, args.weight, args.n, args.k, args.weight_stride,
                      unit_rows, 64) != 0 ||
      make_tensor_map(&params.x, args.x, args.m, args.k, args.x_stride, x_rows, box_columns) != 0) {
    return -1;
  }
  return launch("linear", linear_skinny<T, kMTiles, kTiles, kColumns>, dim3(grid),
                dim3((warps + kProducers) * 32), kHeaderBytes + stages * stage_bytes, args.flags,
                stream, params);
}

/** The kernel for this shape, and how many units a block takes at a time. */
template <typename T, int kMTiles>
int linear_skinny_by_shape(const VtCudaLinear& args, void* stream) {
  int warps = args.tuning & 255;
  int tiles = args.tuning >> 8 & 255;
  int columns = args.tuning >> 16;
  if (args.tuning == 0) {
    // Measured: pairs of tiles where they come out even, at most 8 warps, and the widest stage of
    // which at least four fit.
    const int multiprocessors = num_multiprocessors();
    const int tiles_each = ((args.n + 7) / 8 + multiprocessors - 1) / multiprocessors;
    tiles = (tiles_each % 2 == 0 && tiles_each > 2) || tiles_each > 8 ? 2 : 1;
    const int units_each = (tiles_each + tiles - 1) / tiles;
    const int passes = units_each == kMaxWarps ? 2 : (units_each + kMaxWarps - 1) / kMaxWarps;
    warps = (units_each + passes - 1) / passes;
    const int rows = warps * tiles * 8 + kStageXRows<kMTiles>;
    columns = 256;
    while (columns > 64 && rows * columns * 2 * 4 > kSharedLimit<kMTiles> - kHeaderBytes) {
      columns /= 2;
    }
  }
  VT_REQUIRE(warps >= 1 && warps <= kMaxWarps, "linear: tuning asks for %d warps", warps);
#define VT_CASE(TILES, COLUMNS)                                            \
  if (tiles == TILES && columns == COLUMNS) {                              \
    return launch_skinny<T, kMTiles, TILES, COLUMNS>(args, warps, stream); \
  }
  VT_CASE(1, 64)
  VT_CASE(2, 64)
  VT_CASE(1, 128)
  VT_CASE(2, 128)
  VT_CASE(1, 256)
  VT_CASE(2, 256)
#undef VT_CASE
  return fail("linear: no kernel for %d tiles and %d columns", tiles, columns);
}

}  // namespace vt

#endif  // VT_CUDA_LINEAR_SKINNY_CUH_
