#include "nccl_watch.h"

#include <algorithm>
#include <utility>

namespace vt {

namespace {

/// A look that comes so much late was no look: this process stood still, and blames nobody for it.
constexpr std::chrono::milliseconds kOwnPause{500};
/// A collective that takes longer is one that waits.
constexpr std::chrono::milliseconds kLong{100};
constexpr std::chrono::milliseconds kLongestNap{50};

std::uint64_t epoch_of(std::uint64_t word) { return word >> 16; }
int op_of(std::uint64_t word) { return static_cast<int>(word & 0xffff); }

}  // namespace

NcclWatch::NcclWatch(Nccl& nccl, const VtCudaProgress* progress, std::unique_ptr<TcpNews> news,
                     int rank, int num_ranks, int timeout_ms)
    : nccl_(nccl),
      progress_(progress),
      rank_(rank),
      num_ranks_(num_ranks),
      timeout_(timeout_ms),
      looked_(Clock::now()),
      moved_(looked_),
      news_(std::move(news)) {
  thread_ = std::thread([this] { run(); });
}

NcclWatch::~NcclWatch() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_stopping_ = true;
  }
  stopped_.notify_all();
  thread_.join();
}

std::optional<RankFailure> NcclWatch::failure() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

void NcclWatch::run() {
  const auto nap = std::min(kLongestNap, timeout_ / 8);
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopped_.wait_for(lock, nap, [this] { return is_stopping_; })) {
    if (failure_) continue;
    lock.unlock();
    look(Clock::now());
    lock.lock();
  }
}

void NcclWatch::look(Clock::time_point now) {
  // done first: it is never ahead of what is read of arrived after it.
  const std::uint64_t done = __atomic_load_n(&progress_->done, __ATOMIC_ACQUIRE);
  const std::uint64_t arrived = __atomic_load_n(&progress_->arrived, __ATOMIC_ACQUIRE);
  const bool is_in_one = epoch_of(arrived) > epoch_of(done);
  if (now - looked_ > kOwnPause || arrived != arrived_ || done != done_) moved_ = now;
  looked_ = now;
  arrived_ = arrived;
  done_ = done;
  news_->set_position(arrived);
  waiting_op_ = is_in_one && now - moved_ > kLong ? op_of(arrived) : -1;
  if (!news_->is_well()) {
    const GroupFailure failure = news_->failure();
    return give_up(failure.rank, failure.message, false);
  }
  const std::string error = nccl_.error();
  if (!error.empty()) return give_up(-1, "NCCL: " + error, true);
  // Who computes, or has nothing to do, waits for nobody.
  if (!is_in_one || now - moved_ < timeout_) return;
  give_up(latest_rank(epoch_of(arrived)), "", true);
}

int NcclWatch::latest_rank(std::uint64_t epoch) const {
  int latest = -1;
  for (int rank = 0; rank < num_ranks_; rank++) {
    if (rank == rank_ || epoch_of(news_->position_of(rank)) >= epoch) continue;
    if (latest < 0 || news_->position_of(rank) < news_->position_of(latest)) latest = rank;
  }
  return latest;
}

/// The failure first, so that whatever ends with the group has its reason.
void NcclWatch::give_up(int rank, const std::string& reason, bool tells) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    failure_ = RankFailure{rank, op_of(arrived_), epoch_of(arrived_), reason};
  }
  if (tells)
    news_->blame(rank < 0 ? rank_ : rank,
                 reason.empty() ? "did not come to op " + std::to_string(op_of(arrived_)) : reason);
  nccl_.abort();
}

}  // namespace vt
