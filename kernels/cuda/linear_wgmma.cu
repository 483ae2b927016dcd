// linear for m > 64 by Hopper's warpgroup instructions, with siluAndMul or ropeAndCache behind it,
// the default of ours; cuBLASLt has the plain ones where it is there. And the linear of logits that
// leaves out those of rows that need one id alone (linear_wgmma_best.cuh).
//
// What it computes: as linear_skinny, the same chain an output: wgmma adds 16 products to an
// accumulator as mma.sync does, k ascending.
//
// Launch: persistent clusters of kCluster blocks walk tiles of 128 kCluster rows of x and 256 or
// 224 of the weight's; a block has 128 of the rows of x, 64 a warpgroup, and all of the weight's. A
// third warpgroup fetches stages of 64 columns by the copy engine: its block's x, and its part of
// the weight's rows for all blocks of the cluster, at first while the kernel in front is still at
// work. The two that fold meet only at the stages, so that the end of one's tile runs beside the
// other's last products, and the next tile's first. Eight tiles of x lie beside each other before
// the next of the weight, so that the blocks of a wave share both in L2.
#include "cluster.cuh"
#include "linear_best.cuh"
#include "linear_wgmma_best.cuh"
#include "wgmma.cuh"

namespace vt {
namespace {

constexpr int kWarpgroup = 128;
constexpr int kThreads = 3 * kWarpgroup;
constexpr int kFoldGroups = 2;
constexpr int kRows = 64;  // of a warpgroup
constexpr int kTileM = kFoldGroups * kRows;
constexpr int kColumns = kPanelColumns;
constexpr int kXBytes = kTileM * kPanelRowBytes;
constexpr int kStages = 4;
constexpr int kRing = 1024;  // barriers before it: full [kStages], empty [kStages]
constexpr int kBandTiles = 8;

/** Blocks of a cluster, and rows of the weight that a tile has. */
template <int kCluster_, int kTileN_>
struct Form {
  static constexpr int kCluster = kCluster_, kTileN = kTileN_;
  static constexpr int kStageBytes = (kTileM + kTileN) * kPanelRowBytes;
  static constexpr int kEnds = kRing + kStages * kStageBytes;  // a place for each warp that folds
  static constexpr int kBytes = kEnds + kFoldGroups * 4 * kEndBytes;
  /** Rows that a block fetches at a time of those that it fetches for all. */
  static constexpr int kPart = kTileN / kCluster < 128 ? kTileN / kCluster : 128;
  static_assert(kBytes <= 227 * 1024 && kPart % 8 == 0 && kTileN / kCluster % kPart == 0);
};

/** What sums end as: what `args` says, or logits for the sampler. */
struct PlainEnd {};
struct SampleEnd {
  VtCudaSample sampler;
};

template <typename End>
struct Params : End {
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
template <typename F>
struct Tiles {
  static constexpr int kCluster = F::kCluster, kTileN = F::kTileN;

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

/**
 * The first row of x of a block that works for the sampler. The last block has the last rows, some of
 * which are the one's before it: rows beyond x take longer to fetch than rows of x.
 */
__device__ __forceinline__ int sampled_from(const VtCudaLinear& args, int rank) {
  return min(rank * kTileM, max(0, args.m - kTileM));
}

/**
 * One thread: all stages of the block's tiles, in the order in which they are folded. The weight's
 * part of the first ones while the kernel in front is still at work.
 */
template <typename F, typename End>
__device__ __forceinline__ void fetch(const Params<End>& params, uint32_t base, int rank) {
  constexpr int kCluster = F::kCluster;
  const Tiles<F> tiles(params.args);
  const uint64_t policy = evict_last_policy();
  const auto stage_at = [&](int stage) { return base + kRing + stage * F::kStageBytes; };
  const auto fetch_weight = [&](int stage, int column, int row0) {
    barrier_expect(full(base, stage), F::kStageBytes);
#pragma unroll
    for (int row = 0; row < F::kTileN / kCluster; row += F::kPart) {
      const int part = rank * (F::kTileN / kCluster) + row;
      const uint32_t to = stage_at(stage) + kXBytes + part * kPanelRowBytes;
      if constexpr (kCluster == 1) {
        copy_box(to, &params.weight, {column, row0 + part, 0, 0}, full(base, stage), policy);
      } else {
        copy_box_to((1u << kCluster) - 1, to, &params.weight, {column, row0 + part, 0, 0},
                    full(base, stage), policy);
      }
    }
  };
  const int first_tile = blockIdx.x / kCluster;
  const int ahead = min(kStages, tiles.chunks);
  for (int stage = 0; stage < ahead; stage++) {
    fetch_weight(stage, stage * kColumns, tiles.begin(first_tile, rank).y);
  }
  wait_for_previous();
  Place place;
  for (int tile = first_tile; tile < tiles.count(); tile += tiles.clusters) {
    const int2 begin = tiles.begin(tile, rank);
    const int row =
        std::is_same_v<End, SampleEnd> ? sampled_from(params.args, rank) : begin.x;
    for (int chunk = 0; chunk < tiles.chunks; chunk++, place.advance()) {
      if (tile != first_tile || chunk >= ahead) {
        // Of all blocks of the cluster: this one's part of the weight goes to each of them.
        barrier_wait(empty(base, place.stage), place.parity ^ 1);
        fetch_weight(place.stage, chunk * kColumns, begin.y);
      }
      copy_box(stage_at(place.stage), &params.x, {chunk * kColumns, row, 0, 0},
               full(base, place.stage), policy);
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

/** A warp of a warpgroup: its rows of every tile of the block, which `end` takes from there. */
template <typename T, typename F, typename End>
__device__ __forceinline__ void fold(const VtCudaLinear& args, uint32_t base, int rank,
                                     int warpgroup, const End& end) {
  constexpr int kCluster = F::kCluster;
  const Tiles<F> tiles(args);
  const int warp = threadIdx.x % kWarpgroup / 32;
  const int lane = threadIdx.x % 32;
  Place place;
  TileSums<F::kTileN / 8> sum;
  for (int tile = blockIdx.x / kCluster; tile < tiles.count(); tile += tiles.clusters) {
    int last_stage = 0;
    for (int chunk = 0; chunk < tiles.chunks; chunk++, place.advance()) {
      barrier_wait(full(base, place.stage), place.parity);
      const uint32_t stage = base + kRing + place.stage * F::kStageBytes;
      const uint32_t x = stage + warpgroup * kRows * kPanelRowBytes;
      keep(sum);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kColumns / 16; k++) {
        wgmma<T>(sum, along_k(x, kTileM, k), along_k(stage + kXBytes, F::kTileN, k),
                 k > 0 || chunk > 0);
      }
      wgmma_commit();
      wgmma_wait<1>();
      if (chunk > 0) release<kCluster>(empty(base, last_stage), lane);
      last_stage = place.stage;
    }
    const int2 begin = tiles.begin(tile, rank);
    const int m0 = begin.x + warpgroup * kRows + warp * 16;
    RowScales scales;
    load_scales(args, scales, m0, lane);
    wgmma_wait<0>();
    keep(sum);
    release<kCluster>(empty(base, last_stage), lane);
    end(sum, scales, m0, begin.y);
  }
}

template <typename T, typename F, typename End>
__global__ void __launch_bounds__(kThreads, 1)
    linear_wgmma_kernel(const __grid_constant__ Params<End> params) {
#if VT_HAS_WGMMA
  constexpr int kCluster = F::kCluster;
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
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / kWarpgroup, 0);
  if (warpgroup == 2) {
    fewer_registers<40>();
    if (threadIdx.x == 2 * kWarpgroup) fetch<F>(params, base, rank);
  } else {
    more_registers<232>();
    constexpr int kTiles = F::kTileN / 8;
    const int warp = warpgroup * 4 + threadIdx.x % kWarpgroup / 32;
    const int lane = threadIdx.x % 32;
    const auto& args = params.args;
    if constexpr (std::is_same_v<End, SampleEnd>) {
      const int first = sampled_from(args, rank) + warp * 16;
      if ((args.flags & VT_CUDA_EARLY_READS) == 0) wait_for_previous();
      BestLogits best(params.sampler, first, rank * kTileM, lane);
      wait_for_previous();
      fold<T, F>(args, base, rank, warpgroup,
                 [&](const TileSums<kTiles>& sum, const RowScales&, int, int n0) {
                   best.take<kTiles>(args, params.sampler, sum, first, n0, lane);
                 });
      best.write(params.sampler, blockIdx.x / kCluster, first, rank * kTileM, lane);
    } else {
      const uint32_t place = base + F::kEnds + warp * kEndBytes;
      wait_for_previous();
      fold<T, F>(args, base, rank, warpgroup,
                 [&](const TileSums<kTiles>& sum, const RowScales& scales, int m0, int n0) {
                   end_tile<T, kTiles>(args, sum, scales, m0, n0, place, lane);
                 });
    }
  }
  // Others may still fill this block's memory, or arrive on its barriers.
  if constexpr (kCluster > 1) cluster_sync();
#endif
}

template <typename T, typename F, typename End = PlainEnd>
int64_t num_clusters() {
  constexpr int kCluster = F::kCluster;
  static const int64_t clusters =
      kCluster == 1 ? num_multiprocessors()
                    : max_clusters(linear_wgmma_kernel<T, F, End>, kCluster, dim3(kThreads),
                                   F::kBytes);
  return clusters;
}

template <typename F>
int64_t num_tiles(const VtCudaLinear& args) {
  constexpr int kRowsOfTile = kTileM * F::kCluster;
  return static_cast<int64_t>((args.m + kRowsOfTile - 1) / kRowsOfTile) *
         ((args.n + F::kTileN - 1) / F::kTileN);
}

template <typename T, typename F, typename End = PlainEnd>
int launch_tiles(const VtCudaLinear& args, void* stream, const End& end = {}) {
  constexpr int kCluster = F::kCluster;
  Params<End> params = {end, args, {}, {}};
  if (make_panel_map(&params.x, args.x, args.m, args.k, args.x_stride, kTileM) != 0 ||
      make_panel_map(&params.weight, args.weight, args.n, args.k, args.weight_stride, F::kPart) !=
          0) {
    return -1;
  }
  const int64_t tiles = num_tiles<F>(args);
  const int64_t clusters = num_clusters<T, F, End>();
  const dim3 grid(static_cast<unsigned>((tiles < clusters ? tiles : clusters) * kCluster));
  if constexpr (kCluster == 1) {
    return launch("linear", linear_wgmma_kernel<T, F, End>, grid, dim3(kThreads), F::kBytes,
                  args.flags, stream, params);
  } else {
    return launch_clusters("linear", linear_wgmma_kernel<T, F, End>, kCluster, grid, dim3(kThreads),
                           F::kBytes, args.flags, stream, params);
  }
}

using Single = Form<1, 256>;
using Pair = Form<2, 256>;
/** For siluAndMul alone. */
using NarrowPair = Form<2, 224>;

/** Columns that a cluster computes, one round of tiles after another. */
template <typename T, typename F>
int64_t columns_of_rounds(const VtCudaLinear& args) {
  return (num_tiles<F>(args) + num_clusters<T, F>() - 1) / num_clusters<T, F>() * F::kTileN;
}

/** Of a launch for the sampler, whose tiles all have the same rows. */
bool is_single(const VtCudaLinear& args) { return args.m <= kTileM; }

template <typename T>
int launch_wgmma(const VtCudaLinear& args, void* stream) {
  if (args.large == VT_CUDA_LARGE_WGMMA) return launch_tiles<T, Single>(args, stream);
  // 28,672 columns are 112 tiles of 256 or 128 of 224, and 66 clusters walk both in two rounds.
  const bool narrow = args.epilogue == VT_CUDA_SILU_AND_MUL && args.m <= 2 * kTileM &&
                      columns_of_rounds<T, NarrowPair>(args) < columns_of_rounds<T, Pair>(args);
  return narrow ? launch_tiles<T, NarrowPair>(args, stream) : launch_tiles<T, Pair>(args, stream);
}

template <typename T>
int num_best(const VtCudaLinear& args) {
  const auto clusters = [&](int64_t tiles, int64_t most) {
    return static_cast<int>(tiles < most ? tiles : most);
  };
  return is_single(args) ? clusters(num_tiles<Single>(args), num_clusters<T, Single, SampleEnd>())
                         : clusters(num_tiles<Pair>(args), num_clusters<T, Pair, SampleEnd>());
}

template <typename T>
int launch_for_sample(const VtCudaLinear& args, const VtCudaSample& sampler, void* stream) {
  return is_single(args) ? launch_tiles<T, Single>(args, stream, SampleEnd{sampler})
                         : launch_tiles<T, Pair>(args, stream, SampleEnd{sampler});
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

int linear_wgmma_num_best(const VtCudaLinear& args) {
  return args.dtype == VT_CUDA_F16 ? num_best<__half>(args) : num_best<__nv_bfloat16>(args);
}

int linear_wgmma_for_sample(const VtCudaLinear& args, const VtCudaSample& sampler, void* stream) {
  return args.dtype == VT_CUDA_F16 ? launch_for_sample<__half>(args, sampler, stream)
                                   : launch_for_sample<__nv_bfloat16>(args, sampler, stream);
}

}  // namespace vt
