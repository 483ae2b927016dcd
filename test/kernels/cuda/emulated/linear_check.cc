// linear by wgmma in emulated clusters: every end and cluster size against float64, and bit for bit
// against linear_large and the arithmetic of the op behind it, under several timings; and
// linear_skinny as it was compiled, with a copy engine or without. `linear_check [more | few]`.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "device.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/linear_send.cuh"
#include "test/kernels/cuda/emulation/print_errors.h"

emulated::Dim first_block, gridDim;

namespace {

using emulated::Element;
using Words = std::vector<std::uint16_t>;

constexpr std::uint16_t kUntouched = 0x1234;
constexpr int kLayers = 2, kLayer = 1, kBlockSize = 16;

struct Shape {
  int m, n, k;
  Element element;
  int epilogue;
  bool addends;  // bias; where the epilogue takes one also a residual
  int heads, kv_heads, head_dim;
  bool residual = false;  // alone
};

class Case {
 public:
  explicit Case(const Shape& shape) : shape_(shape) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    const auto fill = [&](Words& words, std::size_t count, float scale) {
      // Rows end in NaN, 16-byte aligned.
      words.resize(count);
      for (std::uint16_t& word : words)
        word = emulated::from_float(shape.element, normal(random) * scale);
    };
    fill(x_, static_cast<std::size_t>(shape.m) * stride(), 1);
    fill(weight_, static_cast<std::size_t>(shape.n) * stride(), 0.1f);
    for (Words* words : {&x_, &weight_})
      for (std::size_t i = 0; i < words->size(); i++)
        if (static_cast<int>(i % stride()) >= shape.k) (*words)[i] = 0x7fff;
    fill(bias_, shape.n, 1);
    fill(residual_, static_cast<std::size_t>(shape.m) * shape.n, 1);
    for (int i = 0; i < shape.m * shape.head_dim; i++) angles_.push_back(normal(random));
    for (int i = 0; i < shape.m; i++) slots_.push_back(i % 7 == 3 ? -1 : i * 5 % 512);
  }

  struct Output {
    Words out, cache;
    bool operator==(const Output& other) const {
      return out == other.out && cache == other.cache;
    }
  };

  Output run(int large) {
    Output output = fresh_output();
    VtCudaLinear args = fused_args(output);
    args.large = large;
    if (!vt::linear_wgmma_takes(args)) emulated::give_up("not taken");
    if (vt::linear_wgmma(args, nullptr) != 0) std::exit(1);
    return output;
  }

  Output run_decode() {
    Output output = fresh_output();
    const VtCudaLinear args = fused_args(output);
    if (!vt::linear_decode_takes(args)) emulated::give_up("not taken");
    if (vt::linear_decode(args, nullptr) != 0) std::exit(1);
    return output;
  }

  Output run_skinny(int tuning) {
    Output output = fresh_output();
    VtCudaLinear args = fused_args(output);
    args.tuning = tuning;
    if (vt::linear_skinny_bf16(args, nullptr) != 0) std::exit(1);
    return output;
  }

