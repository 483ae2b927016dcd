#include "block.h"

#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "memory.h"

namespace emulated {

Timing timing;
std::function<bool()> do_late_work;

namespace {

constexpr std::size_t kStackBytes = 256 << 10;

/// A context starts a fiber; from then on jumps, which leave the signal mask alone, are faster.
struct Thread {
  ucontext_t context;
  jmp_buf place;
  bool started = false;
  std::unique_ptr<char[]> stack;
  std::function<bool()> ready;
  bool done = false;
};

struct Warp {
  std::uint64_t values[2][32];
  int arrived = 0;
  unsigned meetings = 0;
};

struct NamedBarrier {
  int arrived = 0;
  unsigned phases = 0;
};

struct Mbarrier {
  int count = 0, pending = 0, bytes = 0;
  int phase = 0;
};

std::vector<Thread> threads;
std::vector<Warp> warps;
std::map<int, NamedBarrier> named;  // rank << 8 | id
std::map<std::uint32_t, Mbarrier> mbarriers;  // by address in the cluster
const std::function<void()>* thread_body;
ucontext_t scheduler_context;
jmp_buf scheduler;
int current = 0;
int block_threads = 0;
bool progress = false;

void enter() {
  (*thread_body)();
  threads[current].done = true;
  progress = true;
  _longjmp(scheduler, 1);
}

/// Into thread `current`, until it waits or ends.
void resume() {
  Thread& thread = threads[current];
  if (_setjmp(scheduler) != 0) return;
  if (thread.started) _longjmp(thread.place, 1);
  thread.started = true;
  swapcontext(&scheduler_context, &thread.context);
}

Mbarrier& mbarrier(std::uint32_t address) {
  const auto found = mbarriers.find(in_cluster(address, block_rank()));
  if (found == mbarriers.end()) give_up("an mbarrier that was not initialised");
  return found->second;
}

void complete(Mbarrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  barrier.phase++;
  barrier.pending = barrier.count;
  progress = true;
}

}  // namespace

void give_up(const std::string& why) {
  std::fprintf(stderr, "thread %d: %s\n", current, why.c_str());
  std::fflush(nullptr);
  std::_Exit(1);  // from a fiber, whose stack exit() would free
}

int this_thread() { return current % block_threads; }

int this_fiber() { return current; }

int num_threads() { return block_threads; }

int num_blocks() { return static_cast<int>(threads.size()) / block_threads; }

int block_rank() { return current / block_threads; }

void made_progress() { progress = true; }

void block_until(const std::function<bool()>& ready) {
  while (!ready()) {
    threads[current].ready = ready;
    if (_setjmp(threads[current].place) == 0) _longjmp(scheduler, 1);
  }
}

void look_again() {
  static int looks = 0;
  if (++looks % 64 == 0 && do_late_work) do_late_work();
  bool others_ran = false;
  block_until([&others_ran] { return std::exchange(others_ran, true); });
}

void run_cluster(int num_blocks, int block_size, const std::function<void()>& body) {
  if (block_size % 32 != 0) give_up("a block of broken warps");
  const int num_threads = num_blocks * block_size;
  block_threads = block_size;
  threads.resize(num_threads);
  warps.assign(num_threads / 32, Warp());
  named.clear();
  mbarriers.clear();
  thread_body = &body;
  for (Thread& thread : threads) {
    if (thread.stack == nullptr) thread.stack.reset(new char[kStackBytes]);
    thread.done = thread.started = false;
    thread.ready = nullptr;
    getcontext(&thread.context);
    thread.context.uc_stack = {thread.stack.get(), 0, kStackBytes};
    makecontext(&thread.context, enter, 0);
  }
  std::mt19937 random(timing.seed);
  int left = num_threads;
  while (left > 0) {
    progress = false;
    bool ran = false;
    for (int i = 0; i < num_threads; i++) {
      current = timing.seed == 0 ? i : static_cast<int>(random() % num_threads);
      Thread& thread = threads[current];
      if (thread.done || (thread.ready && !thread.ready())) continue;
      thread.ready = nullptr;
      ran = true;
      resume();
      left -= thread.done;
    }
    if (ran) continue;
    // A random pass may have missed the one thread that could run.
    bool any = false;
    // Each asks as itself: a barrier is that of its own block.
    const int last = current;
    for (int i = 0; i < num_threads && !any; i++) {
      const Thread& thread = threads[current = i];
      any = !thread.done && (!thread.ready || thread.ready());
    }
    current = last;
    if (any || (do_late_work && do_late_work())) continue;
    for (int t = 0; t < num_threads; t += 32)
      std::fprintf(stderr, "warp %d: %s\n", t / 32, threads[t].done ? "ended" : "waits");
    give_up("deadlock");
  }
}

const std::uint64_t* meet_warp(std::uint64_t value) {
  Warp& warp = warps[current / 32];
  const unsigned meeting = warp.meetings;
  std::uint64_t* values = warp.values[meeting % 2];
  values[current % 32] = value;
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    warp.meetings++;
    progress = true;
  } else {
    block_until([&warp, meeting] { return warp.meetings != meeting; });
  }
  return values;
}

void named_barrier(int id, int num_threads, bool wait) {
  NamedBarrier& barrier = named[block_rank() << 8 | id];
  const unsigned phase = barrier.phases;
  if (++barrier.arrived == num_threads) {
    barrier.arrived = 0;
    barrier.phases++;
    progress = true;
  } else if (wait) {
    block_until([&barrier, phase] { return barrier.phases != phase; });
  }
}

void cluster_barrier() {
  static NamedBarrier barrier;
  const unsigned phase = barrier.phases;
  if (++barrier.arrived == static_cast<int>(threads.size())) {
    barrier.arrived = 0;
    barrier.phases++;
    progress = true;
  } else {
    block_until([phase] { return barrier.phases != phase; });
  }
}

void mbarrier_init(std::uint32_t address, int count) {
  if (address % 8 != 0) give_up("an mbarrier that is not 8-byte aligned");
  mbarriers[in_cluster(address, block_rank())] = {count, count, 0, 0};
}

void mbarrier_arrive(std::uint32_t address, int expected_bytes) {
  Mbarrier& barrier = mbarrier(address);
  if (barrier.pending == 0) give_up("one arrival too many in a phase of an mbarrier");
  barrier.bytes += expected_bytes;
  barrier.pending--;
  complete(barrier);
}

void mbarrier_bytes(std::uint32_t address, int bytes) {
  Mbarrier& barrier = mbarrier(address);
  barrier.bytes -= bytes;
  complete(barrier);
}

bool mbarrier_done(std::uint32_t address, int parity) {
  return mbarrier(address).phase % 2 != parity;
}

}  // namespace emulated
