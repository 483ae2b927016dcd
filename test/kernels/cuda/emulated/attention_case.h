// Attention of made-up numbers: rows with their queries and the cache that they read, what the kernels
// give of them by prefill or by decode, and how far that is from float64. Beside checks.h.
#pragma once

#include <cmath>
#include <cstdlib>

#include "checks.h"

namespace {

struct Shape {
  int heads, kv_heads, dim, block_size, window;
  Element element;
};

/** Of a row: tokens already in the cache, and queries. */
struct Row {
  int context, queries;
};

class AttentionCase {
 public:
  AttentionCase(const Shape& shape, const std::vector<Row>& rows) : shape_(shape), rows_(rows) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const auto number = [&](float scale) {
      return emulated::from_float(shape.element, normal(random) * scale);
    };
    std::vector<int> order;
    for (const Row& row : rows) most_blocks_ = std::max(most_blocks_, blocks_of(row));
    most_blocks_++;
    for (const Row& row : rows)
      for (int b = 0; b < blocks_of(row); b++) order.push_back(static_cast<int>(order.size()) + 1);
    std::shuffle(order.begin(), order.end(), random);
    tables_.assign(rows.size() * most_blocks_, 0);
    // What no row owns is NaN.
    cache_.assign((order.size() + 1) * kLayers * 2 * plane(), 0xffff);
    query_start_ = {0};
    int at = 0;
    for (std::size_t r = 0; r < rows.size(); r++) {
      for (int b = 0; b < blocks_of(rows[r]); b++) tables_[r * most_blocks_ + b] = order[at++];
      seq_lens_.push_back(rows[r].context + rows[r].queries);
      query_start_.push_back(query_start_.back() + rows[r].queries);
      for (int of_v = 0; of_v < 2; of_v++)
        for (int head = 0; head < shape.kv_heads; head++)
          for (int key = 0; key < seq_lens_[r]; key++)
            for (int d = 0; d < shape.dim; d++) *key_at(r, of_v, head, key, d) = number(1);
    }
    const std::size_t stride = (shape.heads + 2 * shape.kv_heads) * shape.dim;
    qkv_.assign(query_start_.back() * stride, 0xffff);
    for (int t = 0; t < query_start_.back(); t++)
      for (int i = 0; i < shape.heads * shape.dim; i++) qkv_[t * stride + i] = number(1.5f);
  }

  /** All queries, by the kernels that a plan for `prefill` chooses. */
  Words run(int prefill) {
    return run(prefill, seq_lens_, query_start_, tables_.data(), qkv_);
  }

  /** The last `count` queries of rows begin .. end - 1. */
  Words run_last(int count, std::size_t begin, std::size_t end) {
    std::vector<std::int32_t> start = {0};
    Words queries;
    for (std::size_t r = begin; r < end; r++) {
      start.push_back(start.back() + count);
      queries.insert(queries.end(), qkv_.begin() + (query_start_[r + 1] - count) * qkv_stride(),
                     qkv_.begin() + query_start_[r + 1] * qkv_stride());
    }
    return run(VT_CUDA_PREFILL_MMA, {seq_lens_.begin() + begin, seq_lens_.begin() + end}, start,
               &tables_[begin * most_blocks_], queries);
  }

  /** Whether decode fetches what no kernel in front writes before it waits for that. */
  void read_early(bool early) { early_reads_ = early; }

  /** Lists are planned for clusters; whether launches have them too, and more room than works. */
  void use_clusters(bool launched) {
    uses_clusters_ = true;
    launches_clusters_ = launched;
  }
  /** Of the last run: whether blocks of a cluster shared rows. */
  bool ran_by_clusters() const { return ran_by_clusters_; }

  /** What run_last gives, of what run has given. */
  Words last_of(const Words& all, int count, std::size_t begin, std::size_t end) const {
    const int columns = shape_.heads * shape_.dim;
    Words rows;
    for (std::size_t r = begin; r < end; r++)
      rows.insert(rows.end(), all.begin() + (query_start_[r + 1] - count) * columns,
                  all.begin() + query_start_[r + 1] * columns);
    return rows;
  }

  /** Of some queries of each row: |got - wanted| / |wanted|. */
  double error(const Words& got) {
    double worst = 0;
    for (std::size_t r = 0; r < rows_.size(); r++)
      for (int query : {0, rows_[r].queries / 2, rows_[r].queries - 1})
        worst = std::max(worst, error_of(got, static_cast<int>(r), query));
    return worst;
  }

 private:
  static constexpr int kLayers = 2;

