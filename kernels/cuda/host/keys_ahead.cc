// Which launches of a step fetch keys and values for the attention behind them, and for which
// programs that is worth it. What and how much: kernels/cuda/keys_ahead.cu.
#include "launches.h"

namespace vt {

namespace {

/// Weights of more than that go through the L2 cache between two attentions, and keep memory busy.
constexpr std::int64_t kMostWeightBytes = std::int64_t{32} << 20;

}  // namespace

bool Launches::leaves_memory_idle() const {
  std::int64_t bytes = 0;
  for (const OpRecord& op : program_.ops) {
    if (op.id == OpId::attention) bytes = 0;
    if (op.id != OpId::linear) continue;
    const WeightSpec& weight = program_.weights[op.args[2]];
    bytes += weight.rows * weight.columns * dtype_bytes(weight.dtype);
    // The head's, behind the last attention, is not between two.
    if (bytes > kMostWeightBytes && index_of(op) < static_cast<int>(first_logit_op_)) return false;
  }
  return true;
}

VtCudaKeysAhead Launches::keys_ahead(const OpRecord& op, const Call& call) const {
  const StepShape& shape = call.shape;
  const bool has_lists = (early(shape, call.flags) & VT_CUDA_EARLY_READS) != 0;
  if (!fetches_ahead_ || !has_lists || shape.attention.size() != 1) return {};
  const AttentionGroup& rows = shape.attention[0];
  const OpRecord* next = &op;
  const OpRecord* end = program_.ops.data() + program_.ops.size();
  while (next != end && next->id != OpId::attention) next++;
  if (rows.prefill_work > 0 || next == end) return {};
  const VtCudaAttention args = attention_args(*next, rows, call);
  const VtCudaKeysAhead ahead = vt_cuda_keys_ahead(&args, rows.num_rows, *call.pieces_ahead);
  *call.pieces_ahead += ahead.num_pieces;
  return ahead;
}

}  // namespace vt
