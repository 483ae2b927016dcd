#include "shared_ranks.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "../check.h"
#include "futex.h"
#include "pause.h"
#include "rank_places.h"
#include "shared_memory.h"

namespace vt {

namespace {

using Clock = std::chrono::steady_clock;

/// About 20 us; ranks that share a core must not spin for long.
constexpr int kSpins = 800;
/// Longest sleep before a waiting rank looks around.
constexpr long kNapMs = 20;
/// A sleep that took longer was no sleep: this process stood still.
constexpr std::chrono::milliseconds kOwnPause{500};
/// What rank 0 may take from the start of its process to here.
constexpr int kJoinTimeoutMs = 60000;
constexpr std::size_t kPage = 4096;

/// What a rank says of itself. Two places: a rank may come to its next meeting while others still
/// compare this one's, but not to the one after.
struct alignas(64) RankSlot {
  /// Meetings that it has come to.
  std::atomic<std::uint32_t> arrivals;
  std::atomic<std::uint32_t> num_sleepers;
  std::atomic<std::uint64_t> position;
  struct {
    std::atomic<std::uint64_t> position;
    std::atomic<std::uint32_t> checksum;
  } places[2];
};

enum : std::uint32_t { kWell, kFailing, kFailed };

struct alignas(64) GroupHeader {
  std::uint32_t num_ranks;
  /// Written by the first that finds a fault, while it is kFailing.
  std::atomic<std::uint32_t> state;
  std::int32_t blamed_rank;
  char reason[240];
};

class SharedRanks : public Communicator {
 public:
  SharedRanks(const RankGroup& group, SharedMemory memory, std::size_t memory_bytes)
      : group_(group),
        shared_(std::move(memory)),
        memory_bytes_(memory_bytes),
        arrivals_(group.num_ranks) {}
  ~SharedRanks() override { SharedRanks::leave("has ended"); }

  static std::size_t header_bytes(int num_ranks) {
    const std::size_t bytes = sizeof(GroupHeader) + num_ranks * sizeof(RankSlot);
    return (bytes + kPage - 1) / kPage * kPage;
  }
  static void initialize(char* data, int num_ranks) {
    new (data) GroupHeader{static_cast<std::uint32_t>(num_ranks), {kWell}, -1, {}};
    for (int rank = 0; rank < num_ranks; rank++)
      new (data + sizeof(GroupHeader) + rank * sizeof(RankSlot)) RankSlot{};
  }

  int num_ranks() const override { return group_.num_ranks; }
  char* memory() const override { return memory_of(group_.rank); }
  const GroupFailure& failure() const override { return failure_; }

  bool meet(const Place& place, const float* data, std::size_t) override {
    if (failed()) return false;
    data_offset_ = data == nullptr ? 0 : reinterpret_cast<const char*>(data) - memory();
    const std::uint32_t meeting = ++meeting_;
    RankSlot& own = slot(group_.rank);
    own.places[meeting & 1].position.store(pack_position(place.step, place.op_index),
                                           std::memory_order_relaxed);
    own.places[meeting & 1].checksum.store(place.checksum, std::memory_order_relaxed);
    // Either the sleeper sees the new count, or we see the sleeper: both orders are sequential.
    own.arrivals.store(meeting);
    if (own.num_sleepers.load() > 0) futex_wake_all(own.arrivals);
    for (int rank = 0; rank < group_.num_ranks; rank++)
      if (rank != group_.rank && !wait_for(rank, meeting, place)) return take_failure();
    return agree(meeting, place) || take_failure();
  }

  const float* part(int rank) const override {
    return reinterpret_cast<const float*>(memory_of(rank) + data_offset_);
  }

  void set_position(double step, int op_index) override {
    slot(group_.rank).position.store(pack_position(step, op_index), std::memory_order_relaxed);
  }

  void leave(const std::string& why) override { blame(group_.rank, why.c_str()); }

 private:
  GroupHeader& header() const { return *reinterpret_cast<GroupHeader*>(shared_.data()); }
  RankSlot& slot(int rank) const {
    return *reinterpret_cast<RankSlot*>(shared_.data() + sizeof(GroupHeader) +
                                        rank * sizeof(RankSlot));
  }
  char* memory_of(int rank) const {
    return shared_.data() + header_bytes(group_.num_ranks) + rank * memory_bytes_;
  }
  bool is_well() const { return header().state.load(std::memory_order_acquire) == kWell; }

