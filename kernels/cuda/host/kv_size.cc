#include "kv_size.h"

#include <algorithm>

#include "../../check.h"

namespace vt {

namespace {

constexpr double kGiB = 1 << 30;

/// Blocks that a row holds at most: with a sliding window not much more than the window and the
/// tokens of one step (common/kv-window.ts).
std::int64_t blocks_per_row(const Program& program, const VtCudaLoad& load) {
  const std::int64_t size = load.block_size, all = (load.max_model_len + size - 1) / size;
  const int window = program.kv_groups.empty() ? 0 : program.kv_groups[0].window;
  if (window == 0) return all;
  const std::int64_t span = std::int64_t{window} - 1 + 63 + program.max_num_tokens;
  return std::min(all, (span + size - 1) / size + 1);
}

/// Bytes for the KV cache: those asked for, or what the share of the whole card leaves beside all
/// that this load has taken.
std::int64_t bytes_for_blocks(const VtCudaLoad& load, const DeviceMemory& memory) {
  const double total = static_cast<double>(memory.total);
  const double free_before = static_cast<double>(memory.free_before);
  const double free_now = static_cast<double>(memory.free_now);
  if (load.kv_cache_memory_bytes > 0) {
    VT_CHECK(static_cast<double>(load.kv_cache_memory_bytes) <= free_now,
             "--kv-cache-memory-bytes asks for %.2f GiB, %.2f GiB of %.2f are free after weights "
             "and activations",
             static_cast<double>(load.kv_cache_memory_bytes) / kGiB, free_now / kGiB,
             total / kGiB);
    return load.kv_cache_memory_bytes;
  }
  VT_CHECK(load.memory_utilization > 0 && load.memory_utilization <= 1,
           "--gpu-memory-utilization is %g, not a share of the card", load.memory_utilization);
  const double budget = total * load.memory_utilization;
  VT_CHECK(budget <= free_before,
           "--gpu-memory-utilization %g asks for %.2f of %.2f GiB, %.2f GiB are free: lower it, or "
           "end what else uses the card",
           load.memory_utilization, budget / kGiB, total / kGiB, free_before / kGiB);
  const double left = std::min(budget - (free_before - free_now), free_now);
  return static_cast<std::int64_t>(std::max(left, 0.0));
}

}  // namespace

std::int64_t block_bytes(const Program& program, int block_size) {
  if (program.kv_groups.empty()) return 0;
  const KvGroupSpec& group = program.kv_groups[0];
  return std::int64_t{2} * group.num_layers * group.num_kv_heads * block_size * group.head_dim *
         dtype_bytes(group.dtype);
}

std::int64_t most_blocks(const Program& program, const VtCudaLoad& load) {
  // Slots are 32-bit numbers.
  return std::min(load.max_num_seqs * blocks_per_row(program, load) + 1,
                  (std::int64_t{1} << 31) / load.block_size - 1);
}

int num_kv_blocks(const Program& program, const VtCudaLoad& load, const DeviceMemory& memory) {
  const std::int64_t block = block_bytes(program, load.block_size);
  const std::int64_t most = most_blocks(program, load);
  if (block == 0) return static_cast<int>(most);
  const std::int64_t bytes = bytes_for_blocks(load, memory);
  const std::int64_t blocks = std::min(bytes / block, most);
  if (load.fit_model_len != 0) {
    VT_CHECK(blocks >= 2,
             "the KV cache has %.2f GiB, not enough for a block of %d tokens: raise "
             "--gpu-memory-utilization or --kv-cache-memory-bytes",
             static_cast<double>(bytes) / kGiB, load.block_size);
    return static_cast<int>(blocks);
  }
  const std::int64_t needed = blocks_per_row(program, load) + 1;
  VT_CHECK(blocks >= needed,
           "--max-model-len %d needs %.2f GiB of KV cache, there are %.2f: the largest that fits "
           "is %lld; lower --max-model-len, or raise --gpu-memory-utilization or "
           "--kv-cache-memory-bytes",
           load.max_model_len, static_cast<double>(needed * block) / kGiB,
           static_cast<double>(bytes) / kGiB,
           static_cast<long long>(std::max<std::int64_t>(blocks - 1, 0) * load.block_size));
  return static_cast<int>(blocks);
}

}  // namespace vt
