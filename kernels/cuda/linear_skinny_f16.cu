// The skinny kernels of linear for f16.
#include "linear_skinny_launch.cuh"

namespace vt {

int linear_skinny_f16(const VtCudaLinear& args, void* stream, const Outbox* outbox) {
  return linear_skinny_by_shape<__half>(args, stream, outbox);
}

}  // namespace vt
