#include "kv_cache.h"

#include "../check.h"
#include "float_formats.h"

namespace vt {

KvCache::KvCache(const KvGroupSpec& group, int block_size, int num_blocks)
    : group_(group), block_size_(block_size) {
  VT_CHECK(block_size % kKeyPanel == 0,
           "block size %d is not supported on cpu: it must be a multiple of %d", block_size,
           kKeyPanel);
  panel_bytes_ = static_cast<std::int64_t>(kKeyPanel) * group.head_dim * dtype_bytes(group.dtype);
  head_bytes_ = panel_bytes_ * (block_size / kKeyPanel);
  block_bytes_ = head_bytes_ * 2 * group.num_layers * group.num_kv_heads;
  VT_CHECK(num_blocks >= 1 && block_bytes_ <= INT64_MAX / num_blocks, "%d KV blocks", num_blocks);
  data_ = Pages(static_cast<std::size_t>(block_bytes_) * num_blocks, "KV cache");
}

void KvCache::write(int layer, int kv_head, std::int64_t slot, const float* k,
                    const float* v) const {
  const std::int64_t block = slot / block_size_;
  const int offset = static_cast<int>(slot % block_size_), lane = offset % kKeyPanel;
  char* panel = data_.data() + block * block_bytes_ + offset / kKeyPanel * panel_bytes_;
  char* to_k = panel + offset_of(layer, 0, kv_head);
  char* to_v = panel + offset_of(layer, 1, kv_head);
  const int head_dim = group_.head_dim;
  if (group_.dtype == Dtype::f32) {
    float* k32 = reinterpret_cast<float*>(to_k) + lane;
    for (int d = 0; d < head_dim; d++) k32[d * kKeyPanel] = k[d];
    std::memcpy(to_v + lane * head_dim * 4, v, static_cast<std::size_t>(head_dim) * 4);
    return;
  }
  for (int d = 0; d < head_dim; d++) {
    store_float(to_k, group_.dtype, d * kKeyPanel + lane, k[d]);
    store_float(to_v, group_.dtype, lane * head_dim + d, v[d]);
  }
}

KvView KvCache::view(int layer, int kv_head, const std::int32_t* block_table) const {
  return {data_.data() + offset_of(layer, 0, kv_head),
          data_.data() + offset_of(layer, 1, kv_head),
          block_table,
          block_bytes_,
          panel_bytes_,
          block_size_ / kKeyPanel,
          group_.dtype};
}

}  // namespace vt
