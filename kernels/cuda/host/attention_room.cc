#include "attention_room.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "launch_error.h"

namespace vt {

namespace {

constexpr const char* kOwner = "attentionScratch";
/// 256 rows of 4,096 tokens on 8 KV heads of 128 fit.
constexpr std::size_t kScratchBytes = std::size_t{288} << 20;
/// Of both lists: kernels/cuda/attention.cuh, AttentionWork.
constexpr std::size_t kWorkBytes = 32;
/// Of a group: VtCudaAttention, work_counts.
constexpr std::size_t kCountBytes = 16;
/// A work of these many rows (queries times heads of a KV head) or fewer is decode.
constexpr int kDecodeRows = 16;

std::int64_t work_scratch_bytes(const AttentionShape& shape) {
  return std::int64_t{4} * shape.num_kv_heads * kDecodeRows * (shape.head_dim + 2);
}

/// As plan_attention counts.
int num_chunks(int key_begin, int seq_len) {
  int count = 0;
  for (int key = key_begin; key < seq_len; count++)
    key = key < 8192 ? (key / 256 + 1) * 256 : (key / 2048 + 1) * 2048;
  return count;
}

int decode_works(const AttentionShape& shape, int seq_len, int num_queries) {
  const int first = shape.window > 0 ? std::max(0, seq_len - num_queries - shape.window + 1) : 0;
  return num_chunks(first / 64 * 64, seq_len);
}

/// Most works of a row with one query, whatever its length up to `max_len`.
int max_decode_works(const AttentionShape& shape, int max_len) {
  const int all = num_chunks(0, max_len);
  return shape.window > 0 ? std::min(all, (shape.window + 63) / 256 + 2) : all;
}

/// By hand, or what measured best: docs/kernels.md.
int chosen_prefill(int head_dim) {
  constexpr const char* kNames[] = {"mma", "overlap", "turns"};
  const char* wanted = std::getenv("VLLM_TS_CUDA_PREFILL");
  if (wanted == nullptr || *wanted == '\0')
    return head_dim == 64 ? VT_CUDA_PREFILL_TURNS : VT_CUDA_PREFILL_OVERLAP;
  for (int i = 0; i < 3; i++)
    if (std::strcmp(wanted, kNames[i]) == 0) return i;
  VT_FAIL("VLLM_TS_CUDA_PREFILL is '%s': mma, overlap or turns", wanted);
}

}  // namespace

AttentionRoom::AttentionRoom(const AttentionShape& shape, const RowTableSizes& rows,
                             int max_num_tokens, Ledger& ledger)
    : shape_(shape),
      max_model_len_(rows.max_model_len),
      prefill_(vt_cuda_prefill_for(chosen_prefill(shape.head_dim), shape.head_dim)),
      prefill_rows_(vt_cuda_prefill_rows(prefill_, shape.head_dim)),
      tile_queries_(prefill_rows_ / (shape.num_heads / shape.num_kv_heads)) {
  VT_CHECK(shape.num_heads / shape.num_kv_heads <= kDecodeRows,
           "attention: %d heads over %d KV heads: at most %d may share one on cuda",
           shape.num_heads, shape.num_kv_heads, kDecodeRows);
  const std::int64_t of_row = num_chunks(0, rows.max_model_len);
  const std::int64_t of_all = of_row * std::min(rows.num_rows, max_num_tokens);
  const auto room = static_cast<std::int64_t>(kScratchBytes) / work_scratch_bytes(shape);
  max_decode_work_ = static_cast<int>(std::min(of_all, std::max(of_row, room)));
  const std::int64_t prefill =
      max_num_tokens / tile_queries_ + std::min(rows.num_rows, max_num_tokens);
  decode_lists_ = DeviceBuffer(of_all * kWorkBytes, kOwner, ledger);
  prefill_lists_ = DeviceBuffer(prefill * kWorkBytes, kOwner, ledger);
  counts_ = DeviceBuffer(kCountBytes * rows.num_rows, kOwner, ledger);
  scratch_ = DeviceBuffer(max_decode_work_ * work_scratch_bytes(shape), kOwner, ledger);
  counters_ = DeviceBuffer(std::size_t{4} * rows.num_rows * shape.num_kv_heads, kOwner, ledger);
}

void AttentionRoom::divide(const std::vector<BatchRow>& rows,
                           std::vector<AttentionGroup>& groups) const {
  groups.clear();
  const int heads = shape_.num_heads / shape_.num_kv_heads;
  AttentionGroup group{};
  for (int i = 0; i < static_cast<int>(rows.size()); i++) {
    const BatchRow& row = rows[i];
    const bool decodes = row.count * heads <= kDecodeRows;
    const int decode = decodes ? decode_works(shape_, row.start + row.count, row.count) : 0;
    if (group.decode_work + decode > max_decode_work_) {
      groups.push_back(group);
      group = {i, 0, 0, 0, group.decode_begin + group.decode_work,
               group.prefill_begin + group.prefill_work, group.index + 1};
    }
    group.num_rows++;
    group.decode_work += decode;
    if (!decodes) group.prefill_work += (row.count + tile_queries_ - 1) / tile_queries_;
  }
  if (group.num_rows > 0) groups.push_back(group);
}

AttentionGroup AttentionRoom::decode_group(int num_rows) const {
  const int works = max_decode_works(shape_, max_model_len_);
  const std::int64_t most = std::int64_t{works} * num_rows;
  return {0, num_rows, static_cast<int>(std::min<std::int64_t>(most, max_decode_work_)), 0, 0, 0,
          0};
}

VtCudaPlanAttention AttentionRoom::plan_of(const AttentionGroup& group,
                                           const StepArrays& arrays) const {
  VtCudaPlanAttention args{};
  VtCudaAttention lists{};
  describe(group, lists);
  args.query_start = arrays.query_start + group.row_begin;
  args.seq_lens = arrays.seq_lens + group.row_begin;
  args.row_of = arrays.row_of + group.row_begin;
  args.decode_work = const_cast<std::int32_t*>(lists.decode_work);
  args.prefill_work = const_cast<std::int32_t*>(lists.prefill_work);
  args.work_counts = lists.work_counts;
  args.num_seqs = group.num_rows;
  args.max_work = std::max({1, group.decode_work, group.prefill_work});
  args.num_heads = shape_.num_heads;
  args.num_kv_heads = shape_.num_kv_heads;
  args.window = shape_.window;
  args.prefill_rows = prefill_rows_;
  args.decode_cluster = lists.decode_cluster;
  return args;
}

void AttentionRoom::plan(const AttentionGroup& group, const StepArrays& arrays, int flags,
                         void* stream) const {
  VtCudaPlanAttention args = plan_of(group, arrays);
  args.flags = flags;
  VT_LAUNCH(vt_cuda_plan_attention(&args, stream));
}

void AttentionRoom::describe(const AttentionGroup& group, VtCudaAttention& args) const {
  constexpr std::size_t kWorkWords = kWorkBytes / 4;
  args.decode_work = decode_lists_.as<std::int32_t>() + group.decode_begin * kWorkWords;
  args.prefill_work = prefill_lists_.as<std::int32_t>() + group.prefill_begin * kWorkWords;
  args.work_counts = counts_.as<std::int32_t>() + group.index * (kCountBytes / 4);
  args.max_decode_work = group.decode_work;
  args.max_prefill_work = group.prefill_work;
  args.scratch = scratch_.as<void>();
  args.counters = counters_.as<std::uint32_t>();
  args.num_heads = shape_.num_heads;
  args.num_kv_heads = shape_.num_kv_heads;
  args.head_dim = shape_.head_dim;
  args.window = shape_.window;
  args.prefill = prefill_;
  args.decode_cluster = vt_cuda_decode_cluster(group.decode_work, group.num_rows,
                                               shape_.num_kv_heads, shape_.head_dim);
}

}  // namespace vt