  /**
   * The f32 sums of linear_skinny as they are written, and as each of `num_ranks` ranks finds them
   * in its inbox: true if these are the same bits, and nothing else was touched.
   */
  bool sends(int num_ranks, int tuning) {
    const std::size_t count = static_cast<std::size_t>(shape_.m) * shape_.n;
    std::vector<float> sums(count);
    Words none;
    VtCudaLinear args = linear_args(none, shape_.n);
    args.out = sums.data();
    args.out_dtype = VT_CUDA_F32;
    args.tuning = tuning;
    if (vt::linear_skinny_bf16(args, nullptr) != 0) std::exit(1);

    constexpr int kRank = 1, kOrdinal = 2;
    constexpr std::int64_t kSlot = 1 << 17;
    const std::uint64_t first_epoch = 5;
    std::vector<std::vector<std::uint32_t>> boards(num_ranks);
    vt::Outbox outbox = {};
    for (int r = 0; r < num_ranks; r++) {
      boards[r].assign((VT_CUDA_INBOX_OFFSET + 2 * num_ranks * kSlot) / 4, vt::kNothing);
      outbox.group.boards[r] = boards[r].data();
    }
    outbox.group.first_epoch = &first_epoch;
    outbox.group.slot_bytes = kSlot;
    outbox.group.rank = kRank;
    outbox.group.num_ranks = num_ranks;
    outbox.ordinal = kOrdinal;
    args.out = nullptr;
    if (vt::linear_skinny_bf16(args, nullptr, &outbox) != 0) std::exit(1);
    const std::int64_t slot = (first_epoch + kOrdinal) % 2 * num_ranks + kRank;
    for (const std::vector<std::uint32_t>& board : boards) {
      std::vector<std::uint32_t> wanted(board.size(), vt::kNothing);
      std::uint32_t* to = &wanted[(VT_CUDA_INBOX_OFFSET + slot * kSlot) / 4];
      for (std::size_t i = 0; i < count; i++) {
        // First halves of pieces of 8 columns, then second halves.
        const std::size_t row = i / shape_.n, column = i % shape_.n;
        const std::size_t at = row * shape_.n + column % 8 / 4 * (shape_.n / 2) + column / 8 * 4;
        std::memcpy(to + at + column % 4, &sums[i], 4);
      }
      if (board != wanted) return false;
    }
    return true;
  }

  /** linear_large, then what is behind it. */
  Output wanted() {
    Words sums(static_cast<std::size_t>(shape_.m) * shape_.n);
    VtCudaLinear args = linear_args(sums, shape_.n);
    if (vt::linear_large(args, nullptr) != 0) std::exit(1);
    Output output = fresh_output();
    if (shape_.element == Element::f16) {
      join<__half>(sums, output);
    } else {
      join<__nv_bfloat16>(sums, output);
    }
    error_ = error_of(sums);
    return output;
  }

  double error() const { return error_; }

 private:
  VtCudaLinear fused_args(Output& output) {
    VtCudaLinear args = linear_args(output.out, out_columns());
    args.epilogue = shape_.epilogue;
    args.cos_sin = angles_.data();
    args.slots = slots_.data();
    args.kv_cache = output.cache.data();
    args.num_layers = kLayers;
    args.layer = kLayer;
    args.block_size = kBlockSize;
    args.num_heads = shape_.heads;
    args.num_kv_heads = shape_.kv_heads;
    args.head_dim = shape_.head_dim;
    return args;
  }
  bool adds_residual() const {
    return shape_.residual || (shape_.addends && shape_.epilogue == VT_CUDA_PLAIN);
  }
  int stride() const { return (shape_.k + 15) / 8 * 8; }
  int out_columns() const {
    return shape_.epilogue == VT_CUDA_SILU_AND_MUL     ? shape_.n / 2
           : shape_.epilogue == VT_CUDA_ROPE_AND_CACHE ? shape_.heads * shape_.head_dim
                                                       : shape_.n;
  }
  Output fresh_output() const {
    const std::size_t cache =
        (512 / kBlockSize) * kLayers * 2 * shape_.kv_heads * kBlockSize * shape_.head_dim;
    return {Words(static_cast<std::size_t>(shape_.m + 1) * out_columns(), kUntouched),
            Words(cache, kUntouched)};
  }
  VtCudaLinear linear_args(Words& out, int columns) {
    VtCudaLinear args = {};
    args.out = out.data();
    args.x = x_.data();
    args.weight = weight_.data();
    if (shape_.addends) args.bias = bias_.data();
    if (adds_residual()) args.residual = residual_.data();
    args.m = shape_.m;
    args.n = shape_.n;
    args.k = shape_.k;
    args.out_stride = columns;
    args.x_stride = args.weight_stride = stride();
    args.residual_stride = shape_.n;
    args.dtype = args.out_dtype = shape_.element == Element::f16 ? VT_CUDA_F16 : VT_CUDA_BF16;
    return args;
  }

