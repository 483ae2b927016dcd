// CpuBackend as JavaScript holds it: load() in the background, submit(), reports through one
// ThreadSafeFunction. kernels/cpu-backend.ts checks and names what goes in.
#include <utility>

#include "../cpu/backend.h"
#include "addon.h"

namespace vt {

namespace {

constexpr BackendRules kRules = {
    "cpu",
    /*activations=*/{Dtype::f32},
    /*kv_cache=*/{Dtype::f32, Dtype::f16, Dtype::bf16},
    /*weights=*/{Dtype::f32, Dtype::f16, Dtype::bf16},
    /*one_dtype=*/false,
    /*interleave=*/false,
};

template <typename T>
T field(const Napi::Object& object, const char* name) {
  return object.Get(name).As<T>();
}

double number(const Napi::Object& object, const char* name) {
  return field<Napi::Number>(object, name).DoubleValue();
}

/// What load() was given, read on the JavaScript thread; the weights' buffers are kept alive.
struct LoadRequest {
  Program program;
  std::vector<std::vector<WeightPart>> parts;
  ExecutorOptions options;
  int async_depth;
  bool debug;
  std::string variant;
};

Program read_program(const Napi::Object& load) {
  const auto flat = field<Napi::Object>(load, "flat");
  const auto ops = field<Napi::Int32Array>(flat, "ops");
  const auto attrs = field<Napi::Float64Array>(flat, "attrs");
  const auto buffers = field<Napi::Float64Array>(flat, "buffers");
  const auto weights = field<Napi::Float64Array>(flat, "weights");
  const auto kv_groups = field<Napi::Float64Array>(flat, "kvGroups");
  return parse_program({ops.Data(), ops.ElementLength(), attrs.Data(), attrs.ElementLength(),
                        buffers.Data(), buffers.ElementLength(), weights.Data(),
                        weights.ElementLength(), kv_groups.Data(), kv_groups.ElementLength(),
                        number(load, "vocabSize"), number(load, "arenaBytes"),
                        number(load, "maxNumTokens"), number(load, "maxNumLogits")},
                       kRules);
}

WeightPart read_part(const Napi::Object& part) {
  const auto data = field<Napi::Uint8Array>(part, "data");
  const int dtype = field<Napi::Number>(part, "dtype").Int32Value();
  VT_CHECK(dtype >= 0 && dtype < kNumDtypes, "a weight part's dtype is %d", dtype);
  WeightPart result{static_cast<Dtype>(dtype), field<Napi::Number>(part, "numRows").Int64Value(),
                    field<Napi::Number>(part, "numColumns").Int64Value(),
                    reinterpret_cast<const char*>(data.Data())};
  const double bytes =
      number(part, "numRows") * number(part, "numColumns") * dtype_bytes(result.dtype);
  VT_CHECK(result.num_rows >= 0 && result.num_columns >= 0 &&
               bytes == static_cast<double>(data.ByteLength()),
           "a weight part has %zu bytes, expected %.0f", data.ByteLength(), bytes);
  return result;
}

LoadRequest read_load(const Napi::Object& load) {
  LoadRequest request;
  request.program = read_program(load);
  const auto weights = field<Napi::Array>(load, "weights");
  for (uint32_t i = 0; i < weights.Length(); i++) {
    const auto parts = weights.Get(i).As<Napi::Array>();
    request.parts.emplace_back();
    for (uint32_t j = 0; j < parts.Length(); j++)
      request.parts.back().push_back(read_part(parts.Get(j).As<Napi::Object>()));
  }
  const auto integer = [&load](const char* name) { return static_cast<int>(number(load, name)); };
  request.options = {integer("blockSize"), integer("numBlocks"), integer("maxNumSeqs"),
                     integer("maxModelLen"), integer("numThreads")};
  request.async_depth = integer("asyncDepth");
  request.debug = field<Napi::Boolean>(load, "debugSync").Value();
  request.variant = field<Napi::String>(load, "variant").Utf8Value();
  return request;
}

class CpuBackendObject : public Napi::ObjectWrap<CpuBackendObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "CpuBackend",
                       {InstanceMethod("load", &CpuBackendObject::load),
                        InstanceMethod("submit", &CpuBackendObject::submit),
                        InstanceMethod("position", &CpuBackendObject::position),
                        InstanceMethod("buffer", &CpuBackendObject::buffer),
                        InstanceMethod("close", &CpuBackendObject::close)});
  }

  /// new CpuBackend(report): report(error) or report(null, step, numTop, hash, startUs, endUs,
  /// body, table).
  explicit CpuBackendObject(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<CpuBackendObject>(info) {
    // The object lives as long as reports may arrive: until the queue of reports is gone.
    Ref();
    reports_ = Reports::New(
        info.Env(), info[0].As<Napi::Function>(), "vt-cpu", 0, 1, this,
        [](Napi::Env, CpuBackendObject* self, CpuBackendObject*) {
          if (!self->env_is_ending_) self->Unref();
        },
        this);
    reports_.Unref(info.Env());
    napi_add_env_cleanup_hook(info.Env(), end_of_env, this);
  }

  ~CpuBackendObject() override { napi_remove_env_cleanup_hook(Env(), end_of_env, this); }

 private:
  /// The thread must be gone before the environment is.
  static void end_of_env(void* object) {
    auto* self = static_cast<CpuBackendObject*>(object);
    self->env_is_ending_ = true;
    self->stop();
  }
  static void call_report(Napi::Env env, Napi::Function callback, CpuBackendObject* self,
                          StepReport* data);
  using Reports = Napi::TypedThreadSafeFunction<CpuBackendObject, StepReport, call_report>;

  class Loader;

  Napi::Value load(const Napi::CallbackInfo& info);
  Napi::Value submit(const Napi::CallbackInfo& info);
  Napi::Value position(const Napi::CallbackInfo& info);
  Napi::Value buffer(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info) {
    stop();
    return info.Env().Undefined();
  }
  void stop() {
    if (closed_) return;
    closed_ = true;
    backend_.reset();
    reports_.Release();
  }
  CpuBackend& loaded() {
    VT_CHECK(backend_ != nullptr, "the backend is not loaded");
    return *backend_;
  }

  Reports reports_;
  std::unique_ptr<CpuBackend> backend_;
  bool closed_ = false, env_is_ending_ = false;
  int num_in_flight_ = 0;
};

