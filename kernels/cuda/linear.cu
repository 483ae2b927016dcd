// linear: checks a call and picks the kernel of its class of m. All of them give the same bits for
// the same row of x: one f32 chain an output, k ascending by 16.
#include "group_check.h"
#include "linear_best.cuh"
#include "linear_late.cuh"
#include "linear_send.cuh"
#include "linear_x.cuh"

namespace {

using vt::fail;

/**
 * From so many rows on siluAndMul behind our own kernel beats cuBLASLt and the op (docs/kernels.md).
 * ropeAndCache behind it does not: its op costs little beside a linear of few columns.
 */
constexpr int kFusedSiluRows = 2048;
/** And where a step's rows are about those of one tile, for weights that take long to read. */
constexpr int kTileRows = 256;
constexpr int kMostRowsBelowTile = 192;
constexpr int64_t kTileWeights = int64_t{32} << 20;

int check(const VtCudaLinear& a) {
  VT_REQUIRE(a.m > 0 && a.n > 0 && a.k > 0, "linear: m %d, n %d, k %d must be positive", a.m, a.n,
             a.k);
  VT_REQUIRE(a.k % 16 == 0, "linear: k %d is not a multiple of 16", a.k);
  VT_REQUIRE(a.dtype == VT_CUDA_F16 || a.dtype == VT_CUDA_BF16, "linear: dtype %d", a.dtype);
  VT_REQUIRE(a.out_dtype == a.dtype || a.out_dtype == VT_CUDA_F32, "linear: out dtype %d",
             a.out_dtype);
  VT_REQUIRE(a.large >= VT_CUDA_LARGE_MMA && a.large <= VT_CUDA_LARGE_CLUSTER_2,
             "linear: large %d", a.large);
  return 0;
}

/** Whether wgmma serves, which is asked for and built. */
bool by_wgmma(const VtCudaLinear& a) {
  return a.m > 64 && a.large != VT_CUDA_LARGE_MMA && vt::target() == vt::Target::sm_90a &&
         vt::linear_wgmma_takes(a);
}

/** Whether siluAndMul behind linear_wgmma beats cuBLASLt and the op (docs/kernels.md). */
bool silu_pays(const VtCudaLinear& a) {
  const bool fills_a_tile = a.m > kMostRowsBelowTile && a.m <= kTileRows &&
                            a.large == VT_CUDA_LARGE_CLUSTER_2 &&
                            static_cast<int64_t>(a.n) * a.k >= kTileWeights;
  return a.m >= kFusedSiluRows || fills_a_tile;
}

/** Whether the kernel for decode batches serves, which is ahead of cuBLASLt there. */
bool by_decode(const VtCudaLinear& a) {
  return a.large == VT_CUDA_LARGE_CLUSTER_2 && vt::target() == vt::Target::sm_90a &&
         vt::linear_decode_is_ahead(a);
}

/** Of a norm with a late scale: in front, and behind. */
int check_late(const VtCudaLinear& a) {
  if (a.row_scale != nullptr || a.x_squares != nullptr) {
    VT_REQUIRE(a.norm_weight == nullptr && a.bias == nullptr && a.residual == nullptr &&
                   a.out_dtype == a.dtype && (a.row_scale == nullptr || a.x_squares == nullptr),
               "linear: a late scale with another norm of x, a bias, a residual or f32 output");
    VT_REQUIRE(a.m <= 64 ? a.dtype == VT_CUDA_BF16 : a.epilogue == VT_CUDA_SILU_AND_MUL,
               "linear: row_scale is not built for m %d, dtype %d and epilogue %d", a.m, a.dtype,
               a.epilogue);
    VT_REQUIRE(a.x_squares == nullptr ||
                   (a.m <= vt::kMostSquareRows && a.k <= vt::kMostSquareColumns),
               "linear: a scale from squares is not built for m %d, k %d: at most %d and %d", a.m,
               a.k, vt::kMostSquareRows, vt::kMostSquareColumns);
  }
  const bool gives = a.out_squares != nullptr;
  VT_REQUIRE(gives == (a.out_gain != nullptr) && gives == (a.gained != nullptr),
             "linear: out_gain, gained and out_squares go together");
  VT_REQUIRE(!gives || (a.m <= vt::kMostSquareRows && a.n <= vt::kMostSquareColumns &&
                        a.n % 8 == 0 && a.epilogue == VT_CUDA_PLAIN && a.dtype == VT_CUDA_BF16 &&
                        a.out_dtype == a.dtype && a.residual != nullptr && a.bias == nullptr &&
                        a.norm_weight == nullptr && a.row_scale == nullptr &&
                        a.x_squares == nullptr),
             "linear: squares are not built for m %d, n %d (at most %d and %d), epilogue %d", a.m,
             a.n, vt::kMostSquareRows, vt::kMostSquareColumns, a.epilogue);
  return 0;
}

/** Whether one launch can do what the prologue and epilogue ask; says why not. */
int check_fusion(const VtCudaLinear& a) {
  if (a.norm_weight != nullptr) {
    VT_REQUIRE(a.m <= vt::kMaxHeldNormRows && a.k <= vt::kMaxHeldNormColumns,
               "linear: a norm of x is not built for m %d, k %d: at most %d and %d", a.m, a.k,
               vt::kMaxHeldNormRows, vt::kMaxHeldNormColumns);
  }
  if (check_late(a) != 0) return -1;
  if (a.epilogue == VT_CUDA_PLAIN) return 0;
  VT_REQUIRE(a.epilogue == VT_CUDA_SILU_AND_MUL || a.epilogue == VT_CUDA_ROPE_AND_CACHE,
             "linear: epilogue %d", a.epilogue);
  VT_REQUIRE(a.m <= 64 || by_wgmma(a),
             "linear: epilogue %d is not built for m %d and head_dim %d by large %d", a.epilogue,
             a.m, a.head_dim, a.large);
  VT_REQUIRE(a.residual == nullptr && a.out_dtype == a.dtype,
             "linear: epilogue %d with a residual or f32 output", a.epilogue);
  if (a.epilogue == VT_CUDA_SILU_AND_MUL) {
    VT_REQUIRE(a.n % 16 == 0, "linear: siluAndMul of n %d, which is not a multiple of 16", a.n);
    return 0;
  }
  VT_REQUIRE(a.head_dim > 0 && a.head_dim % 16 == 0 && a.num_heads > 0 && a.num_kv_heads > 0 &&
                 a.n == (a.num_heads + 2 * a.num_kv_heads) * a.head_dim,
             "linear: ropeAndCache of n %d, %d heads and %d KV heads of %d (a multiple of 16)", a.n,
             a.num_heads, a.num_kv_heads, a.head_dim);
  VT_REQUIRE(a.layer >= 0 && a.layer < a.num_layers && a.block_size > 0,
             "linear: ropeAndCache of layer %d of %d, block_size %d", a.layer, a.num_layers,
             a.block_size);
  return 0;
}

/** All of it: shapes, what is fused, strides and alignment. */
int check_call(const VtCudaLinear& a) {
  if (check(a) != 0 || check_fusion(a) != 0) return -1;
  const int out_columns = a.epilogue == VT_CUDA_SILU_AND_MUL     ? a.n / 2
                          : a.epilogue == VT_CUDA_ROPE_AND_CACHE ? a.num_heads * a.head_dim
                                                                 : a.n;
  VT_REQUIRE(a.x_stride >= a.k && a.weight_stride >= a.k && a.out_stride >= out_columns,
             "linear: a row stride is shorter than its row");
  VT_REQUIRE(vt::aligned16(a.x, a.x_stride) && vt::aligned16(a.weight, a.weight_stride) &&
                 vt::aligned16(a.norm_weight, 0),
             "linear: rows of x and weight must be 16-byte aligned");
  VT_REQUIRE(a.epilogue != VT_CUDA_ROPE_AND_CACHE ||
                 (vt::aligned16(a.cos_sin, 0) && vt::aligned16(a.kv_cache, 0)),
             "linear: cos_sin and kv_cache must be 16-byte aligned");
  return 0;
}

int linear_skinny(const VtCudaLinear& a, void* stream, const vt::Outbox* outbox = nullptr) {
  if (a.row_scale != nullptr || a.x_squares != nullptr || a.out_squares != nullptr)
    return vt::linear_skinny_late(a, stream);
  return a.dtype == VT_CUDA_F16 ? vt::linear_skinny_f16(a, stream, outbox)
                                : vt::linear_skinny_bf16(a, stream, outbox);
}

}  // namespace

