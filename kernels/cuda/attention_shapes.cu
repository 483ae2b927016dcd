// attention: which kernels serve a call's head_dim and dtype.
#include "attention_wgmma.cuh"

namespace vt {
namespace {

/** `launch(kernels)` of what the call asks for. */
template <typename T, typename Launch>
int by_head_dim(const VtCudaAttention& args, Launch launch) {
  switch (args.head_dim) {
    case 64:
      return launch(AttentionKernels<T, 64>());
    case 80:
      return launch(AttentionKernels<T, 80>());
    case 96:
      return launch(AttentionKernels<T, 96>());
    case 128:
      return launch(AttentionKernels<T, 128>());
    case 256:
      return launch(AttentionKernels<T, 256>());
    default:
      return fail("attention: head_dim %d is not built; 64, 80, 96, 128 and 256 are",
                  args.head_dim);
  }
}

template <typename Launch>
int by_shape(const VtCudaAttention& args, Launch launch) {
  return args.dtype == VT_CUDA_F16 ? by_head_dim<__half>(args, launch)
                                   : by_head_dim<__nv_bfloat16>(args, launch);
}

}  // namespace

int attention_decode_by_shape(const VtCudaAttention& args, void* stream) {
  return by_shape(args, [&](auto kernels) { return kernels.decode(args, stream); });
}

int attention_prefill_by_shape(const VtCudaAttention& args, void* stream) {
  return by_shape(args, [&](auto kernels) { return kernels.prefill(args, stream); });
}

int attention_wgmma_by_shape(const VtCudaAttention& args, void* stream) {
  return by_shape(args, [&](auto kernels) { return kernels.wgmma(args, stream); });
}

int attention_wgmma_rows(int head_dim) {
  return head_dim == 64 ? WgmmaLayout<64>::kRows : WgmmaLayout<128>::kRows;
}

}  // namespace vt
