// The class CudaBackend: libvt_cuda.so as a native backend, with a thread that waits for steps; and
// cudaDevice(), which asks whether there is a device. kernels/cuda-backend.ts checks and names what
// goes in.
#include <iterator>
#include <thread>
#include <utility>

#include "../host/tcp_join.h"
#include "addon.h"
#include "backend_object.h"
#include "cuda_library.h"
#include "load_fields.h"

namespace vt {

namespace {

class NativeCudaBackend : public NativeBackend {
 public:
  NativeCudaBackend(const CudaLibrary& library, VtCudaBackend* backend)
      : library_(library), backend_(backend) {}

  ~NativeCudaBackend() override {
    library_.stop(backend_);
    if (waiter_.joinable()) waiter_.join();
    library_.close(backend_);
  }

  void start(ReportSink sink) override {
    waiter_ = std::thread([this, sink] { wait(sink); });
  }

  void submit(double step, std::int64_t num_tokens, const char* body, std::size_t body_bytes,
              const std::int32_t* table, std::size_t table_words) override {
    check(library_.submit(backend_, step, num_tokens, body, body_bytes, table, table_words));
  }

  void position(double* step, std::int32_t* op_index) const override {
    library_.position(backend_, step, op_index);
  }

  void read_buffer(int index, void* data, std::size_t bytes) override {
    check(library_.buffer(backend_, index, data, bytes, 0));
  }
  void write_buffer(int index, const void* data, std::size_t bytes) override {
    check(library_.buffer(backend_, index, const_cast<void*>(data), bytes, 1));
  }

 private:
  void check(int status) const {
    if (status != 0) throw_cuda_error(library_);
  }

  void wait(const ReportSink& sink) const {
    for (;;) {
      VtCudaStepOutput output{};
      double failed_step = -1;
      const char* failed_op = nullptr;
      std::int32_t failed_rank = -1;
      const int status = library_.wait(backend_, &output, &failed_step, &failed_op, &failed_rank);
      if (status > 0) return;
      auto report = std::make_unique<BackendReport>();
      if (status < 0) {
        report->failed = true;
        report->step = failed_step;
        report->message = library_.error();
        if (failed_op != nullptr) report->op = failed_op;
        report->rank = failed_rank;
        sink(std::move(report));
        return;
      }
      report->step = output.step;
      report->hash = output.hash;
      report->start_us = output.start_us;
      report->end_us = output.end_us;
      report->device_idle_us = output.device_idle_us;
      const char* body = static_cast<const char*>(output.body);
      report->body.assign(body, body + output.body_bytes);
      std::copy(output.table, output.table + std::size(report->table), report->table);
      sink(std::move(report));
    }
  }

  const CudaLibrary& library_;
  VtCudaBackend* const backend_;
  std::thread waiter_;
};

std::vector<std::string> read_folders(const Napi::Array& folders) {
  std::vector<std::string> result;
  for (uint32_t i = 0; i < folders.Length(); i++)
    result.push_back(folders.Get(i).As<Napi::String>().Utf8Value());
  return result;
}

/// Of a rank's connections to another.
constexpr std::size_t kBytesOfTokens = kNumTcpKinds * kTokenBytes;

class CudaLoader : public BackendLoader {
 public:
  explicit CudaLoader(const Napi::Object& load)
      : folders_(read_folders(field<Napi::Array>(load, "folders"))),
        library_path_(field<Napi::String>(load, "libraryPath").Utf8Value()) {
    for (const auto& parts : read_parts(load)) {
      num_parts_.push_back(static_cast<std::int32_t>(parts.size()));
      for (const LoadPart& part : parts) {
        const MadeUpPart& of = part.made_up;
        parts_.push_back({part.dtype, part.num_rows, part.num_columns, part.row_bytes, part.data,
                          part.num_bytes, of.tensor, of.first_row, of.first_column, of.tensor_rows,
                          of.tensor_columns});
      }
    }
    const FlatProgram flat = read_flat_program(load);
    load_.ops = flat.ops;
    load_.attrs = flat.attrs;
    load_.buffers = flat.buffers;
    load_.weights = flat.weights;
    load_.kv_groups = flat.kv_groups;
    load_.num_op_words = flat.num_op_words;
    load_.num_attrs = flat.num_attrs;
    load_.num_buffer_words = flat.num_buffer_words;
    load_.num_weight_words = flat.num_weight_words;
    load_.num_kv_group_words = flat.num_kv_group_words;
    load_.vocab_size = flat.vocab_size;
    load_.arena_bytes = flat.arena_bytes;
    load_.max_num_tokens = flat.max_num_tokens;
    load_.max_num_logits = flat.max_num_logits;
    load_.parts = parts_.data();
    load_.num_parts = num_parts_.data();
    load_.dummy_seed = field<Napi::Number>(load, "dummySeed").Int64Value();
    load_.block_size = int_field(load, "blockSize");
    load_.max_num_seqs = int_field(load, "maxNumSeqs");
    load_.max_model_len = int_field(load, "maxModelLen");
    load_.max_logprobs = int_field(load, "maxLogprobs");
    load_.async_depth = int_field(load, "asyncDepth");
    load_.fast_math = bool_field(load, "fastMath");
    load_.debug_sync = bool_field(load, "debugSync");
    load_.eager = bool_field(load, "enforceEager");
    load_.fit_model_len = bool_field(load, "fitModelLen");
    load_.kv_cache_memory_bytes = field<Napi::Number>(load, "kvCacheMemoryBytes").Int64Value();
    load_.memory_utilization = number_field(load, "memoryUtilization");
    load_.library_path = library_path_.c_str();
    if (!load.Get("group").IsObject()) return;
    const auto group = field<Napi::Object>(load, "group");
    meeting_path_ = field<Napi::String>(group, "path").Utf8Value();
    collectives_ = field<Napi::String>(group, "collectives").Utf8Value();
    network_ = read_network(group);
    ranks_.rank = int_field(group, "rank");
    ranks_.num_ranks = int_field(group, "numRanks");
    ranks_.local_rank = int_field(group, "localRank");
    ranks_.num_local_ranks = int_field(group, "numLocalRanks");
    ranks_.timeout_ms = int_field(group, "timeoutMs");
    ranks_.path = meeting_path_.c_str();
    ranks_.collectives = collectives_.c_str();
    load_.ranks = &ranks_;
    if (network_.addresses.empty()) return;
    const auto ranks = static_cast<std::size_t>(ranks_.num_ranks);
    VT_CHECK(network_.addresses.size() == ranks &&
                 network_.shown_tokens.size() == ranks * kBytesOfTokens &&
                 network_.expected_tokens.size() == ranks * kBytesOfTokens,
             "rank %d of %d: its addresses and tokens are not those of the group", ranks_.rank,
             ranks_.num_ranks);
    for (const std::string& address : network_.addresses) addresses_.push_back(address.c_str());
    ranks_.addresses = addresses_.data();
    ranks_.shown_tokens = network_.shown_tokens.data();
    ranks_.expected_tokens = network_.expected_tokens.data();
  }

