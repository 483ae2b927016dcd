// linear for decode batches, 65 to 256 rows: beside the bytes of its weight what it takes is its
// start, one chain of products and its end, and dependent launch hides the first of these, which it
// cannot do for cuBLASLt's kernels.
//
// What it computes: as linear_skinny, the same chain an output: wgmma adds 16 products to an
// accumulator as mma.sync does, k ascending. The weight's rows are wgmma's 64, or x's are.
//
// Launch: a block has some rows of the weight (gate and up of half as many columns) and some of x,
// for the whole of k. Small weights: 64 rows of the weight, and rows of x so that blocks are about as
// many as multiprocessors. Large ones: as few rows of the weight as let all clusters run at once.
#include "linear_decode_ring.cuh"

namespace vt {
namespace {

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
  if (F::kOfX || tile.args.epilogue != VT_CUDA_SILU_AND_MUL) {
    place_sums(tile, sum, threadIdx.x / 32, threadIdx.x % 32);
    sync_first<F::kFolders>();
    write_plain<T>(tile, residual);
  } else if constexpr (!F::kOfX) {
    if (tile.args.row_scale == nullptr) {
      write_silu<T, false>(tile, sum);
    } else {
      write_silu<T, true>(tile, sum);
    }
  }
}

template <typename T, typename F>
__global__ void __launch_bounds__(F::kFolders + 32)
    linear_decode_kernel(const __grid_constant__ DecodeParams params) {
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

template <typename F>
int num_clusters(const VtCudaLinear& args) {
  const int of_n = F::kWeightRows * F::kAlongN;
  const int of_m = F::kRows * F::kAlongX;
  return (args.n + of_n - 1) / of_n * ((args.m + of_m - 1) / of_m);
}

template <typename T, typename F>
int launch_form(const VtCudaLinear& args, void* stream) {
  DecodeParams params = {};
  params.args = args;
  if (make_panel_map(&params.x, args.x, args.m, args.k, args.x_stride, F::kRows) != 0 ||
      make_panel_map(&params.weight, args.weight, args.n, args.k, args.weight_stride,
                     F::kWeightRows) != 0) {
    return -1;
  }
  return launch_clusters("linear", linear_decode_kernel<T, F>, F::kCluster,
                         dim3(num_clusters<F>(args) * F::kCluster), dim3(F::kFolders + 32),
                         F::kBytes, args.flags, stream, params);
}

// Small weights: where it is ahead of cuBLASLt, and of the op behind it (docs/kernels.md).
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
  return rows <= 48    ? launch_form<T, DecodeForm<64, 48, 2, 4>>(args, stream)
         : rows <= 64  ? launch_form<T, DecodeForm<64, 64, 2, 4>>(args, stream)
         : rows <= 72  ? launch_form<T, DecodeForm<64, 72, 2, 4>>(args, stream)
         : rows <= 80  ? launch_form<T, DecodeForm<64, 80, 2, 4>>(args, stream)
         : rows <= 96  ? launch_form<T, DecodeForm<64, 96, 2, 4>>(args, stream)
         : rows <= 104 ? launch_form<T, DecodeForm<64, 104, 2, 4>>(args, stream)
         : rows <= 112 ? launch_form<T, DecodeForm<64, 112, 2, 4>>(args, stream)
                       : launch_form<T, DecodeForm<64, 128, 2, 4>>(args, stream);
}

/** Up to eight tiles of x, where the weight has few rows. */
template <typename T>
int launch_narrow(const VtCudaLinear& args, void* stream) {
  const int rows = (args.m + 7) / 8;
  return rows <= 16   ? launch_form<T, DecodeForm<64, 16, 4, 2>>(args, stream)
         : rows <= 24 ? launch_form<T, DecodeForm<64, 24, 4, 2>>(args, stream)
                      : launch_form<T, DecodeForm<64, 32, 4, 2>>(args, stream);
}

/** Up to so many rows of the weight two tiles of x would leave most multiprocessors idle. */
constexpr int kNarrow = 1024;

bool is_small(const VtCudaLinear& args) {
  const bool has_silu = args.epilogue == VT_CUDA_SILU_AND_MUL;
  return args.m <= (has_silu ? kMostRowsOfSilu : kMostRows) && args.out_dtype == args.dtype &&
         args.k <= (args.n <= kNarrow ? kMostColumns : kMostColumnsOfWide) &&
         static_cast<int64_t>(args.n) * args.k <= kMostWeights;
}

// Large weights, where all linears of a layer gain together; they have a multiprocessor's room.
constexpr int kMostRowsOfLarge = 192;
constexpr int kLeastColumns = 2048;
constexpr int kLeastWeightRows = 3072;
constexpr int64_t kLeastWeights = int64_t{8} << 20;
constexpr int64_t kLeastWeightsOfSilu = int64_t{48} << 20;

using Narrow128 = DecodeForm<72, 64, 2, 4, 200, true>;
using Wide128 = DecodeForm<104, 64, 2, 4, 200, true>;
using Silu128 = DecodeForm<64, 128, 1, 4>;
using Narrow256 = DecodeForm<72, 128, 2, 4, 200, true>;
using Wide192 = DecodeForm<128, 96, 2, 2, 200>;

/** Named for the most rows of x of its cluster, numbered as `tuning` asks for them. */
enum Large { kNone, kNarrow128, kWide128, kSilu128, kNarrow256, kWide192 };

/** Whether all its clusters run at once: a second round of a few takes as long as the first. */
template <typename T, typename F>
bool one_round(const VtCudaLinear& args) {
  static const int most = max_clusters(linear_decode_kernel<T, F>, F::kCluster,
                                       dim3(F::kFolders + 32), F::kBytes);
  return num_clusters<F>(args) <= most;
}

/** Without an end the form that has the fewest rows of the weight in a block and runs at once. */
template <typename T>
Large choose_large(const VtCudaLinear& args) {
  const bool few = args.m <= 128;
  const int64_t weights = static_cast<int64_t>(args.n) * args.k;
  const bool has_silu = args.epilogue == VT_CUDA_SILU_AND_MUL;
  if (args.m > kMostRowsOfLarge || args.k < kLeastColumns || args.n < kLeastWeightRows ||
      weights < (has_silu ? kLeastWeightsOfSilu : kLeastWeights)) {
    return kNone;
  }
  if (has_silu) return few ? kSilu128 : kWide192;
  if (few) {
    return one_round<T, Narrow128>(args) ? kNarrow128
           : one_round<T, Wide128>(args) ? kWide128
                                         : kNone;
  }
  return one_round<T, Narrow256>(args) ? kNarrow256
         : one_round<T, Wide192>(args) ? kWide192
                                       : kNone;
}

Large large_form(const VtCudaLinear& args) {
  if (args.tuning > 0 && args.tuning <= kWide192) {
    const Large asked = static_cast<Large>(args.tuning);
    const bool joins = asked == kSilu128 || asked == kWide192;
    return joins || args.epilogue != VT_CUDA_SILU_AND_MUL ? asked : kNone;
  }
  if (is_small(args)) return kNone;
  return args.dtype == VT_CUDA_F16 ? choose_large<__half>(args)
                                   : choose_large<__nv_bfloat16>(args);
}

template <typename T>
int launch_decode(const VtCudaLinear& args, void* stream) {
  switch (large_form(args)) {
    case kNarrow128:
      return launch_form<T, Narrow128>(args, stream);
    case kWide128:
      return launch_form<T, Wide128>(args, stream);
    case kSilu128:
      return launch_form<T, Silu128>(args, stream);
    case kNarrow256:
      return launch_form<T, Narrow256>(args, stream);
    case kWide192:
      return launch_form<T, Wide192>(args, stream);
    case kNone:
      break;
  }
  return args.n <= kNarrow ? launch_narrow<T>(args, stream) : launch_wide<T>(args, stream);
}

}  // namespace

bool linear_decode_takes(const VtCudaLinear& args) {
  return args.epilogue != VT_CUDA_ROPE_AND_CACHE && args.bias == nullptr &&
         (args.out_dtype == args.dtype || args.epilogue == VT_CUDA_PLAIN) &&
         linear_wgmma_takes(args);
}

bool linear_decode_is_ahead(const VtCudaLinear& args) {
  return args.m > 64 && linear_decode_takes(args) &&
         (is_small(args) || large_form(args) != kNone);
}

int linear_decode(const VtCudaLinear& args, void* stream) {
  return args.dtype == VT_CUDA_F16 ? launch_decode<__half>(args, stream)
                                   : launch_decode<__nv_bfloat16>(args, stream);
}

}  // namespace vt