extern "C" int vt_cuda_linear_fuses(const VtCudaLinear* args) {
  if (check(*args) != 0 || check_fusion(*args) != 0) return 0;
  if (args->m > 64 && args->epilogue != VT_CUDA_PLAIN) {
    return args->epilogue == VT_CUDA_SILU_AND_MUL &&
                   (silu_pays(*args) || by_decode(*args))
               ? 1
               : 0;
  }
  return 1;
}

extern "C" int vt_cuda_linear_is_ahead(const VtCudaLinear* args) {
  return check(*args) == 0 && check_fusion(*args) == 0 && by_decode(*args) ? 1 : 0;
}

extern "C" int vt_cuda_linear(const VtCudaLinear* args, void* stream) {
  const VtCudaLinear& a = *args;
  if (check_call(a) != 0) return -1;
  if (by_decode(a)) return vt::linear_decode(a, stream);
  if (by_wgmma(a)) return vt::linear_wgmma(a, stream);
  if (a.m > 64) return vt::linear_large(a, stream);
  return linear_skinny(a, stream);
}

extern "C" int vt_cuda_linear_num_best(const VtCudaLinear* args) {
  const VtCudaLinear& a = *args;
  if (check(a) != 0 || check_fusion(a) != 0 || a.out_dtype != VT_CUDA_F32 || a.bias != nullptr ||
      a.residual != nullptr || a.row_scale != nullptr || a.x_squares != nullptr ||
      a.epilogue != VT_CUDA_PLAIN || a.m > VT_CUDA_MAX_BEST_ROWS || !by_wgmma(a)) {
    return 0;
  }
  const int num_best = vt::linear_wgmma_num_best(a);
  return num_best <= VT_CUDA_MAX_BEST ? num_best : 0;
}

