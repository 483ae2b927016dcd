// The skinny kernels of linear for f16.
#include "linear_skinny.cuh"

namespace vt {

int linear_skinny_f16(const VtCudaLinear& args, void* stream) {
  if (args.m <= 8) return linear_skinny_by_shape<__half, 0>(args, stream);
  if (args.m <= 16) return linear_skinny_by_shape<__half, 1>(args, stream);
  if (args.m <= 32) return linear_skinny_by_shape<__half, 2>(args, stream);
  return linear_skinny_by_shape<__half, 4>(args, stream);
}

}  // namespace vt