/// Packs the weights off the JavaScript thread.
class CpuBackendObject::Loader : public Napi::AsyncWorker {
 public:
  Loader(Napi::Env env, CpuBackendObject* owner, const Napi::Object& load, LoadRequest request)
      : Napi::AsyncWorker(env),
        owner_(owner),
        deferred_(Napi::Promise::Deferred::New(env)),
        owner_reference_(Napi::Persistent(owner->Value())),
        load_reference_(Napi::Persistent(load)),
        request_(std::move(request)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    try {
      const KernelTable& kernels = select_kernels(request_.variant);
      variant_ = kernels.name;
      executor_ = std::make_unique<Executor>(kernels, std::move(request_.program), request_.parts,
                                             request_.options);
    } catch (const KernelError& error) {
      op_ = error.op;
      SetError(error.what());
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }

  void OnOK() override {
    const Napi::Env env = Env();
    if (owner_->closed_)
      return deferred_.Reject(make_kernel_error(env, "the backend was closed", "", -1).Value());
    const MemoryUse memory = executor_->memory();
    Napi::Object result = Napi::Object::New(env);
    result.Set("variant", variant_);
    Napi::Object bytes = Napi::Object::New(env);
    bytes.Set("weights", static_cast<double>(memory.weights));
    bytes.Set("kvCache", static_cast<double>(memory.kv_cache));
    bytes.Set("activations", static_cast<double>(memory.activations));
    bytes.Set("rowTable", static_cast<double>(memory.row_table));
    result.Set("memory", bytes);
    Reports reports = owner_->reports_;
    owner_->backend_ =
        std::make_unique<CpuBackend>(std::move(executor_), request_.async_depth + 1, request_.debug,
                                     [reports](std::unique_ptr<StepReport> report) {
                                       if (reports.NonBlockingCall(report.get()) == napi_ok)
                                         report.release();
                                     });
    deferred_.Resolve(result);
  }

  void OnError(const Napi::Error& error) override {
    deferred_.Reject(make_kernel_error(Env(), error.Message(), op_, -1).Value());
  }

 private:
  CpuBackendObject* owner_;
  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference owner_reference_, load_reference_;
  LoadRequest request_;
  std::string variant_, op_;
  std::unique_ptr<Executor> executor_;
};

Napi::Value CpuBackendObject::load(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    VT_CHECK(!closed_ && backend_ == nullptr, "the backend is loaded or closed already");
    const auto load = info[0].As<Napi::Object>();
    auto* loader = new Loader(info.Env(), this, load, read_load(load));
    const Napi::Promise promise = loader->promise();
    loader->Queue();
    return promise;
  });
}

