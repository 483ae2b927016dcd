// rmsNorm and siluAndMul: elementwise work in f32; the norm's sum of squares runs in four vectors
// of lanes, added pairwise, then by hsum's tree, then the tail one by one.
#include "../kernel_table.h"
#include "simd.h"

namespace vt {
namespace VT_VARIANT {

void rms_norm(const float* x, const float* weight, float* out, int n, float eps);
void rms_norm(const float* x, const float* weight, float* out, int n, float eps) {
  vf sums[4] = {vzero(), vzero(), vzero(), vzero()};
  int i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int j = 0; j < 4; j++) {
      const vf v = vload(x + i + j * kLanes);
      sums[j] = vfma(v, v, sums[j]);
    }
  for (; i + kLanes <= n; i += kLanes) {
    const vf v = vload(x + i);
    sums[0] = vfma(v, v, sums[0]);
  }
  float total = hsum(vadd(vadd(sums[0], sums[1]), vadd(sums[2], sums[3])));
  for (; i < n; i++) total = total + x[i] * x[i];
  const float scale = 1.0f / __builtin_sqrtf(total / static_cast<float>(n) + eps);
  for (i = 0; i < n; i++) out[i] = x[i] * scale * weight[i];
}

VT_INLINE vf silu_times(vf gate, vf up) {
  const vf one = vset(1.0f);
  return vmul(vdiv(gate, vadd(one, vexp(vsub(vzero(), gate)))), up);
}

void silu_and_mul(const float* gate, const float* up, float* out, int n);
void silu_and_mul(const float* gate, const float* up, float* out, int n) {
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) vstore(out + i, silu_times(vload(gate + i), vload(up + i)));
  if (i == n) return;
  float g[kLanes] = {0}, u[kLanes] = {0}, o[kLanes];
  const unsigned long bytes = static_cast<unsigned long>(n - i) * sizeof(float);
  memcpy(g, gate + i, bytes);
  memcpy(u, up + i, bytes);
  vstore(o, silu_times(vload(g), vload(u)));
  memcpy(out + i, o, bytes);
}

}  // namespace VT_VARIANT
}  // namespace vt
