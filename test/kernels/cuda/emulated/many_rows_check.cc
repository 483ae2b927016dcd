// rmsNorm and ropeAndCache of many rows, which have kernels of their own, against the same rows in
// calls of few: bit for bit, and nothing written beside them. `many_rows_check`.
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

void check_norm(Element element, int columns) {
  const int stride = columns + 8;
  const Words x = values(element, std::size_t(kRows) * stride), weight = values(element, columns);
  const auto normalized = [&](int at_once) {
    Words out(std::size_t(kRows + 1) * stride, kUntouched);
    for (int row = 0; row < kRows; row += at_once) {
      VtCudaRmsNorm args = {};
      args.x = &x[std::size_t(row) * stride];
      args.out = &out[std::size_t(row) * stride];
      args.weight = weight.data();
      args.num_rows = std::min(at_once, kRows - row);
      args.columns = columns;
      args.x_stride = args.out_stride = stride;
      args.eps = 1e-5f;
      args.dtype = dtype_of(element);
      run(vt_cuda_rms_norm(&args, nullptr));
    }
    return out;
  };
  report("rmsNorm of " + std::to_string(columns), normalized(kRows) == normalized(kAtOnce));
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
  const auto turned = [&](int at_once) {
    Words out = qkv;
    Words cache(std::size_t(1024) * kLayers * 2 * kv_heads * head_dim, kUntouched);
    for (int token = 0; token < kTokens; token += at_once) {
      VtCudaRopeAndCache args = {};
      args.qkv = &out[std::size_t(token) * columns];
      args.cos_sin = &angles[std::size_t(token) * head_dim];
      args.slots = &slots[token];
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
      args.q_weight = q_weight.data();
      args.k_weight = k_weight.data();
      args.eps = 1e-6f;
      run(vt_cuda_rope_and_cache(&args, nullptr));
    }
    out.insert(out.end(), cache.begin(), cache.end());
    return out;
  };
  report("ropeAndCache of " + std::to_string(heads) + " and " + std::to_string(kv_heads) + " x " +
             std::to_string(head_dim),
         turned(kTokens) == turned(kAtOnce));
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
  return exit_status();
}
