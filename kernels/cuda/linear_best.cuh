// vt_cuda_linear_for_sample by wgmma, of at most VT_CUDA_MAX_BEST_ROWS rows: f32, and nothing added.
#ifndef VT_CUDA_LINEAR_BEST_CUH_
#define VT_CUDA_LINEAR_BEST_CUH_

#include "vt_cuda_sample.h"

namespace vt {

int linear_wgmma_for_sample(const VtCudaLinear& args, const VtCudaSample& sampler, void* stream);
/** Words that it writes for each row. */
int linear_wgmma_num_best(const VtCudaLinear& args);

}  // namespace vt

#endif  // VT_CUDA_LINEAR_BEST_CUH_
