// linear for m <= 64: streams the weight once, at the speed of memory.
//
// What it computes: out[m][n] = round(x[m][:] . weight[n][:] (+ bias) (+ residual)), every output
// one f32 chain of mma.sync m16n8k16, k ascending by 16; with the fused prologue and epilogues of
// vt_cuda.h.
//
// Launch: one block a multiprocessor, each with an equal share of the weight's units of 8 rows (n8
// operand of the matrix instruction) or, kWide, 16 (its m16 operand; x is the other), `warps` units
// at a time. A producer warp keeps the copy engine busy with stages of kColumns columns, a box a
// unit; every multiplying warp owns its unit for the whole of k, so no output is split. Up to 32
// rows, and where it is not kept apart (below), a block takes at most half of shared memory: the
// next kernel's block fits beside it and fills its stages with weights while this one ends. Only x,
// residual, cos_sin, slots and what is written wait for the kernel before. Until x is there only a
// few stages are under way at a time: the kernel before waits for small reads, and so does this one
// for x, and they would queue behind all these weights for microseconds.
//
// The next kernel is let in when a part of the weights is left to be asked for (kMostLeft). Let in
// at the start, it has filled its stages long before this one ends, and then memory has nothing to
// do from this kernel's last weights until the next one's x is there, some 2 us.
//
// Where some multiprocessors have no block, as behind a kernel of one block (a norm, a collective),
// two of the next kernel come to lie on each of those, and none on others; that kernel then takes
// up to twice its time, and leaves the same behind. So the grid has a block for every
// multiprocessor, and in a step most shapes ask for so much shared memory that two do not fit
// (VT_CUDA_APART). In a chain of such linears alone that would only keep the next one waiting.
//
// x lies in shared memory as a whole where it fits (kHoldsX), else a stage has its columns too, by
// a second producer. Where rows have a late scale, more warps see to it (linear_late.cuh).
//
// The chain is what a warp waits for: a dependent mma.sync takes 24 cycles, and k = 8192 has 512 of
// them, nearly as long as its bytes take. So nothing else may stand between two of them: fragments
// are loaded a batch of columns ahead, in the shadow of products, also from one stage to the next,
// and the loop has one branch a stage, since the assembler lets a chain run out at each.
#ifndef VT_CUDA_LINEAR_SKINNY_CUH_
#define VT_CUDA_LINEAR_SKINNY_CUH_

#include "linear_skinny_copy.cuh"
#include "linear_skinny_params.cuh"

