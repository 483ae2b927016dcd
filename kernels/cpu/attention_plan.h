// How the threads divide a step's attention: made once a step, used by every layer. A tile is a few
// query rows (token, head) of one KV head of one request. Where a step has few tiles and long
// contexts, their chunks of keys go to different threads, and whoever finishes a tile's last chunk
// merges them all in ascending order, so that the division never shows in the result.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "../host/batch.h"

namespace vt {

/// Chunks of keys at absolute borders: 256 positions each up to 8,192, then 2,048.
constexpr int kChunk = 256, kLongChunk = 2048, kLongFrom = 8192;
inline int chunk_of(int position) {
  return position < kLongFrom ? position / kChunk
                              : kLongFrom / kChunk + (position - kLongFrom) / kLongChunk;
}
inline int chunk_begin(int chunk) {
  return chunk < kLongFrom / kChunk ? chunk * kChunk
                                    : kLongFrom + (chunk - kLongFrom / kChunk) * kLongChunk;
}

struct AttentionTile {
  int batch_row;
  int kv_head;
  /// Query rows [begin, begin + num_rows) of the KV head: row r is token r / group and head
  /// r % group, counted within the batch row and the KV head.
  int row_begin, num_rows;
  int first_chunk, num_chunks;
  /// First of its chunks' partial results, -1 where one thread does all chunks.
  int first_partial;
};

struct AttentionItem {
  int tile;
  /// -1 = all of the tile's chunks
  int chunk;
};

struct AttentionPlan {
  std::vector<AttentionTile> tiles;
  std::vector<AttentionItem> items;
  /// [threads + 1] items of thread t are [borders[t], borders[t + 1])
  std::vector<int> borders;
  int num_partials = 0;
  /// [tiles] chunks finished so far; 0 again after each layer.
  std::unique_ptr<std::atomic<int>[]> finished;
  int finished_size = 0;
};

struct AttentionShape {
  int num_heads, num_kv_heads, window, max_rows, num_threads;
};

/// Most partial results that any step can have, with rows of so many tokens.
std::int64_t max_partials(const AttentionShape& shape, int max_model_len);

void plan_attention(const Batch& batch, const AttentionShape& shape, AttentionPlan& plan);

}  // namespace vt
