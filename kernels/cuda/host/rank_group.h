// The ranks of one host as one of them sees them: its own board and arena, those of the others
// mapped beside them, and what the device says of a wait that was given up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "../../check.h"
#include "../vt_cuda_backend.h"
#include "memory.h"
#include "rank_exchange.h"

namespace vt {

/// Why a step of several ranks came to nothing.
struct RankFailure {
  int missing_rank, op_index;
  std::uint64_t epoch;
};

class RankGroup {
 public:
  /// Makes this rank's board on the current device, which is the rank-th of those visible.
  RankGroup(const VtCudaRanks& ranks, Ledger& ledger);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  /// Bytes to allocate for an arena of this size, so that it can be shared by itself.
  static std::size_t arena_bytes(std::size_t bytes);
  /// Shows `arena` to the others and maps theirs. Throws KernelError if they cannot be reached.
  void join(void* arena, std::size_t bytes);
  /// Waits until all ranks are here; while they load, they may be seconds apart.
  void meet();

  int rank() const { return group_.rank; }
  int num_ranks() const { return group_.num_ranks; }
  double timeout_ms() const { return static_cast<double>(group_.timeout_ns) * 1e-6; }
  /// For the launches; `first_epoch` is the step's, on the device.
  VtCudaGroup describe(const std::uint64_t* first_epoch) const;

  std::optional<RankFailure> failure() const;
  /// Index of an op that waits for others for longer than it should, or -1.
  int waiting_op() const;

 private:
  struct Introduction;
  void open(const Introduction& peer, int rank);

  VtCudaGroup group_{};
  DeviceBuffer board_;
  PinnedBuffer report_;
  std::vector<void*> mapped_;
  RankExchange exchange_;
};

}  // namespace vt
