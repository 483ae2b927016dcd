// rmsNorm and headRmsNorm.
//
// What it computes: out = x / sqrt(mean(x^2) + eps) * weight, in f32, rounded once; or x * weight
// alone, and beside it each row's scale. The sum of squares is one tree over the columns
// (elementwise.cuh): it never depends on the number of rows.
//
// Launch: rmsNorm a block a row, 16 bytes a thread and step, or of many rows a warp a row;
// headRmsNorm a warp a head.
#include "elementwise.cuh"
#include "keys_ahead.cuh"

namespace vt {
namespace {

constexpr int kMaxThreads = 512;
/** From so many on, of the usual widths, a warp has a row: nothing waits for other warps. */
constexpr int kManyRows = 2048;
constexpr int kRowsOfBlock = 4;
constexpr int kMaxPieces = kMaxNormColumns / 8 / kMaxThreads;

template <typename T, bool kLate>
__global__ void __launch_bounds__(kMaxThreads)
    rms_norm(const __grid_constant__ VtCudaRmsNorm args) {
  __shared__ float sums[kMaxNormGroups];
  start_next();
  if (fetches_keys(args.ahead, args.num_rows)) return;
  const int64_t row = blockIdx.x;
  const T* x = static_cast<const T*>(args.x) + row * args.x_stride;
  const int pieces = args.columns / 8;
  uint4 weights[kMaxPieces];
#pragma unroll
  for (int p = 0; p < kMaxPieces; p++) {
    const int i = threadIdx.x + p * blockDim.x;
    if (i < pieces) weights[p] = static_cast<const uint4*>(args.weight)[i];
  }
  wait_for_previous();
  float values[kMaxPieces][8];
#pragma unroll
  for (int p = 0; p < kMaxPieces; p++) {
    const int i = threadIdx.x + p * blockDim.x;
    if (i < pieces) load8(x + i * 8, values[p]);
  }
#pragma unroll
  for (int p = 0; p < kMaxPieces; p++) {
    if (p * static_cast<int>(blockDim.x) >= pieces) break;
    const int i = threadIdx.x + p * blockDim.x;
    const float sum = warp_sum(i < pieces ? sum_of_squares(values[p]) : 0.0f);
    if (threadIdx.x % 32 == 0) sums[i / 32] = sum;
  }
  T* out = static_cast<T*>(args.out) + row * args.out_stride;
  const auto write = [&](float scale) {
#pragma unroll
    for (int p = 0; p < kMaxPieces; p++) {
      const int i = threadIdx.x + p * blockDim.x;
      if (i >= pieces) break;
      float weight[8];
      unpack8<T>(weights[p], weight);
      apply_norm(values[p], scale, weight);
      store8(out + i * 8, values[p]);
    }
  };
  if constexpr (kLate) write(1.0f);
  __syncthreads();
  const int groups = (args.columns + kGroupColumns - 1) / kGroupColumns;
  if (kLate && threadIdx.x >= 32) return;
  const float scale = norm_scale(sum_of_groups(sums, groups), args.columns, args.eps);
  if constexpr (!kLate) {
    write(scale);
  } else {
    if (threadIdx.x == 0) args.scales[row] = scale;
  }
}

/** rms_norm by a warp a row, which asks for all pieces at once. kGroups: of 32 pieces, in a row. */
template <typename T, int kGroups, bool kLate>
__global__ void __launch_bounds__(kRowsOfBlock * 32)
    rms_norm_rows(const __grid_constant__ VtCudaRmsNorm args) {
  start_next();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowsOfBlock + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  wait_for_previous();
  if (row >= args.num_rows) return;
  const T* x = static_cast<const T*>(args.x) + row * args.x_stride + lane * 8;
  uint4 words[kGroups];
#pragma unroll
  for (int g = 0; g < kGroups; g++) words[g] = *reinterpret_cast<const uint4*>(x + g * 256);
  float sums[kGroups];
#pragma unroll
  for (int g = 0; g < kGroups; g++) {
    float values[8];
    unpack8<T>(words[g], values);
    sums[g] = warp_sum(sum_of_squares(values));
  }
  const float scale = norm_scale(tree_sum<kGroups>(sums), args.columns, args.eps);
  if (kLate && lane == 0) args.scales[row] = scale;
  T* out = static_cast<T*>(args.out) + row * args.out_stride + lane * 8;
#pragma unroll
  for (int g = 0; g < kGroups; g++) {
    float values[8];
    float weight[8];
    unpack8<T>(words[g], values);
    load8(static_cast<const T*>(args.weight) + g * 256 + lane * 8, weight);
    apply_norm(values, kLate ? 1.0f : scale, weight);
    store8(out + g * 256, values);
  }
}

template <typename T, bool kLate>
int launch_norm(const VtCudaRmsNorm& a, void* stream) {
  const auto launch_rows = [&](auto kernel) {
    return launch("rmsNorm", kernel, dim3((a.num_rows + kRowsOfBlock - 1) / kRowsOfBlock),
                  dim3(kRowsOfBlock * 32), 0, a.flags, stream, a);
  };
  if (a.num_rows >= kManyRows) {
    if (a.columns == 1024) return launch_rows(rms_norm_rows<T, 4, kLate>);
    if (a.columns == 2048) return launch_rows(rms_norm_rows<T, 8, kLate>);
    if (a.columns == 4096) return launch_rows(rms_norm_rows<T, 16, kLate>);
  }
  return launch("rmsNorm", rms_norm<T, kLate>, with_fetchers(dim3(a.num_rows), a.ahead),
                dim3(norm_threads(a.columns)), 0, a.flags, stream, a);
}

template <typename T>
int launch_norm(const VtCudaRmsNorm& a, void* stream) {
  return a.scales != nullptr ? launch_norm<T, true>(a, stream) : launch_norm<T, false>(a, stream);
}

template <typename T>
__global__ void __launch_bounds__(128)
    head_rms_norm(const __grid_constant__ VtCudaHeadRmsNorm args) {
  start_next();
  wait_for_previous();
  const int heads = args.num_heads + args.num_kv_heads;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * 4 + threadIdx.x / 32;
  if (item >= static_cast<int64_t>(args.num_tokens) * heads) return;
  const int lane = threadIdx.x % 32;
  const int head = static_cast<int>(item % heads);
  T* x =
      static_cast<T*>(args.qkv) + item / heads * args.qkv_stride + head * args.head_dim + lane * 8;
  const bool active = lane * 8 < args.head_dim;
  float values[8] = {};
  if (active) load8(x, values);
  const float sum = warp_sum(sum_of_squares(values));
  if (!active) return;
  const float scale = norm_scale(sum, args.head_dim, args.eps);
  float weight[8];
  load8(static_cast<const T*>(head < args.num_heads ? args.q_weight : args.k_weight) + lane * 8,
        weight);
  apply_norm(values, scale, weight);
  store8(x, values);
}

}  // namespace
}  // namespace vt

