// The kernels of attention for every head_dim and dtype, in one file: they share its block's memory.
#define VT_KERNEL_IN_HEADER
#include "device.h"
#include "kernels/cuda/attention_kernels.cuh"

namespace vt {

template struct AttentionKernels<__half, 64>;
template struct AttentionKernels<__half, 80>;
template struct AttentionKernels<__half, 96>;
template struct AttentionKernels<__half, 128>;
template struct AttentionKernels<__half, 256>;
template struct AttentionKernels<__nv_bfloat16, 64>;
template struct AttentionKernels<__nv_bfloat16, 80>;
template struct AttentionKernels<__nv_bfloat16, 96>;
template struct AttentionKernels<__nv_bfloat16, 128>;
template struct AttentionKernels<__nv_bfloat16, 256>;

}  // namespace vt
