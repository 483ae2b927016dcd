// ropeCosSin, once a step, and ropeAndCache: rotation by halves, then K and V into their slots.
#include <cmath>

#include "ops.h"

namespace vt {

void run_rope_cos_sin(const OpCall& call, const BoundOp& op) {
  const std::int64_t half = op.args[0].columns / 2;
  const float factor = static_cast<float>(op.attrs[0]);
  const float* inv_freq = op.args[1].data;
  const Range range = call.share_of(call.step.batch.num_tokens);
  for (std::int64_t t = range.begin; t < range.end; t++) {
    const float position = static_cast<float>(call.step.tokens.positions[t]);
    float* cos_sin = op.args[0].data + t * 2 * half;
    for (std::int64_t i = 0; i < half; i++) {
      const float angle = position * inv_freq[i];
      cos_sin[i] = std::cos(angle) * factor;
      cos_sin[half + i] = std::sin(angle) * factor;
    }
  }
}

namespace {

void rotate(float* x, const float* cos_sin, int head_dim) {
  const int half = head_dim / 2;
  for (int i = 0; i < half; i++) {
    const float a = x[i], b = x[half + i];
    x[i] = a * cos_sin[i] - b * cos_sin[half + i];
    x[half + i] = b * cos_sin[i] + a * cos_sin[half + i];
  }
}

}  // namespace

void run_rope_and_cache(const OpCall& call, const BoundOp& op) {
  const int layer = op.attr_int(0), num_heads = op.attr_int(1), num_kv_heads = op.attr_int(2),
            head_dim = op.attr_int(3);
  // One piece of work is a KV head with its query heads, for one token.
  const int group = num_heads / num_kv_heads;
  const Range range = call.share_of(static_cast<std::int64_t>(call.step.batch.num_tokens) * num_kv_heads);
  for (std::int64_t i = range.begin; i < range.end; i++) {
    const std::int64_t t = i / num_kv_heads;
    const int kv_head = static_cast<int>(i % num_kv_heads);
    float* qkv = op.args[0].data + t * op.args[0].columns;
    const float* cos_sin = op.args[1].data + t * head_dim;
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++)
      rotate(qkv + head * head_dim, cos_sin, head_dim);
    float* k = qkv + (num_heads + kv_head) * head_dim;
    rotate(k, cos_sin, head_dim);
    const float* v = k + num_kv_heads * head_dim;
    call.step.kv->write(layer, kv_head, call.step.tokens.slots[t], k, v);
  }
}

}  // namespace vt