extern "C" int vt_cuda_linear_for_sample(const VtCudaLinear* args, const VtCudaSample* sample,
                                         void* stream) {
  const VtCudaLinear& a = *args;
  if (check_call(a) != 0) return -1;
  VT_REQUIRE(sample->best != nullptr && sample->num_best == vt_cuda_linear_num_best(args) &&
                 sample->num_best > 0 && sample->num_rows == a.m && sample->vocab_size >= 0 &&
                 sample->vocab_size <= a.n && sample->vocab_size % 8 == 0,
             "linear: %d best ids of %d rows of %d for a sampler of %d rows of %d (a multiple of 8)",
             sample->num_best, a.m, a.n, sample->num_rows, sample->vocab_size);
  return vt::linear_wgmma_for_sample(a, *sample, stream);
}

extern "C" int vt_cuda_linear_sends(const VtCudaLinear* args, const VtCudaGroup* group) {
  const VtCudaLinear& a = *args;
  return check(a) == 0 && a.m <= vt::kMostSentRows && a.out_dtype == VT_CUDA_F32 &&
                 a.bias == nullptr && a.residual == nullptr && a.norm_weight == nullptr &&
                 a.row_scale == nullptr && a.x_squares == nullptr && a.out_squares == nullptr &&
                 vt::target() >= vt::Target::sm_90 && vt::linear_skinny_sends(a) &&
                 vt::may_be_sent(*group, a.m, a.n)
             ? 1
             : 0;
}

extern "C" int vt_cuda_linear_send(const VtCudaLinear* args, const VtCudaGroup* group,
                                   int32_t ordinal, void* stream) {
  if (check_call(*args) != 0 || vt::check_group("linear", *group) != 0) return -1;
  VT_REQUIRE(vt_cuda_linear_sends(args, group) == 1,
             "linear: m %d, n %d, or what else it does, keep it from sending its sums", args->m,
             args->n);
  const vt::Outbox outbox = {*group, ordinal};
  return linear_skinny(*args, stream, &outbox);
}
