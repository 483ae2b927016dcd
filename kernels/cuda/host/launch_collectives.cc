// The ops in which ranks meet, as calls of vt_cuda_collective.h.
#include <cstdlib>
#include <cstring>

#include "launch_error.h"
#include "launches.h"

namespace vt {

void Launches::bind_collectives(RankGroup* ranks, Ledger& ledger) {
  for (const OpRecord& op : program_.ops) {
    if (!is_collective(op)) continue;
    VT_CHECK(ranks != nullptr, "%s: a program for ranks was loaded without a group of ranks",
             op_spec(op.id).name);
    if (op.id != OpId::sample_sharded) continue;
    logits_stride_ = (program_.vocab_size + 3) / 4 * 4;
    all_logits_ = DeviceBuffer(
        static_cast<std::size_t>(program_.max_num_logits) * logits_stride_ * sizeof(float),
        "activations", ledger);
    shard_scratch_ = DeviceBuffer(
        sizeof(std::int32_t) * VT_CUDA_SAMPLE_SCRATCH * program_.max_num_logits, "activations",
        ledger);
  }
  if (ranks == nullptr) return;
  ranks->join(arena_.bytes(), ledger);
  ranks_ = ranks;
  group_ = ranks->describe(arrays_.first_epoch);
  // It gains nothing on two GPUs (docs/kernels.md).
  const char* wanted = std::getenv("VLLM_TS_CUDA_SENDS");
  linears_send_ = ranks->has_inboxes() && wanted != nullptr && std::strcmp(wanted, "1") == 0;
}

int Launches::num_epochs(const OpRecord& op, int num_rows) const {
  if (!is_collective(op)) return 0;
  if (op.id != OpId::sample_sharded)
    return ranks_->num_epochs(num_rows, static_cast<int>(columns(op, 0)));
  if (!ranks_->has_inboxes()) return 1;
  return vt_cuda_sample_sharded_epochs(&group_, num_rows, static_cast<int>(columns(op, 1)));
}

int Launches::num_epochs(const StepShape& shape) const {
  if (shape.num_tokens == 0 || group_.num_ranks < 2) return 0;
  int count = 0;
  for (std::size_t i = 0; i < first_logit_op_; i++)
    count += num_epochs(program_.ops[i], shape.num_tokens);
  const int at_once = std::max(1, program_.max_num_logits);
  for (int begin = 0; begin < shape.num_logit_rows; begin += at_once)
    for (std::size_t i = first_logit_op_; i < program_.ops.size(); i++)
      count += num_epochs(program_.ops[i], std::min(at_once, shape.num_logit_rows - begin));
  return count;
}

int Launches::index_of(const OpRecord& op) const {
  return static_cast<int>(&op - program_.ops.data());
}

bool Launches::try_sending_linear(std::size_t index, const Call& call) const {
  if (!linears_send_) return false;
  const VtCudaLinear args = linear_args(program_.ops[index], call);
  if (vt_cuda_linear_sends(&args, &group_) == 0) return false;
  VT_LAUNCH(vt_cuda_linear_send(&args, &group_, *call.num_epochs, call.stream));
  all_reduce(program_.ops[index + 1], call, true);
  return true;
}

void Launches::all_reduce(const OpRecord& op, const Call& call, bool sent) const {
  const bool has_norm = op.id == OpId::all_reduce_residual_norm;
  // out, x, bias, residual; or out, sum, x, weight, bias, residual.
  const int first_in = has_norm ? 2 : 1;
  const Operand sum = operand(op, has_norm ? 1 : 0, call), x = operand(op, first_in, call);
  const int bias = has_norm ? 4 : 2;
  const Operand residual = operand(op, bias + 1, call);
  VtCudaAllReduce args{};
  args.group = &group_;
  args.out = sum.data;
  args.out_stride = sum.stride;
  args.x = reinterpret_cast<const float*>(x.data);
  args.x_stride = x.stride;
  args.bias = operand(op, bias, call).data;
  args.residual = residual.data;
  args.residual_stride = residual.stride;
  if (has_norm) {
    const Operand out = operand(op, 0, call);
    args.norm_out = out.data;
    args.norm_stride = out.stride;
    args.norm_weight = operand(op, 3, call).data;
    args.eps = static_cast<float>(op.attrs[0]);
  }
  args.num_rows = num_rows(op, call);
  args.columns = static_cast<int>(columns(op, 0));
  args.ordinal = *call.num_epochs;
  *call.num_epochs += num_epochs(op, args.num_rows);
  args.op_index = index_of(op);
  args.way = sent ? VT_CUDA_WAY_SENT : VT_CUDA_WAY_BY_SIZE;
  args.dtype = dtype(op, 0);
  args.flags = call.flags;
  ranks_->all_reduce(args, call.stream);
}

void Launches::gather_and_sample(const OpRecord& op, const Call& call) const {
  const Operand x = operand(op, 1, call);
  VtCudaAllGather args{};
  args.group = &group_;
  args.out = all_logits_.as<float>();
  args.out_stride = logits_stride_;
  args.out_columns = program_.vocab_size;
  args.x = reinterpret_cast<const float*>(x.data);
  args.x_stride = x.stride;
  args.x_columns = static_cast<int>(columns(op, 1));
  args.num_rows = call.num_logits;
  args.ordinal = *call.num_epochs;
  *call.num_epochs += num_epochs(op, args.num_rows);
  args.op_index = index_of(op);
  args.flags = call.flags;
  ranks_->all_gather(args, call.stream);
  const VtCudaSample sample = sample_args({all_logits_.as<char>(), logits_stride_}, call);
  VT_LAUNCH(vt_cuda_sample(&sample, call.stream));
}

bool Launches::tells_rows() const { return ranks_ != nullptr && ranks_->tells_rows(); }

bool Launches::needs_kinds() const { return tells_rows() && !ranks_->has_inboxes(); }

void Launches::sample_sharded(const OpRecord& op, const Call& call) const {
  if (!ranks_->tells_rows()) return gather_and_sample(op, call);
  const Operand x = operand(op, 1, call);
  const VtCudaSample sample = sample_args({all_logits_.as<char>(), logits_stride_}, call);
  VtCudaSampleSharded args{};
  args.group = &group_;
  args.sample = &sample;
  args.x = reinterpret_cast<const float*>(x.data);
  args.x_stride = x.stride;
  args.x_columns = static_cast<int>(columns(op, 1));
  args.all_logits = all_logits_.as<float>();
  args.rest = shard_scratch_.as<std::int32_t>();
  args.tokens = arrays_.token_ids;
  args.num_tokens = call.shape.num_tokens;
  args.ordinal = *call.num_epochs;
  *call.num_epochs += num_epochs(op, call.num_logits);
  args.op_index = index_of(op);
  args.has_candidates = call.shape.kinds.has_candidates ? 1 : 0;
  args.search_steps = call.shape.kinds.search_steps;
  args.by_best_ids = args.has_candidates == 0 && args.search_steps == 0 ? 1 : 0;
  ranks_->sample_sharded(args, call.stream);
}

}  // namespace vt
