#include "nccl_ranks.h"

#include <algorithm>
#include <utility>

#include "cuda_error.h"
#include "launch_error.h"

namespace vt {

namespace {

/// What others sent, and NCCL's sums; calls that need more go in turns.
constexpr std::size_t kScratchBytes = std::size_t{32} << 20;
/// Bytes that a rank may get for nothing, to be spared a second exchange: some 20 us of a link of
/// 25 GB/s.
constexpr std::int64_t kSpareBytes = std::int64_t{512} << 10;

std::int64_t bytes_of(const VtCudaAllReduce& args) {
  return static_cast<std::int64_t>(args.num_rows) * args.columns * sizeof(float);
}

/// Rows from `begin` on.
VtCudaAllReduce rows_of(const VtCudaAllReduce& args, std::int64_t begin, int count) {
  const auto at = [begin](const void* rows, int stride) {
    const auto* bytes = static_cast<const char*>(rows);
    return const_cast<char*>(bytes == nullptr ? nullptr : bytes + begin * stride * 2);
  };
  VtCudaAllReduce part = args;
  part.num_rows = count;
  part.x = args.x + begin * args.x_stride;
  part.out = at(args.out, args.out_stride);
  part.residual = at(args.residual, args.residual_stride);
  part.norm_out = at(args.norm_out, args.norm_stride);
  return part;
}

/// Of a launch behind one of NCCL's, which lets nothing begin before its end.
int flags_behind(int flags) { return flags & ~VT_CUDA_DEPENDENT; }

/// The sum of `num_parts` parts, part `own` of which is x.
VtCudaSumParts sum_of(const VtCudaAllReduce& args, const float* parts, int num_parts, int own) {
  VtCudaSumParts sum = {};
  sum.out = args.out;
  sum.parts = parts;
  sum.own = args.x;
  sum.bias = args.bias;
  sum.residual = args.residual;
  sum.norm_out = args.norm_out;
  sum.norm_weight = args.norm_weight;
  sum.part_stride = static_cast<std::int64_t>(args.num_rows) * args.columns;
  sum.num_parts = num_parts;
  sum.own_part = own;
  sum.num_rows = args.num_rows;
  sum.columns = args.columns;
  sum.out_stride = args.out_stride;
  sum.residual_stride = args.residual_stride;
  sum.norm_stride = args.norm_stride;
  sum.eps = args.eps;
  sum.dtype = args.dtype;
  sum.flags = flags_behind(args.flags);
  return sum;
}

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

struct NcclRanks::Marks {
  VtCudaMark arrived, done;
};

NcclRanks::NcclRanks(std::unique_ptr<Nccl> nccl, std::unique_ptr<TcpNews> news, int rank,
                     int num_ranks, int timeout_ms, bool sums, Ledger& ledger)
    : rank_(rank),
      num_ranks_(num_ranks),
      sums_(sums),
      scratch_(VT_CUDA_INBOX_OFFSET + kScratchBytes, "collectives", ledger),
      progress_(sizeof(VtCudaProgress), "collectivesHost", ledger),
      nccl_(std::move(nccl)),
      watch_(*nccl_, progress_.as<VtCudaProgress>(), std::move(news), rank, num_ranks, timeout_ms) {
  VT_CUDA(cudaMemset(scratch_.as<char>(), 0, VT_CUDA_INBOX_OFFSET));
}

float* NcclRanks::slots() const {
  return reinterpret_cast<float*>(scratch_.as<char>() + VT_CUDA_INBOX_OFFSET);
}

void NcclRanks::describe(VtCudaGroup& group) const {
  for (int rank = 0; rank < num_ranks_; rank++) group.boards[rank] = scratch_.as<char>();
  group.slot_bytes = static_cast<std::int64_t>(kScratchBytes) / num_ranks_ / 64 * 64;
}

NcclRanks::Marks NcclRanks::marks_of(const VtCudaGroup& group, int ordinal, int op_index) const {
  auto* progress = progress_.as<VtCudaProgress>();
  return {{&progress->arrived, group.first_epoch, ordinal, op_index},
          {&progress->done, group.first_epoch, ordinal, op_index}};
}

void NcclRanks::all_reduce(const VtCudaAllReduce& args, void* stream) {
  VT_CHECK(args.x_stride == args.columns && args.out_stride == args.columns,
           "allReduce over NCCL: rows of %d columns are %d and %d apart", args.columns,
           args.x_stride, args.out_stride);
  const Marks marks = marks_of(*args.group, args.ordinal, args.op_index);
  VT_LAUNCH(vt_cuda_mark(&marks.arrived, args.flags, stream));
  const std::int64_t row_bytes = args.columns * std::int64_t{sizeof(float)};
  if (!sums_ && gathers(bytes_of(args))) return gather_and_sum(args, marks, stream);
  const std::int64_t most = kScratchBytes / row_bytes / num_ranks_ * num_ranks_;
  VT_CHECK(most > 0, "allReduce over NCCL: %d columns on %d ranks", args.columns, num_ranks_);
  for (std::int64_t begin = 0; begin < args.num_rows; begin += most) {
    const int count = static_cast<int>(std::min<std::int64_t>(most, args.num_rows - begin));
    const VtCudaAllReduce rows = rows_of(args, begin, count);
    if (sums_) {
      const bool is_last = begin + count == args.num_rows;
      nccl_->all_reduce(rows.x, slots(), bytes_of(rows) / sizeof(float), stream_of(stream));
      VtCudaSumParts sum = sum_of(rows, slots(), 1, -1);
      if (is_last) sum.mark = marks.done;
      VT_LAUNCH(vt_cuda_sum_parts(&sum, stream));
    } else {
      sum_shares(rows, stream);
    }
  }
  if (!sums_) VT_LAUNCH(vt_cuda_mark(&marks.done, flags_behind(args.flags), stream));
}

/// Every rank gets all parts and adds all rows itself; or it gets the parts of a share of the rows,
/// adds them, and sends the sums, of half the size: 1.5 / num_ranks of the bytes.
bool NcclRanks::gathers(std::int64_t part_bytes) const {
  const std::int64_t others = num_ranks_ - 1;
  return part_bytes * num_ranks_ <= static_cast<std::int64_t>(kScratchBytes) &&
         part_bytes * others * (2 * num_ranks_ - 3) <= kSpareBytes * 2 * num_ranks_;
}

void NcclRanks::gather_and_sum(const VtCudaAllReduce& args, const Marks& marks, void* stream) {
  float* parts = slots();
  nccl_->all_gather(args.x, parts, bytes_of(args), stream_of(stream));
  VtCudaSumParts sum = sum_of(args, parts, num_ranks_, -1);
  sum.mark = marks.done;
  VT_LAUNCH(vt_cuda_sum_parts(&sum, stream));
}

/// Each rank gets the parts of its rows, adds them, and sends the sums; norms are everybody's own.
void NcclRanks::sum_shares(const VtCudaAllReduce& args, void* stream) {
  const int share = (args.num_rows + num_ranks_ - 1) / num_ranks_;
  const auto begin_of = [&](int rank) { return std::min(rank * share, args.num_rows); };
  const auto count_of = [&](int rank) { return begin_of(rank + 1) - begin_of(rank); };
  const int own_rows = count_of(rank_);
  const std::size_t row_bytes = args.columns * sizeof(float);
  float* parts = slots();
  const std::int64_t part_stride = static_cast<std::int64_t>(own_rows) * args.columns;
  nccl_->together([&] {
    for (int rank = 0; rank < num_ranks_; rank++) {
      if (rank == rank_) continue;
      nccl_->send(args.x + std::int64_t{begin_of(rank)} * args.columns, count_of(rank) * row_bytes,
                  rank, stream_of(stream));
      nccl_->receive(parts + rank * part_stride, own_rows * row_bytes, rank, stream_of(stream));
    }
  });
  const VtCudaAllReduce own = rows_of(args, begin_of(rank_), own_rows);
  if (own_rows > 0) {
    VtCudaSumParts sum = sum_of(own, parts, num_ranks_, rank_);
    sum.norm_out = nullptr;
    VT_LAUNCH(vt_cuda_sum_parts(&sum, stream));
  }
  nccl_->together([&] {
    for (int rank = 0; rank < num_ranks_; rank++) {
      if (rank == rank_) continue;
      const VtCudaAllReduce theirs = rows_of(args, begin_of(rank), count_of(rank));
      nccl_->send(own.out, own_rows * row_bytes / 2, rank, stream_of(stream));
      nccl_->receive(theirs.out, count_of(rank) * row_bytes / 2, rank, stream_of(stream));
    }
  });
  if (args.norm_out == nullptr) return;
  VtCudaRmsNorm norm = {};
  norm.out = args.norm_out;
  norm.x = args.out;
  norm.weight = args.norm_weight;
  norm.num_rows = args.num_rows;
  norm.columns = args.columns;
  norm.out_stride = args.norm_stride;
  norm.x_stride = args.out_stride;
  norm.eps = args.eps;
  norm.dtype = args.dtype;
  norm.flags = flags_behind(args.flags);
  VT_LAUNCH(vt_cuda_rms_norm(&norm, stream));
}

void NcclRanks::all_gather(const VtCudaAllGather& args, void* stream) {
  VT_CHECK(args.x_stride == args.x_columns, "allGather over NCCL: rows of %d columns are %d apart",
           args.x_columns, args.x_stride);
  const Marks marks = marks_of(*args.group, args.ordinal, args.op_index);
  VT_LAUNCH(vt_cuda_mark(&marks.arrived, args.flags, stream));
  const std::int64_t row_bytes = args.x_columns * std::int64_t{sizeof(float)};
  const std::int64_t most = kScratchBytes / (row_bytes * num_ranks_);
  VT_CHECK(most > 0, "allGather over NCCL: %d columns of each of %d ranks", args.x_columns,
           num_ranks_);
  for (std::int64_t begin = 0; begin < args.num_rows; begin += most) {
    const int count = static_cast<int>(std::min<std::int64_t>(most, args.num_rows - begin));
    nccl_->all_gather(args.x + begin * args.x_columns, slots(), count * row_bytes,
                      stream_of(stream));
    VtCudaJoinParts join = {};
    join.out = args.out + begin * args.out_stride;
    join.parts = slots();
    if (begin + count == args.num_rows) join.mark = marks.done;
    join.num_parts = num_ranks_;
    join.num_rows = count;
    join.columns = args.x_columns;
    join.out_columns = args.out_columns;
    join.out_stride = args.out_stride;
    join.flags = flags_behind(args.flags);
    VT_LAUNCH(vt_cuda_join_parts(&join, stream));
  }
}

int NcclRanks::carry(void* ranks, std::int64_t offset, std::int64_t slot_bytes, void* stream) {
  auto& self = *static_cast<NcclRanks*>(ranks);
  char* all = reinterpret_cast<char*>(self.slots()) + offset;
  try {
    self.nccl_->all_gather(all + self.rank_ * slot_bytes, all, slot_bytes, stream_of(stream));
    return 0;
  } catch (...) {
    // C lies between here and who is told of it.
    self.carry_error_ = std::current_exception();
    return -1;
  }
}

void NcclRanks::sample_sharded(VtCudaSampleSharded args, void* stream) {
  const Marks marks = marks_of(*args.group, args.ordinal, args.op_index);
  args.carry = carry;
  args.carrier = this;
  VT_LAUNCH(vt_cuda_mark(&marks.arrived, args.sample->flags, stream));
  const int result = vt_cuda_sample_sharded(&args, stream);
  if (carry_error_ != nullptr) std::rethrow_exception(std::exchange(carry_error_, nullptr));
  VT_LAUNCH(result);
  VT_LAUNCH(vt_cuda_mark(&marks.done, args.sample->flags, stream));
}

}  // namespace vt
