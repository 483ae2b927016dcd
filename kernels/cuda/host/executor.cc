#include "executor.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "step_runner.h"

namespace vt {

namespace {

/// How long a report is awaited before the thread sleeps.
constexpr auto kSpin = std::chrono::microseconds(50);

/// Between two looks at a step that needs watching.
constexpr auto kNap = std::chrono::microseconds(20);

double now_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

}  // namespace

struct Executor::State {
  /// A step in flight, or why it could not be.
  struct Flight {
    StepRecord record;
    std::optional<KernelError> error;
  };

  State(const Program& program, const Weights& weights, const LinearLibrary& linears, void* kv_base,
        RankGroup* ranks, const ExecutorOptions& options, Ledger& ledger)
      : options(options),
        runner(program, weights, linears, kv_base, ranks, options, ledger),
        ended(options.async_depth + 2),
        flights(options.async_depth + 2),
        reporter(options.max_num_seqs) {}

  Flight& flight(std::uint64_t step_index) { return flights[step_index % flights.size()]; }
  void await(const Flight& flight, std::uint64_t step_index) const;
  void watch(const Flight& flight, std::uint64_t step_index) const;
  /// The mutex is held.
  void keep_first(const KernelError& error, double step);

  const ExecutorOptions options;
  StepRunner runner;
  Events ended;

  std::vector<Flight> flights;
  std::mutex mutex;
  std::condition_variable changed;
  /// Steps that were given an index, and those of them that are over. Only wait() moves the second
  /// on.
  std::uint64_t num_submitted = 0;
  std::atomic<std::uint64_t> num_reported{0};
  bool stopping = false;
  /// What failed first; empty = nothing yet. What fails after it only follows from it.
  std::string failure;
  std::atomic<double> position_step{-1};

