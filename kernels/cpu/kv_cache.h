// The KV cache: [block][layer][K|V][kvHead][panel of 16 positions], K panels as [headDim][16], so
// that 16 keys meet a query at once, V panels as [16][headDim]. A block is one contiguous range.
#pragma once

#include <cstdint>

#include "kernel_table.h"
#include "pages.h"
#include "../host/program.h"

namespace vt {

class KvCache {
 public:
  KvCache() = default;
  KvCache(const KvGroupSpec& group, int block_size, int num_blocks);

  /// Writes one head's k and v (headDim floats each) at a slot of a layer.
  void write(int layer, int kv_head, std::int64_t slot, const float* k, const float* v) const;
  /// One layer and head for the attention kernel; the block table is the caller's.
  KvView view(int layer, int kv_head, const std::int32_t* block_table) const;
  std::size_t bytes() const { return data_.bytes(); }

 private:
  std::int64_t offset_of(int layer, int k_or_v, int kv_head) const {
    return ((layer * 2 + k_or_v) * group_.num_kv_heads + kv_head) * head_bytes_;
  }

  KvGroupSpec group_{};
  int block_size_ = 0;
  std::int64_t panel_bytes_ = 0, head_bytes_ = 0, block_bytes_ = 0;
  Pages data_;
};

}  // namespace vt
