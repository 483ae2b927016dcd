// Looks after collectives that NCCL carries: a thread that reads how far this rank's device is,
// tells the other ranks, and ends the group when one of them does not come, is gone, or NCCL fails.
// NCCL's own kernels wait for ever.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "../../host/tcp_news.h"
#include "../vt_cuda_parts.h"
#include "nccl.h"
#include "rank_failure.h"

namespace vt {

class NcclWatch {
 public:
  /// `progress` is the device's; `nccl` and it must outlive this.
  NcclWatch(Nccl& nccl, const VtCudaProgress* progress, std::unique_ptr<TcpNews> news, int rank,
            int num_ranks, int timeout_ms);
  ~NcclWatch();

  std::optional<RankFailure> failure() const;
  /// Index of an op that waits for others for longer than it should, or -1.
  int waiting_op() const { return waiting_op_.load(std::memory_order_relaxed); }

 private:
  using Clock = std::chrono::steady_clock;

  void run();
  void look(Clock::time_point now);
  /// The rank that is furthest behind `epoch`; -1 if all have come to it.
  int latest_rank(std::uint64_t epoch) const;
  void give_up(int rank, const std::string& reason, bool tells);

  Nccl& nccl_;
  const VtCudaProgress* const progress_;
  const int rank_, num_ranks_;
  const std::chrono::milliseconds timeout_;
  std::atomic<int> waiting_op_{-1};

  // Of the thread alone.
  std::uint64_t arrived_ = 0, done_ = 0;
  Clock::time_point looked_, moved_;

  mutable std::mutex mutex_;
  std::condition_variable stopped_;
  bool is_stopping_ = false;
  std::optional<RankFailure> failure_;
  const std::unique_ptr<TcpNews> news_;
  std::thread thread_;
};

}  // namespace vt
