// Thread blocks of one cluster on the CPU: a fiber a thread, run in turns until all have ended.
// Knows how threads wait for each other (warps, named barriers, mbarriers), not what they compute.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace emulated {

struct Dim {
  unsigned x = 1, y = 1, z = 1;
};

/// When what is asynchronous takes place: at once, or at the last moment that the program allows.
struct Timing {
  bool late_copies = false;
  bool late_products = false;
  /// Order in which threads get their turns; 0: round robin.
  unsigned seed = 0;
};
extern Timing timing;

/// Runs `body` in every thread of a cluster's blocks; ends the process on a deadlock.
void run_cluster(int num_blocks, int num_threads, const std::function<void()>& body);

/// Asked when no thread can run: does something that was put off, or returns false.
extern std::function<bool()> do_late_work;

/// Ends the process: the kernel did what it must not.
[[noreturn]] void give_up(const std::string& why);

/// Of the block, of all blocks, and in a block.
int this_thread();
int this_fiber();
int num_threads();
int num_blocks();
/// Which of the cluster's blocks this thread belongs to.
int block_rank();

/// Lets others run until `ready`.
void block_until(const std::function<bool()>& ready);
/// Lets others run, and now and then what was put off take place: of a thread that asks in a loop.
void look_again();
/// Counts as progress: what another thread waits for may have come.
void made_progress();

/// Meets the warp's other threads; `value`s of all of them, by lane, valid until the next meeting
/// but one.
const std::uint64_t* meet_warp(std::uint64_t value);

/// bar.sync and bar.arrive.
void named_barrier(int id, int num_threads, bool wait);

/// The barrier of all threads of the cluster.
void cluster_barrier();

/// Addresses as memory.h has them: of this block's memory, or of another one's of the cluster.
void mbarrier_init(std::uint32_t address, int count);
void mbarrier_arrive(std::uint32_t address, int expected_bytes);
void mbarrier_bytes(std::uint32_t address, int bytes);
bool mbarrier_done(std::uint32_t address, int parity);

}  // namespace emulated
