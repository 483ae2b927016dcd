// attention of heads of 80 in bf16.
#include "attention_kernels.cuh"

template struct vt::AttentionKernels<__nv_bfloat16, 80>;
