// The CPU backend: a thread of its own that takes steps from a queue and hands their outputs to a
// callback, in order. After a failure nothing more is reported.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../check.h"
#include "executor.h"

namespace vt {

/// A step's output, or why there is none.
struct StepReport {
  StepOutput output;
  bool failed = false;
  std::string message, op;
  /// The rank that is to blame, or -1.
  int rank = -1;
};

/// Best variant that this machine runs, or the one named; throws KernelError for an unknown name.
const KernelTable& select_kernels(const std::string& name);
/// Of a variant's name: higher needs a newer processor. Ranks on several hosts take the lowest.
int kernel_level(const std::string& name);
/// Throws KernelError where the variant was not built.
const KernelTable& kernels_of_level(int level);

class CpuBackend {
 public:
  /// Called on the backend's thread.
  using Report = std::function<void(std::unique_ptr<StepReport>)>;

  CpuBackend(std::unique_ptr<Executor> executor, int max_in_flight, bool debug, Report report);
  /// Ends after the step that runs now; steps still queued are dropped.
  ~CpuBackend();

  /// Copies the step and returns. Throws KernelError for a bad column table or too many steps.
  void submit(double step, std::int64_t num_tokens, const char* body, std::size_t body_bytes,
              const std::int32_t* table, std::size_t table_words);

  double step() const { return current_step_.load(std::memory_order_relaxed); }
  const Executor& executor() const { return *executor_; }

 private:
  struct Submitted {
    double step;
    std::int64_t num_tokens;
    /// Eight-byte aligned copy of the body.
    std::vector<std::uint64_t> body;
    std::size_t body_bytes;
    std::vector<std::int32_t> table;
  };

  void work();
  std::unique_ptr<StepReport> run(const Submitted& submitted);

  std::unique_ptr<Executor> executor_;
  const int max_in_flight_;
  const bool debug_;
  Report report_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Submitted> queue_;
  /// Steps submitted and not yet reported.
  int num_in_flight_ = 0;
  /// What a step failed of; none is taken after it.
  std::unique_ptr<KernelError> failure_;
  bool stopping_ = false;
  std::atomic<double> current_step_{-1};
  std::thread thread_;
};

}  // namespace vt