namespace vt {

/** kXTiles: tiles of x, of 8 rows where kWide, else of 16. */
template <typename T, bool kWide, int kXTiles, int kColumns, bool kHoldsX, Ends kEnds>
__global__ void __launch_bounds__((kMaxWarps + (kHoldsX ? 1 : 2)) * 32,
                                  kXTiles*(kWide ? 8 : 16) <= 32 ? 2 : 1)
    linear_skinny(const __grid_constant__ SkinnyParams params) {
  constexpr int kUnitRows = kWide ? 16 : 8;
  constexpr int kUnitBytes = kUnitRows * kColumns * 2;
  constexpr int kXTileRows = kWide ? 8 : 16;
  constexpr int kProducers = kHoldsX ? 1 : 2;
  constexpr int kBatch = kXTiles == 1 && kColumns >= 128 ? 64 : 32;
  constexpr int kBatches = kColumns / kBatch;  // even
  extern __shared__ __align__(1024) uint8_t shared[];
  constexpr bool kSends = kEnds == Ends::sends;
  const VtCudaLinear& args = args_of<kEnds>(params);
  const int num_stages = params.num_stages;
  const int warps = params.warps;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int workers = blockDim.x / 32 - kProducers - (kTakesScale<kEnds> ? params.folders : 0);
  const int x_offset = warps * kUnitBytes;
  const int stage_bytes = x_offset + (kHoldsX ? 0 : params.x_rows * kColumns * 2);
  const uint32_t full = shared_address(shared);
  const uint32_t empty = full + kMaxStages * 8;
  const uint32_t stages = full + kHeaderBytes;

  const int unit_begin =
      static_cast<int>(static_cast<int64_t>(params.units) * blockIdx.x / gridDim.x);
  const int unit_end =
      static_cast<int>(static_cast<int64_t>(params.units) * (blockIdx.x + 1) / gridDim.x);
  const int chunks = (args.k + kColumns - 1) / kColumns;
  const int passes = (unit_end - unit_begin + warps - 1) / warps;

  if (passes == 0) {
    // Keeps its place until the kernel before has ended.
    start_next();
    wait_for_previous();
    return;
  }
  if (threadIdx.x == workers * 32) {
    prefetch_map(&params.weight);
    for (int s = 0; s < num_stages; s++) {
      barrier_init(full + s * 8, VT_HAS_SM_90 ? 1 : 32);
      barrier_init(full + kXFull + s * 8, VT_HAS_SM_90 ? 1 : 32);
      barrier_init(empty + s * 8, warps);
    }
    if constexpr (kTakesScale<kEnds>) barrier_init(full + kScalesThere, params.folders);
    fence_barrier_init();
    *reinterpret_cast<volatile int*>(shared + kHasX) = 0;
  }
  __syncthreads();

  float* const scales = reinterpret_cast<float*>(shared + kScales);
  if constexpr (kTakesScale<kEnds>) {
    if (warp >= workers + kProducers) {
      wait_for_previous();
      fetch_scales(args, scales, warp - workers - kProducers, params.folders);
      __syncwarp();
      if (lane == 0) barrier_arrive(full + kScalesThere);
      return;
    }
  }
  if (warp >= workers) {
    const bool of_x = warp > workers;
    const bool grouped = args.k % 64 == 0;
    const uint64_t policy = of_x ? evict_last_policy() : evict_first_policy();
    if (of_x) wait_for_previous();
    int stage = 0;
    int parity = 1;
    bool has_x = of_x;
    int left = passes * chunks;
    // The collective of sums that are sent looks for them from its start on: it may not start before
    // this kernel's wait is over (reduce_sent).
    const auto let_next_in = [] {
      if constexpr (kSends) wait_for_previous();
      start_next();
    };
    if (!of_x && left <= params.stages_left) let_next_in();
    for (int pass = 0; pass < passes; pass++) {
      // Lane u copies unit u of the pass; lane 0 copies x.
      const int unit = unit_begin + pass * warps + lane;
      const int copies = of_x ? 1 : min(unit_end - unit_begin - pass * warps, warps);
      const int bytes = of_x ? params.x_rows * kColumns * 2 : copies * kUnitBytes;
      int at[4] = {0, 0, 0, 0};
      if (!of_x) {
        if (kWide && args.epilogue == VT_CUDA_ROPE_AND_CACHE) {
          const int per_head = args.head_dim / 16;
          at[1] = unit % per_head * 8;
          at[2] = unit / per_head * 2;
        } else {
          at[1] = unit * kUnitRows;
        }
      }
      for (int chunk = 0; chunk < chunks; chunk++) {
        const uint32_t barrier = full + (of_x ? kXFull : 0) + stage * 8;
        const uint32_t to = stages + stage * stage_bytes + (of_x ? x_offset : lane * kUnitBytes);
        barrier_wait(empty + stage * 8, parity);
        // Stages are filled for the first time, in order, while x is not there.
        while (!has_x && stage >= params.stages_ahead &&
               !barrier_ready(full + (stage - params.stages_ahead) * 8, 0)) {
          has_x = *reinterpret_cast<volatile int*>(shared + kHasX) != 0;
        }
#if VT_HAS_SM_90
        if (lane == 0) barrier_expect(barrier, bytes);
        __syncwarp();
        if (lane < copies) {
          at[0] = grouped ? 0 : chunk * kColumns;
          at[3] = grouped ? chunk * (kColumns / 64) : 0;
          copy_box(to, of_x ? &params.x : &params.weight, at, barrier, policy);
        }
#else
        if (of_x) {
          copy_x<T, kColumns>(args, to, params.x_rows, chunk * kColumns, lane, policy);
        } else {
          for (int u = 0; u < copies; u++) {
            copy_unit<T, kWide, kColumns>(args, to + (u - lane) * kUnitBytes, unit - lane + u,
                                          chunk * kColumns, lane, policy);
          }
        }
        barrier_arrive_after_copies(barrier);
#endif
        if (!of_x && --left == params.stages_left) let_next_in();
        if (++stage == num_stages) stage = 0, parity ^= 1, has_x = true;
      }
    }
    return;
  }

  // Rows h = 0, 1 of tile i that the lane has. With one tile, what the end of a pass reads is
  // fetched at its beginning.
  const auto row_of = [&](int i, int h) {
    return i * kXTileRows + (kWide ? lane % 4 * 2 + h : lane / 4 + h * 8);
  };
  Place place;
  float2 bias;
  Gain<T> gain;
  RowAhead ahead[2];
  const auto locate = [&](int pass) {
    place = place_of<kWide>(args, unit_begin + pass * warps + warp, lane);
    bias = fetch_bias<T>(args, place);
    if constexpr (kEnds == Ends::gives) gain = fetch_gain<T>(args, place);
  };
  const auto fetch = [&] {
    if constexpr (kXTiles == 1) {
#pragma unroll
      for (int h = 0; h < 2; h++) ahead[h] = fetch_row<T, kWide>(args, place, row_of(0, h));
    }
  };
  const uint32_t held = stages + num_stages * stage_bytes;
  locate(0);
  uint32_t half_of_inbox = 0;
  if constexpr (kSends) half_of_inbox = epoch_of(params.outbox.group, params.outbox.ordinal) & 1;
  const auto let_weights_come = [&] {
    if (threadIdx.x == 0) *reinterpret_cast<volatile int*>(shared + kHasX) = 1;
  };
  if constexpr (kHoldsX) {
    const HeldX x = {shared + kHeaderBytes + num_stages * stage_bytes, params.x_stride,
                     chunks * kColumns};
    if (kEnds < Ends::gives && args.norm_weight != nullptr) {
      const NormWeights weights = load_norm_weights<T>(args);
      wait_for_previous();
      if (warp < warps) fetch();
      hold_normalised_x<T>(args, x, weights, reinterpret_cast<float*>(shared + kNormSums));
    } else {
      wait_for_previous();
      if (warp < warps) fetch();
      hold_x<T>(args, x, workers * 32);
    }
    let_weights_come();
    if (warp >= warps) return;
  } else {
    wait_for_previous();
    let_weights_come();
    fetch();
  }

  // Where a lane's fragments lie: the m16 operand comes as rows lane % 16 and 16-byte pieces
  // lane / 16 of 16 columns, the other as rows lane % 8 and pieces lane / 8 of 32. Piece i of a row
  // is at place i ^ (row % 8). Rows of x from m on are not written, so any row will do for them.
  const int weight_row = kWide ? lane % 16 : lane % 8;
  const int weight_piece = kWide ? lane / 16 : lane / 8;
  const uint32_t weight_lane =
      stages + warp * kUnitBytes + weight_row * 128 + ((weight_piece ^ (weight_row % 8)) << 4);
  const int x_row = min(kWide ? lane % 8 : lane % 16, params.x_rows - 1);
  const int x_piece = kWide ? lane / 8 : lane / 16;
  const uint32_t x_lane = kHoldsX
                              ? held + x_row * params.x_stride + x_piece * 16
                              : stages + x_offset + x_row * 128 + ((x_piece ^ (x_row % 8)) << 4);
  // From one tile of x to the next, and from one group of 64 columns to the next.
  const int x_tile = kHoldsX
                         ? (min(x_row + kXTileRows, params.x_rows - 1) - x_row) * params.x_stride
                         : kXTileRows * 128;
  const int x_group = params.x_rows * 128;
  const auto load = [&](Fragments<kWide, kXTiles, kBatch>& f, uint32_t weight, uint32_t x,
                        int batch) {
    const int group = batch * kBatch / 64;
    constexpr int kWeightStep = kWide ? 16 : 32;
    constexpr int kXStep = kWide ? 32 : 16;
#pragma unroll
    for (int s = 0; s < kBatch / kWeightStep; s++) {
      const int column = batch * kBatch + s * kWeightStep;
      ldmatrix4(f.weight[s], (weight ^ (column % 64 * 2)) + group * kUnitRows * 128);
    }
#pragma unroll
    for (int s = 0; s < kBatch / kXStep; s++) {
      const int column = batch * kBatch + s * kXStep;
#pragma unroll
      for (int i = 0; i < kXTiles; i++) {
        ldmatrix4(f.x[i][s], kHoldsX ? x + i * x_tile + column * 2
                                     : ((x + group * x_group) ^ (column % 64 * 2)) + i * x_tile);
      }
    }
  };
  float sum[kXTiles][4];
  const auto clear = [&] {
#pragma unroll
    for (int i = 0; i < kXTiles; i++) {
#pragma unroll
      for (int e = 0; e < 4; e++) sum[i][e] = 0.0f;
    }
  };
  // Columns 16 s .. of a batch.
  const auto multiply = [&](const Fragments<kWide, kXTiles, kBatch>& f, int s) {
#pragma unroll
    for (int i = 0; i < kXTiles; i++) {
      if constexpr (kWide) {
        mma<T>(sum[i], f.weight[s], f.x[i][s / 2][s % 2 * 2], f.x[i][s / 2][s % 2 * 2 + 1]);
      } else {
        mma<T>(sum[i], f.x[i][s], f.weight[s / 2][s % 2 * 2], f.weight[s / 2][s % 2 * 2 + 1]);
      }
    }
  };
  // The loads of the next batch are issued in the shadow of this one's first products.
  const auto multiply_and = [&](const Fragments<kWide, kXTiles, kBatch>& f, const auto& load_next) {
    multiply(f, 0);
    load_next();
    __syncwarp();
#pragma unroll
    for (int s = 1; s < kBatch / 16; s++) multiply(f, s);
    __syncwarp();
  };
  const auto write = [&](int pass) {
    const int unit = unit_begin + pass * warps + warp;
    if (unit >= unit_end) return;
    if constexpr (kTakesScale<kEnds>) barrier_wait(full + kScalesThere, 0);
#pragma unroll
    for (int i = 0; i < kXTiles; i++) {
      if constexpr (kSends) {
        send_tile<kWide>(params.outbox.group, half_of_inbox, args.m, args.n, unit, i, sum[i]);
      } else {
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const int m = row_of(i, h);
          if constexpr (kXTiles > 1) ahead[h] = fetch_row<T, kWide>(args, place, m);
          float2 sums = make_float2(sum[i][kWide ? h : h * 2], sum[i][kWide ? 2 + h : h * 2 + 1]);
          if constexpr (kEnds == Ends::gives) {
            // No row of the warp is there.
            if (i * kXTileRows + (kWide ? h : h * 8) >= args.m) break;
            write_late<T, kWide>(args, place, unit, gain, ahead[h], m, sums, params.pairs);
          } else {
            if constexpr (kTakesScale<kEnds>) sums = scaled_sums<T>(sums, scales[m]);
            write_row<T, kWide>(args, place, bias, ahead[h], m, sums.x, sums.y, params.pairs);
          }
        }
      }
    }
  };

