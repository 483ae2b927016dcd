// Dtypes of an op, by the op table and the rules of the backend. Done once, at load.
#include "../check.h"
#include "program.h"

namespace vt {

void check_dtypes(const Program& program, const OpRecord& op, const BackendRules& rules) {
  const OpSpec& spec = op_spec(op.id);
  int compute = -1;  // that of the op's first activation
  const auto check_compute = [&](Dtype dtype, const char* what) {
    if (compute < 0) compute = static_cast<int>(dtype);
    VT_CHECK(compute == static_cast<int>(dtype), "%s: %s is %s, the op computes in %s on %s",
             spec.name, what, dtype_name(dtype), dtype_name(static_cast<Dtype>(compute)),
             rules.name);
  };
  // From the last argument on: activations that come in say what a linear that makes f32 computes
  // in.
  for (int i = spec.num_args - 1; i >= 0; i--) {
    if (op.args[i] < 0) continue;
    const ArgSpec& arg = spec.args[i];
    const bool is_weight = arg.role == Role::weight;
    const Dtype dtype =
        is_weight ? program.weights[op.args[i]].dtype : program.buffers[op.args[i]].dtype;
    if (std::string(arg.dtype) == "f32") {
      VT_CHECK(dtype == Dtype::f32, "%s.%s is %s, not f32", spec.name, arg.name,
               dtype_name(dtype));
    } else if (!is_weight) {
      // Logits, and what ranks add up, are f32 whatever the rest computes in.
      if ((op.id == OpId::linear || op.id == OpId::embedding) && i == 0 && dtype == Dtype::f32)
        continue;
      VT_CHECK(rules.activations.has(dtype), "the %s backend does not compute in %s, %s.%s is",
               rules.name, dtype_name(dtype), spec.name, arg.name);
      check_compute(dtype, arg.name);
    } else {
      VT_CHECK(rules.weights.has(dtype), "%s: weights in %s are not supported on %s yet", spec.name,
               dtype_name(dtype), rules.name);
      if (rules.one_dtype) check_compute(dtype, arg.name);
    }
  }
  if (rules.one_dtype && (op.id == OpId::rope_and_cache || op.id == OpId::attention))
    check_compute(program.kv_groups[0].dtype, "the KV cache");
}

}  // namespace vt
