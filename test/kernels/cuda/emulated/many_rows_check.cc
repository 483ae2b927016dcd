// rmsNorm and ropeAndCache of many rows, which have kernels of their own, against the same rows in
// calls of few: bit for bit, and nothing written beside them; and rows whose norm's scale comes late
// against rows that are scaled before the op. `many_rows_check`.
#include <cstdlib>

#include "checks.h"

namespace {

/// More than the kernels for few rows are asked for, and no multiple of what a block has.
constexpr int kRows = 2051, kTokens = 1027, kAtOnce = 700;
constexpr int kLayers = 2, kBlockSize = 16;

std::mt19937 random_bits(5);

void run(int status) {
  if (status != 0) std::exit(1);
}

Words values(Element element, std::size_t count) {
  return normal_words(random_bits, element, count);
}

std::vector<float> scales_of(int rows) {
  std::uniform_real_distribution<float> distribution(0.1f, 3);
  std::vector<float> scales;
  for (int i = 0; i < rows; i++) scales.push_back(distribution(random_bits));
  return scales;
}

/// As row_scale has it: every value of a row times its scale, rounded.
Words scaled(Element element, Words words, const std::vector<float>& scales, int columns) {
  for (std::size_t i = 0; i < scales.size() * columns; i++)
    words[i] = emulated::from_float(
        element, emulated::to_float(element, words[i]) * scales[i / columns]);
  return words;
}

void check_norm(Element element, int columns) {
  const int stride = columns + 8;
  const Words x = values(element, std::size_t(kRows) * stride), weight = values(element, columns);
  const auto normalized = [&](int at_once, float* scales) {
    Words out(std::size_t(kRows + 1) * stride, kUntouched);
    for (int row = 0; row < kRows; row += at_once) {
      VtCudaRmsNorm args = {};
      args.x = &x[std::size_t(row) * stride];
      args.out = &out[std::size_t(row) * stride];
      args.weight = weight.data();
      args.scales = scales == nullptr ? nullptr : scales + row;
      args.num_rows = std::min(at_once, kRows - row);
      args.columns = columns;
      args.x_stride = args.out_stride = stride;
      args.eps = 1e-5f;
      args.dtype = dtype_of(element);
      run(vt_cuda_rms_norm(&args, nullptr));
    }
    return out;
  };
  const Words whole = normalized(kRows, nullptr);
  bool same = whole == normalized(kAtOnce, nullptr);
  std::vector<float> scales(kRows + 1, 7), of_few(kRows + 1, 7);
  const Words late = normalized(kRows, scales.data());
  same &= late == normalized(kAtOnce, of_few.data()) && scales == of_few && scales[kRows] == 7;
  Words products(whole.size(), kUntouched), norms = products;
  for (int row = 0; row < kRows; row++)
    for (int i = 0; i < columns; i++) {
      const std::size_t at = std::size_t(row) * stride + i;
      const float value = emulated::to_float(element, x[at]);
      const float of_column = emulated::to_float(element, weight[i]);
      products[at] = emulated::from_float(element, value * of_column);
      norms[at] = emulated::from_float(element, value * scales[row] * of_column);
    }
  same &= late == products && whole == norms;
  report("rmsNorm of " + std::to_string(columns), same);
}

void check_rope(Element element, int heads, int kv_heads, int head_dim) {
  const int columns = (heads + 2 * kv_heads) * head_dim;
  const Words qkv = values(element, std::size_t(kTokens + 1) * columns);
  const Words q_weight = values(element, head_dim), k_weight = values(element, head_dim);
  std::normal_distribution<float> normal;
  std::vector<float> angles(std::size_t(kTokens) * head_dim);
  for (float& angle : angles) angle = normal(random_bits);
  std::vector<std::int32_t> slots;
  for (int i = 0; i < kTokens; i++) slots.push_back(i % 7 == 3 ? -1 : i * 5 % 1024);
  const auto turned = [&](int at_once, bool norms, const Words& from, const float* row_scale) {
    Words out = from;
    Words cache(std::size_t(1024) * kLayers * 2 * kv_heads * head_dim, kUntouched);
    for (int token = 0; token < kTokens; token += at_once) {
      VtCudaRopeAndCache args = {};
      args.qkv = &out[std::size_t(token) * columns];
      args.cos_sin = &angles[std::size_t(token) * head_dim];
      args.slots = &slots[token];
      args.row_scale = row_scale == nullptr ? nullptr : row_scale + token;
      args.kv_cache = cache.data();
      args.num_tokens = std::min(at_once, kTokens - token);
      args.num_heads = heads;
      args.num_kv_heads = kv_heads;
      args.head_dim = head_dim;
      args.num_layers = kLayers;
      args.layer = 1;
      args.block_size = kBlockSize;
      args.qkv_stride = columns;
      args.dtype = dtype_of(element);
      args.q_weight = norms ? q_weight.data() : nullptr;
      args.k_weight = norms ? k_weight.data() : nullptr;
      args.eps = 1e-6f;
      run(vt_cuda_rope_and_cache(&args, nullptr));
    }
    out.insert(out.end(), cache.begin(), cache.end());
    return out;
  };
  bool same = turned(kTokens, true, qkv, nullptr) == turned(kAtOnce, true, qkv, nullptr);
  const std::vector<float> scales = scales_of(kTokens);
  const Words before = scaled(element, qkv, scales, columns);
  for (const bool norms : {false, true}) {
    const Words late = turned(kTokens, norms, qkv, scales.data());
    // Keys and values of the input stay as they are, here without their scale.
    Words wanted = turned(kAtOnce, norms, before, nullptr);
    for (std::size_t i = 0; i < qkv.size(); i++)
      if (static_cast<int>(i % columns) >= heads * head_dim) wanted[i] = qkv[i];
    same &= late == wanted;
    same &= late == turned(kAtOnce, norms, qkv, scales.data());
  }
  report("ropeAndCache of " + std::to_string(heads) + " and " + std::to_string(kv_heads) + " x " +
             std::to_string(head_dim),
         same);
}

void check_silu(Element element, int columns, int interleave) {
  const int rows = 37;
  const Words gate_up = values(element, std::size_t(rows) * 2 * columns);
  const auto joined = [&](const Words& from, const float* row_scale) {
    Words out(std::size_t(rows + 1) * columns, kUntouched);
    VtCudaSiluAndMul args = {};
    args.out = out.data();
    args.gate_up = from.data();
    args.row_scale = row_scale;
    args.num_rows = rows;
    args.columns = args.out_stride = columns;
    args.gate_up_stride = 2 * columns;
    args.interleave = interleave;
    args.dtype = dtype_of(element);
    run(vt_cuda_silu_and_mul(&args, nullptr));
    return out;
  };
  const std::vector<float> scales = scales_of(rows);
  const Words late = joined(gate_up, scales.data());
  report("siluAndMul of " + std::to_string(columns),
         late == joined(scaled(element, gate_up, scales, 2 * columns), nullptr) &&
             late != joined(gate_up, nullptr) && late.back() == kUntouched);
}

}  // namespace

int main() {
  check_norm(Element::bf16, 1024);
  check_norm(Element::f16, 2048);
  check_norm(Element::bf16, 4096);
  check_norm(Element::bf16, 1032);
  check_rope(Element::bf16, 16, 8, 128);
  check_rope(Element::f16, 5, 3, 64);
  check_rope(Element::bf16, 9, 3, 80);
  check_rope(Element::f16, 4, 1, 256);
  check_silu(Element::bf16, 2056, 8);
  check_silu(Element::f16, 48, 0);
  return exit_status();
}
