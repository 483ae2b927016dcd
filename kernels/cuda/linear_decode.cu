// linear with siluAndMul behind it for decode batches, 65 to 192 rows, of weights that are small:
// what it takes is its start, one chain of products and its end, and dependent launch hides the
// first of these, which it cannot do for cuBLASLt's kernels.
//
// What it computes: as linear_skinny, the same chain an output: wgmma adds 16 products to an
// accumulator as mma.sync does, k ascending. The weight's rows are wgmma's 64.
//
// Launch: a block has 64 rows of the weight, gate and up of 32 columns, and 96 of x, for the whole
// of k. Blocks of a cluster share what they fetch by multicast: kAlongX of them the weight's rows,
// kAlongN the rows of x. A warp fetches stages of 64 columns, the weight's part of the first ones
// while the kernel in front is still at work; a warpgroup folds them. Sums pass through shared
// memory, where the ring was, so that gate and up meet and rows are written in pieces of 16 bytes.
#include "cluster.cuh"
#include "linear.cuh"
#include "wgmma.cuh"

namespace vt {
namespace {

constexpr int kFolders = 128;
constexpr int kThreads = kFolders + 32;
constexpr int kWeightRows = 64;  // of a block
constexpr int kRows = 96;        // of x, of a block
constexpr int kColumns = kPanelColumns;
constexpr int kWeightBytes = kWeightRows * kPanelRowBytes;
constexpr int kStageBytes = kWeightBytes + kRows * kPanelRowBytes;
/** So that the next kernel's block lies beside this one. */
constexpr int kRoom = 112 * 1024;
constexpr int kRing = 1024;
constexpr int kEmptyBarriers = 128;  // behind `full`
constexpr int kStages = (kRoom - kRing) / kStageBytes;
constexpr int kBytes = kRing + kStages * kStageBytes;
/** The sums of a row of x, f32; rows lie 4 banks apart. */
constexpr int kSumRowBytes = kWeightRows * 4 + 16;
static_assert(kStages * 8 <= kEmptyBarriers && kStages * kStageBytes >= kRows * kSumRowBytes);

// Where it is ahead of cuBLASLt and the op behind it (docs/kernels.md).
constexpr int kMostRows = 192;
constexpr int kMostColumns = 1024;
constexpr int64_t kMostWeights = int64_t{8} << 20;

struct Params {
  VtCudaLinear args;
  CUtensorMap x, weight;
};

template <int kAlongX_, int kAlongN_>
struct Tile {
  static constexpr int kAlongX = kAlongX_, kAlongN = kAlongN_;
  static constexpr int kCluster = kAlongX * kAlongN;
  /** Blocks that this one shares something with, itself among them. */
  static constexpr int kPeers = kAlongX + kAlongN - 1;
  /** What a block fetches itself of what it shares. */
  static constexpr int kWeightPart = kWeightRows / kAlongX;
  static constexpr int kXPart = kRows / kAlongN;
  static_assert(kWeightPart % 8 == 0 && kXPart % 8 == 0);

  const VtCudaLinear& args;
  uint32_t base;
  /** Among the blocks that share its weight, and among those that share its rows of x. */
  int rank_x, rank_n;
  int m0, n0;
  int chunks;

  __device__ __forceinline__ Tile(const VtCudaLinear& a, uint32_t shared_base)
      : args(a), base(shared_base), chunks((a.k + kColumns - 1) / kColumns) {
    const int rank = cluster_rank();
    rank_x = rank % kAlongX;
    rank_n = rank / kAlongX;
    const int along_n = (a.n + kWeightRows * kAlongN - 1) / (kWeightRows * kAlongN);
    const int cluster = blockIdx.x / kCluster;
    n0 = (cluster % along_n * kAlongN + rank_n) * kWeightRows;
    m0 = (cluster / along_n * kAlongX + rank_x) * kRows;
  }

