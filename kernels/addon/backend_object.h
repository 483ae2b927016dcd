// A native backend as JavaScript holds it: load() in the background, submit(), reports through one
// ThreadSafeFunction, position(), buffer() and close(). CpuBackend and CudaBackend are such
// classes; what differs between them lies behind BackendLoader and NativeBackend.
#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../step.h"

namespace vt {

/// A step's output on its way to JavaScript, or why there is none.
struct BackendReport {
  double step = 0;
  std::uint32_t hash = 0;
  double start_us = 0, end_us = 0, device_idle_us = 0;
  std::vector<char> body;
  /// Byte offset and element count of each output column.
  std::int32_t table[2 * kNumStepOutputColumns] = {};
  bool failed = false;
  std::string message, op;
  /// The rank that is to blame, or -1.
  int rank = -1;
};

/// Any thread, in step order; nothing after a failure.
using ReportSink = std::function<void(std::unique_ptr<BackendReport>)>;

/// A loaded backend. Methods throw KernelError.
class NativeBackend {
 public:
  /// Ends its threads: nothing is reported any more.
  virtual ~NativeBackend() = default;
  /// Before the first step.
  virtual void start(ReportSink sink) = 0;
  virtual void submit(double step, std::int64_t num_tokens, const char* body,
                      std::size_t body_bytes, const std::int32_t* table,
                      std::size_t table_words) = 0;
  virtual void position(double* step, std::int32_t* op_index) const = 0;
  /// What this rank has shown each other rank, where there are several.
  virtual std::int64_t shown_bytes() const { return 0; }
  /// For tests, between steps: copies the first bytes of a buffer of the program.
  virtual void read_buffer(int index, void* data, std::size_t bytes) = 0;
  virtual void write_buffer(int index, const void* data, std::size_t bytes) = 0;
};

/// What load() was given. Made on the JavaScript thread; the object that it was made from is kept
/// alive as long as it.
class BackendLoader {
 public:
  virtual ~BackendLoader() = default;
  /// Off the JavaScript thread. Throws KernelError.
  virtual std::unique_ptr<NativeBackend> load() = 0;
  /// What JavaScript's load() resolves to.
  virtual Napi::Object result(Napi::Env env) const = 0;
};

struct BackendKind {
  const char* class_name;
  std::unique_ptr<BackendLoader> (*make_loader)(const Napi::Object& load);
};

/// The class; `kind` must live as long as the addon.
Napi::Function backend_class(Napi::Env env, const BackendKind& kind);

}  // namespace vt
