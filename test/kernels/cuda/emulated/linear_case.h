// A linear of made-up numbers, by each of the kernels that may serve it, and what is wanted of them:
// what linear_large gives, with the arithmetic of the op behind it.
#pragma once

#include <cmath>
#include <cstdlib>

#include "checks.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/linear_send.cuh"

namespace {

constexpr int kLayers = 2, kLayer = 1, kBlockSize = 16;

struct Shape {
  int m, n, k;
  Element element;
  int epilogue;
  bool addends;  // bias; where the epilogue takes one also a residual
  int heads, kv_heads, head_dim;
  bool residual = false;  // alone
  /// A norm with a late scale in front, or behind.
  bool scaled = false, gives_squares = false;
};

/// How the scale comes to a linear that has a late one.
enum class Scale { by_rows, by_squares };

class LinearCase {
 public:
  explicit LinearCase(const Shape& shape) : shape_(shape) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    const auto fill = [&](Words& words, std::size_t count, float scale) {
      words = normal_words(random, shape.element, count, scale);
    };
    fill(x_, static_cast<std::size_t>(shape.m) * stride(), 1);
    fill(weight_, static_cast<std::size_t>(shape.n) * stride(), 0.1f);
    // Rows end in NaN, 16-byte aligned.
    for (Words* words : {&x_, &weight_})
      for (std::size_t i = 0; i < words->size(); i++)
        if (static_cast<int>(i % stride()) >= shape.k) (*words)[i] = 0x7fff;
    fill(bias_, shape.n, 1);
    fill(residual_, static_cast<std::size_t>(shape.m) * shape.n, 1);
    for (int i = 0; i < shape.m * shape.head_dim; i++) angles_.push_back(normal(random));
    for (int i = 0; i < shape.m; i++) slots_.push_back(i % 7 == 3 ? -1 : i * 5 % 512);
    if (shape.gives_squares) fill(gain_, shape.n, 1);
    if (!shape.scaled) return;
    // As if these rows had been normalised.
    Words row;
    x_squares_.assign(static_cast<std::size_t>(shape.m) * VT_CUDA_SQUARES, NAN);
    for (int m = 0; m < shape.m; m++) {
      fill(row, shape.k, 0.2f + m % 5);
      put_squares(row.data(), shape.k, &x_squares_[m * VT_CUDA_SQUARES]);
      scales_.push_back(
          vt::norm_scale(sum_of_squares(row.data(), shape.k, 0, 1 << 14), shape.k, kEps));
    }
  }

  struct Output {
    Words out, cache, gained;
    std::vector<float> squares;
    bool operator==(const Output& other) const {
      return out == other.out && cache == other.cache && gained == other.gained &&
             squares == other.squares;
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

  /** `form`: of those for large weights, by number, or 0. */
  Output run_decode(int form) {
    Output output = fresh_output();
    VtCudaLinear args = fused_args(output);
    args.tuning = form;
    if (!vt::linear_decode_takes(args)) emulated::give_up("not taken");
    if (vt::linear_decode(args, nullptr) != 0) std::exit(1);
    return output;
  }

  /** Whether a form of linear_decode gives the f32 sums that linear_large gives, and no more. */
  bool decodes_to_f32(int form) {
    std::vector<float> sums[2];
    for (std::vector<float>& out : sums) {
      out.assign(static_cast<std::size_t>(shape_.m + 1) * shape_.n, -7.0f);
      Words none;
      VtCudaLinear args = linear_args(none, shape_.n);
      args.out = out.data();
      args.out_dtype = VT_CUDA_F32;
      args.tuning = form;
      const bool first = &out == sums;
      if (!vt::linear_decode_takes(args)) emulated::give_up("not taken");
      if ((first ? vt::linear_large : vt::linear_decode)(args, nullptr) != 0) std::exit(1);
    }
    return sums[0] == sums[1];
  }

  Output run_skinny(int tuning, Scale scale = Scale::by_rows) {
    Output output = fresh_output();
    VtCudaLinear args = fused_args(output);
    args.tuning = tuning;
    if (scale == Scale::by_squares) {
      args.row_scale = nullptr;
      args.x_squares = x_squares_.data();
      args.norm_eps = kEps;
    }
    if (shape_.gives_squares) {
      args.out_gain = gain_.data();
      args.gained = output.gained.data();
      args.gained_stride = shape_.n;
      args.out_squares = output.squares.data();
    }
    const bool late = shape_.scaled || shape_.gives_squares;
    const int done = late ? vt::linear_skinny_late(args, nullptr)
                          : vt::linear_skinny_bf16(args, nullptr);
    if (done != 0) std::exit(1);
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
    error_ = error_of(sums);
    Output output = fresh_output();
    if (shape_.element == Element::f16) {
      join<__half>(sums, output);
    } else {
      join<__nv_bfloat16>(sums, output);
    }
    for (int m = 0; shape_.gives_squares && m < shape_.m; m++) {
      const std::uint16_t* row = &output.out[static_cast<std::size_t>(m) * shape_.n];
      put_squares(row, shape_.n, &output.squares[m * VT_CUDA_SQUARES]);
      for (int n = 0; n < shape_.n; n++)
        output.gained[static_cast<std::size_t>(m) * shape_.n + n] =
            emulated::from_float(shape_.element, value(row[n]) * value(gain_[n]));
    }
    return output;
  }

  double error() const { return error_; }

 private:
  static constexpr float kEps = 1e-5f;

  float value(std::uint16_t word) const { return emulated::to_float(shape_.element, word); }
  /** The node of rmsNorm's tree above `width` columns, a power of two, of a row. */
  float sum_of_squares(const std::uint16_t* row, int columns, int begin, int width) const {
    if (begin >= columns) return 0.0f;
    if (width == 1) return value(row[begin]) * value(row[begin]);
    return sum_of_squares(row, columns, begin, width / 2) +
           sum_of_squares(row, columns, begin + width / 2, width / 2);
  }
  void put_squares(const std::uint16_t* row, int columns, float* squares) const {
    for (int i = 0; i < columns; i += 8) squares[i / 8] = sum_of_squares(row, columns, i, 8);
  }

  VtCudaLinear fused_args(Output& output) {
    VtCudaLinear args = linear_args(output.out, out_columns());
    args.epilogue = shape_.epilogue;
    if (shape_.scaled) args.row_scale = scales_.data();
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
            Words(cache, kUntouched),
            Words(shape_.gives_squares ? (shape_.m + 1) * shape_.n : 0, kUntouched),
            std::vector<float>((shape_.m + 1) * VT_CUDA_SQUARES, -7.0f)};
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
    args.dtype = args.out_dtype = dtype_of(shape_.element);
    return args;
  }

  template <typename T>
  void join(const Words& sums, Output& output) const {
    const auto round = [&](float x) { return emulated::from_float(shape_.element, x); };
    const auto value = [&](int m, int n) {
      const float sum =
          emulated::to_float(shape_.element, sums[static_cast<std::size_t>(m) * shape_.n + n]);
      return shape_.scaled ? emulated::to_float(shape_.element, round(sum * scales_[m])) : sum;
    };
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
  Words x_, weight_, bias_, residual_, gain_;
  std::vector<float> angles_, scales_, x_squares_;
  std::vector<std::int32_t> slots_;
  double error_ = 0;
};

}  // namespace
