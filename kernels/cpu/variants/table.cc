// The variant's table. Declarations here, since only this file and the kernels know the functions.
#include "../kernel_table.h"
#include "simd.h"

#define VT_STRING_OF(x) #x
#define VT_STRING(x) VT_STRING_OF(x)

namespace vt {
namespace VT_VARIANT {

void linear(const LinearArgs& args);
void rms_norm(const float* x, const float* weight, float* out, int n, float eps);
void silu_and_mul(const float* gate, const float* up, float* out, int n);
void attention_chunk(const AttentionArgs& args);
void attention_merge(float* max, float* sum, float* acc, float chunk_max, float chunk_sum,
                     const float* chunk_acc, int head_dim);
void attention_finish(const float* acc, float sum, float* out, int head_dim);
bool max_of(const float* x, int n, float* max);
int find_at_least(const float* x, int begin, int n, float bound);
void exp_minus(const float* x, float shift, float* out, int n);
void divide(const float* x, float divisor, float* out, int n);

const KernelTable& kernels() {
  static const KernelTable table = {VT_STRING(VT_VARIANT),
                                    kLanes,
                                    kLanes == 4 ? 3 : 6,
                                    linear,
                                    rms_norm,
                                    silu_and_mul,
                                    attention_chunk,
                                    attention_merge,
                                    attention_finish,
                                    max_of,
                                    find_at_least,
                                    exp_minus,
                                    divide};
  return table;
}

}  // namespace VT_VARIANT
}  // namespace vt
