// The kernels of attention for one head_dim and dtype, as the files that are named by these make them.
#ifndef VT_CUDA_ATTENTION_KERNELS_CUH_
#define VT_CUDA_ATTENTION_KERNELS_CUH_

#include "attention_decode_kernel.cuh"
#include "attention_prefill.cuh"
#include "attention_wgmma_kernel.cuh"

namespace vt {

template <typename T, int kDim>
int AttentionKernels<T, kDim>::decode(const VtCudaAttention& args, void* stream) {
  return launch_decode<T, kDim>(args, stream);
}

template <typename T, int kDim>
int AttentionKernels<T, kDim>::prefill(const VtCudaAttention& args, void* stream) {
  return launch_prefill<T, kDim>(args, stream);
}

template <typename T, int kDim>
int AttentionKernels<T, kDim>::wgmma(const VtCudaAttention& args, void* stream) {
  if constexpr (kDim == 64 || kDim == 128) return launch_wgmma<T, kDim>(args, stream);
  return fail("attention: prefill %d of head_dim %d", args.prefill, kDim);
}

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_KERNELS_CUH_