  template <typename T>
  void join(const Words& sums, Output& output) const {
    const auto value = [&](int m, int n) {
      return emulated::to_float(shape_.element, sums[static_cast<std::size_t>(m) * shape_.n + n]);
    };
    const auto round = [&](float x) { return emulated::from_float(shape_.element, x); };
    const int columns = out_columns(), half = shape_.head_dim / 2;
    for (int m = 0; m < shape_.m; m++) {
      std::uint16_t* out = &output.out[static_cast<std::size_t>(m) * columns];
      if (shape_.epilogue == VT_CUDA_PLAIN) {
        for (int n = 0; n < columns; n++) out[n] = round(value(m, n));
      } else if (shape_.epilogue == VT_CUDA_SILU_AND_MUL) {
        for (int n = 0; n < columns; n++) {
          const int gate = n / 8 * 16 + n % 8;
          out[n] = round(vt::silu_times(value(m, gate), value(m, gate + 8)));
        }
      } else {
        for (int head = 0; head < shape_.heads + 2 * shape_.kv_heads; head++) {
          const int kv_head = head - shape_.heads;
          for (int c = 0; c < half; c++) {
            float a = value(m, head * shape_.head_dim + c);
            float b = value(m, head * shape_.head_dim + c + half);
            const float* angles = &angles_[m * shape_.head_dim];
            if (kv_head < shape_.kv_heads) vt::rotate(a, b, angles[c], angles[c + half]);
            std::uint16_t* to = out + head * shape_.head_dim + c;
            if (kv_head >= 0) {
              if (slots_[m] < 0) continue;
              to = &output.cache[vt::slot_offset(slots_[m], kBlockSize, kLayers, kLayer,
                                                 shape_.kv_heads, shape_.head_dim) +
                                 kv_head * kBlockSize * shape_.head_dim + c];
            }
            to[0] = round(a);
            to[half] = round(b);
          }
        }
      }
    }
  }

  double error_of(const Words& sums) const {
    double difference = 0, norm = 0;
    for (int m = 0; m < shape_.m; m += 13)
      for (int n = 0; n < shape_.n; n += 3) {
        double sum = 0;
        const auto value = [&](const Words& words, std::size_t at) {
          return static_cast<double>(emulated::to_float(shape_.element, words[at]));
        };
        for (int k = 0; k < shape_.k; k++)
          sum += value(x_, static_cast<std::size_t>(m) * stride() + k) *
                 value(weight_, static_cast<std::size_t>(n) * stride() + k);
        if (shape_.addends) sum += value(bias_, n);
        const std::size_t at = static_cast<std::size_t>(m) * shape_.n + n;
        if (adds_residual()) sum += value(residual_, at);
        const double d = value(sums, at) - sum;
        difference += d * d;
        norm += sum * sum;
      }
    const double error = std::sqrt(difference / norm);
    return error == error ? error : 1e300;
  }

  Shape shape_;
  Words x_, weight_, bias_, residual_;
  std::vector<float> angles_;
  std::vector<std::int32_t> slots_;
  double error_ = 0;
};

int failed = 0;

void check(const char* name, const Shape& shape, const std::vector<emulated::Timing>& timings) {
  Case linear(shape);
  emulated::timing = {};
  const Case::Output wanted = linear.wanted();
  for (int large = VT_CUDA_LARGE_WGMMA; large <= VT_CUDA_LARGE_CLUSTER_2; large++) {
    bool same = true;
    for (const emulated::Timing& timing : timings) {
      emulated::timing = timing;
      same &= linear.run(large) == wanted;
    }
    const bool good = same && linear.error() < (shape.element == Element::f16 ? 1e-3 : 6e-3);
    failed += !good;
    std::printf("%s %s, large %d: error %.1e, %s\n", good ? "ok " : "BAD", name, large,
                linear.error(), same ? "the same bits" : "OTHER BITS");
    std::fflush(stdout);
  }
}

void check_decode(const char* name, const Shape& shape,
                  const std::vector<emulated::Timing>& timings) {
  Case linear(shape);
  emulated::timing = {};
  const Case::Output wanted = linear.wanted();
  bool same = true;
  for (const emulated::Timing& timing : timings) {
    emulated::timing = timing;
    same &= linear.run_decode() == wanted;
  }
  failed += !same;
  std::printf("%s %s: %s\n", same ? "ok " : "BAD", name, same ? "the same bits" : "OTHER BITS");
  std::fflush(stdout);
}