  std::unique_ptr<NativeBackend> load() override {
    const CudaLibrary& library = open_cuda_library(folders_);
    VtCudaBackend* backend = library.load(&load_, &loaded_);
    if (backend == nullptr) throw_cuda_error(library);
    return std::make_unique<NativeCudaBackend>(library, backend);
  }

  Napi::Object result(Napi::Env env) const override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("device", loaded_.device);
    result.Set("notes", loaded_.notes);
    result.Set("numBlocks", loaded_.num_blocks);
    Napi::Object bytes = Napi::Object::New(env);
    for (int i = 0; i < loaded_.num_owners; i++)
      bytes.Set(loaded_.memory[i].owner, static_cast<double>(loaded_.memory[i].bytes));
    result.Set("memory", bytes);
    return result;
  }

 private:
  const std::vector<std::string> folders_;
  const std::string library_path_;
  /// Of all weights, in order, and how many each has.
  std::vector<VtCudaWeightPart> parts_;
  std::vector<std::int32_t> num_parts_;
  std::string meeting_path_, collectives_;
  NetworkFields network_;
  std::vector<const char*> addresses_;
  VtCudaRanks ranks_{};
  VtCudaLoad load_{};
  VtCudaLoaded loaded_{};
};

const BackendKind kKind = {"CudaBackend", [](const Napi::Object& load) {
                             return std::unique_ptr<BackendLoader>(new CudaLoader(load));
                           }};

/// Asks off the JavaScript thread: the driver takes its time.
class DeviceQuery : public Napi::AsyncWorker {
 public:
  DeviceQuery(Napi::Env env, std::vector<std::string> folders)
      : Napi::AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        folders_(std::move(folders)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    try {
      const CudaLibrary& library = open_cuda_library(folders_);
      if (library.device(&device_) != 0) throw_cuda_error(library);
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }

  void OnOK() override {
    Napi::Object result = Napi::Object::New(Env());
    result.Set("name", device_.name);
    result.Set("computeMajor", device_.compute_major);
    result.Set("computeMinor", device_.compute_minor);
    result.Set("driverVersion", device_.driver_version);
    result.Set("totalBytes", static_cast<double>(device_.total_bytes));
    deferred_.Resolve(result);
  }

  void OnError(const Napi::Error& error) override {
    deferred_.Reject(make_kernel_error(Env(), error.Message(), "", -1).Value());
  }

 private:
  Napi::Promise::Deferred deferred_;
  const std::vector<std::string> folders_;
  VtCudaDevice device_{};
};

}  // namespace

Napi::Function cuda_backend_class(Napi::Env env) { return backend_class(env, kKind); }

Napi::Value cuda_device(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsArray())
    throw Napi::TypeError::New(env, "cudaDevice takes a list of folders");
  auto* query = new DeviceQuery(env, read_folders(info[0].As<Napi::Array>()));
  const Napi::Promise promise = query->promise();
  query->Queue();
  return promise;
}

}  // namespace vt
