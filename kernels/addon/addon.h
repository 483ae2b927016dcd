// What the addon's files share: the KernelError class of JavaScript, and the way from a native
// exception to it.
#pragma once

#include <napi.h>

#include <string>
#include <utility>

#include "../check.h"

namespace vt {

/// Constructor of common/errors.ts's KernelError, set once by init(); plain Error before that.
/// A step or rank below 0 is none.
Napi::Error make_kernel_error(Napi::Env env, const std::string& message, const std::string& op,
                              double step, int rank = -1);
void set_kernel_error(Napi::Env env, Napi::Function constructor);

/// Runs `body`; a native exception becomes a KernelError in JavaScript.
template <typename Body>
auto guarded(Napi::Env env, Body&& body) -> decltype(body()) {
  try {
    return std::forward<Body>(body)();
  } catch (const Napi::Error&) {
    throw;
  } catch (const KernelError& error) {
    throw make_kernel_error(env, error.what(), error.op, -1, error.rank);
  } catch (const std::exception& error) {
    throw make_kernel_error(env, error.what(), "", -1);
  }
}

/// Read-only memory map of a file, in ArrayBuffers; writing to them ends the process.
Napi::Value map_file(const Napi::CallbackInfo& info);

/// The op table and the step's columns, for the test that compares them with TypeScript.
Napi::Value op_table(const Napi::CallbackInfo& info);
Napi::Value step_columns(const Napi::CallbackInfo& info);

/// The classes CpuBackend and CudaBackend (cpu_backend.cc, cuda_backend.cc).
Napi::Function cpu_backend_class(Napi::Env env);
Napi::Function cuda_backend_class(Napi::Env env);

/// cudaDevice(folders): the device that CudaBackend would use, or a rejection that says why there
/// is none.
Napi::Value cuda_device(const Napi::CallbackInfo& info);

}  // namespace vt
