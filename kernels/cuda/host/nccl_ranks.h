// Collectives over NCCL: parts travel by the library, and are added here in rank order, with the
// bits of kernels/cuda/all_reduce.cu; with --fast-math NCCL adds in its own order. Which ranks
// there are, and why NCCL carries, is not known here.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>

#include "../vt_cuda_collective.h"
#include "../vt_cuda_parts.h"
#include "memory.h"
#include "nccl.h"
#include "nccl_watch.h"

namespace vt {

class NcclRanks {
 public:
  /// `nccl` has joined the others. `sums`: NCCL adds.
  NcclRanks(std::unique_ptr<Nccl> nccl, std::unique_ptr<TcpNews> news, int rank, int num_ranks,
            int timeout_ms, bool sums, Ledger& ledger);

  /// As vt_cuda_all_reduce, of which boards, `way` and `split` are not used, in one epoch; rows of
  /// x and out lie back to back. May be captured. They throw KernelError.
  void all_reduce(const VtCudaAllReduce& args, void* stream);
  void all_gather(const VtCudaAllGather& args, void* stream);
  /// As vt_cuda_sample_sharded, in one epoch, of a group that describe() has described.
  void sample_sharded(VtCudaSampleSharded args, void* stream);
  /// Describes boards and slots of sampleSharded.
  void describe(VtCudaGroup& group) const;

  NcclWatch& watch() { return watch_; }
  const NcclWatch& watch() const { return watch_; }

 private:
  struct Marks;
  Marks marks_of(const VtCudaGroup& group, int ordinal, int op_index) const;
  bool gathers(std::int64_t part_bytes) const;
  void gather_and_sum(const VtCudaAllReduce& args, const Marks& marks, void* stream);
  void sum_shares(const VtCudaAllReduce& args, void* stream);
  float* slots() const;
  /// A VtCudaCarry.
  static int carry(void* ranks, std::int64_t offset, std::int64_t slot_bytes, void* stream);

  const int rank_, num_ranks_;
  const bool sums_;
  /// Board of sampleSharded, in whose slots the parts of other collectives lie too.
  DeviceBuffer scratch_;
  PinnedBuffer progress_;
  /// What carry() failed with.
  std::exception_ptr carry_error_;
  const std::unique_ptr<Nccl> nccl_;
  NcclWatch watch_;
};

}  // namespace vt
