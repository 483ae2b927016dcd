// siluAndMul: the gated activation.
//
// What it computes: out[t][i] = silu(gate[t][i]) * up[t][i] in f32, rounded once;
// silu(x) = x / (1 + exp(-x)). gate and up are halves of a row, or alternate in groups of
// `interleave` columns. With row_scale both are multiplied by their row's, and rounded, before.
//
// Launch: a block has up to 256 pieces of 8 columns of a row, two a thread.
#include "elementwise.cuh"
#include "keys_ahead.cuh"

namespace vt {
namespace {

constexpr int kThreads = 128;
constexpr int kPieces = 2;  // of a thread, read at once

template <typename T, bool kScaled>
__global__ void __launch_bounds__(kThreads)
    silu_and_mul(const __grid_constant__ VtCudaSiluAndMul args) {
  start_next();
  if (fetches_keys(args.ahead, args.num_rows)) return;
  wait_for_previous();
  const int64_t row = blockIdx.x;
  const int pieces = args.columns / 8;
  const int group = args.interleave > 0 ? args.interleave : args.columns;
  const T* from = static_cast<const T*>(args.gate_up) + row * args.gate_up_stride;
  T* out = static_cast<T*>(args.out) + row * args.out_stride;
  const int begin = blockIdx.y * (kPieces * kThreads) + threadIdx.x;
  uint4 gates[kPieces];
  uint4 ups[kPieces];
  float scale = 1.0f;
  if constexpr (kScaled) scale = args.row_scale[row];
#pragma unroll
  for (int j = 0; j < kPieces; j++) {
    const int p = begin + j * kThreads;
    if (p >= pieces) break;
    const int i = p * 8;
    // Groups of 8 are what linear's ends take: no division then.
    const T* at = from + (group == 8 ? 2 * i : i / group * 2 * group + i % group);
    gates[j] = *reinterpret_cast<const uint4*>(at);
    ups[j] = *reinterpret_cast<const uint4*>(at + group);
  }
#pragma unroll
  for (int j = 0; j < kPieces; j++) {
    const int p = begin + j * kThreads;
    if (p >= pieces) break;
    if constexpr (kScaled) {
      gates[j] = scaled8<T>(gates[j], scale);
      ups[j] = scaled8<T>(ups[j], scale);
    }
    float gate[8];
    float up[8];
    unpack8<T>(gates[j], gate);
    unpack8<T>(ups[j], up);
#pragma unroll
    for (int e = 0; e < 8; e++) gate[e] = silu_times(gate[e], up[e]);
    store8(out + p * 8, gate);
  }
}

template <typename T>
int launch_silu(const VtCudaSiluAndMul& a, void* stream) {
  constexpr int kOfBlock = kPieces * kThreads;
  const int blocks = (a.columns / 8 + kOfBlock - 1) / kOfBlock;
  return launch("siluAndMul",
                a.row_scale != nullptr ? silu_and_mul<T, true> : silu_and_mul<T, false>,
                with_fetchers(dim3(a.num_rows, blocks), a.ahead), dim3(kThreads), 0, a.flags, stream,
                a);
}

}  // namespace
}  // namespace vt

extern "C" int vt_cuda_silu_and_mul(const VtCudaSiluAndMul* args, void* stream) {
  using namespace vt;
  const VtCudaSiluAndMul& a = *args;
  VT_REQUIRE(a.num_rows > 0 && a.columns > 0 && a.columns % 8 == 0,
             "siluAndMul: %d rows of %d columns (a multiple of 8)", a.num_rows, a.columns);
  VT_REQUIRE(a.dtype == VT_CUDA_F16 || a.dtype == VT_CUDA_BF16, "siluAndMul: dtype %d", a.dtype);
  VT_REQUIRE(a.interleave >= 0 && a.interleave % 8 == 0 &&
                 (a.interleave == 0 || a.columns % a.interleave == 0),
             "siluAndMul: interleave %d of %d columns", a.interleave, a.columns);
  VT_REQUIRE(aligned16(a.out, a.out_stride) && aligned16(a.gate_up, a.gate_up_stride),
             "siluAndMul: rows must be 16-byte aligned");
  if (check_keys_ahead("siluAndMul", a.ahead) != 0) return -1;
  return a.dtype == VT_CUDA_F16 ? launch_silu<__half>(a, stream)
                                : launch_silu<__nv_bfloat16>(a, stream);
}
