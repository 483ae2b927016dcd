// What the kernels of linear share: the end of every output, so that its rounding is written once,
// with the fused epilogues.
#ifndef VT_CUDA_LINEAR_CUH_
#define VT_CUDA_LINEAR_CUH_

#include "elementwise.cuh"

namespace vt {

/** out[m][n] from its sum: bias, then residual, in f32; rounded once. */
template <typename T>
__device__ __forceinline__ void write_one(const VtCudaLinear& args, int m, int n, float value) {
  if (n >= args.n) return;
  if (args.bias != nullptr) value += to_f32(static_cast<const T*>(args.bias)[n]);
  if (args.residual != nullptr) {
    const int64_t at = static_cast<int64_t>(m) * args.residual_stride + n;
    value += to_f32(static_cast<const T*>(args.residual)[at]);
  }
  const int64_t at = static_cast<int64_t>(m) * args.out_stride + n;
  if (args.out_dtype == VT_CUDA_F32) {
    static_cast<float*>(args.out)[at] = value;
  } else {
    static_cast<T*>(args.out)[at] = from_f32<T>(value);
  }
}

/** out[m][n], out[m][n + 1]. */
template <typename T>
__device__ __forceinline__ void write_pair(const VtCudaLinear& args, int m, int n, float first,
                                           float second) {
  write_one<T>(args, m, n, first);
  write_one<T>(args, m, n + 1, second);
}

/** As what memory would hold. */
template <typename T>
__device__ __forceinline__ float2 rounded(float2 pair) {
  return unpack2<T>(pack2<T>(pair.x, pair.y));
}

struct Outbox;
/** m <= 64; with `outbox` the sums are sent (linear_send.cuh) instead of written. */
int linear_skinny_f16(const VtCudaLinear& args, void* stream, const Outbox* outbox = nullptr);
int linear_skinny_bf16(const VtCudaLinear& args, void* stream, const Outbox* outbox = nullptr);
/** With a late scale, or what one behind needs. */
int linear_skinny_late(const VtCudaLinear& args, void* stream);
/** Of either dtype. */
bool linear_skinny_sends(const VtCudaLinear& args);
/** Any m; of use above 64. */
int linear_large(const VtCudaLinear& args, void* stream);
/** Plain, also to f32, or siluAndMul; whether it is built, and whether it is ahead of cuBLASLt. */
int linear_decode(const VtCudaLinear& args, void* stream);
bool linear_decode_takes(const VtCudaLinear& args);
bool linear_decode_is_ahead(const VtCudaLinear& args);
/** Any m, with epilogues; whether it is built for these sizes and addresses. */
int linear_wgmma(const VtCudaLinear& args, void* stream);
bool linear_wgmma_takes(const VtCudaLinear& args);

}  // namespace vt

#endif  // VT_CUDA_LINEAR_CUH_
