// What linear_skinny and its launch agree on: parameters, and places in a block's shared memory.
#ifndef VT_CUDA_LINEAR_SKINNY_PARAMS_CUH_
#define VT_CUDA_LINEAR_SKINNY_PARAMS_CUH_

#include "linear_late.cuh"
#include "linear_send.cuh"
#include "linear_x.cuh"

namespace vt {

constexpr int kMaxStages = 16;
constexpr int kMaxWarps = 8;
/** Barriers (weights there, stage free, x there), a flag, one more, then what a norm needs. */
constexpr int kHeaderBytes = 1024;
constexpr int kXFull = 2 * kMaxStages * 8;
constexpr int kHasX = 3 * kMaxStages * 8;
constexpr int kScalesThere = kHasX + 8;
constexpr int kScales = 512;  // 64 rows
constexpr int kNormSums = kScales + 64 * 4;

/** What a kernel of linear_skinny does besides: each is built by itself, without code of others. */
enum class Ends {
  as_asked,     // bias, residual, epilogues; a norm of x
  sends,        // sums go to all ranks
  gives,        // residual, and what a norm with a late scale behind needs
  scales,       // a late scale
  scales_silu,  // and the epilogue
  scales_rope,
};

template <Ends kEnds>
constexpr bool kTakesScale = kEnds >= Ends::scales;

struct SkinnyParams {
  VtCudaLinear args;
  int units;  // of the weight
  int warps;  // that multiply
  int num_stages;
  int stages_ahead;    // at most so many are under way until x is there
  int stages_left;     // with so many left to be asked for, the next kernel is let in
  int x_rows;          // kHoldsX: m; else rows of a stage's box
  int x_stride;        // kHoldsX: bytes between rows
  bool pairs;          // neighbours in out are aligned to be stored together
  int folders;         // kTakesScale: last warps, which see to the scales
  CUtensorMap weight;  // [column][row][half of a head, or 1][group of 64 columns, or 1]
  CUtensorMap x;
  Outbox outbox;       // Ends::sends
};

/**
 * The call as a kernel reads it: what the ends leave out is known not to be there, so that no code
 * is left of it.
 */
template <Ends kEnds>
__device__ __forceinline__ decltype(auto) args_of(const SkinnyParams& params) {
  if constexpr (kEnds < Ends::gives) {
    return (params.args);
  } else {
    VtCudaLinear args = params.args;
    args.bias = nullptr;
    args.norm_weight = nullptr;
    args.out_dtype = VT_CUDA_BF16;
    args.epilogue = kEnds == Ends::scales_silu   ? VT_CUDA_SILU_AND_MUL
                    : kEnds == Ends::scales_rope ? VT_CUDA_ROPE_AND_CACHE
                                                 : VT_CUDA_PLAIN;
    if (kEnds != Ends::gives) args.residual = nullptr;
    return args;
  }
}

/** What one batch of columns needs in registers: the m16 operand by 16 columns, the other by 32. */
template <bool kWide, int kXTiles, int kBatch>
struct Fragments {
  uint32_t weight[kBatch / (kWide ? 16 : 32)][4];
  uint32_t x[kXTiles][kBatch / (kWide ? 32 : 16)][4];
};

}  // namespace vt

#endif  // VT_CUDA_LINEAR_SKINNY_PARAMS_CUH_
