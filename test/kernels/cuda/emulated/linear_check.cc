// linear by wgmma in emulated clusters: every end and cluster size against float64, and bit for bit
// against linear_large and the arithmetic of the op behind it, under several timings; and
// linear_skinny as it was compiled, with a copy engine or without. `linear_check [more | few]`.
#include "linear_case.h"

namespace {

using Timings = std::vector<emulated::Timing>;

/// Whether `run` is true under each of the timings.
template <typename Run>
bool under(const Timings& timings, const Run& run) {
  bool all = true;
  for (const emulated::Timing& timing : timings) {
    emulated::timing = timing;
    all &= run();
  }
  return all;
}

LinearCase::Output wanted_of(LinearCase& linear) {
  emulated::timing = {};
  return linear.wanted();
}

void check(const char* name, const Shape& shape, const Timings& timings) {
  LinearCase linear(shape);
  const LinearCase::Output wanted = wanted_of(linear);
  for (int large = VT_CUDA_LARGE_WGMMA; large <= VT_CUDA_LARGE_CLUSTER_2; large++) {
    const bool same = under(timings, [&] { return linear.run(large) == wanted; });
    const bool good = same && linear.error() < (shape.element == Element::f16 ? 1e-3 : 6e-3);
    report(name + std::string(", large ") + std::to_string(large), good,
           error_and_bits(linear.error(), same));
  }
}

void check_decode(const char* name, const Shape& shape, const Timings& timings, int form = 0) {
  LinearCase linear(shape);
  const LinearCase::Output wanted = wanted_of(linear);
  report(name, under(timings, [&] { return linear.run_decode(form) == wanted; }));
}

/// Each form for large weights: less than a block of the weight's rows, and clusters that are not full.
void check_decode_forms(const Timings& timings) {
  for (int form = 1; form <= 5; form++) {
    const bool few = form <= 3;
    const Element element = form % 2 == 0 ? Element::f16 : Element::bf16;
    const auto name = [&](const char* what) {
      return std::string("decode, large form ") + std::to_string(form) + ", " + what;
    };
    const Shape residual = {few ? 97 : 133, 536, 1040, element, VT_CUDA_PLAIN,
                            false,          1,   1,    64,      true};
    check_decode(name("residual").c_str(), residual, timings, form);
    LinearCase sums({few ? 128 : 191, 152, 528, element, VT_CUDA_PLAIN, false, 1, 1, 64});
    report(name("f32").c_str(), under(timings, [&] { return sums.decodes_to_f32(form); }));
    if (form != 3 && form != 5) continue;
    for (const bool scaled : {false, true}) {
      const Shape silu = {few ? 71 : 179, 304, 400, element, VT_CUDA_SILU_AND_MUL, false, 1, 1, 64,
                          false,          scaled};
      check_decode(name(scaled ? "silu, scaled" : "silu").c_str(), silu, timings, form);
    }
  }
}

/// Which sizes linear_decode is asked for, where 15 clusters of 8 blocks, and 30 of 4, run at a time.
void check_decode_choice() {
  vt::multiprocessors = 120;
  const auto ahead = [](int m, int n, int k, int epilogue = VT_CUDA_PLAIN, bool f32 = false) {
    VtCudaLinear args = {};
    args.m = m;
    args.n = n;
    args.k = k;
    args.epilogue = epilogue;
    args.dtype = VT_CUDA_BF16;
    args.out_dtype = f32 ? VT_CUDA_F32 : VT_CUDA_BF16;
    args.out_stride = args.residual_stride = n;
    return vt::linear_decode_is_ahead(args);
  };
  const int silu = VT_CUDA_SILU_AND_MUL;
  bool good = true;
  for (const int m : {64, 65, 128, 129, 192, 193, 224, 225, 256, 257}) {
    const bool large = m > 64 && m <= 192, small = m > 64 && m <= 224;
    // 8B, and a rank of two.
    for (const int ranks : {1, 2}) {
      const bool f32 = ranks > 1;
      good &= ahead(m, 6144 / ranks, 4096) == large;
      good &= ahead(m, 4096, 4096 / ranks, VT_CUDA_PLAIN, f32) == large;
      good &= ahead(m, 28672 / ranks, 4096, silu) == large;
      good &= ahead(m, 4096, 14336 / ranks, VT_CUDA_PLAIN, f32) == large;
    }
    // 1B, and weights whose clusters do not run at once.
    good &= !ahead(m, 3072, 2048) && !ahead(m, 2048, 2048) && !ahead(m, 2048, 8192);
    good &= !ahead(m, 16384, 2048, silu) && !ahead(m, 14336, 4096) && !ahead(m, 128256, 4096);
    // Qwen3-0.6B.
    good &= ahead(m, 4096, 1024) == small && ahead(m, 1024, 3072) == small;
    good &= !ahead(m, 1024, 3072, VT_CUDA_PLAIN, true);
    good &= ahead(m, 6144, 1024, silu) == (m > 64 && m <= 256);
  }
  report("decode, sizes", good);
}

/// Copies that come as early as they may, and as late.
const Timings kSkinny = {{false, false, 0}, {true, false, 1}};

/** In stages of x and weight, or with x held where `tuning` lets it be. */
void check_skinny(const char* name, const Shape& shape, int tuning) {
  LinearCase linear(shape);
  const LinearCase::Output wanted = wanted_of(linear);
  report(name, under(kSkinny, [&] { return linear.run_skinny(tuning) == wanted; }));
}

/** With a norm's late scale in front of it, or what the norm behind it needs. */
void check_late(const char* name, Shape shape, int tuning = 0) {
  (shape.residual ? shape.gives_squares : shape.scaled) = true;
  LinearCase linear(shape);
  const LinearCase::Output wanted = wanted_of(linear);
  const bool by_squares = shape.scaled && shape.m <= VT_CUDA_SQUARES_ROWS;
  report(std::string("late ") + name, under({{false, false, 0}, {true, true, 1}}, [&] {
    return linear.run_skinny(tuning, Scale::by_rows) == wanted &&
           (!by_squares || linear.run_skinny(tuning, Scale::by_squares) == wanted);
  }));
}

void check_sends(const char* name, const Shape& shape, int num_ranks, int tuning) {
  LinearCase linear(shape);
  report(std::string("sends ") + name,
         under(kSkinny, [&] { return linear.sends(num_ranks, tuning); }));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const bool more = what == "more", few = what == "few";
  const Element bf16 = Element::bf16, f16 = Element::f16;
  const Timings late = {{true, true, 0}};
  const Timings some = {{true, true, 0}, {false, true, 1}};
  const Timings all = {
      {false, false, 0}, {true, true, 0}, {false, true, 1}, {true, false, 2}, {true, true, 3}};
  if (!few) check_decode_choice();
  vt::multiprocessors = 4;
  if (!few) {
    check("plain 150 x 600, k 400", {150, 600, 400, bf16, VT_CUDA_PLAIN, true, 1, 1, 64}, some);
    // Two clusters: tiles of 224 in one round, then of 256.
    check("silu 70 x 272, k 144", {70, 272, 144, f16, VT_CUDA_SILU_AND_MUL, true, 1, 1, 64}, late);
    check("silu 260 x 272, k 80", {260, 272, 80, bf16, VT_CUDA_SILU_AND_MUL, false, 1, 1, 64}, late);
    check("silu 200 x 272, k 32, scaled",
          {200, 272, 32, bf16, VT_CUDA_SILU_AND_MUL, false, 1, 1, 64, false, true}, some);
    check("rope 66 x 6 of 64", {66, 384, 64, bf16, VT_CUDA_ROPE_AND_CACHE, true, 2, 2, 64}, late);
    check("rope 66 x 3 of 128", {66, 384, 80, f16, VT_CUDA_ROPE_AND_CACHE, false, 1, 1, 128}, late);
  }
  if (!few) {
    check_decode("decode, silu 66 x 144, k 464",
                 {66, 144, 464, bf16, VT_CUDA_SILU_AND_MUL, false, 1, 1, 64}, some);
    check_decode("decode, silu 100 x 1040, k 400",
                 {100, 1040, 400, f16, VT_CUDA_SILU_AND_MUL, false, 1, 1, 64}, late);
    check_decode("decode, silu 210 x 1040, k 80, scaled",
                 {210, 1040, 80, bf16, VT_CUDA_SILU_AND_MUL, false, 1, 1, 64, false, true}, some);
    check_decode("decode, silu 140 x 144, k 80, scaled, an odd number of tiles",
                 {140, 144, 80, bf16, VT_CUDA_SILU_AND_MUL, false, 1, 1, 64, false, true}, late);
    check_decode("decode, silu 100 x 144, k 80, scaled",
                 {100, 144, 80, f16, VT_CUDA_SILU_AND_MUL, false, 1, 1, 64, false, true}, late);
    check_decode("decode, residual 137 x 136, k 800",
                 {137, 136, 800, bf16, VT_CUDA_PLAIN, false, 1, 1, 64, true}, some);
    check_decode("decode, plain 230 x 1032, k 272",
                 {230, 1032, 272, bf16, VT_CUDA_PLAIN, false, 1, 1, 64}, late);
    check_decode_forms(some);
  }
  constexpr int kInStages = static_cast<int>(1u << 31);
  check_skinny("plain 5 x 100, k 400", {5, 100, 400, bf16, VT_CUDA_PLAIN, true, 1, 1, 64}, 0);
  check_skinny("plain 33 x 264, k 512", {33, 264, 512, bf16, VT_CUDA_PLAIN, true, 1, 1, 64}, 0);
  check_skinny("silu 2 x 272, k 144", {2, 272, 144, bf16, VT_CUDA_SILU_AND_MUL, true, 1, 1, 64}, 0);
  check_skinny("rope 1 x 6 of 80", {1, 480, 320, bf16, VT_CUDA_ROPE_AND_CACHE, true, 2, 2, 80},
               kInStages);
  check_skinny("rope 20 x 3 of 96", {20, 288, 256, bf16, VT_CUDA_ROPE_AND_CACHE, true, 1, 1, 96},
               0);
  const auto late_of = [&](const char* name, int m, int n, int k, int epilogue, int tuning = 0) {
    check_late(name, {m, n, k, bf16, epilogue, false, 1, 1, 64, epilogue == VT_CUDA_PLAIN}, tuning);
  };
  late_of("out 5 x 1000, k 64", 5, 1000, 64, VT_CUDA_PLAIN);
  late_of("silu 17 x 1120, k 592", 17, 1120, 592, VT_CUDA_SILU_AND_MUL);
  if (few) {
    late_of("out 1 x 1064, k 144", 1, 1064, 144, VT_CUDA_PLAIN);
    late_of("out 2 x 1000, k 64, wide", 2, 1000, 64, VT_CUDA_PLAIN, 2 << 8);
    late_of("out 30 x 264, k 80", 30, 264, 80, VT_CUDA_PLAIN);
    late_of("silu 2 x 272, k 1040", 2, 272, 1040, VT_CUDA_SILU_AND_MUL);
    late_of("silu 64 x 48, k 32", 64, 48, 32, VT_CUDA_SILU_AND_MUL);
    late_of("rope 1 x 3 of 64, k 4096", 1, 192, 4096, VT_CUDA_ROPE_AND_CACHE);
    late_of("rope 11 x 3 of 64, k 2048", 11, 192, 2048, VT_CUDA_ROPE_AND_CACHE);
    check_late("plain 9 x 104, k 1552", {9, 104, 1552, bf16, VT_CUDA_PLAIN, false, 1, 1, 64});
  }
  if (few) {
    constexpr int kNarrow = 1 << 8, kWide = 2 << 8;
    const auto sends = [&](const char* name, int m, int n, int k, int num_ranks, int tuning) {
      check_sends(name, {m, n, k, bf16, VT_CUDA_PLAIN, false, 1, 1, 64}, num_ranks, tuning);
    };
    sends("1 x 144, k 256, wide", 1, 144, 256, 2, kWide);
    sends("1 x 144, k 256, narrow", 1, 144, 256, 2, kNarrow);
    sends("2 x 1104, k 128, by shape, several passes", 2, 1104, 128, 8, 0);
    sends("2 x 160, k 128, narrow in stages", 2, 160, 128, 3, kNarrow | kInStages);
    sends("8 x 80, k 192, by shape", 8, 80, 192, 3, 0);
    sends("13 x 96, k 128, by shape", 13, 96, 128, 2, 0);
    sends("16 x 112, k 128, by shape", 16, 112, 128, 4, 0);
    check_skinny("plain 1 x 200, k 1024", {1, 200, 1024, bf16, VT_CUDA_PLAIN, true, 1, 1, 64}, 0);
    check_skinny("plain 16 x 136, k 1536", {16, 136, 1536, bf16, VT_CUDA_PLAIN, true, 1, 1, 64}, 0);
    check_skinny("silu 8 x 416, k 1024", {8, 416, 1024, bf16, VT_CUDA_SILU_AND_MUL, true, 1, 1, 64},
                 0);
    check_skinny("plain 1 x 24, k 512, a block without a unit",
                 {1, 24, 512, bf16, VT_CUDA_PLAIN, true, 1, 1, 64}, 0);
    check_skinny("plain 2 x 1096, k 320, five passes",
                 {2, 1096, 320, bf16, VT_CUDA_PLAIN, true, 1, 1, 64}, 0);
    check_skinny("silu 3 x 1120, k 192, in stages",
                 {3, 1120, 192, bf16, VT_CUDA_SILU_AND_MUL, true, 1, 1, 64}, 0);
  }
  if (more) {
    check("plain 1300 x 264", {1300, 264, 64, bf16, VT_CUDA_PLAIN, false, 1, 1, 64}, all);
    check("plain 65 x 8, k 16", {65, 8, 16, f16, VT_CUDA_PLAIN, false, 1, 1, 64}, all);
    check("silu 600 x 1024", {600, 1024, 128, bf16, VT_CUDA_SILU_AND_MUL, false, 1, 1, 64}, all);
  }
  return exit_status();
}