  /// False if the group has failed meanwhile, or fails here for the lack of the rank.
  bool wait_for(int rank, std::uint32_t meeting, const Place& place) {
    RankSlot& peer = slot(rank);
    const auto has_come = [&] {
      return static_cast<std::int32_t>(peer.arrivals.load(std::memory_order_acquire) - meeting) >=
             0;
    };
    for (int i = 0; i < kSpins; i++) {
      if (has_come()) return true;
      pause();
    }
    std::uint64_t position = peer.position.load(std::memory_order_relaxed);
    Clock::time_point moved = Clock::now(), looked = moved;
    while (!has_come()) {
      if (!is_well()) return false;
      const std::uint32_t seen = meeting - 1;
      peer.num_sleepers.fetch_add(1);
      if (peer.arrivals.load() == seen) futex_wait(peer.arrivals, seen, kNapMs);
      peer.num_sleepers.fetch_sub(1);
      const std::uint64_t now_at = peer.position.load(std::memory_order_relaxed);
      const Clock::time_point now = Clock::now();
      // Who was not there itself to look (a server that is stopped and goes on) blames nobody.
      if (now_at != position || now - looked > kOwnPause) moved = now;
      position = now_at;
      looked = now;
      if (now - moved < std::chrono::milliseconds(group_.timeout_ms) || has_come()) continue;
      blame(rank, why_absent(place, position, group_.timeout_ms).c_str());
      return false;
    }
    return true;
  }

  /// Every rank has come: are they at one place?
  bool agree(std::uint32_t meeting, const Place& place) {
    for (int rank = 0; rank < group_.num_ranks; rank++) {
      const auto& told = slot(rank).places[meeting & 1];
      arrivals_[rank] = {told.position.load(std::memory_order_relaxed),
                         told.checksum.load(std::memory_order_relaxed)};
    }
    const int odd = odd_one_out(arrivals_.data(), group_.num_ranks);
    if (odd < 0) return true;
    blame(odd, why_odd(arrivals_[odd], place).c_str());
    return false;
  }

  /// The first word counts; it wakes whoever sleeps.
  void blame(int rank, const char* reason) {
    std::uint32_t expected = kWell;
    GroupHeader& group = header();
    if (!group.state.compare_exchange_strong(expected, kFailing)) return;
    group.blamed_rank = rank;
    std::snprintf(group.reason, sizeof group.reason, "%s", reason);
    group.state.store(kFailed, std::memory_order_release);
    for (int i = 0; i < group_.num_ranks; i++) futex_wake_all(slot(i).arrivals);
  }

  bool take_failure() {
    const GroupHeader& group = header();
    // Whoever finds the fault writes a line; should it die in the middle, its line does not matter.
    for (int i = 0; i < 1000 && group.state.load(std::memory_order_acquire) == kFailing; i++)
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    const bool is_told = group.state.load(std::memory_order_acquire) == kFailed;
    failure_.rank = is_told ? group.blamed_rank : 0;
    char reason[sizeof group.reason + 1] = "failed";
    if (is_told) std::memcpy(reason, group.reason, sizeof group.reason);
    reason[sizeof group.reason] = '\0';
    failure_.message = "rank " + std::to_string(failure_.rank) + " " + reason;
    return false;
  }

  const RankGroup group_;
  SharedMemory shared_;
  const std::size_t memory_bytes_;
  /// Of this meeting, by rank.
  std::vector<Arrival> arrivals_;
  std::uint32_t meeting_ = 0;
  std::ptrdiff_t data_offset_ = 0;
  GroupFailure failure_;
};

}  // namespace

std::unique_ptr<Communicator> join_shared_ranks(const RankGroup& group, std::size_t memory_bytes) {
  VT_CHECK(group.num_ranks >= 2 && group.num_ranks <= 1024 && group.rank >= 0 &&
               group.rank < group.num_ranks,
           "rank %d of %d", group.rank, group.num_ranks);
  const std::size_t each = (memory_bytes + kPage - 1) / kPage * kPage;
  const std::size_t bytes = SharedRanks::header_bytes(group.num_ranks) + group.num_ranks * each;
  if (group.rank > 0) {
    SharedMemory memory = SharedMemory::open(group.path, bytes, kJoinTimeoutMs);
    const auto& header = *reinterpret_cast<const GroupHeader*>(memory.data());
    VT_CHECK(header.num_ranks == static_cast<std::uint32_t>(group.num_ranks),
             "%s is for %u ranks, not %d", group.path.c_str(), header.num_ranks, group.num_ranks);
    return std::make_unique<SharedRanks>(group, std::move(memory), each);
  }
  SharedMemory memory = SharedMemory::create(group.path, bytes);
  SharedRanks::initialize(memory.data(), group.num_ranks);
  memory.publish();
  return std::make_unique<SharedRanks>(group, std::move(memory), each);
}

}  // namespace vt
