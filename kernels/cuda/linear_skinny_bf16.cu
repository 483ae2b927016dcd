// The skinny kernels of linear for bf16.
#include "linear_skinny_launch.cuh"

namespace vt {

int linear_skinny_bf16(const VtCudaLinear& args, void* stream, const Outbox* outbox) {
  return linear_skinny_by_shape<__nv_bfloat16>(args, stream, outbox);
}

bool linear_skinny_sends(const VtCudaLinear& args) {
  return plan_sends(args, plan_skinny(args));
}

}  // namespace vt
