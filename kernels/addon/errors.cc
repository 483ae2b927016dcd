#include "addon.h"

namespace vt {

namespace {
struct AddonData {
  Napi::FunctionReference kernel_error;
};
}  // namespace

void set_kernel_error(Napi::Env env, Napi::Function constructor) {
  auto* data = new AddonData();
  data->kernel_error = Napi::Persistent(constructor);
  env.SetInstanceData(data);
}

Napi::Error make_kernel_error(Napi::Env env, const std::string& message, const std::string& op,
                              double step, int rank) {
  auto* data = env.GetInstanceData<AddonData>();
  if (data == nullptr) return Napi::Error::New(env, message);
  const Napi::Value op_value = op.empty() ? env.Null() : Napi::String::New(env, op);
  const Napi::Value step_value = step < 0 ? env.Null() : Napi::Number::New(env, step);
  const Napi::Value rank_value = rank < 0 ? env.Null() : Napi::Number::New(env, rank);
  Napi::Object error =
      data->kernel_error.New({Napi::String::New(env, message), op_value, step_value, rank_value});
  return Napi::Error(env, error);
}

}  // namespace vt