  StepReporter reporter;
  StepOutput output;
};

void Executor::State::keep_first(const KernelError& error, double step) {
  if (!failure.empty()) return;
  char where[80];
  std::snprintf(where, sizeof where, " (%s%sstep %.0f)", error.op.c_str(),
                error.op.empty() ? "" : ", ", step);
  failure = error.what() + std::string(where);
}

/// Until the step is done, or a rank was given up: what waits for it on the device may stay there.
void Executor::State::watch(const Flight& flight, std::uint64_t step_index) const {
  while (!runner.buffers().is_done(step_index)) {
    runner.check_ranks(flight.record);
    const cudaError_t state = cudaEventQuery(ended.of(step_index));
    if (state == cudaSuccess) return;
    if (state != cudaErrorNotReady) {
      // What was given up may end in an error of the device: the reason is the rank.
      runner.check_ranks(flight.record);
      VT_CUDA(state);
    }
    std::this_thread::sleep_for(kNap);
  }
}

/// Throws KernelError if the step, or one before it, failed.
void Executor::State::await(const Flight& flight, std::uint64_t step_index) const {
  if (flight.error) {
    runner.check_ranks(flight.record);
    throw KernelError(*flight.error);
  }
  const auto until = std::chrono::steady_clock::now() + kSpin;
  do {
    if (runner.buffers().is_done(step_index)) return;
  } while (std::chrono::steady_clock::now() < until);
  if (runner.needs_watching())
    watch(flight, step_index);
  else
    VT_CUDA(cudaEventSynchronize(ended.of(step_index)));
  VT_CHECK(runner.buffers().is_done(step_index), "the device ended a step without its result");
}

Executor::Executor(const Program& program, const Weights& weights, const LinearLibrary& linears,
                   void* kv_base, RankGroup* ranks, const ExecutorOptions& options, Ledger& ledger)
    : state_(std::make_unique<State>(program, weights, linears, kv_base, ranks, options, ledger)) {}

Executor::~Executor() = default;

void Executor::capture(Ledger& ledger) {
  state_->num_submitted = state_->runner.capture(ledger);
  state_->num_reported = state_->num_submitted;
}

void Executor::set_num_blocks(int num_blocks) {
  state_->runner.rows().table().set_num_blocks(num_blocks);
}

void Executor::submit(double step, std::int64_t num_tokens, const void* body,
                      std::size_t body_bytes, const std::int32_t* table, std::size_t table_words) {
  State& s = *state_;
  const StepView view(static_cast<const char*>(body), static_cast<std::int64_t>(body_bytes), table,
                      static_cast<std::int64_t>(table_words));
  std::uint64_t step_index, num_reported;
  {
    std::lock_guard<std::mutex> lock(s.mutex);
    VT_CHECK(s.failure.empty(), "the backend has failed and takes no more steps: %s",
             s.failure.c_str());
    step_index = s.num_submitted;
    num_reported = s.num_reported;
    const int most = s.options.async_depth + 1;
    VT_CHECK(step_index - num_reported < static_cast<std::uint64_t>(most),
             "more than %d steps in flight", most);
    if (step_index == num_reported) s.position_step.store(step, std::memory_order_relaxed);
  }
  State::Flight& flight = s.flight(step_index);
  flight.record.step = step;
  flight.error.reset();
  try {
    s.runner.run(view, num_tokens, step_index, num_reported, flight.record);
    VT_CUDA(cudaEventRecord(s.ended.of(step_index), s.runner.stream()));
  } catch (const KernelError& error) {
    flight.error = error;
  }
  {
    std::lock_guard<std::mutex> lock(s.mutex);
    if (flight.error) s.keep_first(*flight.error, step);
    s.num_submitted++;
  }
  s.changed.notify_one();
}

int Executor::wait(VtCudaStepOutput* output) {
  State& s = *state_;
  const std::uint64_t step_index = s.num_reported;
  {
    std::unique_lock<std::mutex> lock(s.mutex);
    s.changed.wait(lock, [&] { return s.stopping || s.num_submitted > step_index; });
    if (s.stopping) return 1;
  }
  const State::Flight& flight = s.flight(step_index);
  output->step = flight.record.step;
  try {
    s.await(flight, step_index);
    s.runner.check_ranks(flight.record);
  } catch (const KernelError& error) {
    std::lock_guard<std::mutex> lock(s.mutex);
    s.keep_first(error, flight.record.step);
    if (!s.options.debug_sync) throw;
    const std::string where = std::string(error.file) + ":" + std::to_string(error.line);
    KernelError placed(error.file, error.line, error.what() + (" (" + where + ")"));
    placed.op = error.op;
    placed.rank = error.rank;
    throw placed;
  }
  s.reporter.report(flight.record, s.runner.buffers().results(step_index), now_us(), s.output);
  {
    std::lock_guard<std::mutex> lock(s.mutex);
    s.num_reported.store(step_index + 1, std::memory_order_release);
    if (s.num_submitted > step_index + 1)
      s.position_step.store(s.flight(step_index + 1).record.step, std::memory_order_relaxed);
  }
  output->hash = s.output.hash;
  output->start_us = s.output.start_us;
  output->end_us = s.output.end_us;
  output->device_idle_us = s.reporter.device_idle_us();
  output->body = s.output.body.data();
  output->body_bytes = s.output.body.size();
  output->table = s.output.table;
  return 0;
}

void Executor::position(double* step, std::int32_t* op_index) const {
  *step = state_->position_step.load(std::memory_order_relaxed);
  *op_index = state_->runner.op_index();
}

void Executor::stop() {
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stopping = true;
  }
  state_->changed.notify_all();
}

void Executor::read_buffer(int index, void* data, std::size_t bytes) const {
  const Launches& launches = state_->runner.launches();
  VT_CHECK(bytes <= launches.buffer_bytes(index), "buffer %d holds %zu bytes", index,
           launches.buffer_bytes(index));
  state_->runner.stream().synchronize();
  VT_CUDA(cudaMemcpy(data, launches.buffer(index), bytes, cudaMemcpyDeviceToHost));
}

void Executor::write_buffer(int index, const void* data, std::size_t bytes) {
  const Launches& launches = state_->runner.launches();
  VT_CHECK(bytes <= launches.buffer_bytes(index), "buffer %d holds %zu bytes", index,
           launches.buffer_bytes(index));
  state_->runner.stream().synchronize();
  VT_CUDA(cudaMemcpy(launches.buffer(index), data, bytes, cudaMemcpyHostToDevice));
}

}  // namespace vt