  // A stage's first fragments are loaded beside the last products of the stage before, which may be
  // filled again from then on.
  uint32_t barrier = full;
  const uint32_t ring_end = full + num_stages * 8;
  uint32_t weight = weight_lane;
  uint32_t x = x_lane;
  int parity = 0;
  bool ready = false;
  const auto ask = [&] {
    ready = barrier_ready(barrier, parity) && (kHoldsX || barrier_ready(barrier + kXFull, parity));
  };
  const auto wait_for_stage = [&] {
    if (ready) return;
    barrier_wait(barrier, parity);
    if constexpr (!kHoldsX) barrier_wait(barrier + kXFull, parity);
  };
  Fragments<kWide, kXTiles, kBatch> ring[2];
  // All batches of a stage but the last.
  const auto multiply_stage = [&] {
    multiply_and(ring[0], [&] { load(ring[1], weight, x, 1); });
    const uint32_t stage_weight = weight;
    const uint32_t stage_x = x;
    weight += stage_bytes;
    x += kHoldsX ? kColumns * 2 : stage_bytes;
    barrier += 8;
    if (barrier == ring_end) {
      barrier = full;
      parity ^= 1;
      weight = weight_lane;
      if (!kHoldsX) x = x_lane;
    }
    ask();
#pragma unroll
    for (int j = 1; j + 1 < kBatches; j++) {
      multiply_and(ring[j % 2], [&] { load(ring[(j + 1) % 2], stage_weight, stage_x, j + 1); });
    }
  };
  const auto free_stage = [&](uint32_t of) {
    if (lane == 0) barrier_arrive(of + kMaxStages * 8);
  };
  for (int pass = 0; pass < passes; pass++) {
    clear();
    wait_for_stage();
    load(ring[0], weight, x, 0);
    uint32_t current = barrier;
    multiply_stage();
#pragma unroll 1
    for (int left = chunks - 1; left > 0; left--) {
      wait_for_stage();
      multiply_and(ring[1], [&] { load(ring[0], weight, x, 0); });
      free_stage(current);
      current = barrier;
      multiply_stage();
    }
    multiply_and(ring[1], [&] {});
    free_stage(current);
    if (kHoldsX) x = x_lane;
    write(pass);
    if (pass + 1 == passes) break;
    locate(pass + 1);
    fetch();
  }
}

}  // namespace vt

#endif  // VT_CUDA_LINEAR_SKINNY_CUH_
