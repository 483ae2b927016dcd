// linear for m > 64 by Hopper's warpgroup instructions, with siluAndMul or ropeAndCache behind it,
// the default of ours; cuBLASLt has the plain ones where it is there.
//
// What it computes: as linear_skinny, the same chain an output: wgmma adds 16 products to an
// accumulator as mma.sync does, k ascending.
//
// Launch: persistent clusters of kCluster blocks walk tiles of 128 kCluster rows of x and 256 of the
// weight; a block has 128 of the rows of x, 64 a warpgroup, and all of the weight's. A third
// warpgroup fetches stages of 64 columns by the copy engine: its block's x, and its part of the
// weight's rows for all blocks of the cluster. The two that fold meet only at the stages, so that
// the end of one's tile runs beside the other's last products, and the next tile's first. Eight
// tiles of x lie beside each other before the next of the weight, so that the blocks of a wave share
// both in L2.
#include "cluster.cuh"
#include "linear_wgmma_ends.cuh"
#include "wgmma.cuh"

namespace vt {
namespace {

constexpr int kWarpgroup = 128;
constexpr int kThreads = 3 * kWarpgroup;
constexpr int kFoldGroups = 2;
constexpr int kRows = 64;  // of a warpgroup
constexpr int kTileM = kFoldGroups * kRows;
constexpr int kTileN = kEndColumns;
constexpr int kColumns = kPanelColumns;
constexpr int kXBytes = kTileM * kPanelRowBytes;
constexpr int kStageBytes = (kTileM + kTileN) * kPanelRowBytes;
constexpr int kStages = 4;
constexpr int kRing = 1024;  // barriers before it: full [kStages], empty [kStages]
constexpr int kEnds = kRing + kStages * kStageBytes;  // a place for each warp that folds
constexpr int kBytes = kEnds + kFoldGroups * 4 * kEndBytes;
constexpr int kBandTiles = 8;

static_assert(kBytes <= 227 * 1024);

struct Params {
  VtCudaLinear args;
  CUtensorMap x, weight;
};

__device__ __forceinline__ uint32_t full(uint32_t base, int stage) { return base + stage * 8; }
__device__ __forceinline__ uint32_t empty(uint32_t base, int stage) {
  return base + (kStages + stage) * 8;
}

/** A place in the ring, and the parity of its barriers there. */
struct Place {
  int stage = 0;
  int parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

/** The tiles of a launch, and the first row and column of each. */
template <int kCluster>
struct Tiles {
  int m_tiles, n_tiles, chunks, clusters;

  __device__ __forceinline__ explicit Tiles(const VtCudaLinear& args)
      : m_tiles((args.m + kTileM * kCluster - 1) / (kTileM * kCluster)),
        n_tiles((args.n + kTileN - 1) / kTileN),
        chunks((args.k + kColumns - 1) / kColumns),
        clusters(gridDim.x / kCluster) {}

  __device__ __forceinline__ int count() const { return m_tiles * n_tiles; }

