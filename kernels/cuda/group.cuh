// What collectives are built from: boards, inboxes, and waits that end. A rank's board lies in its
// own memory; all ranks have it mapped and write to it. Only its owner reads it.
//
// Two ways to tell others something, and why each is right:
//
// 1. Words that carry their own flag (one-shot). A word is 64 bits: a value of 32 below a tag that
//    the epoch makes. A 64-bit access is never torn, so whoever reads the tag has the value: no
//    fence, no order between words is needed. Words of epoch e lie in half e % 2 of the inbox.
//    Why a half can be used again: rank A writes words of e + 2 in a kernel that begins after its
//    kernel of e + 1 has ended; that one had words of e + 1 from every rank B; B wrote them in its
//    kernel of e + 1, which began (griddepcontrol.wait, or the stream's order) after B's kernel of
//    e had ended, with all that it read of half e % 2. Should the chain ever be broken, a tag does
//    not fit and the wait ends with an error: never is a wrong value taken.
//    Why a tag can be used again: it has 31 bits of the epoch, and so comes back after 2^31
//    epochs. In two of every 2^28 epochs, one for each half, clear_stale() zeroes the words of its
//    half that the epoch itself does not use. No word is older than 2^28 epochs then, and 0 is no
//    tag. (Nobody writes those words meanwhile: words of e + 2 come after this kernel, as above.)
//
// 2. Signals (two-shot and gather): `signals[phase][block][rank]` of a board is set to epoch + 1,
//    of 64 bits, by block `block` of that rank, with st.release.sys, and awaited by the block of
//    the same number with ld.acquire.sys; bar.sync in front of the release and after the acquire
//    joins the block's other threads to it (causality order is transitive).
//    Phase 0, "what I wrote before this kernel may be read, and what it is to write be written":
//    pairs the kernels in front, complete since griddepcontrol.wait, with the peers' reads of x and
//    writes of out. Phase 1, "what my block read and wrote of yours is done": pairs the block's
//    reads and writes with all that comes after the peer's kernel. As every block waits for phase 1
//    of its number, the kernel ends when all blocks of all ranks have: nobody touches this rank's
//    arena after its kernel, whatever the arena planner does there next.
//    Why a signal is not overwritten before it is read: the next value of phase 0 comes from a
//    kernel after the peer's kernel of e, which waited for this block's phase 1, sent after this
//    block had read phase 0. The next value of phase 1 comes after a phase 0 of this rank's next
//    such kernel, which begins after this kernel, that read phase 1.
//
// A wait gives up after timeout_ns: the first thread of a rank to do so writes the report in host
// memory and tells all boards, so that no other wait lasts longer; results are rubbish from there
// on, the launches run out, and the host ends the step with an error. A grid that waits is never
// larger than what runs at once (max_blocks), or blocks that wait would keep out those waited for.
#ifndef VT_CUDA_GROUP_CUH_
#define VT_CUDA_GROUP_CUH_

#include "common.cuh"
#include "peer_memory.cuh"
#include "vt_cuda_collective.h"

namespace vt {

constexpr int kMaxRanks = VT_CUDA_MAX_RANKS;
/** Most blocks of a grid that signals. */
constexpr int kMaxGroupBlocks = 256;
/** Where the inbox begins on a board. */
constexpr int64_t kInboxOffset = 65536;

struct Board {
  uint64_t signals[2][kMaxGroupBlocks][kMaxRanks];
  /** 0, or 1 + the rank that did not come. Peers write it too. */
  uint32_t given_up;
  /** Its owner's: not 0 once a thread writes the report. */
  uint32_t reported;
};
static_assert(sizeof(Board) <= kInboxOffset, "the inbox begins behind the board's head");

__device__ __forceinline__ Board& board_of(const VtCudaGroup& group, int rank) {
  return *static_cast<Board*>(group.boards[rank]);
}

/** Words of `source` in the inbox of `owner`: half epoch % 2. */
__device__ __forceinline__ WordPair* inbox(const VtCudaGroup& group, int owner, int source,
                                           uint64_t epoch) {
  const int64_t slot = static_cast<int64_t>(epoch & 1) * group.num_ranks + source;
  return reinterpret_cast<WordPair*>(static_cast<char*>(group.boards[owner]) + kInboxOffset +
                                     slot * group.slot_bytes);
}

/** Where `rank` has what this rank has at `pointer`, in its arena. */
template <typename T>
__device__ __forceinline__ T* in_arena_of(const VtCudaGroup& group, int rank, T* pointer) {
  const int64_t offset = reinterpret_cast<const char*>(pointer) -
                         static_cast<const char*>(group.arenas[group.rank]);
  return reinterpret_cast<T*>(const_cast<char*>(static_cast<const char*>(group.arenas[rank])) +
                              offset);
}

/** Odd, so that memory that nobody wrote has none. */
__device__ __forceinline__ uint32_t tag_of(uint64_t epoch) {
  return static_cast<uint32_t>(epoch) << 1 | 1;
}

__device__ __forceinline__ uint64_t word_of(uint32_t tag, float value) {
  return static_cast<uint64_t>(tag) << 32 | __float_as_uint(value);
}

__device__ __forceinline__ bool has_tag(const WordPair& pair, uint32_t tag) {
  return static_cast<uint32_t>(pair.first >> 32) == tag &&
         static_cast<uint32_t>(pair.second >> 32) == tag;
}

__device__ __forceinline__ float value_of(uint64_t word) {
  return __uint_as_float(static_cast<uint32_t>(word));
}

/** The epoch of a launch; the step's first was written before any of its collectives starts. */
__device__ __forceinline__ uint64_t epoch_of(const VtCudaGroup& group, int ordinal) {
  return load_relaxed(group.first_epoch) + static_cast<uint64_t>(ordinal);
}

/** One wait of one thread. */
class Patience {
 public:
  __device__ Patience(const VtCudaGroup& group, uint64_t epoch, int op_index)
      : group_(group), epoch_(epoch), op_index_(op_index) {}

