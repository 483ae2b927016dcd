// The ranks as one of them sees them, and who carries their collectives: our own kernels, over
// boards of others that are mapped beside its own, or NCCL; and what is known of a wait
// that was given up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "../../check.h"
#include "../vt_cuda_backend.h"
#include "memory.h"
#include "nccl_ranks.h"
#include "rank_exchange.h"
#include "rank_failure.h"

namespace vt {

struct RankGroupOptions {
  /// Folders to look for NCCL in, ':' between.
  std::string library_path;
  /// NCCL may add, in its own order.
  bool fast_math;
};

/// Whether ranks may have the same device: for trying more of them than there are, and slow.
inline bool shares_devices(const std::string& collectives) { return collectives == "shared"; }
/// Of a rank of this host: the local_rank-th of those visible; of those there are by turns if ranks
/// share them.
int device_of(const std::string& collectives, int local_rank);

class RankGroup {
 public:
  /// Waits until all ranks have joined. The current device is device_of this rank.
  RankGroup(const VtCudaRanks& ranks, const RankGroupOptions& options, Ledger& ledger);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  /// Chooses the carrier with the others, and shows them the board and maps theirs, or joins NCCL's
  /// group. Throws KernelError, also if a rank's activations take another number of bytes.
  void join(std::size_t arena_bytes, Ledger& ledger);
  /// Waits until all ranks are here; while they load, they may be seconds apart.
  void meet();

  int rank() const { return group_.rank; }
  int num_ranks() const { return group_.num_ranks; }
  double timeout_ms() const { return static_cast<double>(group_.timeout_ns) * 1e-6; }
  /// For the launches; `first_epoch` is the step's, on the device.
  VtCudaGroup describe(const std::uint64_t* first_epoch) const;
  /// Kernels of our own carry, by inboxes.
  bool has_inboxes() const { return nccl_ == nullptr; }
  /// As vt_cuda_all_reduce, whoever carries. Throws KernelError.
  void all_reduce(const VtCudaAllReduce& args, void* stream) const;
  /// Epochs that it takes.
  int num_epochs(int num_rows, int columns) const;
  /// Whether ranks tell each other rows of sampleSharded; otherwise all logits are gathered.
  bool tells_rows() const { return has_inboxes() || tells_over_nccl_; }
  /// As vt_cuda_sample_sharded, whoever carries, where ranks tell rows. Throws KernelError.
  void sample_sharded(const VtCudaSampleSharded& args, void* stream) const;
  /// Where there are no inboxes. Throws KernelError.
  void all_gather(const VtCudaAllGather& args, void* stream) const;
  /// Whether the device may wait for ever: the host must not wait for it without a look at
  /// failure().
  bool needs_watching() const { return nccl_ != nullptr; }
  /// A line for the log; "" where our own kernels carry.
  const std::string& note() const { return note_; }

  std::optional<RankFailure> failure() const;
  /// Index of an op that waits for others for longer than it should, or -1.
  int waiting_op() const;

 private:
  struct Introduction;
  /// What a rank says of NCCL: it carries if one needs it, or all like it.
  enum class Wish : std::int32_t { none, likes_nccl, needs_nccl };

  /// "" if our own kernels can carry.
  std::string why_not_peer() const;
  Wish wish(std::string& why) const;
  Introduction introduce(std::size_t arena_bytes, Ledger& ledger);
  void map(const std::vector<Introduction>& peers);
  void join_nccl(const std::string& why, Ledger& ledger);

  const RankGroupOptions options_;
  const std::string wanted_;
  const int local_rank_, num_local_ranks_;
  VtCudaGroup group_{};
  DeviceBuffer board_;
  PinnedBuffer report_;
  std::vector<void*> mapped_;
  std::string note_;
  RankExchange exchange_;
  /// Null where our own kernels carry.
  std::unique_ptr<NcclRanks> nccl_;
  bool tells_over_nccl_ = false;
};

}  // namespace vt