  __device__ __forceinline__ int2 begin(int tile, int rank) const {
    const int band = tile / (kBandTiles * n_tiles);
    const int width = min(kBandTiles, m_tiles - band * kBandTiles);
    const int in_band = tile - band * kBandTiles * n_tiles;
    const int m_tile = band * kBandTiles + in_band % width;
    return make_int2((m_tile * kCluster + rank) * kTileM, in_band / width * kTileN);
  }
};

/** One thread: all stages of the block's tiles, in the order in which they are folded. */
template <int kCluster>
__device__ __forceinline__ void fetch(const Params& params, uint32_t base, int rank) {
  constexpr int kPart = kTileN / kCluster < 128 ? kTileN / kCluster : 128;
  const Tiles<kCluster> tiles(params.args);
  const uint64_t policy = evict_last_policy();
  Place place;
  for (int tile = blockIdx.x / kCluster; tile < tiles.count(); tile += tiles.clusters) {
    const int2 begin = tiles.begin(tile, rank);
    for (int chunk = 0; chunk < tiles.chunks; chunk++, place.advance()) {
      // Of all blocks of the cluster: this one's part of the weight goes to each of them.
      barrier_wait(empty(base, place.stage), place.parity ^ 1);
      const uint32_t barrier = full(base, place.stage);
      const uint32_t stage = base + kRing + place.stage * kStageBytes;
      const int column = chunk * kColumns;
      barrier_expect(barrier, kStageBytes);
      copy_box(stage, &params.x, {column, begin.x, 0, 0}, barrier, policy);
#pragma unroll
      for (int row = 0; row < kTileN / kCluster; row += kPart) {
        const int part = rank * (kTileN / kCluster) + row;
        const uint32_t to = stage + kXBytes + part * kPanelRowBytes;
        if constexpr (kCluster == 1) {
          copy_box(to, &params.weight, {column, begin.y + part, 0, 0}, barrier, policy);
        } else {
          copy_box_to((1u << kCluster) - 1, to, &params.weight, {column, begin.y + part, 0, 0},
                      barrier, policy);
        }
      }
    }
  }
}

/** This warp has read a stage: each block of the cluster may fill its own again. */
template <int kCluster>
__device__ __forceinline__ void release(uint32_t barrier, int lane) {
  __syncwarp();
  if constexpr (kCluster == 1) {
    if (lane == 0) barrier_arrive(barrier);
  } else {
    if (lane < kCluster) barrier_arrive_in_cluster(address_in(barrier, lane));
  }
}

/** A warpgroup: its rows of every tile of the block. */
template <typename T, int kCluster>
__device__ __forceinline__ void fold(const Params& params, uint32_t base, int rank,
                                     int warpgroup) {
  const VtCudaLinear& args = params.args;
  const Tiles<kCluster> tiles(args);
  const int warp = threadIdx.x % kWarpgroup / 32;
  const int lane = threadIdx.x % 32;
  const uint32_t end = base + kEnds + (warpgroup * 4 + warp) * kEndBytes;
  Place place;
  TileSums sum;
  for (int tile = blockIdx.x / kCluster; tile < tiles.count(); tile += tiles.clusters) {
    int last_stage = 0;
    for (int chunk = 0; chunk < tiles.chunks; chunk++, place.advance()) {
      barrier_wait(full(base, place.stage), place.parity);
      const uint32_t stage = base + kRing + place.stage * kStageBytes;
      const uint32_t x = stage + warpgroup * kRows * kPanelRowBytes;
      keep(sum);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kColumns / 16; k++) {
        wgmma<T>(sum, along_k(x, kTileM, k), along_k(stage + kXBytes, kTileN, k),
                 k > 0 || chunk > 0);
      }
      wgmma_commit();
      wgmma_wait<1>();
      if (chunk > 0) release<kCluster>(empty(base, last_stage), lane);
      last_stage = place.stage;
    }
    wgmma_wait<0>();
    keep(sum);
    release<kCluster>(empty(base, last_stage), lane);
    const int2 begin = tiles.begin(tile, rank);
    end_tile<T>(args, sum, begin.x + warpgroup * kRows + warp * 16, begin.y, end, lane);
  }
}

template <typename T, int kCluster>
__global__ void __launch_bounds__(kThreads, 1)
    linear_wgmma_kernel(const __grid_constant__ Params params) {
#if VT_HAS_WGMMA
  extern __shared__ __align__(1024) uint8_t shared[];
  const uint32_t base = shared_address(shared);
  const int rank = kCluster == 1 ? 0 : cluster_rank();
  start_next();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; stage++) {
      barrier_init(full(base, stage), 1);
      barrier_init(empty(base, stage), kCluster * kFoldGroups * kWarpgroup / 32);
    }
    fence_barrier_init();
    prefetch_map(&params.x);
    prefetch_map(&params.weight);
  }
  if constexpr (kCluster == 1) {
    __syncthreads();
  } else {
    cluster_sync();
  }
  wait_for_previous();
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / kWarpgroup, 0);
  if (warpgroup == 2) {
    fewer_registers<40>();
    if (threadIdx.x == 2 * kWarpgroup) fetch<kCluster>(params, base, rank);
  } else {
    more_registers<232>();
    fold<T, kCluster>(params, base, rank, warpgroup);
  }
  // Others may still fill this block's memory, or arrive on its barriers.
  if constexpr (kCluster > 1) cluster_sync();
#endif
}

template <typename T, int kCluster>
int launch_tiles(const VtCudaLinear& args, void* stream) {
  Params params = {};
  params.args = args;
  const int part = kTileN / kCluster < 128 ? kTileN / kCluster : 128;
  if (make_panel_map(&params.x, args.x, args.m, args.k, args.x_stride, kTileM) != 0 ||
      make_panel_map(&params.weight, args.weight, args.n, args.k, args.weight_stride, part) != 0) {
    return -1;
  }
  const int64_t m_tiles = (args.m + kTileM * kCluster - 1) / (kTileM * kCluster);
  const int64_t tiles = m_tiles * ((args.n + kTileN - 1) / kTileN);
  static const int64_t clusters = kCluster == 1 ? num_multiprocessors()
                                                : max_clusters(linear_wgmma_kernel<T, kCluster>,
                                                               kCluster, dim3(kThreads), kBytes);
  const dim3 grid(static_cast<unsigned>((tiles < clusters ? tiles : clusters) * kCluster));
  if constexpr (kCluster == 1) {
    return launch("linear", linear_wgmma_kernel<T, 1>, grid, dim3(kThreads), kBytes, args.flags,
                  stream, params);
  } else {
    return launch_clusters("linear", linear_wgmma_kernel<T, kCluster>, kCluster, grid,
                           dim3(kThreads), kBytes, args.flags, stream, params);
  }
}

template <typename T>
int launch_wgmma(const VtCudaLinear& args, void* stream) {
  return args.large == VT_CUDA_LARGE_WGMMA ? launch_tiles<T, 1>(args, stream)
                                           : launch_tiles<T, 2>(args, stream);
}

}  // namespace

bool linear_wgmma_takes(const VtCudaLinear& args) {
  if (args.n % 8 != 0 || args.norm_weight != nullptr) return false;
  if (args.epilogue == VT_CUDA_ROPE_AND_CACHE && args.head_dim != 64 && args.head_dim != 128) {
    return false;
  }
  const int out_bytes = args.out_dtype == VT_CUDA_F32 ? 4 : 2;
  const auto aligned = [](const void* pointer, int64_t row_bytes) {
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && row_bytes % 16 == 0;
  };
  return aligned(args.out, static_cast<int64_t>(args.out_stride) * out_bytes) &&
         aligned(args.bias, 0) &&
         aligned(args.residual, static_cast<int64_t>(args.residual_stride) * 2);
}

int linear_wgmma(const VtCudaLinear& args, void* stream) {
  return args.dtype == VT_CUDA_F16 ? launch_wgmma<__half>(args, stream)
                                   : launch_wgmma<__nv_bfloat16>(args, stream);
}

}  // namespace vt