  /** Called after each look in vain; true when there is no use in another. */
  __device__ bool is_over(int missing_rank) {
    if (++turns_ % kTurns != 0) return false;
    Board& own = board_of(group_, group_.rank);
    const uint32_t told = load_relaxed(&own.given_up);
    if (told != 0) {
      report(own, static_cast<int>(told) - 1);
      return true;
    }
    const uint64_t now = global_timer_ns();
    if (begun_ == 0) begun_ = now;
    if (turns_ == 4 * kTurns) {
      store_relaxed(reinterpret_cast<uint32_t*>(&group_.report->waiting_op),
                    static_cast<uint32_t>(op_index_) + 1);
    }
    if (now - begun_ < group_.timeout_ns) return false;
    report(own, missing_rank);
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

  __device__ void report(Board& own, int missing_rank) const {
    if (atomicCAS(&own.reported, 0u, 1u) != 0) return;
    VtCudaGroupReport* to = group_.report;
    to->missing_rank = missing_rank;
    to->op_index = op_index_;
    to->epoch = epoch_;
    store_release(&to->state, 1u);
  }

  const VtCudaGroup& group_;
  const uint64_t epoch_;
  const int op_index_;
  uint32_t turns_ = 0;
  uint64_t begun_ = 0;
};

/**
 * Tells all ranks that this block is at `phase`, and waits until theirs of the same number are.
 * Every thread calls it; false if the group has failed.
 */
__device__ __forceinline__ bool meet(const VtCudaGroup& group, int phase, uint64_t epoch,
                                     int op_index) {
  __syncthreads();
  bool lost = false;
  if (threadIdx.x < static_cast<unsigned>(group.num_ranks)) {
    const int peer = threadIdx.x;
    const int block = blockIdx.x;
    store_release(&board_of(group, peer).signals[phase][block][group.rank], epoch + 1);
    const uint64_t* from = &board_of(group, group.rank).signals[phase][block][peer];
    Patience patience(group, epoch, op_index);
    while (!lost && load_acquire(from) != epoch + 1) lost = patience.is_over(peer);
    patience.over();
  }
  return __syncthreads_or(lost ? 1 : 0) == 0;
}

/**
 * Before a tag comes back: zeroes words of this epoch's half from `used_bytes` of each rank's slot
 * on. Every thread of the grid calls it; costs a comparison in all but two of 2^28 epochs.
 */
__device__ __forceinline__ void clear_stale(const VtCudaGroup& group, uint64_t epoch,
                                            int64_t used_bytes) {
  constexpr uint64_t kEvery = uint64_t{1} << 28;
  if (epoch % kEvery >= 2) return;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int rank = 0; rank < group.num_ranks; rank++) {
    WordPair* slot = inbox(group, group.rank, rank, epoch);
    for (int64_t i = used_bytes / 16 + thread; i < group.slot_bytes / 16; i += step) {
      store_relaxed(slot + i, WordPair{0, 0});
    }
  }
}

}  // namespace vt

#endif  // VT_CUDA_GROUP_CUH_