Napi::Value CpuBackendObject::submit(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  guarded(env, [&] {
    const auto body = info[2].As<Napi::Uint8Array>();
    const auto table = info[3].As<Napi::Int32Array>();
    loaded().submit(info[0].As<Napi::Number>().DoubleValue(),
                    info[1].As<Napi::Number>().Int64Value(),
                    reinterpret_cast<const char*>(body.Data()), body.ByteLength(), table.Data(),
                    table.ElementLength());
    return 0;
  });
  // A step in flight keeps the process alive.
  if (num_in_flight_++ == 0) reports_.Ref(env);
  return env.Undefined();
}

Napi::Value CpuBackendObject::position(const Napi::CallbackInfo& info) {
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("step", backend_ ? backend_->step() : -1);
  result.Set("opIndex", backend_ ? backend_->executor().op_index() : 0);
  return result;
}

/// For tests, between steps: a buffer of the program, sharing its memory.
Napi::Value CpuBackendObject::buffer(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Executor& executor = loaded().executor();
    const int index = info[0].As<Napi::Number>().Int32Value();
    const auto count =
        static_cast<std::size_t>(executor.buffer_rows(index) * executor.buffer_columns(index));
    float* data = executor.buffer(index);
    if (info.Length() > 1) {
      const auto values = info[1].As<Napi::Float32Array>();
      VT_CHECK(values.ElementLength() <= count, "buffer %d holds %zu numbers", index, count);
      std::copy(values.Data(), values.Data() + values.ElementLength(), data);
      return info.Env().Undefined();
    }
    auto copy = Napi::Float32Array::New(info.Env(), count);
    std::copy(data, data + count, copy.Data());
    return copy;
  });
}

void CpuBackendObject::call_report(Napi::Env env, Napi::Function callback, CpuBackendObject* self,
                                   StepReport* data) {
  const std::unique_ptr<StepReport> report(data);
  if (env == nullptr || self->closed_) return;
  if (--self->num_in_flight_ == 0 || report->failed) self->reports_.Unref(env);
  const StepOutput& output = report->output;
  try {
    if (report->failed) {
      callback.Call({make_kernel_error(env, report->message, report->op, output.step).Value()});
      return;
    }
    auto body = Napi::ArrayBuffer::New(env, output.body.size());
    std::copy(output.body.begin(), output.body.end(), static_cast<char*>(body.Data()));
    auto table = Napi::Int32Array::New(env, 2 * kNumStepOutputColumns);
    std::copy(output.table, output.table + 2 * kNumStepOutputColumns, table.Data());
    callback.Call({env.Null(), Napi::Number::New(env, output.step),
                   Napi::Number::New(env, output.num_top), Napi::Number::New(env, output.hash),
                   Napi::Number::New(env, output.start_us), Napi::Number::New(env, output.end_us),
                   body, table});
  } catch (const Napi::Error& error) {
    // What the callback throws is the process's own: it becomes an uncaughtException.
    napi_fatal_exception(env, error.Value());
  }
}

}  // namespace

Napi::Function cpu_backend_class(Napi::Env env) { return CpuBackendObject::define(env); }

}  // namespace vt
