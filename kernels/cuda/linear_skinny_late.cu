// The skinny kernels of linear beside a norm with a late scale, which are of bf16 alone.
#include "linear_skinny_launch.cuh"

namespace vt {

int linear_skinny_late(const VtCudaLinear& args, void* stream) {
  return linear_skinny_late_by_shape<__nv_bfloat16>(args, stream);
}

}  // namespace vt
