// opTable() and stepColumns(): the native tables as JavaScript sees them, for the mirror test.
#include "../op_table.h"
#include "../step.h"
#include "addon.h"

namespace vt {

namespace {

const char* role_name(Role role) {
  switch (role) {
    case Role::in:
      return "in";
    case Role::out:
      return "out";
    case Role::inout:
      return "inout";
    case Role::weight:
      return "weight";
  }
  return "";
}

Napi::Object column_names(Napi::Env env, const ColumnSpec* columns, int count) {
  Napi::Object result = Napi::Object::New(env);
  for (int i = 0; i < count; i++) result.Set(columns[i].name, element_name(columns[i].type));
  return result;
}

}  // namespace

Napi::Value op_table(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Array table = Napi::Array::New(env);
  for (const OpSpec& op : kOps) {
    Napi::Array args = Napi::Array::New(env);
    for (int i = 0; i < op.num_args; i++) {
      const ArgSpec& spec = op.args[i];
      Napi::Object arg = Napi::Object::New(env);
      arg.Set("name", spec.name);
      arg.Set("role", role_name(spec.role));
      arg.Set("dtype", spec.dtype);
      arg.Set("shape", spec.shape);
      arg.Set("optional", spec.optional);
      args.Set(i, arg);
    }
    Napi::Array attrs = Napi::Array::New(env);
    for (int i = 0; i < op.num_attrs; i++) attrs.Set(i, op.attrs[i]);
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", op.name);
    entry.Set("args", args);
    entry.Set("attrs", attrs);
    table.Set(table.Length(), entry);
  }
  return table;
}

Napi::Value step_columns(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("input", column_names(env, kStepInputColumns, kNumStepInputColumns));
  result.Set("output", column_names(env, kStepOutputColumns, kNumStepOutputColumns));
  return result;
}

}  // namespace vt
