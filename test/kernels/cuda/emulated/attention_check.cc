// Attention in the emulated block, against float64 and bit for bit: prefill by each wgmma kernel or
// by mma.sync, and the last queries of every row by decode, alone and together, under every timing
// of what is asynchronous. `attention_check [more]`.
#include "attention_case.h"

namespace {

double limit_of(const Shape& shape) { return shape.element == Element::f16 ? 8e-4 : 6e-3; }

/** mma.sync alone: prefill, and the last `count` queries by decode, the rows alone and together. */
void check_decode(const char* name, const Shape& shape, const std::vector<Row>& rows, int count,
                  const std::vector<emulated::Timing>& timings) {
  AttentionCase batch(shape, rows);
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
  AttentionCase batch(shape, rows);
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
  AttentionCase batch(shape, rows);
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
