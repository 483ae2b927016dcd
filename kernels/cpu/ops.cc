#include "ops.h"

namespace vt {

OpFunction op_function(OpId id) {
  constexpr OpFunction functions[] = {
      run_embedding,      run_rope_cos_sin,   run_rms_norm,  run_linear,
      run_head_rms_norm,  run_rope_and_cache, run_attention, run_silu_and_mul,
      run_gather_logit_rows, run_sample,      run_all_reduce, run_all_reduce_residual_norm,
      run_sample_sharded};
  static_assert(sizeof functions / sizeof functions[0] == kNumOps, "an op without a function");
  return functions[static_cast<int>(id)];
}

}  // namespace vt
