// The class CpuBackend: kernels/cpu as a native backend. kernels/cpu-backend.ts checks and names
// what goes in.
#include <algorithm>
#include <utility>

#include "../cpu/backend.h"
#include "../cpu/shared_ranks.h"
#include "../cpu/tcp_ranks.h"
#include "addon.h"
#include "backend_object.h"
#include "load_fields.h"

namespace vt {

namespace {

constexpr BackendRules kRules = {
    "cpu",
    /*activations=*/{Dtype::f32},
    /*kv_cache=*/{Dtype::f32, Dtype::f16, Dtype::bf16},
    /*weights=*/{Dtype::f32, Dtype::f16, Dtype::bf16},
    /*one_dtype=*/false,
    /*interleave=*/false,
    /*rows_at_once=*/false,
};

/// num_ranks is 1 where one rank runs the whole model.
RankGroup read_group(const Napi::Object& load) {
  if (!load.Get("group").IsObject()) return {0, 1, "", 0};
  const auto group = field<Napi::Object>(load, "group");
  return {int_field(group, "rank"), int_field(group, "numRanks"),
          field<Napi::String>(group, "path").Utf8Value(), int_field(group, "timeoutMs")};
}

/// Without addresses where the ranks are on one host.
TcpGroup tcp_group(const Napi::Object& load, const RankGroup& group) {
  TcpGroup network{group.rank, group.num_ranks, group.timeout_ms, {}, {}, {}};
  if (group.num_ranks == 1) return network;
  NetworkFields fields = read_network(field<Napi::Object>(load, "group"));
  network.addresses = std::move(fields.addresses);
  network.shown = std::move(fields.shown_tokens);
  network.expected = std::move(fields.expected_tokens);
  return network;
}

class NativeCpuBackend : public NativeBackend {
 public:
  NativeCpuBackend(std::unique_ptr<Executor> executor, int max_in_flight, bool debug)
      : executor_(std::move(executor)), max_in_flight_(max_in_flight), debug_(debug) {}

  void start(ReportSink sink) override {
    double last_end_us = 0;
    backend_ = std::make_unique<CpuBackend>(
        std::move(executor_), max_in_flight_, debug_,
        [sink, last_end_us](std::unique_ptr<StepReport> done) mutable {
          auto report = std::make_unique<BackendReport>();
          StepOutput& output = done->output;
          report->step = output.step;
          report->hash = output.hash;
          report->start_us = output.start_us;
          report->end_us = output.end_us;
          if (last_end_us > 0) report->device_idle_us = output.start_us - last_end_us;
          last_end_us = output.end_us;
          report->body = std::move(output.body);
          std::copy(std::begin(output.table), std::end(output.table), report->table);
          report->failed = done->failed;
          report->message = std::move(done->message);
          report->op = std::move(done->op);
          report->rank = done->rank;
          sink(std::move(report));
        });
  }

  void submit(double step, std::int64_t num_tokens, const char* body, std::size_t body_bytes,
              const std::int32_t* table, std::size_t table_words) override {
    backend_->submit(step, num_tokens, body, body_bytes, table, table_words);
  }

  void position(double* step, std::int32_t* op_index) const override {
    *step = backend_->step();
    *op_index = backend_->executor().op_index();
  }

  std::int64_t shown_bytes() const override { return backend_->executor().shown_bytes(); }

  void read_buffer(int index, void* data, std::size_t bytes) override {
    const char* source = checked_buffer(index, bytes);
    std::copy(source, source + bytes, static_cast<char*>(data));
  }
  void write_buffer(int index, const void* data, std::size_t bytes) override {
    const char* source = static_cast<const char*>(data);
    std::copy(source, source + bytes, checked_buffer(index, bytes));
  }

 private:
  char* checked_buffer(int index, std::size_t bytes) const {
    const Executor& executor = backend_->executor();
    const auto room = sizeof(float) * static_cast<std::size_t>(executor.buffer_rows(index) *
                                                               executor.buffer_columns(index));
    VT_CHECK(bytes <= room, "buffer %d holds %zu bytes", index, room);
    return reinterpret_cast<char*>(executor.buffer(index));
  }

  std::unique_ptr<Executor> executor_;
  const int max_in_flight_;
  const bool debug_;
  std::unique_ptr<CpuBackend> backend_;
};

class CpuLoader : public BackendLoader {
 public:
  explicit CpuLoader(const Napi::Object& load)
      : program_(parse_program(read_flat_program(load), kRules)),
        options_{int_field(load, "blockSize"), int_field(load, "numBlocks"),
                 int_field(load, "maxNumSeqs"), int_field(load, "maxModelLen"),
                 int_field(load, "numThreads")},
        group_(read_group(load)),
        network_(tcp_group(load, group_)),
        max_in_flight_(int_field(load, "asyncDepth") + 1),
        debug_(bool_field(load, "debugSync")),
        variant_(field<Napi::String>(load, "variant").Utf8Value()) {
    for (const auto& parts : read_parts(load)) {
      parts_.emplace_back();
      for (const LoadPart& part : parts)
        parts_.back().push_back({static_cast<Dtype>(part.dtype), part.num_rows, part.num_columns,
                                 part.row_bytes, part.data});
    }
  }

  std::unique_ptr<NativeBackend> load() override {
    const KernelTable* kernels = &select_kernels(variant_);
    const auto arena_bytes = static_cast<std::size_t>(program_.arena_bytes);
    std::unique_ptr<Communicator> ranks;
    if (!network_.addresses.empty()) {
      int level = kernel_level(kernels->name);
      ranks = join_tcp_ranks(network_, arena_bytes, &level);
      kernels = &kernels_of_level(level);
    } else if (group_.num_ranks > 1) {
      ranks = join_shared_ranks(group_, arena_bytes);
    }
    variant_ = kernels->name;
    auto executor = std::make_unique<Executor>(*kernels, std::move(program_), parts_, options_,
                                               std::move(ranks));
    memory_ = executor->memory();
    return std::make_unique<NativeCpuBackend>(std::move(executor), max_in_flight_, debug_);
  }

  Napi::Object result(Napi::Env env) const override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("variant", variant_);
    Napi::Object bytes = Napi::Object::New(env);
    bytes.Set("weights", static_cast<double>(memory_.weights));
    bytes.Set("kvCache", static_cast<double>(memory_.kv_cache));
    bytes.Set("activations", static_cast<double>(memory_.activations));
    bytes.Set("rowTable", static_cast<double>(memory_.row_table));
    bytes.Set("scratch", static_cast<double>(memory_.scratch));
    result.Set("memory", bytes);
    return result;
  }

 private:
  Program program_;
  std::vector<std::vector<WeightPart>> parts_;
  const ExecutorOptions options_;
  const RankGroup group_;
  const TcpGroup network_;
  const int max_in_flight_;
  const bool debug_;
  /// Asked for, then chosen.
  std::string variant_;
  MemoryUse memory_{};
};

const BackendKind kKind = {"CpuBackend", [](const Napi::Object& load) {
                             return std::unique_ptr<BackendLoader>(new CpuLoader(load));
                           }};

}  // namespace

Napi::Function cpu_backend_class(Napi::Env env) { return backend_class(env, kKind); }

}  // namespace vt