  Words run(int prefill, const std::vector<std::int32_t>& seq_lens,
            const std::vector<std::int32_t>& query_start, const std::int32_t* tables,
            const Words& qkv) {
    const int works = 192;
    std::vector<std::int32_t> decode(works * 8), lists(works * 8), counts(4);
    const int num_seqs = static_cast<int>(seq_lens.size());
    const int chunks = (*std::max_element(seq_lens.begin(), seq_lens.end()) + 255) / 256;
    const int room = std::max(num_seqs * chunks, vt::multiprocessors / shape_.kv_heads + 1);
    VtCudaPlanAttention plan = {};
    plan.query_start = query_start.data();
    plan.seq_lens = seq_lens.data();
    plan.decode_work = aligned(decode);
    plan.prefill_work = aligned(lists);
    plan.work_counts = counts.data();
    plan.num_seqs = num_seqs;
    plan.decode_cluster = uses_clusters_ ? 2 : 1;
    plan.max_work = works - 1;
    plan.num_heads = shape_.heads;
    plan.num_kv_heads = shape_.kv_heads;
    plan.window = shape_.window;
    plan.prefill_rows = vt_cuda_prefill_rows(prefill, shape_.dim);
    const emulated::Timing wanted = emulated::timing;
    emulated::timing = {};
    if (vt_cuda_plan_attention(&plan, nullptr) != 0) std::exit(1);
    emulated::timing = wanted;
    const int columns = shape_.heads * shape_.dim;
    Words out((query_start.back() + 1) * columns, 0x1234);
    // What no work has written is NaN.
    const std::size_t part = static_cast<std::size_t>(16) * (shape_.dim + 2);
    std::vector<float> scratch(counts[0] * shape_.kv_heads * part + 4, std::nanf(""));
    std::vector<std::uint32_t> counters(seq_lens.size() * shape_.kv_heads);
    VtCudaAttention args = {};
    args.out = out.data();
    args.qkv = qkv.data();
    args.kv_cache = cache_.data();
    args.block_tables = tables;
    args.decode_work = plan.decode_work;
    args.prefill_work = plan.prefill_work;
    args.work_counts = counts.data();
    args.max_decode_work = launches_clusters_ ? room : counts[0];
    args.decode_cluster = launches_clusters_ ? 2 : 1;
    args.max_prefill_work = counts[1];
    args.scratch = aligned(scratch);
    args.counters = counters.data();
    args.num_layers = kLayers;
    args.layer = 1;
    args.num_heads = shape_.heads;
    args.num_kv_heads = shape_.kv_heads;
    args.head_dim = shape_.dim;
    args.block_size = shape_.block_size;
    args.max_num_blocks = most_blocks_;
    args.qkv_stride = static_cast<int>(qkv_stride());
    args.out_stride = columns;
    args.window = shape_.window;
    args.scale = 1 / std::sqrt(static_cast<float>(shape_.dim));
    args.dtype = shape_.element == Element::f16 ? VT_CUDA_F16 : VT_CUDA_BF16;
    args.prefill = prefill;
    args.flags = early_reads_ ? VT_CUDA_EARLY_READS : 0;
    if (vt_cuda_attention(&args, nullptr) != 0) std::exit(1);
    for (std::size_t i = out.size() - columns; i < out.size(); i++)
      if (out[i] != 0x1234) emulated::give_up("a write beyond the last token");
    for (const std::uint32_t counter : counters)
      if (counter != 0) emulated::give_up("a counter that is not back at zero");
    if (counts[2] != 0) emulated::give_up("works dealt out that the next layer will miss");
    ran_by_clusters_ = counts[3] != 0;
    out.resize(out.size() - columns);
    return out;
  }

  std::size_t qkv_stride() const {
    return static_cast<std::size_t>(shape_.heads + 2 * shape_.kv_heads) * shape_.dim;
  }
  int blocks_of(const Row& row) const {
    return (row.context + row.queries + shape_.block_size - 1) / shape_.block_size;
  }
  std::size_t plane() const {
    return static_cast<std::size_t>(shape_.kv_heads) * shape_.block_size * shape_.dim;
  }
  template <typename T>
  static T* aligned(std::vector<T>& list) {
    return list.data() + (16 - reinterpret_cast<std::uintptr_t>(list.data()) % 16) % 16 / 4;
  }
  std::uint16_t* key_at(std::size_t row, int of_v, int head, int key, int d) {
    const int block = tables_[row * most_blocks_ + key / shape_.block_size];
    return &cache_[((block * kLayers + 1) * 2 + of_v) * plane() +
                   (head * shape_.block_size + key % shape_.block_size) * shape_.dim + d];
  }
  double error_of(const Words& got, int row, int query) {
    const int stride = (shape_.heads + 2 * shape_.kv_heads) * shape_.dim;
    const int position = rows_[row].context + query, token = query_start_[row] + query;
    const int first = shape_.window > 0 ? std::max(0, position - shape_.window + 1) : 0;
    double difference = 0, norm = 0;
    for (int head = 0; head < shape_.heads; head++) {
      const int kv_head = head / (shape_.heads / shape_.kv_heads);
      std::vector<double> weights;
      double most = -1e300, sum = 0;
      for (int key = first; key <= position; key++) {
        double score = 0;
        for (int d = 0; d < shape_.dim; d++)
          score += static_cast<double>(emulated::to_float(
                       shape_.element, qkv_[token * stride + head * shape_.dim + d])) *
                   emulated::to_float(shape_.element, *key_at(row, 0, kv_head, key, d));
        weights.push_back(score / std::sqrt(static_cast<double>(shape_.dim)));
        most = std::max(most, weights.back());
      }
      for (double& weight : weights) sum += weight = std::exp(weight - most);
      for (int d = 0; d < shape_.dim; d++) {
        double wanted = 0;
        for (int key = first; key <= position; key++)
          wanted += weights[key - first] / sum *
                    emulated::to_float(shape_.element, *key_at(row, 1, kv_head, key, d));
        const double x = emulated::to_float(
            shape_.element, got[(token * shape_.heads + head) * shape_.dim + d]);
        difference += (x - wanted) * (x - wanted);
        norm += wanted * wanted;
      }
    }
    const double error = std::sqrt(difference / norm);
    return error == error ? error : 1e300;
  }

  Shape shape_;
  bool early_reads_ = false, uses_clusters_ = false, launches_clusters_ = false;
  bool ran_by_clusters_ = false;
  std::vector<Row> rows_;
  int most_blocks_ = 0;
  Words cache_, qkv_;
  std::vector<std::int32_t> tables_, query_start_, seq_lens_;
};

}  // namespace