extern "C" int vt_cuda_rms_norm(const VtCudaRmsNorm* args, void* stream) {
  using namespace vt;
  const VtCudaRmsNorm& a = *args;
  VT_REQUIRE(a.num_rows > 0 && a.columns > 0 && a.columns % 8 == 0 &&
                 a.columns <= kMaxNormColumns,
             "rmsNorm: %d rows of %d columns (a multiple of 8, at most %d)", a.num_rows, a.columns,
             kMaxNormColumns);
  VT_REQUIRE(a.dtype == VT_CUDA_F16 || a.dtype == VT_CUDA_BF16, "rmsNorm: dtype %d", a.dtype);
  VT_REQUIRE(aligned16(a.x, a.x_stride) && aligned16(a.out, a.out_stride) && aligned16(a.weight, 0),
             "rmsNorm: rows must be 16-byte aligned");
  if (check_keys_ahead("rmsNorm", a.ahead) != 0) return -1;
  return a.dtype == VT_CUDA_F16 ? launch_norm<__half>(a, stream)
                                : launch_norm<__nv_bfloat16>(a, stream);
}

extern "C" int vt_cuda_head_rms_norm(const VtCudaHeadRmsNorm* args, void* stream) {
  using namespace vt;
  const VtCudaHeadRmsNorm& a = *args;
  VT_REQUIRE(a.num_tokens > 0 && a.head_dim > 0 && a.head_dim % 8 == 0 && a.head_dim <= 256,
             "headRmsNorm: %d tokens, head_dim %d (a multiple of 8, at most 256)", a.num_tokens,
             a.head_dim);
  VT_REQUIRE(a.dtype == VT_CUDA_F16 || a.dtype == VT_CUDA_BF16, "headRmsNorm: dtype %d", a.dtype);
  VT_REQUIRE(aligned16(a.qkv, a.qkv_stride) && aligned16(a.q_weight, 0) && aligned16(a.k_weight, 0),
             "headRmsNorm: rows must be 16-byte aligned");
  const int64_t items = static_cast<int64_t>(a.num_tokens) * (a.num_heads + a.num_kv_heads);
  return launch("headRmsNorm",
                a.dtype == VT_CUDA_F16 ? head_rms_norm<__half> : head_rms_norm<__nv_bfloat16>,
                dim3(static_cast<unsigned>((items + 3) / 4)), dim3(128), 0, a.flags, stream, a);
}
