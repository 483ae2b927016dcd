#include "executor.h"

#include <cuda_runtime.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <vector>

#include "cuda_error.h"
#include "graphs.h"
#include "launches.h"
#include "rows.h"
#include "step_buffers.h"
#include "step_report.h"

namespace vt {

using In = StepInputColumn;

namespace {

/// How long a report is awaited before the thread sleeps.
constexpr auto kSpin = std::chrono::microseconds(50);

double now_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

BatchLimits limits_of(const Program& program, const ExecutorOptions& options) {
  const bool has_kv = !program.kv_groups.empty();
  return {program.max_num_tokens, options.max_model_len, has_kv ? program.kv_groups[0].window : 0,
          has_kv};
}

RowTableSizes sizes_of(const Program& program, const ExecutorOptions& options) {
  return {options.max_num_seqs, options.max_model_len, options.block_size, 1, program.vocab_size};
}

std::size_t free_bytes() {
  std::size_t free = 0, total = 0;
  VT_CUDA(cudaMemGetInfo(&free, &total));
  return free;
}

class Stream {
 public:
  Stream() { VT_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Events {
 public:
  explicit Events(int count) : events_(count) {
    for (cudaEvent_t& event : events_)
      VT_CUDA(cudaEventCreateWithFlags(&event, cudaEventBlockingSync | cudaEventDisableTiming));
  }
  ~Events() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  cudaEvent_t of(std::uint64_t sequence) const { return events_[sequence % events_.size()]; }

 private:
  std::vector<cudaEvent_t> events_;
};

}  // namespace

struct Executor::State {
  /// A step in flight, or why it could not be.
  struct Flight {
    StepRecord record;
    std::optional<KernelError> error;
  };

  State(const Program& program, const Weights& weights, const LinearLibrary& linears, void* kv_base,
        const ExecutorOptions& options, Ledger& ledger)
      : program(program),
        options(options),
        rows(sizes_of(program, options), ledger),
        buffers(options.max_num_seqs, program.max_num_tokens, options.async_depth + 2, ledger),
        arrays(describe()),
        launches(program, weights, linears, kv_base, sizes_of(program, options), arrays, ledger),
        builder(rows.table(), limits_of(program, options)),
        events(options.async_depth + 2),
        flights(options.async_depth + 2),
        reporter(options.max_num_seqs) {
    watch.before = [this](int op) { op_index.store(op, std::memory_order_relaxed); };
    watch.after = [this](int) { VT_CUDA(cudaStreamSynchronize(stream)); };
  }
  ~State() { cudaStreamSynchronize(stream); }

  StepArrays describe() const {
    StepArrays result{};
    rows.describe(result);
    buffers.describe(result);
    return result;
  }
  int max_rows() const { return std::min(options.max_num_seqs, program.max_num_tokens); }
  Flight& flight(std::uint64_t sequence) { return flights[sequence % flights.size()]; }

  void queue(const StepShape& shape, const StepPadding& padding, int max_count);
  StepShape decode_shape(int num_rows) const;
  void warm_up(const StepShape& shape, const StepPadding& padding);
  void execute(const StepView& view, std::int64_t num_tokens, std::uint64_t sequence);
  bool is_decode(const Batch& batch) const;
  void run_eager(const StepRecord& record);
  void await(std::uint64_t sequence);

  const Program& program;
  const ExecutorOptions options;
  Rows rows;
  StepBuffers buffers;
  const StepArrays arrays;
  const Launches launches;
  BatchBuilder builder;
  Stream stream;
  Events events;
  Graphs graphs;
  Launches::Watch watch;
  StepShape shape;

  std::vector<Flight> flights;
  std::mutex mutex;
  std::condition_variable changed;
  /// Steps that were given a sequence number, and those of them that are over. Only wait() moves
  /// the second on.
  std::uint64_t num_submitted = 0;
  std::atomic<std::uint64_t> num_reported{0};
  bool failed = false, stopping = false;
  std::atomic<double> position_step{-1};
  std::atomic<std::int32_t> op_index{0};

