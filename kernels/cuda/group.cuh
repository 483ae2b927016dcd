// What collectives are built from: boards, inboxes, and waits that end. A rank's board lies in its
// own memory; all ranks have it mapped and write to it. Only its owner reads it.
//
// Ranks tell each other values of 32 bits that are their own flag: where nothing has arrived an
// inbox holds kNothing, a NaN that no arithmetic gives (its NaN is kAnotherNan), and a rank that
// has kNothing to send sends the other. So a rank waits for one store to cross the link: there is
// no fence, no order between values, no byte beside them. An access of 32 bits is never torn; one
// of 16 bytes is four of them in any order, and each is looked at. Who has taken a value puts
// kNothing back, so an inbox is empty but for what was sent and not yet taken.
//
// Values of epoch e lie in half e % 2 of an inbox, and no place is used twice in an epoch. Why the
// half of e is empty when rank A sends for e + 2: its kernels of e + 1 have ended
// (griddepcontrol.wait, or the stream's order), and took a value from every rank B, whichever way
// the parts went. B sent that from a kernel of e + 1, before which its kernels of e had ended, with
// all that they took and put back in that half of its own memory. That holds too where the sender is
// the linear in front of a collective (linear_send.cuh): it sends behind its own wait for what is in
// front of it. Should the chain ever be broken, a value is lost and the wait for it ends with an
// error.
//
// Who takes values looks for them behind its wait, or (reduce_sent) was let start by a kernel that
// was behind its own: this rank's kernels of e - 2 have ended, so what lies in the half of e is of
// e, and never is a wrong value taken.
//
// A wait gives up after timeout_ns (or half as much again): the first thread of a rank to do so
// writes the report in host memory and tells all boards, so that no other wait lasts longer;
// results are rubbish from there on, the launches run out, and the host ends the step with an
// error. A grid that waits is never larger than what runs at once (max_blocks), or blocks that wait
// would keep out those waited for.
#ifndef VT_CUDA_GROUP_CUH_
#define VT_CUDA_GROUP_CUH_

#include "common.cuh"
#include "peer_memory.cuh"
#include "vt_cuda_collective.h"

namespace vt {

constexpr int kMaxRanks = VT_CUDA_MAX_RANKS;
constexpr uint32_t kNothing = 0xffffffffu;
constexpr uint32_t kAnotherNan = 0x7fffffffu;

struct Board {
  /** 0, or 1 + the rank that did not come. Peers write it too. */
  uint32_t given_up;
  /** Its owner's: not 0 once a thread writes the report. */
  uint32_t reported;
};
static_assert(sizeof(Board) <= VT_CUDA_INBOX_OFFSET, "the inbox begins behind the board's head");

__device__ __forceinline__ Board& board_of(const VtCudaGroup& group, int rank) {
  return *static_cast<Board*>(group.boards[rank]);
}

/** Values of `source` in the inbox of `owner`, in fours. */
__device__ __forceinline__ uint4* inbox(const VtCudaGroup& group, int owner, int source,
                                        uint64_t epoch) {
  const int64_t slot = static_cast<int64_t>(epoch & 1) * group.num_ranks + source;
  return reinterpret_cast<uint4*>(static_cast<char*>(group.boards[owner]) + VT_CUDA_INBOX_OFFSET +
                                  slot * group.slot_bytes);
}

/** The p-th of the other ranks, ascending. */
__device__ __forceinline__ int peer_of(const VtCudaGroup& group, int p) {
  return p < group.rank ? p : p + 1;
}

__device__ __forceinline__ uint32_t something(uint32_t bits) {
  return bits == kNothing ? kAnotherNan : bits;
}

__device__ __forceinline__ void send(uint4* to, const uint4& v) {
  store_relaxed(to, make_uint4(something(v.x), something(v.y), something(v.z), something(v.w)));
}

__device__ __forceinline__ bool is_there(const uint4& v) {
  return v.x != kNothing && v.y != kNothing && v.z != kNothing && v.w != kNothing;
}

__device__ __forceinline__ void put_back_nothing(uint4* at) {
  store_relaxed(at, make_uint4(kNothing, kNothing, kNothing, kNothing));
}

/**
 * The epoch of a launch; the step's first was written before any of its collectives, or of the
 * linears in front of them, starts (vt_cuda_embedding).
 */
__device__ __forceinline__ uint64_t epoch_of(const VtCudaGroup& group, int ordinal) {
  return load_relaxed(group.first_epoch) + static_cast<uint64_t>(ordinal);
}

/** To host memory, the first time that anybody of this rank does. */
__device__ __forceinline__ void report_group(const VtCudaGroup& group, VtCudaGroupState state,
                                             int rank, int op_index, uint64_t epoch) {
  if (atomicCAS(&board_of(group, group.rank).reported, 0u, 1u) != 0) return;
  group.report->missing_rank = rank;
  group.report->op_index = op_index;
  group.report->epoch = epoch;
  store_release(&group.report->state, static_cast<uint32_t>(state));
}

/**
 * One wait of one thread. Who waits for a rank that may itself be waiting for a third is more
 * patient, so that it is not the one between that is blamed.
 */
class Patience {
 public:
  __device__ Patience(const VtCudaGroup& group, uint64_t epoch, int op_index,
                      bool may_be_waiting = false)
      : group_(group),
        epoch_(epoch),
        op_index_(op_index),
        limit_ns_(group.timeout_ns + (may_be_waiting ? group.timeout_ns / 2 : 0)) {}

  /** Called after each look in vain; true when there is no use in another. */
  __device__ bool is_over(int missing_rank) {
    if (++turns_ % kTurns != 0) return false;
    const uint32_t told = load_relaxed(&board_of(group_, group_.rank).given_up);
    if (told != 0) {
      report(static_cast<int>(told) - 1);
      return true;
    }
    const uint64_t now = global_timer_ns();
    if (begun_ == 0) begun_ = now;
    if (turns_ == 4 * kTurns) {
      store_relaxed(reinterpret_cast<uint32_t*>(&group_.report->waiting_op),
                    static_cast<uint32_t>(op_index_) + 1);
    }
    if (now - begun_ < limit_ns_) return false;
    report(missing_rank);
    for (int rank = 0; rank < group_.num_ranks; rank++) {
      store_relaxed(&board_of(group_, rank).given_up, static_cast<uint32_t>(missing_rank) + 1);
    }
    return true;
  }

  /** After a wait that was long and ended well. */
  __device__ void over() const {
    if (turns_ >= 4 * kTurns) {
      store_relaxed(reinterpret_cast<uint32_t*>(&group_.report->waiting_op), 0u);
    }
  }

 private:
  static constexpr uint32_t kTurns = 128;  // of most of a microsecond

  __device__ void report(int missing_rank) const {
    report_group(group_, VT_CUDA_GROUP_GAVE_UP, missing_rank, op_index_, epoch_);
  }

  const VtCudaGroup& group_;
  const uint64_t epoch_;
  const int op_index_;
  const uint64_t limit_ns_;
  uint32_t turns_ = 0;
  uint64_t begun_ = 0;
};

/** Waits for the four values at `at`, which `rank` sends, and takes them; `values` is a look. */
__device__ __forceinline__ uint4 take(uint4* at, uint4 values, int rank, Patience& patience) {
  while (!is_there(values) && !patience.is_over(rank)) values = load_relaxed(at);
  patience.over();
  put_back_nothing(at);
  return values;
}

__device__ __forceinline__ uint4 take(uint4* at, int rank, Patience& patience) {
  return take(at, load_relaxed(at), rank, patience);
}

}  // namespace vt

#endif  // VT_CUDA_GROUP_CUH_
