// The threads of a backend. run() executes one function on all of them at once, the caller being
// thread 0; barrier() holds them until all have come. Waiting spins for a moment, since the next op
// is microseconds away, then yields, and then parks, so that a backend without work costs nothing.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace vt {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }
  /// Calls function(argument, thread) on every thread and returns when all have returned. The
  /// function must not throw.
  void run(void (*function)(void*, int), void* argument);
  /// Called by every thread inside run().
  void barrier() { arrive_and_wait(arrived_, passed_); }

 private:
  /// A counter that threads wait on to move away from a known value.
  struct Gate {
    std::atomic<std::uint32_t> value{0};
    std::atomic<int> num_parked{0};
    std::mutex mutex;
    std::condition_variable moved;
  };

  void wait(Gate& gate, std::uint32_t seen);
  void open(Gate& gate);
  void arrive_and_wait(std::atomic<int>& arrived, Gate& gate);
  void work(int thread);

  const int num_threads_;
  std::vector<std::thread> threads_;
  void (*function_)(void*, int) = nullptr;
  void* argument_ = nullptr;
  bool stopping_ = false;
  Gate started_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) Gate passed_;
};

/// The part of [0, count) that is `thread`'s, in order of threads; parts differ by at most one.
struct Range {
  std::int64_t begin, end;
};
inline Range share(std::int64_t count, int thread, int num_threads) {
  return {count * thread / num_threads, count * (thread + 1) / num_threads};
}

}  // namespace vt
