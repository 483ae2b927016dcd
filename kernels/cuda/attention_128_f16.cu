// attention of heads of 128 in f16.
#include "attention_kernels.cuh"

template struct vt::AttentionKernels<__half, 128>;
