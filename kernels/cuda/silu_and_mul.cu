// siluAndMul: the gated activation.
//
// What it computes: out[t][i] = silu(gate[t][i]) * up[t][i] in f32, rounded once;
// silu(x) = x / (1 + exp(-x)). gate and up are halves of a row, or alternate in groups of
// `interleave` columns.
//
// Launch: 8 columns a thread.
#include "elementwise.cuh"

namespace vt {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    silu_and_mul(const __grid_constant__ VtCudaSiluAndMul args) {
  start_next();
  wait_for_previous();
  const int pieces = args.columns / 8;
  const int64_t total = static_cast<int64_t>(args.num_rows) * pieces;
  const int group = args.interleave > 0 ? args.interleave : args.columns;
  for (int64_t p = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; p < total;
       p += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t row = p / pieces;
    const int i = static_cast<int>(p % pieces) * 8;
    const T* from = static_cast<const T*>(args.gate_up) + row * args.gate_up_stride +
                    i / group * 2 * group + i % group;
    float gate[8];
    float up[8];
    load8(from, gate);
    load8(from + group, up);
#pragma unroll
    for (int e = 0; e < 8; e++) gate[e] = silu_times(gate[e], up[e]);
    store8(static_cast<T*>(args.out) + row * args.out_stride + i, gate);
  }
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
  const int64_t pieces = static_cast<int64_t>(a.num_rows) * (a.columns / 8);
  const int64_t blocks = (pieces + kThreads - 1) / kThreads;
  const int64_t most = num_multiprocessors() * 8;
  return launch("siluAndMul",
                a.dtype == VT_CUDA_F16 ? silu_and_mul<__half> : silu_and_mul<__nv_bfloat16>,
                dim3(static_cast<unsigned>(blocks < most ? blocks : most)), dim3(kThreads), 0,
                a.flags, stream, a);
}
