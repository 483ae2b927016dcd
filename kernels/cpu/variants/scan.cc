// Scans over a row of logits for the sampler.
#include "../kernel_table.h"
#include "simd.h"

namespace vt {
namespace VT_VARIANT {

bool max_of(const float* x, int n, float* max);
bool max_of(const float* x, int n, float* max) {
  const float infinity = __builtin_inff();
  float best = -infinity;
  int bad = 0;
  int i = 0;
  if (n >= kLanes) {
    vf top = vset(-infinity), wrong = vzero();
    for (; i + kLanes <= n; i += kLanes) {
      const vf v = vload(x + i);
      // x - x is NaN for NaN and the infinities; -Infinity is allowed and replaced first.
      const vf finite = vmax(vset(-3e38f), v);
      wrong = vadd(wrong, vsub(finite, finite));
      top = vmax(v, top);
    }
    best = hmax(top);
    const float sum = hsum(wrong);
    bad = sum != sum;
  }
  for (; i < n; i++) {
    bad |= x[i] != x[i] || x[i] == infinity;
    if (x[i] > best) best = x[i];
  }
  *max = best + 0.0f;  // 0, not -0: whichever lane had it
  return bad == 0;
}

int find_at_least(const float* x, int begin, int n, float bound);
int find_at_least(const float* x, int begin, int n, float bound) {
  int i = begin;
  const vf limit = vset(bound);
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    const vf a = vmax(vload(x + i), vload(x + i + kLanes));
    const vf b = vmax(vload(x + i + 2 * kLanes), vload(x + i + 3 * kLanes));
    if (vany_at_least(vmax(a, b), limit)) break;
  }
  for (; i < n; i++)
    if (x[i] >= bound) return i;
  return n;
}

void exp_minus(const float* x, float shift, float* out, int n);
void exp_minus(const float* x, float shift, float* out, int n) {
  const vf s = vset(shift), floor = vset(-87.0f);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const vf v = vsub(vload(x + i), s);
    vstore(out + i, vselect_below(v, floor, vexp(v)));
  }
  if (i == n) return;
  float tail[kLanes] = {0};
  memcpy(tail, x + i, sizeof(float) * static_cast<unsigned long>(n - i));
  const vf v = vsub(vload(tail), s);
  vstore(tail, vselect_below(v, floor, vexp(v)));
  memcpy(out + i, tail, sizeof(float) * static_cast<unsigned long>(n - i));
}

void divide(const float* x, float divisor, float* out, int n);
void divide(const float* x, float divisor, float* out, int n) {
  for (int i = 0; i < n; i++) out[i] = x[i] / divisor;
}

}  // namespace VT_VARIANT
}  // namespace vt
