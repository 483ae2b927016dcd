#include "backend_object.h"

#include <algorithm>
#include <utility>

#include "addon.h"

namespace vt {

namespace {

class BackendObject : public Napi::ObjectWrap<BackendObject> {
 public:
  static Napi::Function define(Napi::Env env, const BackendKind& kind) {
    return DefineClass(env, kind.class_name,
                       {InstanceMethod("load", &BackendObject::load),
                        InstanceMethod("submit", &BackendObject::submit),
                        InstanceMethod("position", &BackendObject::position),
                        InstanceMethod("readBuffer", &BackendObject::read_buffer),
                        InstanceMethod("writeBuffer", &BackendObject::write_buffer),
                        InstanceMethod("close", &BackendObject::close)},
                       const_cast<BackendKind*>(&kind));
  }

  /// new Class(report): report(error) or report(null, step, hash, startUs, endUs,
  /// deviceIdleUs, body, table).
  explicit BackendObject(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<BackendObject>(info), kind_(static_cast<const BackendKind*>(info.Data())) {
    // The object lives as long as reports may arrive: until the queue of reports is gone.
    Ref();
    reports_ = Reports::New(
        info.Env(), info[0].As<Napi::Function>(), kind_->class_name, 0, 1, this,
        [](Napi::Env, BackendObject* self, BackendObject*) {
          if (!self->env_is_ending_) self->Unref();
        },
        this);
    reports_.Unref(info.Env());
    napi_add_env_cleanup_hook(info.Env(), end_of_env, this);
  }

  ~BackendObject() override { napi_remove_env_cleanup_hook(Env(), end_of_env, this); }

 private:
  /// The backend's threads must be gone before the environment is.
  static void end_of_env(void* object) {
    auto* self = static_cast<BackendObject*>(object);
    self->env_is_ending_ = true;
    self->stop();
  }
  static void call_report(Napi::Env env, Napi::Function callback, BackendObject* self,
                          BackendReport* data);
  using Reports = Napi::TypedThreadSafeFunction<BackendObject, BackendReport, call_report>;

  class Loading;

  Napi::Value load(const Napi::CallbackInfo& info);
  Napi::Value submit(const Napi::CallbackInfo& info);
  Napi::Value position(const Napi::CallbackInfo& info);
  Napi::Value read_buffer(const Napi::CallbackInfo& info);
  Napi::Value write_buffer(const Napi::CallbackInfo& info);
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
  NativeBackend& loaded() {
    VT_CHECK(backend_ != nullptr, "the backend is not loaded");
    return *backend_;
  }

  const BackendKind* const kind_;
  Reports reports_;
  std::unique_ptr<NativeBackend> backend_;
  bool closed_ = false, env_is_ending_ = false;
  int num_in_flight_ = 0;
};

/// Loads off the JavaScript thread.
class BackendObject::Loading : public Napi::AsyncWorker {
 public:
  Loading(Napi::Env env, BackendObject* owner, const Napi::Object& load)
      : Napi::AsyncWorker(env),
        owner_(owner),
        deferred_(Napi::Promise::Deferred::New(env)),
        owner_reference_(Napi::Persistent(owner->Value())),
        load_reference_(Napi::Persistent(load)),
        loader_(owner->kind_->make_loader(load)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    try {
      backend_ = loader_->load();
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
    Reports reports = owner_->reports_;
    backend_->start([reports](std::unique_ptr<BackendReport> report) {
      if (reports.NonBlockingCall(report.get()) == napi_ok) report.release();
    });
    owner_->backend_ = std::move(backend_);
    deferred_.Resolve(loader_->result(env));
  }

  void OnError(const Napi::Error& error) override {
    deferred_.Reject(make_kernel_error(Env(), error.Message(), op_, -1).Value());
  }

 private:
  BackendObject* owner_;
  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference owner_reference_, load_reference_;
  const std::unique_ptr<BackendLoader> loader_;
  std::unique_ptr<NativeBackend> backend_;
  std::string op_;
};

Napi::Value BackendObject::load(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    VT_CHECK(!closed_ && backend_ == nullptr, "the backend is loaded or closed already");
    auto* loading = new Loading(info.Env(), this, info[0].As<Napi::Object>());
    const Napi::Promise promise = loading->promise();
    loading->Queue();
    return promise;
  });
}

Napi::Value BackendObject::submit(const Napi::CallbackInfo& info) {
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

Napi::Value BackendObject::position(const Napi::CallbackInfo& info) {
  double step = -1;
  std::int32_t op_index = 0;
  if (backend_) backend_->position(&step, &op_index);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("step", step);
  result.Set("opIndex", op_index);
  result.Set("shownBytes", static_cast<double>(backend_ ? backend_->shown_bytes() : 0));
  return result;
}

Napi::Value BackendObject::read_buffer(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto bytes = static_cast<std::size_t>(info[1].As<Napi::Number>().Int64Value());
    auto data = Napi::ArrayBuffer::New(info.Env(), bytes);
    loaded().read_buffer(info[0].As<Napi::Number>().Int32Value(), data.Data(), bytes);
    return data;
  });
}

Napi::Value BackendObject::write_buffer(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto data = info[1].As<Napi::Uint8Array>();
    loaded().write_buffer(info[0].As<Napi::Number>().Int32Value(), data.Data(), data.ByteLength());
    return info.Env().Undefined();
  });
}

void BackendObject::call_report(Napi::Env env, Napi::Function callback, BackendObject* self,
                                BackendReport* data) {
  const std::unique_ptr<BackendReport> report(data);
  if (env == nullptr || self->closed_) return;
  if (--self->num_in_flight_ == 0 || report->failed) self->reports_.Unref(env);
  try {
    if (report->failed) {
      callback.Call({make_kernel_error(env, report->message, report->op, report->step, report->rank)
                         .Value()});
      return;
    }
    auto body = Napi::ArrayBuffer::New(env, report->body.size());
    std::copy(report->body.begin(), report->body.end(), static_cast<char*>(body.Data()));
    auto table = Napi::Int32Array::New(env, 2 * kNumStepOutputColumns);
    std::copy(report->table, report->table + 2 * kNumStepOutputColumns, table.Data());
    const auto number = [env](double value) { return Napi::Number::New(env, value); };
    callback.Call({env.Null(), number(report->step), number(report->hash), number(report->start_us),
                   number(report->end_us), number(report->device_idle_us), body, table});
  } catch (const Napi::Error& error) {
    // What the callback throws is the process's own: it becomes an uncaughtException.
    napi_fatal_exception(env, error.Value());
  }
}

}  // namespace

Napi::Function backend_class(Napi::Env env, const BackendKind& kind) {
  return BackendObject::define(env, kind);
}

}  // namespace vt
