#include "thread_pool.h"

#if defined(__linux__)
#include <pthread.h>
#endif

#include "pause.h"

namespace vt {

namespace {

/// About 5 us on a 3 GHz core: all that threads differ by when each has a core of its own.
constexpr int kSpins = 200;
/// A millisecond or two where nobody else wants the core.
constexpr int kYields = 3000;

}  // namespace

ThreadPool::ThreadPool(int num_threads) : num_threads_(num_threads) {
  for (int i = 1; i < num_threads; i++)
    threads_.emplace_back([this, i] {
#if defined(__linux__)
      pthread_setname_np(pthread_self(), "vt-cpu");
#endif
      work(i);
    });
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  open(started_);
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(void (*function)(void*, int), void* argument) {
  if (num_threads_ == 1) return function(argument, 0);
  function_ = function;
  argument_ = argument;
  open(started_);
  function(argument, 0);
  barrier();
}

void ThreadPool::work(int thread) {
  for (std::uint32_t seen = 0;; seen++) {
    wait(started_, seen);
    if (stopping_) return;
    function_(argument_, thread);
    barrier();
  }
}

void ThreadPool::wait(Gate& gate, std::uint32_t seen) {
  for (int i = 0; i < kSpins; i++) {
    if (gate.value.load(std::memory_order_acquire) != seen) return;
    pause();
  }
  // The other thread has probably lost its core to another process. Whoever waits for this core may
  // have it; to park would cost more than the wait, above all in a virtual machine.
  for (int i = 0; i < kYields; i++) {
    if (gate.value.load(std::memory_order_acquire) != seen) return;
    std::this_thread::yield();
  }
  std::unique_lock<std::mutex> lock(gate.mutex);
  gate.num_parked.fetch_add(1);
  gate.moved.wait(lock, [&] { return gate.value.load() != seen; });
  gate.num_parked.fetch_sub(1);
}

void ThreadPool::open(Gate& gate) {
  gate.value.fetch_add(1);
  // Either the waiter sees the new value, or we see the waiter: both orders are sequential.
  if (gate.num_parked.load() == 0) return;
  std::lock_guard<std::mutex> lock(gate.mutex);
  gate.moved.notify_all();
}

void ThreadPool::arrive_and_wait(std::atomic<int>& arrived, Gate& gate) {
  if (num_threads_ == 1) return;
  const std::uint32_t seen = gate.value.load(std::memory_order_relaxed);
  if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == num_threads_) {
    arrived.store(0, std::memory_order_relaxed);
    open(gate);
  } else {
    wait(gate, seen);
  }
}

}  // namespace vt
