// What a CPU variant provides: the inner kernels, compiled once per instruction set. Each works on
// one thread's share and knows nothing of threads, programs or rows. Plain structs and pointers
// only, since this header is compiled with every variant's flags.
#pragma once

#include <cstdint>

#include "../dtype.h"

namespace vt {

/// Keys of the KV cache come in panels of 16: K as [headDim][16], V as [16][headDim].
constexpr int kKeyPanel = 16;
/// Keys of one softmax tile.
constexpr int kKeyTile = 64;

/// out[m][n] = sum over k ascending of x[m][k] * w[n][k], one chain, then + bias, + residual, for
/// the panels [panel_begin, panel_end) of the weight (see pack.h).
struct LinearArgs {
  const float* x;
  int64_t x_stride;
  int m;
  const char* panels;
  Dtype dtype;
  int k, n;
  int panel_begin, panel_end;
  const float* bias;      ///< [n] or null
  const float* residual;  ///< [m][out_stride] or null; may be out
  float* out;
  int64_t out_stride;
};

/// The KV cache as one layer and KV head see it: panel i of a row lies in block
/// block_table[i / panels_per_block].
struct KvView {
  const char* k;
  const char* v;
  const int32_t* block_table;
  int64_t block_bytes;
  int64_t panel_bytes;
  int panels_per_block;
  Dtype dtype;
};

/// One chunk of keys for a few query rows of one KV head: max, sum and weighted values of an online
/// softmax over tiles of 64 keys. Row r attends to keys [first[r], last[r]); chunk borders are
/// multiples of 64. A row without keys in the chunk gets sum 0.
struct AttentionArgs {
  const float* const* q;
  const int* first;
  const int* last;
  int num_rows;  ///< 1..max_attention_rows
  int chunk_begin, chunk_end;
  int head_dim;  ///< multiple of 16, at most 512
  float scale;
  KvView kv;
  float* max;  ///< [num_rows]
  float* sum;  ///< [num_rows]
  float* acc;  ///< [num_rows][head_dim]
};

struct KernelTable {
  const char* name;
  int lanes;
  int max_attention_rows;

  void (*linear)(const LinearArgs& args);
  /// [n] in one fixed summation tree; out may be x.
  void (*rms_norm)(const float* x, const float* weight, float* out, int n, float eps);
  void (*silu_and_mul)(const float* gate, const float* up, float* out, int n);
  void (*attention_chunk)(const AttentionArgs& args);
  /// Folds a chunk's (max, sum, acc) into the row's running ones; call in ascending order of
  /// chunks.
  void (*attention_merge)(float* max, float* sum, float* acc, float chunk_max, float chunk_sum,
                          const float* chunk_acc, int head_dim);
  /// out = acc / sum
  void (*attention_finish)(const float* acc, float sum, float* out, int head_dim);

  // Scans over a row of logits.
  /// Greatest element; false if one is NaN or +Infinity.
  bool (*max_of)(const float* x, int n, float* max);
  /// First index from begin on with x >= bound, else n.
  int (*find_at_least)(const float* x, int begin, int n, float bound);
  /// out = exp(x - shift) for x <= shift; below e^-87 it is 0.
  void (*exp_minus)(const float* x, float shift, float* out, int n);
  void (*divide)(const float* x, float divisor, float* out, int n);
};

namespace portable {
const KernelTable& kernels();
}
#ifdef VT_HAVE_AVX2
namespace avx2 {
const KernelTable& kernels();
}
#endif
#ifdef VT_HAVE_AVX512
namespace avx512 {
const KernelTable& kernels();
}
#endif

}  // namespace vt
