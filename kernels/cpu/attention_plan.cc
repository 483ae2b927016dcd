#include "attention_plan.h"

#include <algorithm>

namespace vt {

namespace {

/// Below this many tiles a thread, chunks are divided too.
constexpr int kTilesPerThread = 4;

int first_key(int position, int window) {
  return window > 0 ? std::max(0, position - window + 1) : 0;
}

void add_tiles(const Batch& batch, int batch_row, const AttentionShape& shape,
               AttentionPlan& plan) {
  const BatchRow& row = batch.rows[batch_row];
  const int group = shape.num_heads / shape.num_kv_heads;
  const int rows = row.count * group;
  const int tiles = (rows + shape.max_rows - 1) / shape.max_rows;
  for (int kv_head = 0; kv_head < shape.num_kv_heads; kv_head++)
    for (int t = 0; t < tiles; t++) {
      const int begin = static_cast<int>(static_cast<std::int64_t>(rows) * t / tiles);
      const int end = static_cast<int>(static_cast<std::int64_t>(rows) * (t + 1) / tiles);
      const int first_chunk = chunk_of(first_key(row.start + begin / group, shape.window));
      const int last_chunk = chunk_of(row.start + (end - 1) / group);
      plan.tiles.push_back(
          {batch_row, kv_head, begin, end - begin, first_chunk, last_chunk - first_chunk + 1, -1});
    }
}

/// Work of an item, in query rows times keys, with a constant for what does not depend on keys.
double cost_of(const Batch& batch, const AttentionPlan& plan, const AttentionItem& item,
               int group) {
  const AttentionTile& tile = plan.tiles[item.tile];
  const BatchRow& row = batch.rows[tile.batch_row];
  const int last = row.start + (tile.row_begin + tile.num_rows - 1) / group + 1;
  const int begin = chunk_begin(item.chunk < 0 ? tile.first_chunk : tile.first_chunk + item.chunk);
  const int end =
      item.chunk < 0 ? last : std::min(last, chunk_begin(tile.first_chunk + item.chunk + 1));
  return (tile.num_rows + 1.0) * (end - begin + 16);
}

}  // namespace

std::int64_t max_partials(const AttentionShape& shape, int max_model_len) {
  if (shape.num_threads == 1) return 0;
  const std::int64_t max_chunks = chunk_of(max_model_len - 1) + 1;
  return max_chunks == 1 ? 0 : (kTilesPerThread * shape.num_threads - 1) * max_chunks;
}

void plan_attention(const Batch& batch, const AttentionShape& shape, AttentionPlan& plan) {
  plan.tiles.clear();
  plan.items.clear();
  plan.num_partials = 0;
  for (int i = 0; i < static_cast<int>(batch.rows.size()); i++) add_tiles(batch, i, shape, plan);
  const int num_tiles = static_cast<int>(plan.tiles.size());
  const bool divide = shape.num_threads > 1 && num_tiles < kTilesPerThread * shape.num_threads;
  for (int t = 0; t < num_tiles; t++) {
    AttentionTile& tile = plan.tiles[t];
    if (!divide || tile.num_chunks == 1) {
      plan.items.push_back({t, -1});
      continue;
    }
    tile.first_partial = plan.num_partials;
    plan.num_partials += tile.num_chunks;
    for (int chunk = 0; chunk < tile.num_chunks; chunk++) plan.items.push_back({t, chunk});
  }
  if (plan.finished_size < num_tiles) {
    plan.finished = std::make_unique<std::atomic<int>[]>(num_tiles);
    plan.finished_size = num_tiles;
  }
  for (int t = 0; t < num_tiles; t++) plan.finished[t].store(0, std::memory_order_relaxed);

  const int group = shape.num_heads / shape.num_kv_heads;
  double total = 0;
  for (const AttentionItem& item : plan.items) total += cost_of(batch, plan, item, group);
  plan.borders.assign(1, 0);
  double done = 0;
  int item = 0;
  const int num_items = static_cast<int>(plan.items.size());
  for (int thread = 1; thread < shape.num_threads; thread++) {
    const double wanted = total * thread / shape.num_threads;
    while (item < num_items) {
      const double cost = cost_of(batch, plan, plan.items[item], group);
      if (done + cost / 2 > wanted) break;
      done += cost;
      item++;
    }
    plan.borders.push_back(item);
  }
  plan.borders.push_back(num_items);
}

}  // namespace vt
