#include "backend.h"

#include <chrono>
#include <cstring>
#include <utility>

namespace vt {

namespace {

double now_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

}  // namespace

CpuBackend::CpuBackend(std::unique_ptr<Executor> executor, int max_in_flight, bool debug,
                       Report report)
    : executor_(std::move(executor)),
      max_in_flight_(max_in_flight),
      debug_(debug),
      report_(std::move(report)),
      thread_([this] { work(); }) {}

CpuBackend::~CpuBackend() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  executor_->leave("has ended");
  changed_.notify_one();
  thread_.join();
}

void CpuBackend::submit(double step, std::int64_t num_tokens, const char* body,
                        std::size_t body_bytes, const std::int32_t* table,
                        std::size_t table_words) {
  Submitted submitted;
  submitted.step = step;
  submitted.num_tokens = num_tokens;
  submitted.body.resize((body_bytes + 7) / 8);
  submitted.body_bytes = body_bytes;
  if (body_bytes > 0) std::memcpy(submitted.body.data(), body, body_bytes);
  submitted.table.assign(table, table + table_words);
  StepView(reinterpret_cast<const char*>(submitted.body.data()),
           static_cast<std::int64_t>(body_bytes), table, static_cast<std::int64_t>(table_words));
  {
    std::lock_guard<std::mutex> lock(mutex_);
    // Who submits may not have heard of the failure yet, and takes this one for it.
    if (failure_) throw KernelError(*failure_);
    VT_CHECK(num_in_flight_ < max_in_flight_, "more than %d steps in flight", max_in_flight_);
    num_in_flight_++;
    queue_.push_back(std::move(submitted));
  }
  changed_.notify_one();
}

void CpuBackend::work() {
  for (;;) {
    Submitted submitted;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      submitted = std::move(queue_.front());
      queue_.pop_front();
    }
    current_step_.store(submitted.step, std::memory_order_relaxed);
    std::unique_ptr<StepReport> report = run(submitted);
    const bool failed = report->failed;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      num_in_flight_--;
      if (failed) {
        failure_ = std::make_unique<KernelError>(
            __FILE__, __LINE__,
            "the backend has failed and takes no more steps: " + report->message);
        failure_->op = report->op;
        failure_->rank = report->rank;
        queue_.clear();
      }
    }
    report_(std::move(report));
    if (failed) return;
  }
}

std::unique_ptr<StepReport> CpuBackend::run(const Submitted& submitted) {
  auto report = std::make_unique<StepReport>();
  report->output.step = submitted.step;
  report->output.start_us = now_us();
  try {
    const StepView view(reinterpret_cast<const char*>(submitted.body.data()),
                        static_cast<std::int64_t>(submitted.body_bytes), submitted.table.data(),
                        static_cast<std::int64_t>(submitted.table.size()));
    executor_->execute(view, submitted.num_tokens, report->output);
  } catch (const KernelError& error) {
    report->failed = true;
    report->op = error.op;
    report->rank = error.rank;
    report->message = error.what();
    if (debug_)
      report->message += std::string(" (") + error.file + ":" + std::to_string(error.line) + ")";
  } catch (const std::exception& error) {
    report->failed = true;
    report->message = error.what();
  }
  if (report->failed) executor_->leave("has failed: " + report->message);
  report->output.end_us = now_us();
  return report;
}

}  // namespace vt