/** In stages of x and weight, or with x held where `tuning` lets it be. */
void check_skinny(const char* name, const Shape& shape, int tuning) {
  Case linear(shape);
  emulated::timing = {};
  const Case::Output wanted = linear.wanted();
  bool same = true;
  for (const emulated::Timing& timing : {emulated::Timing{false, false, 0}, {true, false, 1}}) {
    emulated::timing = timing;
    same &= linear.run_skinny(tuning) == wanted;
  }
  failed += !same;
  std::printf("%s %s: %s\n", same ? "ok " : "BAD", name,
              same ? "the same bits" : "OTHER BITS");
  std::fflush(stdout);
}

void check_sends(const char* name, const Shape& shape, int num_ranks, int tuning) {
  Case linear(shape);
  bool same = true;
  for (const emulated::Timing& timing : {emulated::Timing{false, false, 0}, {true, false, 1}}) {
    emulated::timing = timing;
    same &= linear.sends(num_ranks, tuning);
  }
  failed += !same;
  std::printf("%s sends %s: %s\n", same ? "ok " : "BAD", name,
              same ? "the same bits" : "OTHER BITS");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const bool more = what == "more", few = what == "few";
  const Element bf16 = Element::bf16, f16 = Element::f16;
  const std::vector<emulated::Timing> late = {{true, true, 0}};
  const std::vector<emulated::Timing> some = {{true, true, 0}, {false, true, 1}};
  const std::vector<emulated::Timing> all = {
      {false, false, 0}, {true, true, 0}, {false, true, 1}, {true, false, 2}, {true, true, 3}};
  vt::multiprocessors = 4;
  if (!few) {
    check("plain 150 x 600, k 400", {150, 600, 400, bf16, VT_CUDA_PLAIN, true, 1, 1, 64}, some);
    // Two clusters: tiles of 224 in one round, then of 256.
    check("silu 70 x 272, k 144", {70, 272, 144, f16, VT_CUDA_SILU_AND_MUL, true, 1, 1, 64}, late);
    check("silu 260 x 272, k 80", {260, 272, 80, bf16, VT_CUDA_SILU_AND_MUL, false, 1, 1, 64}, late);
    check("rope 66 x 6 of 64", {66, 384, 64, bf16, VT_CUDA_ROPE_AND_CACHE, true, 2, 2, 64}, late);
    check("rope 66 x 3 of 128", {66, 384, 80, f16, VT_CUDA_ROPE_AND_CACHE, false, 1, 1, 128}, late);
  }
  if (!few) {
    check_decode("decode, silu 66 x 144, k 464",
                 {66, 144, 464, bf16, VT_CUDA_SILU_AND_MUL, false, 1, 1, 64}, some);
    check_decode("decode, silu 100 x 1040, k 400",
                 {100, 1040, 400, f16, VT_CUDA_SILU_AND_MUL, false, 1, 1, 64}, late);
    check_decode("decode, residual 137 x 136, k 800",
                 {137, 136, 800, bf16, VT_CUDA_PLAIN, false, 1, 1, 64, true}, some);
    check_decode("decode, plain 230 x 1032, k 272",
                 {230, 1032, 272, bf16, VT_CUDA_PLAIN, false, 1, 1, 64}, late);
  }
  constexpr int kInStages = static_cast<int>(1u << 31);
  check_skinny("plain 5 x 100, k 400", {5, 100, 400, bf16, VT_CUDA_PLAIN, true, 1, 1, 64}, 0);
  check_skinny("plain 33 x 264, k 512", {33, 264, 512, bf16, VT_CUDA_PLAIN, true, 1, 1, 64}, 0);
  check_skinny("silu 2 x 272, k 144", {2, 272, 144, bf16, VT_CUDA_SILU_AND_MUL, true, 1, 1, 64}, 0);
  check_skinny("rope 1 x 6 of 80", {1, 480, 320, bf16, VT_CUDA_ROPE_AND_CACHE, true, 2, 2, 80},
               kInStages);
  check_skinny("rope 20 x 3 of 96", {20, 288, 256, bf16, VT_CUDA_ROPE_AND_CACHE, true, 1, 1, 96},
               0);
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
  return failed == 0 ? 0 : 1;
}
