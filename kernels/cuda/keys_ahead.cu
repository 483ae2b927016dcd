// Which keys and values are worth fetching before attention begins: vt_cuda_keys_ahead.
//
// Memory is idle for most of what stands between two attentions of a decode batch (linears of few
// weights, norms, activations), and attention takes as long as its bytes: each byte that waits in
// the L2 cache is one less. Fetched are the first keys of the works that the first half of its
// blocks begin with, one of the two on a multiprocessor: these read from the cache while the
// others keep memory busy. More than a part of the cache is of no use, since weights and
// activations of the linears in between go through it too.
#include "keys_ahead.cuh"

namespace vt {
namespace {

constexpr int kLeastRows = 65;
/** By one launch, and between two attentions: docs/kernels.md. */
constexpr int64_t kBytesAtOnce = 5 << 19;
constexpr int64_t kMostBytes = 10 << 20;

}  // namespace
}  // namespace vt

extern "C" VtCudaKeysAhead vt_cuda_keys_ahead(const VtCudaAttention* next, int32_t num_rows,
                                              int32_t num_pieces) {
  using namespace vt;
  const VtCudaAttention& a = *next;
  VtCudaKeysAhead ahead = {};
  if (num_rows < kLeastRows || target() < Target::sm_90) return ahead;
  const int64_t piece_bytes = int64_t{2} * a.num_kv_heads * a.block_size * a.head_dim * 2;
  const int64_t most = min(kBytesAtOnce, kMostBytes - num_pieces * piece_bytes);
  if (most < piece_bytes) return ahead;
  ahead.kv_cache = a.kv_cache;
  ahead.block_tables = a.block_tables;
  ahead.decode_work = a.decode_work;
  ahead.work_counts = a.work_counts;
  ahead.num_layers = a.num_layers;
  ahead.layer = a.layer;
  ahead.num_kv_heads = a.num_kv_heads;
  ahead.head_dim = a.head_dim;
  ahead.block_size = a.block_size;
  ahead.max_num_blocks = a.max_num_blocks;
  ahead.num_works = min((num_multiprocessors() + a.num_kv_heads - 1) / a.num_kv_heads,
                        a.max_decode_work);
  ahead.first_piece = num_pieces;
  ahead.num_pieces = static_cast<int>(most / piece_bytes);
  return ahead;
}