  StepReporter reporter;
  StepOutput output;
};

void Executor::State::queue(const StepShape& shape, const StepPadding& padding, int max_count) {
  const int flags = options.debug_sync ? 0 : VT_CUDA_DEPENDENT;
  launch_build_inputs(arrays, padding, max_count, 0, stream);
  if (options.debug_sync) VT_CUDA(cudaStreamSynchronize(stream));
  launches.run(shape, stream, options.debug_sync ? &watch : nullptr);
  if (shape.num_top >= 0 && shape.num_logit_rows > 0)
    launch_copy_logprobs(arrays, shape.num_logit_rows, shape.num_top, flags, stream);
  launch_finish_step(arrays, flags, stream);
  if (options.debug_sync) VT_CUDA(cudaStreamSynchronize(stream));
}

StepShape Executor::State::decode_shape(int num_rows) const {
  StepShape result;
  result.num_tokens = num_rows;
  result.num_logit_rows = launches.has_sample() ? num_rows : 0;
  result.logits_are_tokens = true;
  if (launches.attention() != nullptr)
    result.attention.push_back(launches.attention()->decode_group(num_rows));
  return result;
}

/// A step of padding: it runs every kernel and touches neither KV cache nor rows.
void Executor::State::warm_up(const StepShape& shape, const StepPadding& padding) {
  buffers.write(num_submitted, Batch{}, false, rows);
  queue(shape, padding, 1);
  VT_CUDA(cudaStreamSynchronize(stream));
  num_submitted++;
  num_reported++;
}

bool Executor::State::is_decode(const Batch& batch) const {
  if (batch.rows.empty() || batch.logit_rows.size() != batch.rows.size()) return false;
  for (std::size_t i = 0; i < batch.rows.size(); i++)
    if (batch.rows[i].count != 1 || batch.logit_rows[i].is_prompt) return false;
  return true;
}

void Executor::State::execute(const StepView& view, std::int64_t num_tokens,
                              std::uint64_t sequence) {
  StepRecord& record = flight(sequence).record;
  rows.apply(view, sequence, num_reported.load(std::memory_order_acquire));
  Batch& batch = record.batch;
  builder.build(view, num_tokens, batch);
  const Column<std::int32_t> scheduled = view.i32(In::row);
  record.scheduled.assign(scheduled.data, scheduled.data + scheduled.count);
  record.filled.clear();
  for (const std::int32_t row : rows.new_rows())
    record.filled.push_back({row, rows.table().row(row).num_tokens});
  record.has_logprobs = false;
  buffers.write(sequence, batch, launches.has_sample(), rows);
  for (const LogitRow& row : batch.logit_rows) {
    if (row.is_prompt || rows.table().row(row.row).params.num_logprobs >= 0)
      record.has_logprobs = true;
    if (!row.is_prompt && launches.has_sample()) rows.table().expect(row.row);
  }
  shape.attention.clear();
  if (launches.attention() != nullptr) launches.attention()->divide(batch.rows, shape.attention);
  const bool as_graph = is_decode(batch) && !record.has_logprobs && shape.attention.size() <= 1 &&
                        graphs.launch(static_cast<int>(batch.rows.size()), stream);
  if (!as_graph) run_eager(record);
  VT_CUDA(cudaEventRecord(events.of(sequence), stream));
}

void Executor::State::run_eager(const StepRecord& record) {
  const Batch& batch = record.batch;
  shape.num_tokens = batch.num_tokens;
  shape.num_logit_rows = launches.has_sample() ? static_cast<int>(batch.logit_rows.size()) : 0;
  shape.logits_are_tokens = false;
  shape.num_top = record.has_logprobs ? batch.num_top : -1;
  int max_count = 0;
  for (const BatchRow& row : batch.rows) max_count = std::max(max_count, row.count);
  queue(shape, {static_cast<int>(batch.rows.size()), shape.num_tokens, shape.num_logit_rows},
        max_count);
}

void Executor::State::await(std::uint64_t sequence) {
  const auto until = std::chrono::steady_clock::now() + kSpin;
  do {
    if (buffers.is_done(sequence)) return;
  } while (std::chrono::steady_clock::now() < until);
  VT_CUDA(cudaEventSynchronize(events.of(sequence)));
  VT_CHECK(buffers.is_done(sequence), "the device ended a step without its result");
}

Executor::Executor(const Program& program, const Weights& weights, const LinearLibrary& linears,
                   void* kv_base, const ExecutorOptions& options, Ledger& ledger)
    : state_(std::make_unique<State>(program, weights, linears, kv_base, options, ledger)) {}

Executor::~Executor() = default;

void Executor::capture(Ledger& ledger) {
  State& s = *state_;
  const std::vector<int> buckets = decode_buckets(s.max_rows());
  const std::size_t before = free_bytes();
  StepShape mixed;
  mixed.num_top = kMaxLogprobs;
  mixed.num_logit_rows = s.launches.has_sample() ? 1 : 0;
  if (s.launches.attention() != nullptr)
    mixed.attention.push_back(s.launches.attention()->empty_group());
  // Each class of m has kernels of its own.
  for (const int num_tokens : {8, 16, 32, 64, 128, s.program.max_num_tokens}) {
    if (num_tokens > s.program.max_num_tokens) continue;
    mixed.num_tokens = num_tokens;
    s.warm_up(mixed, {1, num_tokens, 1});
  }
  for (const int rows : buckets) s.warm_up(s.decode_shape(rows), {rows, rows, rows});
  const std::size_t loaded = free_bytes();
  ledger.add("modules", before > loaded ? before - loaded : 0);
  if (s.options.debug_sync) return;
  for (const int rows : buckets)
    s.graphs.capture(rows, s.stream,
                     [&] { s.queue(s.decode_shape(rows), {rows, rows, rows}, 1); });
  VT_CUDA(cudaStreamSynchronize(s.stream));
  const std::size_t captured = free_bytes();
  ledger.add("graphs", loaded > captured ? loaded - captured : 0);
}

void Executor::set_num_blocks(int num_blocks) { state_->rows.table().set_num_blocks(num_blocks); }

void Executor::submit(double step, std::int64_t num_tokens, const void* body,
                      std::size_t body_bytes, const std::int32_t* table, std::size_t table_words) {
  State& s = *state_;
  const StepView view(static_cast<const char*>(body), static_cast<std::int64_t>(body_bytes), table,
                      static_cast<std::int64_t>(table_words));
  std::uint64_t sequence;
  {
    std::lock_guard<std::mutex> lock(s.mutex);
    VT_CHECK(!s.failed, "the backend has failed and takes no more steps");
    sequence = s.num_submitted;
    const int most = s.options.async_depth + 1;
    VT_CHECK(sequence - s.num_reported < static_cast<std::uint64_t>(most),
             "more than %d steps in flight", most);
    if (sequence == s.num_reported) s.position_step.store(step, std::memory_order_relaxed);
  }
  State::Flight& flight = s.flight(sequence);
  flight.record.step = step;
  flight.error.reset();
  try {
    s.execute(view, num_tokens, sequence);
  } catch (const KernelError& error) {
    flight.error = error;
  }
  {
    std::lock_guard<std::mutex> lock(s.mutex);
    if (flight.error) s.failed = true;
    s.num_submitted++;
  }
  s.changed.notify_one();
}

int Executor::wait(VtCudaStepOutput* output) {
  State& s = *state_;
  const std::uint64_t sequence = s.num_reported;
  {
    std::unique_lock<std::mutex> lock(s.mutex);
    s.changed.wait(lock, [&] { return s.stopping || s.num_submitted > sequence; });
    if (s.stopping) return 1;
  }
  const State::Flight& flight = s.flight(sequence);
  output->step = flight.record.step;
  try {
    if (flight.error) throw KernelError(*flight.error);
    s.await(sequence);
  } catch (const KernelError&) {
    std::lock_guard<std::mutex> lock(s.mutex);
    s.failed = true;
    throw;
  }
  s.reporter.report(flight.record, s.buffers.results(sequence), now_us(), s.output);
  {
    std::lock_guard<std::mutex> lock(s.mutex);
    s.num_reported.store(sequence + 1, std::memory_order_release);
    if (s.num_submitted > sequence + 1)
      s.position_step.store(s.flight(sequence + 1).record.step, std::memory_order_relaxed);
  }
  output->num_top = s.output.num_top;
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
  *op_index = state_->op_index.load(std::memory_order_relaxed);
}

void Executor::stop() {
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stopping = true;
  }
  state_->changed.notify_all();
}

void Executor::read_buffer(int index, void* data, std::size_t bytes) const {
  VT_CHECK(bytes <= state_->launches.buffer_bytes(index), "buffer %d holds %zu bytes", index,
           state_->launches.buffer_bytes(index));
  VT_CUDA(cudaStreamSynchronize(state_->stream));
  VT_CUDA(cudaMemcpy(data, state_->launches.buffer(index), bytes, cudaMemcpyDeviceToHost));
}

void Executor::write_buffer(int index, const void* data, std::size_t bytes) {
  VT_CHECK(bytes <= state_->launches.buffer_bytes(index), "buffer %d holds %zu bytes", index,
           state_->launches.buffer_bytes(index));
  VT_CUDA(cudaStreamSynchronize(state_->stream));
  VT_CUDA(cudaMemcpy(state_->launches.buffer(index), data, bytes, cudaMemcpyHostToDevice));
}

}  // namespace vt
