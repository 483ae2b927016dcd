// Attention in the emulated block, against float64 and bit for bit: prefill by each wgmma kernel or
// by mma.sync, and the last queries of every row by decode, alone and together, under every timing
// of what is asynchronous. `attention_check [more]`.
#include <cmath>
#include <cstdlib>
#include <cstring>

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

class Case {
 public:
  Case(const Shape& shape, const std::vector<Row>& rows) : shape_(shape), rows_(rows) {
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
  Words last_of(const Words& all, int count,
                                     std::size_t begin, std::size_t end) const {
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
                                 const std::vector<std::int32_t>& query_start,
                                 const std::int32_t* tables,
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

double limit_of(const Shape& shape) { return shape.element == Element::f16 ? 8e-4 : 6e-3; }

/** mma.sync alone: prefill, and the last `count` queries by decode, the rows alone and together. */
void check_decode(const char* name, const Shape& shape, const std::vector<Row>& rows, int count,
                  const std::vector<emulated::Timing>& timings) {
  Case batch(shape, rows);
  emulated::timing = timings[0];
  const Words all = batch.run(VT_CUDA_PREFILL_MMA);
  const double error = batch.error(all);
  bool same = true;
  for (const emulated::Timing& timing : timings) {
    emulated::timing = timing;
    for (std::size_t r = 0; r < rows.size(); r++)
      same &= batch.run_last(count, r, r + 1) == batch.last_of(all, count, r, r + 1);
    for (const bool early : {false, true}) {
      batch.read_early(early);
      same &= batch.run_last(count, 0, rows.size()) == batch.last_of(all, count, 0, rows.size());
    }
    batch.read_early(false);
  }
  const bool good = same && error < limit_of(shape);
  report(name + std::string(", decode"), good, error_and_bits(error, same));
}

/**
 * The last `count` queries by clusters, where `fit` says that the rows are short and few enough, in
 * launches that have a cluster for each and in such as have not: the bits of prefill.
 */
void check_clusters(const char* name, const Shape& shape, const std::vector<Row>& rows, int count,
                    bool fit, const std::vector<emulated::Timing>& timings) {
  Case batch(shape, rows);
  emulated::timing = timings[0];
  const Words wanted =
      batch.last_of(batch.run(VT_CUDA_PREFILL_MMA), count, 0, rows.size());
  bool same = true, chosen = true;
  for (const emulated::Timing& timing : timings) {
    emulated::timing = timing;
    for (const bool early : {false, true}) {
      batch.read_early(early);
      batch.use_clusters(true);
      same &= batch.run_last(count, 0, rows.size()) == wanted;
      chosen &= batch.ran_by_clusters() == fit;
    }
    batch.use_clusters(false);
    same &= batch.run_last(count, 0, rows.size()) == wanted;
  }
  report(name + std::string(", by clusters"), same && chosen,
         (chosen ? "as it fits, " : "WRONGLY CHOSEN, ") + bits(same));
}

void check(const char* name, const Shape& shape, const std::vector<Row>& rows,
           const std::vector<emulated::Timing>& timings) {
  Case batch(shape, rows);
  emulated::timing = {};
  const Words wanted = batch.run(VT_CUDA_PREFILL_MMA);
  const double limit = limit_of(shape);
  for (int prefill = VT_CUDA_PREFILL_OVERLAP; prefill <= VT_CUDA_PREFILL_TURNS; prefill++) {
    bool same = true;
    double error = 0;
    for (const emulated::Timing& timing : timings) {
      emulated::timing = timing;
      const Words got = batch.run(prefill);
      same &= got == wanted;
      error = std::max(error, batch.error(got));
    }
    const bool good = same && error < limit;
    report(name + std::string(", prefill ") + std::to_string(prefill), good,
           error_and_bits(error, same));
  }
}

}  // namespace

int main(int argc, char**) {
  const bool more = argc > 1;
  const Element bf16 = Element::bf16, f16 = Element::f16;
  const std::vector<emulated::Timing> early = {{false, false, 0}}, late = {{true, true, 0}};
  const std::vector<emulated::Timing> some = {{true, true, 0}, {false, true, 1}};
  const std::vector<emulated::Timing> all = {
      {false, false, 0}, {true, true, 0}, {false, true, 1}, {true, false, 2}, {true, true, 3}};
  vt::multiprocessors = 2;
  check("4/2 x 64", {4, 2, 64, 16, 0, bf16}, {{0, 70}, {250, 9}}, some);
  check("2/1 x 128, f16, beyond 256", {2, 1, 128, 16, 0, f16}, {{200, 130}}, some);
  check("4/1 x 128, window 100, block 32", {4, 1, 128, 32, 100, bf16}, {{300, 40}}, late);
  check("3/1 x 64, a group of 3", {3, 1, 64, 64, 0, f16}, {{60, 90}}, early);
  const auto decode = [&](int dim, Element element) {
    const std::string name = "2/1 x " + std::to_string(dim);
    check_decode(name.c_str(), {2, 1, dim, 16, 0, element}, {{510, 20}, {0, 70}}, 1, some);
  };
  decode(80, bf16);
  decode(96, f16);
  decode(128, bf16);
  decode(256, f16);
  check_decode("4/2 x 64, window 500", {4, 2, 64, 32, 500, bf16}, {{1100, 30}, {900, 40}}, 3, late);
  vt::multiprocessors = 1;  // work enough that merges wait for the end of a block's works
  check_decode("4/2 x 80, merged", {4, 2, 80, 16, 0, f16}, {{600, 20}, {280, 20}, {90, 8}}, 3,
               late);
  check_decode("2/2 x 64, lengths from one tile to six", {2, 2, 64, 16, 0, bf16},
               {{0, 1}, {64, 1}, {191, 1}, {319, 1}, {62, 1}, {256, 1}}, 1, some);
  vt::multiprocessors = 16;
  // By prefill in the first run: more than 16 rows of queries and heads.
  check_decode("4/1 x 64, short rows of one tile to eight", {4, 1, 64, 16, 0, bf16},
               {{0, 5}, {59, 5}, {60, 5}, {195, 5}, {251, 5}, {252, 5}, {325, 5}, {444, 5}, {507, 5}},
               1, some);
  check_decode("8/1 x 64, f16, short rows", {8, 1, 64, 16, 0, f16}, {{297, 3}, {7, 3}}, 1, some);
  check_decode("6/2 x 64, short rows, window 300", {6, 2, 64, 64, 300, bf16},
               {{1100, 6}, {375, 6}, {470, 6}}, 1, some);
  check_clusters("4/1 x 80, two rows", {4, 1, 80, 16, 0, bf16}, {{506, 5}, {283, 5}}, 1, true, all);
  check_clusters("4/2 x 80, one chunk and two", {4, 2, 80, 16, 0, f16}, {{0, 3}, {300, 3}}, 3, true,
                 some);
  check_clusters("3/1 x 96, window", {3, 1, 96, 32, 200, bf16}, {{1100, 1}, {380, 1}}, 1, true,
                 some);
  check_clusters("4/1 x 128, short rows of one tile to eight", {4, 1, 128, 16, 0, bf16},
                 {{0, 5}, {60, 5}, {195, 5}, {251, 5}, {252, 5}, {320, 5}, {444, 5}, {507, 5}}, 1,
                 true, some);
  check_clusters("8/2 x 128, short rows, window 300", {8, 2, 128, 32, 300, f16},
                 {{1100, 6}, {375, 6}, {470, 6}}, 1, true, all);
  check_clusters("16/1 x 128", {16, 1, 128, 16, 0, bf16}, {{300, 1}, {256, 1}, {255, 1}}, 1, true,
                 some);
  check_clusters("2/1 x 256", {2, 1, 256, 16, 0, f16}, {{400, 8}}, 8, true, some);
  check_clusters("4/1 x 96, a row too long", {4, 1, 96, 16, 0, bf16}, {{300, 1}, {600, 1}}, 1,
                 false, some);
  check_clusters("1/1 x 96, too many rows", {1, 1, 96, 16, 0, bf16},
                 std::vector<Row>(9, {280, 1}), 1, false, late);
  report("clusters where each block of all rows has a multiprocessor",
         vt_cuda_decode_cluster(64, 8, 1, 96) == 2 && vt_cuda_decode_cluster(64, 9, 1, 96) == 1 &&
             vt_cuda_decode_cluster(1 << 20, 4, 2, 128) == 2 &&
             vt_cuda_decode_cluster(1 << 20, 5, 2, 128) == 1 &&
             vt_cuda_decode_cluster(16, 8, 1, 96) == 1 && vt_cuda_decode_cluster(64, 1, 1, 64) == 1,
         "");
  vt::multiprocessors = 2;
  check_clusters("2/1 x 80, too long, merged later", {2, 1, 80, 16, 0, bf16}, {{4350, 2}}, 1, false,
                 some);
  if (more) {
    for (int dim : {64, 80, 96, 128, 256}) {
      decode(dim, bf16);
      decode(dim, f16);
    }
    check("4/2 x 64", {4, 2, 64, 16, 0, bf16}, {{0, 130}, {250, 9}, {0, 70}}, all);
    check("2/1 x 128, f16", {2, 1, 128, 16, 0, f16}, {{200, 130}, {0, 17}}, all);
    check("8/2 x 128, long", {8, 2, 128, 16, 0, bf16}, {{8100, 120}, {1000, 65}}, late);
    check("16/1 x 64, window 700", {16, 1, 64, 16, 700, bf16}, {{1500, 33}, {0, 2}}, all);
  }
  return exit_status();
}
