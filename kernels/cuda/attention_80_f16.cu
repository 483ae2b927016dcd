// attention of heads of 80 in f16.
#include "attention_kernels.cuh"

template struct vt::AttentionKernels<__half, 80>;