  __device__ __forceinline__ uint32_t full(int stage) const { return base + stage * 8; }
  __device__ __forceinline__ uint32_t empty(int stage) const {
    return base + kEmptyBarriers + stage * 8;
  }
  __device__ __forceinline__ uint32_t weight_of(int stage) const {
    return base + kRing + stage * kStageBytes;
  }
  __device__ __forceinline__ uint32_t x_of(int stage) const {
    return weight_of(stage) + kWeightBytes;
  }
  /** Lane `peer` < kPeers: the rank of that peer. */
  __device__ __forceinline__ int peer_rank(int peer) const {
    if (peer < kAlongX) return rank_n * kAlongX + peer;
    const int other = peer - kAlongX;
    return (other < rank_n ? other : other + 1) * kAlongX + rank_x;
  }
};

/** One thread: the block's parts of all stages. */
template <typename Tile>
__device__ __forceinline__ void fetch(const Params& params, const Tile& tile) {
  const uint64_t keep = evict_last_policy();
  const uint64_t once = evict_first_policy();
  unsigned weight_ranks = 0;
  unsigned x_ranks = 0;
#pragma unroll
  for (int i = 0; i < Tile::kAlongX; i++) weight_ranks |= 1u << (tile.rank_n * Tile::kAlongX + i);
#pragma unroll
  for (int i = 0; i < Tile::kAlongN; i++) x_ranks |= 1u << (i * Tile::kAlongX + tile.rank_x);
  const auto fetch_weight = [&](int stage, int chunk) {
    const int row = tile.rank_x * Tile::kWeightPart;
    copy_box_to(weight_ranks, tile.weight_of(stage) + row * kPanelRowBytes, &params.weight,
                {chunk * kColumns, tile.n0 + row, 0, 0}, tile.full(stage), once);
  };
  const auto fetch_x = [&](int stage, int chunk) {
    const int row = tile.rank_n * Tile::kXPart;
    copy_box_to(x_ranks, tile.x_of(stage) + row * kPanelRowBytes, &params.x,
                {chunk * kColumns, tile.m0 + row, 0, 0}, tile.full(stage), keep);
  };
  const int ahead = min(tile.chunks, kStages);
  for (int i = 0; i < ahead; i++) {
    barrier_expect(tile.full(i), kStageBytes);
    fetch_weight(i, i);
  }
  wait_for_previous();
  for (int i = 0; i < ahead; i++) fetch_x(i, i);
  int stage = 0;
  int parity = 0;
  for (int chunk = ahead; chunk < tile.chunks; chunk++) {
    // Of all peers: what this block fetches goes to each of them.
    barrier_wait(tile.empty(stage), parity);
    barrier_expect(tile.full(stage), kStageBytes);
    fetch_weight(stage, chunk);
    fetch_x(stage, chunk);
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
}

__device__ __forceinline__ void load_sums(float (&sums)[8], uint32_t address) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const uint4 words = load_shared(address + i * 16);
    sums[i * 4] = __uint_as_float(words.x);
    sums[i * 4 + 1] = __uint_as_float(words.y);
    sums[i * 4 + 2] = __uint_as_float(words.z);
    sums[i * 4 + 3] = __uint_as_float(words.w);
  }
}

/**
 * The products of all stages; sum[j][2 h + e]: row lane / 4 + 8 h of the warp's 16 of the weight,
 * row 8 j + lane % 4 * 2 + e of x.
 */
template <typename T, typename Tile>
__device__ __forceinline__ void fold(const Tile& tile, float (&sum)[kRows / 8][4], int lane) {
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane < Tile::kPeers) {
      barrier_arrive_in_cluster(address_in(tile.empty(stage), tile.peer_rank(lane)));
    }
  };
  int stage = 0;
  int parity = 0;
  int last_stage = 0;
  for (int chunk = 0; chunk < tile.chunks; chunk++) {
    barrier_wait(tile.full(stage), parity);
    keep(sum);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kColumns / 16; k++) {
      wgmma<T>(sum, along_k(tile.weight_of(stage), kWeightRows, k),
               along_k(tile.x_of(stage), kRows, k), k > 0 || chunk > 0);
    }
    wgmma_commit();
    wgmma_wait<1>();
    if (chunk > 0) release(last_stage);
    last_stage = stage;
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
  wgmma_wait<0>();
  keep(sum);
}

/** Sums to where the ring was, which the block has read, by rows of x. */
__device__ __forceinline__ void place_sums(uint32_t place, const float (&sum)[kRows / 8][4], int warp,
                                           int lane) {
  const int column = warp * 16 + lane / 4;
#pragma unroll
  for (int j = 0; j < kRows / 8; j++) {
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const uint32_t to = place + (j * 8 + lane % 4 * 2 + e) * kSumRowBytes + column * 4;
      store_shared(to, __float_as_uint(sum[j][e]));
      store_shared(to + 8 * 4, __float_as_uint(sum[j][2 + e]));
    }
  }
}

