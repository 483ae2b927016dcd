// linear for decode batches, 65 to 256 rows, of weights that are small: what it takes is its start,
// one chain of products and its end, and dependent launch hides the first of these, which it cannot
// do for cuBLASLt's kernels.
//
// What it computes: as linear_skinny, the same chain an output: wgmma adds 16 products to an
// accumulator as mma.sync does, k ascending. The weight's rows are wgmma's 64.
//
// Launch: a block has 64 rows of the weight (gate and up of 32 columns) and kRows of x, for the whole
// of k; kRows is chosen so that blocks are about as many as multiprocessors. Blocks of a cluster
// share what they fetch by multicast, stage by stage in turn: kAlongX of them the weight's rows,
// kAlongN the rows of x. A warp fetches stages of 64 columns, the weight's part of the first ones
// while the kernel in front is still at work; a warpgroup folds them.
#include "linear_decode_tile.cuh"

namespace vt {
namespace {

struct Params {
  VtCudaLinear args;
  CUtensorMap x, weight;
};

/** Blocks of the cluster from `first` on, `step` apart, as a mask. */
template <int kCount>
__device__ __forceinline__ unsigned ranks_from(int first, int step) {
  unsigned ranks = 0;
#pragma unroll
  for (int i = 0; i < kCount; i++) ranks |= 1u << (first + i * step);
  return ranks;
}

/** One thread: the block's turns of all stages. */
template <typename F>
__device__ __forceinline__ void fetch(const Params& params, const DecodeTile<F>& tile) {
  const uint64_t keep = evict_last_policy();
  const uint64_t once = evict_first_policy();
  const unsigned weight_ranks = ranks_from<F::kAlongX>(tile.rank_n * F::kAlongX, 1);
  const unsigned x_ranks = ranks_from<F::kAlongN>(tile.rank_x, F::kAlongX);
  const auto fetch_weight = [&](int stage, int chunk) {
    if (chunk % F::kAlongX != tile.rank_x) return;
    copy_box_to(weight_ranks, tile.weight_of(stage), &params.weight,
                {chunk * kPanelColumns, tile.n0, 0, 0}, tile.full(stage), once);
  };
  const auto fetch_x = [&](int stage, int chunk) {
    if (chunk % F::kAlongN != tile.rank_n) return;
    copy_box_to(x_ranks, tile.x_of(stage), &params.x, {chunk * kPanelColumns, tile.m0, 0, 0},
                tile.full(stage), keep);
  };
  const int ahead = min(tile.chunks, F::kStages);
  for (int i = 0; i < ahead; i++) {
    barrier_expect(tile.full(i), F::kStageBytes);
    fetch_weight(i, i);
  }
  wait_for_previous();
  for (int i = 0; i < ahead; i++) fetch_x(i, i);
  int stage = 0;
  int parity = 0;
  for (int chunk = ahead; chunk < tile.chunks; chunk++) {
    // Of all peers: what this block fetches goes to each of them.
    barrier_wait(tile.empty(stage), parity);
    barrier_expect(tile.full(stage), F::kStageBytes);
    fetch_weight(stage, chunk);
    fetch_x(stage, chunk);
    if (++stage == F::kStages) stage = 0, parity ^= 1;
  }
}

/** The products of all stages. */
template <typename T, typename F>
__device__ __forceinline__ void fold(const DecodeTile<F>& tile, DecodeSums<F>& sum, int lane) {
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane < F::kPeers) {
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
    for (int k = 0; k < kPanelColumns / 16; k++) {
      wgmma<T>(sum, along_k(tile.weight_of(stage), F::kWeightRows, k),
               along_k(tile.x_of(stage), F::kRows, k), k > 0 || chunk > 0);
    }
    wgmma_commit();
    wgmma_wait<1>();
    // Where it is filled again.
    if (chunk > 0 && chunk - 1 + F::kStages < tile.chunks) release(last_stage);
    last_stage = stage;
    if (++stage == F::kStages) stage = 0, parity ^= 1;
  }
  wgmma_wait<0>();
  keep(sum);
}

/** A warpgroup: the block's products and their end. */
template <typename T, typename F>
__device__ __forceinline__ void fold_and_write(const DecodeTile<F>& tile) {
  wait_for_previous();
  DecodeResidual<F> residual;
  load_residual<T>(tile, residual);
  put_scales(tile);
  DecodeSums<F> sum;
  fold<T>(tile, sum, threadIdx.x % 32);
  cluster_arrive_relaxed();
  sync_first<F::kFolders>();
  if (tile.args.epilogue != VT_CUDA_SILU_AND_MUL) {
    place_sums(tile, sum, threadIdx.x / 32, threadIdx.x % 32);
    sync_first<F::kFolders>();
    write_plain<T>(tile, residual);
  } else if (tile.args.row_scale == nullptr) {
    write_silu<T, false>(tile, sum);
  } else {
    write_silu<T, true>(tile, sum);
  }
}

template <typename T, typename F>
__global__ void __launch_bounds__(F::kFolders + 32)
    linear_decode_kernel(const __grid_constant__ Params params) {
#if VT_HAS_WGMMA
  extern __shared__ __align__(1024) uint8_t shared[];
  const DecodeTile<F> tile(params.args, shared_address(shared));
  start_next();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < F::kStages; stage++) {
      barrier_init(tile.full(stage), 1);
      barrier_init(tile.empty(stage), F::kPeers * F::kFolders / 32);
    }
    fence_barrier_init();
    prefetch_map(&params.x);
    prefetch_map(&params.weight);
  }
  cluster_sync();
  if (threadIdx.x < F::kFolders) {
    fold_and_write<T>(tile);
  } else {
    if (threadIdx.x == F::kFolders) fetch(params, tile);
    __syncwarp();
    cluster_arrive_relaxed();
  }
  // What this block fetched for others may still be on its way to them.
  cluster_wait();
