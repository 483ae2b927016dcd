// The addon's exports; kernels/addon.ts declares them for TypeScript.
#include "addon.h"

namespace vt {

namespace {

Napi::Value init_addon(const Napi::CallbackInfo& info) {
  if (info.Length() != 1 || !info[0].IsFunction())
    throw Napi::TypeError::New(info.Env(), "init takes the KernelError class");
  set_kernel_error(info.Env(), info[0].As<Napi::Function>());
  return info.Env().Undefined();
}

Napi::Object exports_of(Napi::Env env, Napi::Object exports) {
  exports.Set("init", Napi::Function::New(env, init_addon, "init"));
  exports.Set("opTable", Napi::Function::New(env, op_table, "opTable"));
  exports.Set("stepColumns", Napi::Function::New(env, step_columns, "stepColumns"));
  exports.Set("mapFile", Napi::Function::New(env, map_file, "mapFile"));
  exports.Set("cudaDevice", Napi::Function::New(env, cuda_device, "cudaDevice"));
  exports.Set("CpuBackend", cpu_backend_class(env));
  exports.Set("CudaBackend", cuda_backend_class(env));
  return exports;
}

}  // namespace

}  // namespace vt

static Napi::Object init_module(Napi::Env env, Napi::Object exports) {
  return vt::exports_of(env, exports);
}

NODE_API_MODULE(kernels, init_module)
