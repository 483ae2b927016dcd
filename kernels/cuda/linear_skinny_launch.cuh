// The host's side of linear_skinny: which of its kernels a shape takes, and their tensor maps.
#ifndef VT_CUDA_LINEAR_SKINNY_LAUNCH_CUH_
#define VT_CUDA_LINEAR_SKINNY_LAUNCH_CUH_

#include "linear_skinny.cuh"

namespace vt {

/** Shared memory of a block where two are to fit on a multiprocessor, and where it is alone. */
constexpr int kLimitShared = 112 * 1024;
constexpr int kLimitAlone = 216 * 1024;
/** Two blocks of so much never lie on one multiprocessor; one fits beside one of kLimitShared. */
constexpr int kApart = 114 * 1024;
/** Linears of more columns are kept apart in a step. */
constexpr int kMostTogether = 2048;
/** What gate and up take, the most of a layer, where they are kept apart. */
constexpr int kLimitApart = 160 * 1024;
/** What the head takes, for one or two rows: what stands behind it has no weights to fetch. */
constexpr int kLeastHead = 65536;
constexpr int kLimitHead = 144 * 1024;
/** What others of many columns take where they are kept apart, for one or two rows. */
constexpr int kLimitWide = 128 * 1024;
/**
 * What a rank's part of a sum takes, one or two rows of it: the collective behind it waits for small
 * reads, and so fewer weights are to be under way.
 */
constexpr int kLimitPart = 96 * 1024;

/** Bytes of weights that a block has under way until its x is there; of a short x with a norm. */
constexpr int kBytesAhead = 32 * 1024;
constexpr int kBytesAheadOfNorm = 16 * 1024;

/** Two rows of x are held where they are no longer than this; else they take the room of stages. */
constexpr int kMostHeldByTwo = 2048;

/**
 * Bytes of weights that a block has left to ask for when it lets the next kernel in: a third of its
 * own, within these (gate and up that are kept apart: kMostLeftApart). Where x comes in stages,
 * behind a norm of its own, a block of no more than kAtOnce lets it in at once: there the way from
 * kernel to kernel is longer than the weights'.
 */
constexpr int kLeastLeft = 16 * 1024;
constexpr int kMostLeft = 96 * 1024;
constexpr int kMostLeftApart = 192 * 1024;
constexpr int kAtOnce = 64 * 1024;
/**
 * What is left is counted in whole stages, x beside the weights in them. Of fewer weights than these
 * so few stages are left that it is the weights of a stage that count.
 */
constexpr int kFewWeights = 128 * 1024;

/** How a call is cut: never changes the result. */
struct SkinnyPlan {
  int warps;
  bool wide;
  int columns;
  int limit;  // bytes of shared memory
  bool holds_x;
};

/** Whether a warp of a block is there for the rows' late scales: one less multiplies. */
inline bool has_scales(const VtCudaLinear& args) {
  return args.row_scale != nullptr || args.x_squares != nullptr;
}

/** Rows of x in a stage, where it is not held. */
inline int staged_rows(int m) { return m <= 8 ? 8 : m <= 16 ? 16 : m <= 32 ? 32 : 64; }

/**
 * Whether no two blocks of the linear may lie on a multiprocessor: in a step, where it has many
 * columns, or so few rows, without an epilogue, that the next one has few columns too. (Of two
 * neighbours one is enough.)
 */
inline bool keeps_apart(const VtCudaLinear& args) {
  const bool alone = args.epilogue == VT_CUDA_PLAIN && args.n <= kMostTogether;
  return (args.flags & VT_CUDA_APART) != 0 && (args.k > kMostTogether || alone);
}

/** Shared memory of a block, at most; `units_each`: units of a block. */
inline int skinny_limit(const VtCudaLinear& args, int units_each) {
  if (args.m > 32) return kLimitAlone;
  if (args.m <= 2 && args.n >= kLeastHead) return kLimitHead;
  if (!keeps_apart(args) || args.k <= kMostTogether) return kLimitShared;
  if (args.epilogue == VT_CUDA_SILU_AND_MUL) return kLimitApart;
  if (args.m > 2) return kLimitShared;
  const bool is_part = args.out_dtype == VT_CUDA_F32 && units_each <= kMaxWarps;
  return is_part ? kLimitPart : args.n > kMostTogether ? kLimitWide : kLimitShared;
}

/** By shape, as measured, or as `tuning` asks. */
inline SkinnyPlan plan_skinny(const VtCudaLinear& args) {
  SkinnyPlan plan = {};
  const int tuned_tiles = args.tuning >> 8 & 255;
  const int tuned_limit = args.tuning >> 25 & 63;
  const int held_bytes = args.m * held_stride(args.k, 256);
  // Of more than 2 rows each multiprocessor fetches so much that it rather begins with a part.
  plan.holds_x = args.norm_weight != nullptr ||
                 (args.m <= (args.k <= kMostHeldByTwo ? 2 : 1) && args.tuning >= 0 &&
                  held_bytes <= kHeldLimit);
  // Wide units where an epilogue needs them, or, for few rows, where they come out even.
  const int multiprocessors = num_multiprocessors();
  const int runs = (args.n + 7) / 8;
  const int runs_each = (runs + multiprocessors - 1) / multiprocessors;
  const bool even = runs_each % 2 == 0 || runs_each > 8;
  plan.wide = args.epilogue != VT_CUDA_PLAIN || (args.m <= 2 && even);
  if (tuned_tiles != 0) plan.wide = tuned_tiles == 2;
  const int unit_rows = plan.wide ? 16 : 8;
  plan.warps = args.tuning & 15;
  const int units = (args.n + unit_rows - 1) / unit_rows;
  const int units_each = (units + multiprocessors - 1) / multiprocessors;
  plan.limit = tuned_limit != 0 ? tuned_limit * 4096 : skinny_limit(args, units_each);
  plan.limit = min(plan.limit, max_shared_bytes());
  // Gate and up of few rows go two units at a time, or in two passes: so narrow a stage is asked for
  // early enough.
  const bool of_few = plan.warps == 0 && plan.holds_x && args.epilogue == VT_CUDA_SILU_AND_MUL;
  const bool by_twos = of_few && units_each >= kMaxWarps;
  if (by_twos) {
    plan.warps = 2;
  } else if (of_few && units_each > kMaxWarps / 2 && args.k <= 2 * kMostTogether) {
    plan.warps = (units_each + 1) / 2;
  } else if (plan.warps == 0) {
    const int most = has_scales(args) ? kMaxWarps - 1 : kMaxWarps;
    const int passes = units_each == kMaxWarps ? 2 : (units_each + most - 1) / most;
    plan.warps = (units_each + passes - 1) / passes;
  }
  plan.columns = args.tuning >> 16 & 511;
  if (plan.columns == 0) {
    // The widest stage of which at least four fit.
    const int rows = plan.warps * unit_rows + (plan.holds_x ? 0 : staged_rows(args.m));
    const int room = plan.limit - kHeaderBytes - (plan.holds_x ? held_bytes : 0);
    plan.columns = args.k % 64 != 0 ? 64 : by_twos && !keeps_apart(args) ? 128 : 256;
    while (plan.columns > 64 && rows * plan.columns * 2 * 4 > room) plan.columns /= 2;
  }
  return plan;
}

/** Whether the plan's kernel is built so that it sends: those of few rows, as they are by shape. */
inline bool plan_sends(const VtCudaLinear& args, const SkinnyPlan& plan) {
  return args.epilogue == VT_CUDA_PLAIN && args.m <= (plan.wide ? 8 : kMostSentRows) &&
         (plan.holds_x || !plan.wide);
}

template <typename T, bool kWide, int kXTiles, int kColumns, bool kHoldsX, Ends kEnds>
int launch_skinny(const VtCudaLinear& args, const SkinnyPlan& plan, const Outbox* outbox,
                  void* stream) {
  constexpr int kUnitRows = kWide ? 16 : 8;
  SkinnyParams params = {};
  params.args = args;
  if (kEnds == Ends::sends) params.outbox = *outbox;
  params.warps = plan.warps;
  params.units = (args.n + kUnitRows - 1) / kUnitRows;
  params.x_rows = kHoldsX ? args.m : staged_rows(args.m);
  params.x_stride = held_stride(args.k, kColumns);
  params.pairs =
      args.n % 2 == 0 && args.out_stride % 2 == 0 &&
      reinterpret_cast<uintptr_t>(args.out) % 8 == 0 && args.gained_stride % 2 == 0 &&
      reinterpret_cast<uintptr_t>(args.gained) % 4 == 0;
  params.folders = has_scales(args) ? 1 : 0;

  const int grid = num_multiprocessors();
  const int held_bytes = kHoldsX ? args.m * params.x_stride : 0;
  const int stage_bytes = (plan.warps * kUnitRows + (kHoldsX ? 0 : params.x_rows)) * kColumns * 2;
  const int units_each = (params.units + grid - 1) / grid;
  const int steps =
      (units_each + plan.warps - 1) / plan.warps * ((args.k + kColumns - 1) / kColumns);
  params.num_stages =
      min(min(kMaxStages, steps), (plan.limit - kHeaderBytes - held_bytes) / stage_bytes);
  const int tuned_ahead = args.tuning >> 4 & 15;
  const bool of_norm = args.norm_weight != nullptr && args.k <= kMostTogether;
  const int bytes_ahead = tuned_ahead != 0 ? tuned_ahead * 8192
                          : of_norm        ? kBytesAheadOfNorm
                                           : kBytesAhead;
  params.stages_ahead = tuned_ahead == 15 ? kMaxStages : max(1, bytes_ahead / stage_bytes);
  const int own_bytes = units_each * kUnitRows * args.k * 2;
  const bool is_up = args.epilogue == VT_CUDA_SILU_AND_MUL && keeps_apart(args);
  const int most_left = is_up ? kMostLeftApart : kMostLeft;
  const int counted_bytes =
      own_bytes < kFewWeights ? plan.warps * kUnitRows * kColumns * 2 : stage_bytes;
  params.stages_left = !kHoldsX && own_bytes <= kAtOnce
                           ? steps
                           : min(max(own_bytes / 3, kLeastLeft), most_left) / counted_bytes;
  // A linear that sends lets it in only behind its own wait: not before its stages are full.
  if (kEnds == Ends::sends) params.stages_left = min(params.stages_left, steps - params.num_stages);
  VT_REQUIRE(params.num_stages >= min(2, steps), "linear: tuning asks for stages of %d bytes",
             stage_bytes);

  // Where k is not in groups of 64 columns, a box is one group wide.
  const bool grouped = args.k % 64 == 0;
  VT_REQUIRE(grouped || kColumns == 64, "linear: tuning asks for stages of %d columns at k %d",
             kColumns, args.k);
  const int64_t columns = grouped ? 64 : args.k;
  const int64_t groups = grouped ? args.k / 64 : 1;
  const int box_groups = kColumns / 64;
  const int64_t weight_row = static_cast<int64_t>(args.weight_stride) * 2;
  const int64_t x_row = static_cast<int64_t>(args.x_stride) * 2;
  // For rope a unit is 8 rows of the first half of a head and their partners in the second.
  const bool halves = args.epilogue == VT_CUDA_ROPE_AND_CACHE;
  const int64_t rows = halves ? args.head_dim / 2 : args.n;
  const bool has_engine = target() >= Target::sm_90;
  if (has_engine &&
      make_tensor_map(&params.weight, args.weight, {columns, rows, args.n / rows, groups},
                      {weight_row, weight_row * rows, 128},
                      {64, halves ? 8 : kUnitRows, halves ? 2 : 1, box_groups}) != 0) {
    return -1;
  }
  if (has_engine && !kHoldsX &&
      make_tensor_map(&params.x, args.x, {columns, args.m, 1, groups}, {x_row, x_row * args.m, 128},
                      {64, params.x_rows, 1, box_groups}) != 0) {
    return -1;
  }
  const int workers = args.norm_weight != nullptr ? kNormWarps
                      : kHoldsX                   ? max(plan.warps, 4)
                                                  : plan.warps;
  if (args.x_squares != nullptr) {
    const int batches = (args.m * late_loads(args.k) + kLateLoads - 1) / kLateLoads;
    params.folders = min(min(batches, kMostFolders), kMaxWarps - workers);
  }
  int shared_bytes = kHeaderBytes + params.num_stages * stage_bytes + held_bytes;
  if (keeps_apart(args)) shared_bytes = max(shared_bytes, min(kApart, max_shared_bytes()));
  return launch("linear", linear_skinny<T, kWide, kXTiles, kColumns, kHoldsX, kEnds>, dim3(grid),
                dim3((workers + (kHoldsX ? 1 : 2) + params.folders) * 32), shared_bytes, args.flags,
                stream, params);
}

template <typename T, bool kWide, int kXTiles, bool kHoldsX, Ends kEnds>
int linear_skinny_by_columns(const VtCudaLinear& args, const SkinnyPlan& plan,
                             const Outbox* outbox, void* stream) {
  switch (plan.columns) {
    case 64:
      return launch_skinny<T, kWide, kXTiles, 64, kHoldsX, kEnds>(args, plan, outbox, stream);
    case 128:
      return launch_skinny<T, kWide, kXTiles, 128, kHoldsX, kEnds>(args, plan, outbox, stream);
    case 256:
      return launch_skinny<T, kWide, kXTiles, 256, kHoldsX, kEnds>(args, plan, outbox, stream);
    default:
      return fail("linear: tuning asks for stages of %d columns", plan.columns);
  }
}

inline int check_plan(const VtCudaLinear& args, const SkinnyPlan& plan) {
  VT_REQUIRE(plan.warps >= 1 && plan.warps <= kMaxWarps - has_scales(args),
             "linear: tuning asks for %d warps", plan.warps);
  VT_REQUIRE(plan.wide || args.epilogue == VT_CUDA_PLAIN,
             "linear: tuning asks for narrow units with an epilogue");
  return 0;
}

#define VT_SKINNY_CASE(ROWS, WIDE, TILES, HOLDS, ENDS)                                        \
  if (args.m <= ROWS && plan.wide == WIDE && plan.holds_x == HOLDS && ends == ENDS) {         \
    return linear_skinny_by_columns<T, WIDE, TILES, HOLDS, ENDS>(args, plan, outbox, stream); \
  }

/** The kernel for this shape. */
template <typename T>
int linear_skinny_by_shape(const VtCudaLinear& args, void* stream, const Outbox* outbox) {
  const SkinnyPlan plan = plan_skinny(args);
  if (check_plan(args, plan) != 0) return -1;
  const Ends ends = outbox != nullptr ? Ends::sends : Ends::as_asked;
  VT_SKINNY_CASE(8, true, 1, true, Ends::as_asked)
  VT_SKINNY_CASE(16, false, 1, true, Ends::as_asked)
  VT_SKINNY_CASE(8, true, 1, false, Ends::as_asked)
  VT_SKINNY_CASE(16, true, 2, false, Ends::as_asked)
  VT_SKINNY_CASE(32, true, 4, false, Ends::as_asked)
  VT_SKINNY_CASE(64, true, 8, false, Ends::as_asked)
  VT_SKINNY_CASE(16, false, 1, false, Ends::as_asked)
  VT_SKINNY_CASE(32, false, 2, false, Ends::as_asked)
  VT_SKINNY_CASE(64, false, 4, false, Ends::as_asked)
  // As plan_sends says.
  VT_SKINNY_CASE(8, true, 1, true, Ends::sends)
  VT_SKINNY_CASE(16, false, 1, true, Ends::sends)
  VT_SKINNY_CASE(16, false, 1, false, Ends::sends)
  return fail("linear: no kernel for m %d", args.m);
}

/** The kernel for this shape beside a norm with a late scale. */
template <typename T>
int linear_skinny_late_by_shape(const VtCudaLinear& args, void* stream) {
  const SkinnyPlan plan = plan_skinny(args);
  if (check_plan(args, plan) != 0) return -1;
  constexpr const Outbox* outbox = nullptr;
  const Ends ends = args.out_squares != nullptr                ? Ends::gives
                    : args.epilogue == VT_CUDA_SILU_AND_MUL    ? Ends::scales_silu
                    : args.epilogue == VT_CUDA_ROPE_AND_CACHE  ? Ends::scales_rope
                                                               : Ends::scales;
#define VT_NARROW_AND_FEW(ENDS)               \
  VT_SKINNY_CASE(8, true, 1, true, ENDS)      \
  VT_SKINNY_CASE(8, true, 1, false, ENDS)     \
  VT_SKINNY_CASE(16, false, 1, true, ENDS)    \
  VT_SKINNY_CASE(16, false, 1, false, ENDS)   \
  VT_SKINNY_CASE(32, false, 2, false, ENDS)
#define VT_WIDE(ENDS)                         \
  VT_SKINNY_CASE(8, true, 1, true, ENDS)      \
  VT_SKINNY_CASE(8, true, 1, false, ENDS)     \
  VT_SKINNY_CASE(16, true, 2, false, ENDS)    \
  VT_SKINNY_CASE(32, true, 4, false, ENDS)    \
  VT_SKINNY_CASE(64, true, 8, false, ENDS)
  VT_NARROW_AND_FEW(Ends::gives)
  VT_NARROW_AND_FEW(Ends::scales)
  VT_SKINNY_CASE(64, false, 4, false, Ends::scales)
  VT_WIDE(Ends::scales_silu)
  VT_WIDE(Ends::scales_rope)
#undef VT_NARROW_AND_FEW
#undef VT_WIDE
  return fail("linear: tuning asks for units that are not built for m %d beside a late scale",
              args.m);
}

#undef VT_SKINNY_CASE

}  // namespace vt

#endif  // VT_CUDA_LINEAR_SKINNY_LAUNCH_CUH_