#endif
}

template <typename T, typename F>
int launch_form(const VtCudaLinear& args, void* stream) {
  Params params = {};
  params.args = args;
  if (make_panel_map(&params.x, args.x, args.m, args.k, args.x_stride, F::kRows) != 0 ||
      make_panel_map(&params.weight, args.weight, args.n, args.k, args.weight_stride,
                     F::kWeightRows) != 0) {
    return -1;
  }
  const int of_n = F::kWeightRows * F::kAlongN;
  const int of_m = F::kRows * F::kAlongX;
  const int clusters = (args.n + of_n - 1) / of_n * ((args.m + of_m - 1) / of_m);
  return launch_clusters("linear", linear_decode_kernel<T, F>, F::kCluster,
                         dim3(clusters * F::kCluster), dim3(F::kFolders + 32), F::kBytes,
                         args.flags, stream, params);
}

// Where it is ahead of cuBLASLt, and of the op behind it (docs/kernels.md).
constexpr int kMostRows = 224;
/** With siluAndMul behind it, whose launch it saves. */
constexpr int kMostRowsOfSilu = 256;
constexpr int kMostColumns = 3072;
constexpr int kMostColumnsOfWide = 1024;
constexpr int64_t kMostWeights = int64_t{8} << 20;

/** Two tiles of x up to kMostRowsOfSilu. */
template <typename T>
int launch_wide(const VtCudaLinear& args, void* stream) {
  const int rows = (args.m + 1) / 2;
  return rows <= 48    ? launch_form<T, DecodeForm<48, 2, 4>>(args, stream)
         : rows <= 64  ? launch_form<T, DecodeForm<64, 2, 4>>(args, stream)
         : rows <= 72  ? launch_form<T, DecodeForm<72, 2, 4>>(args, stream)
         : rows <= 80  ? launch_form<T, DecodeForm<80, 2, 4>>(args, stream)
         : rows <= 96  ? launch_form<T, DecodeForm<96, 2, 4>>(args, stream)
         : rows <= 104 ? launch_form<T, DecodeForm<104, 2, 4>>(args, stream)
         : rows <= 112 ? launch_form<T, DecodeForm<112, 2, 4>>(args, stream)
                       : launch_form<T, DecodeForm<128, 2, 4>>(args, stream);
}

/** Up to eight tiles of x, where the weight has few rows. */
template <typename T>
int launch_narrow(const VtCudaLinear& args, void* stream) {
  const int rows = (args.m + 7) / 8;
  return rows <= 16   ? launch_form<T, DecodeForm<16, 4, 2>>(args, stream)
         : rows <= 24 ? launch_form<T, DecodeForm<24, 4, 2>>(args, stream)
                      : launch_form<T, DecodeForm<32, 4, 2>>(args, stream);
}

/** Up to so many rows of the weight two tiles of x would leave most multiprocessors idle. */
constexpr int kNarrow = 1024;

template <typename T>
int launch_decode(const VtCudaLinear& args, void* stream) {
  return args.n <= kNarrow ? launch_narrow<T>(args, stream) : launch_wide<T>(args, stream);
}

}  // namespace

bool linear_decode_takes(const VtCudaLinear& args) {
  return args.epilogue != VT_CUDA_ROPE_AND_CACHE && args.bias == nullptr &&
         args.out_dtype == args.dtype && linear_wgmma_takes(args);
}

bool linear_decode_is_ahead(const VtCudaLinear& args) {
  const bool has_silu = args.epilogue == VT_CUDA_SILU_AND_MUL;
  return args.m > 64 && args.m <= (has_silu ? kMostRowsOfSilu : kMostRows) &&
         args.k <= (args.n <= kNarrow ? kMostColumns : kMostColumnsOfWide) &&
         static_cast<int64_t>(args.n) * args.k <= kMostWeights && linear_decode_takes(args);
}

int linear_decode(const VtCudaLinear& args, void* stream) {
  return args.dtype == VT_CUDA_F16 ? launch_decode<__half>(args, stream)
                                   : launch_decode<__nv_bfloat16>(args, stream);
}

}  // namespace vt