template <typename T, typename Tile>
__device__ __forceinline__ void write_silu(const Tile& tile, uint32_t place) {
  const VtCudaLinear& args = tile.args;
  const int gate = threadIdx.x % 4 * 16;  // its column; that of up is 8 further on
#pragma unroll
  for (int row = threadIdx.x / 4; row < kRows; row += kFolders / 4) {
    const int m = tile.m0 + row;
    if (m >= args.m || tile.n0 + gate >= args.n) continue;
    float out[8];
    float up[8];
    load_sums(out, place + row * kSumRowBytes + gate * 4);
    load_sums(up, place + row * kSumRowBytes + (gate + 8) * 4);
#pragma unroll
    for (int e = 0; e < 8; e++) {
      // Between two ops there is a rounding.
      out[e] = silu_times(to_f32(from_f32<T>(out[e])), to_f32(from_f32<T>(up[e])));
    }
    store8(static_cast<T*>(args.out) + static_cast<int64_t>(m) * args.out_stride +
               (tile.n0 + gate) / 2,
           out);
  }
}

/** A warpgroup: the block's products and their end. */
template <typename T, typename Tile>
__device__ __forceinline__ void fold_and_write(const Tile& tile) {
  wait_for_previous();
  float sum[kRows / 8][4];
  fold<T>(tile, sum, threadIdx.x % 32);
  sync_first<kFolders>();
  const uint32_t place = tile.base + kRing;
  place_sums(place, sum, threadIdx.x / 32, threadIdx.x % 32);
  sync_first<kFolders>();
  write_silu<T>(tile, place);
}

template <typename T, typename Tile>
__global__ void __launch_bounds__(kThreads)
    linear_decode_kernel(const __grid_constant__ Params params) {
#if VT_HAS_WGMMA
  extern __shared__ __align__(1024) uint8_t shared[];
  const Tile tile(params.args, shared_address(shared));
  start_next();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; stage++) {
      barrier_init(tile.full(stage), 1);
      barrier_init(tile.empty(stage), Tile::kPeers * kFolders / 32);
    }
    fence_barrier_init();
    prefetch_map(&params.x);
    prefetch_map(&params.weight);
  }
  cluster_sync();
  if (threadIdx.x < kFolders) {
    fold_and_write<T>(tile);
  } else if (threadIdx.x == kFolders) {
    fetch(params, tile);
  }
  // Others may still arrive on this block's barriers.
  cluster_sync();
#endif
}

template <typename T, typename Tile>
int launch_tiles(const VtCudaLinear& args, void* stream) {
  Params params = {};
  params.args = args;
  if (make_panel_map(&params.x, args.x, args.m, args.k, args.x_stride, Tile::kXPart) != 0 ||
      make_panel_map(&params.weight, args.weight, args.n, args.k, args.weight_stride,
                     Tile::kWeightPart) != 0) {
    return -1;
  }
  const int of_n = kWeightRows * Tile::kAlongN;
  const int of_m = kRows * Tile::kAlongX;
  const int clusters = (args.n + of_n - 1) / of_n * ((args.m + of_m - 1) / of_m);
  return launch_clusters("linear", linear_decode_kernel<T, Tile>, Tile::kCluster,
                         dim3(clusters * Tile::kCluster), dim3(kThreads), kBytes, args.flags, stream,
                         params);
}

template <typename T>
int launch_by_rows(const VtCudaLinear& args, void* stream) {
  return args.m <= kRows ? launch_tiles<T, Tile<1, 4>>(args, stream)
                         : launch_tiles<T, Tile<2, 4>>(args, stream);
}

}  // namespace

bool linear_decode_takes(const VtCudaLinear& args) {
  return args.epilogue == VT_CUDA_SILU_AND_MUL && args.bias == nullptr && linear_wgmma_takes(args);
}

bool linear_decode_is_ahead(const VtCudaLinear& args) {
  return args.m > 64 && args.m <= kMostRows && args.k <= kMostColumns &&
         static_cast<int64_t>(args.n) * args.k <= kMostWeights && linear_decode_takes(args);
}

int linear_decode(const VtCudaLinear& args, void* stream) {
  return args.dtype == VT_CUDA_F16 ? launch_by_rows<__half>(args, stream)
                                   : launch_by_rows<__nv_bfloat16>(args, stream);
}

}  // namespace vt
