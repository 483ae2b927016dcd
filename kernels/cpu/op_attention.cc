// attention: each thread works through its items of the step's plan (attention_plan.h).
#include <algorithm>

#include "ops.h"

namespace vt {

namespace {

constexpr int kMaxTileRows = 16;

/// One tile of one layer, ready for the kernel.
class TileRun {
 public:
  TileRun(const OpCall& call, const BoundOp& op, const AttentionTile& tile)
      : call_(call), tile_(tile), kernels_(*call.step.kernels) {
    const BatchRow& row = call.step.batch.rows[tile.batch_row];
    const int num_heads = op.attr_int(1), group = num_heads / op.attr_int(2);
    const int window = op.attr_int(5);
    head_dim_ = op.attr_int(3);
    for (int r = 0; r < tile.num_rows; r++) {
      const int token = (tile.row_begin + r) / group;
      const int head = tile.kv_head * group + (tile.row_begin + r) % group;
      const int position = row.start + token;
      const std::int64_t t = row.token_begin + token;
      q_[r] = op.args[1].data + t * op.args[1].columns + head * head_dim_;
      out_[r] = op.args[0].data + t * op.args[0].columns + head * head_dim_;
      first_[r] = window > 0 ? std::max(0, position - window + 1) : 0;
      last_[r] = position + 1;
    }
    args_.q = q_;
    args_.first = first_;
    args_.last = last_;
    args_.num_rows = tile.num_rows;
    args_.head_dim = head_dim_;
    args_.scale = static_cast<float>(op.attrs[4]);
    args_.kv = call.step.kv->view(op.attr_int(0), tile.kv_head, call.step.rows->blocks(row.row));
  }

  void chunk(int index, float* max, float* sum, float* acc) {
    args_.chunk_begin = chunk_begin(tile_.first_chunk + index);
    args_.chunk_end = chunk_begin(tile_.first_chunk + index + 1);
    args_.max = max;
    args_.sum = sum;
    args_.acc = acc;
    kernels_.attention_chunk(args_);
  }

  /// All chunks, by this thread.
  void whole() {
    float* acc = call_.step.scratch[call_.thread].attention.data();
    float* chunk_acc = acc + kernels_.max_attention_rows * head_dim_;
    float max[kMaxTileRows], sum[kMaxTileRows], chunk_max[kMaxTileRows], chunk_sum[kMaxTileRows];
    chunk(0, max, sum, acc);
    for (int c = 1; c < tile_.num_chunks; c++) {
      chunk(c, chunk_max, chunk_sum, chunk_acc);
      for (int r = 0; r < tile_.num_rows; r++)
        kernels_.attention_merge(max + r, sum + r, acc + r * head_dim_, chunk_max[r], chunk_sum[r],
                                 chunk_acc + r * head_dim_, head_dim_);
    }
    for (int r = 0; r < tile_.num_rows; r++)
      kernels_.attention_finish(acc + r * head_dim_, sum[r], out_[r], head_dim_);
  }

  /// One chunk into its partial result.
  void partial(int index) {
    float* p = partial_at(index);
    chunk(index, p, p + kernels_.max_attention_rows, p + 2 * kernels_.max_attention_rows);
  }

  /// All partial results, ascending, into the first.
  void merge() {
    const int stride = kernels_.max_attention_rows;
    float* all = partial_at(0);
    for (int c = 1; c < tile_.num_chunks; c++) {
      const float* p = partial_at(c);
      for (int r = 0; r < tile_.num_rows; r++)
        kernels_.attention_merge(all + r, all + stride + r, all + 2 * stride + r * head_dim_, p[r],
                                 p[stride + r], p + 2 * stride + r * head_dim_, head_dim_);
    }
    for (int r = 0; r < tile_.num_rows; r++)
      kernels_.attention_finish(all + 2 * stride + r * head_dim_, all[stride + r], out_[r],
                                head_dim_);
  }

 private:
  float* partial_at(int index) const {
    const std::int64_t size = kernels_.max_attention_rows * (2 + head_dim_);
    return call_.step.attention_partials.data() + (tile_.first_partial + index) * size;
  }

  const OpCall& call_;
  const AttentionTile& tile_;
  const KernelTable& kernels_;
  int head_dim_;
  const float* q_[kMaxTileRows];
  float* out_[kMaxTileRows];
  int first_[kMaxTileRows], last_[kMaxTileRows];
  AttentionArgs args_;
};

}  // namespace

void run_attention(const OpCall& call, const BoundOp& op) {
  AttentionPlan& plan = call.step.attention;
  for (int i = plan.borders[call.thread]; i < plan.borders[call.thread + 1]; i++) {
    const AttentionItem& item = plan.items[i];
    const AttentionTile& tile = plan.tiles[item.tile];
    TileRun run(call, op, tile);
    if (item.chunk < 0) {
      run.whole();
      continue;
    }
    run.partial(item.chunk);
    if (plan.finished[item.tile].fetch_add(1, std::memory_order_acq_rel) + 1 == tile.num_chunks) {
      plan.finished[item.tile].store(0, std::memory_order_relaxed);
      run.merge();
    }
  }
}

}  // namespace vt
