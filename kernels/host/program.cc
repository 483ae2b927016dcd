#include "program.h"

#include <cmath>

#include "../check.h"

namespace vt {

namespace {

std::int64_t whole(double value, double max, const char* what) {
  VT_CHECK(value >= 0 && value <= max && value == std::floor(value),
           "program: %s is %g, not a whole number within 0..%g", what, value, max);
  return static_cast<std::int64_t>(value);
}

Dtype dtype_of(double value) { return static_cast<Dtype>(whole(value, kNumDtypes - 1, "a dtype")); }

void parse_buffers(const FlatProgram& flat, const BackendRules& rules, Program& program) {
  for (std::size_t i = 0; i + 5 <= flat.num_buffer_words; i += 5) {
    const double* p = flat.buffers + i;
    BufferSpec buffer{dtype_of(p[0]), static_cast<Symbol>(whole(p[1], 1, "a buffer's symbol")),
                      whole(p[2], 1e9, "a buffer's columns"),
                      whole(p[3], 9e15, "a buffer's arena offset"),
                      static_cast<int>(whole(p[4], 1e9, "a buffer's rows at once"))};
    const std::int64_t rows = program.max_rows(buffer);
    VT_CHECK(buffer.rows_at_once == 0 || rules.rows_at_once,
             "buffers for some of a step's rows are not supported on %s", rules.name);
    VT_CHECK(buffer.dtype == Dtype::f32 || rules.activations.has(buffer.dtype),
             "buffers in %s are not supported on %s", dtype_name(buffer.dtype), rules.name);
    VT_CHECK(buffer.offset % 64 == 0, "program: a buffer's offset is not a multiple of 64");
    VT_CHECK(buffer.offset + rows * buffer.columns * dtype_bytes(buffer.dtype) <= program.arena_bytes,
             "program: buffer %zu ends outside the arena", i / 5);
    program.buffers.push_back(buffer);
  }
}

void parse_weights(const FlatProgram& flat, const BackendRules& rules, Program& program) {
  for (std::size_t i = 0; i + 4 <= flat.num_weight_words; i += 4) {
    const double* p = flat.weights + i;
    const WeightSpec weight{dtype_of(p[0]), whole(p[1], 2e9, "a weight's rows"),
                            whole(p[2], 2e9, "a weight's columns"),
                            static_cast<int>(whole(p[3], 1e6, "a weight's interleave"))};
    VT_CHECK(weight.dtype == Dtype::f32 || rules.weights.has(weight.dtype),
             "weights in %s are not supported on %s yet", dtype_name(weight.dtype), rules.name);
    VT_CHECK(weight.rows > 0, "program: weight %zu has no rows", i / 4);
    const std::int64_t pair = 2 * static_cast<std::int64_t>(weight.interleave);
    VT_CHECK(weight.interleave == 0 || rules.interleave,
             "interleaved weights are not supported on %s", rules.name);
    VT_CHECK(weight.interleave == 0 || weight.rows % pair == 0,
             "program: %lld rows do not interleave by %d", static_cast<long long>(weight.rows),
             weight.interleave);
    program.weights.push_back(weight);
  }
}

void parse_kv_groups(const FlatProgram& flat, const BackendRules& rules, Program& program) {
  for (std::size_t i = 0; i + 5 <= flat.num_kv_group_words; i += 5) {
    const double* p = flat.kv_groups + i;
    KvGroupSpec group;
    group.num_layers = static_cast<int>(whole(p[0], 1e6, "a KV group's layers"));
    group.num_kv_heads = static_cast<int>(whole(p[1], 1e6, "a KV group's heads"));
    group.head_dim = static_cast<int>(whole(p[2], 512, "a KV group's head dim"));
    group.dtype = dtype_of(p[3]);
    group.window = static_cast<int>(whole(p[4], 2e9, "a KV group's window"));
    VT_CHECK(rules.kv_cache.has(group.dtype), "a KV cache in %s is not supported on %s yet",
             dtype_name(group.dtype), rules.name);
    VT_CHECK(group.num_kv_heads > 0, "program: a KV group without heads");
    VT_CHECK(group.head_dim > 0 && group.head_dim % 16 == 0,
             "head dim %d is not supported on %s: it must be a multiple of 16", group.head_dim,
             rules.name);
    program.kv_groups.push_back(group);
  }
  VT_CHECK(program.kv_groups.size() <= 1, "several KV groups are not supported on %s yet",
           rules.name);
}

void parse_ops(const FlatProgram& flat, const BackendRules& rules, Program& program) {
  std::size_t word = 0, attr = 0;
  while (word < flat.num_op_words) {
    const std::int32_t id = flat.ops[word++];
    VT_CHECK(id >= 0 && id < kNumOps, "program: unknown op %d", id);
    OpRecord op{};
    op.id = static_cast<OpId>(id);
    const OpSpec& spec = op_spec(op.id);
    VT_CHECK(word + spec.num_args <= flat.num_op_words, "program: %s is cut short", spec.name);
    VT_CHECK(attr + spec.num_attrs <= flat.num_attrs, "program: %s lacks attributes", spec.name);
    for (int i = 0; i < spec.num_args; i++) {
      const std::int32_t ref = flat.ops[word++];
      const bool is_weight = spec.args[i].role == Role::weight;
      const std::size_t count = is_weight ? program.weights.size() : program.buffers.size();
      if (ref < 0) {
        VT_CHECK(spec.args[i].optional, "program: %s lacks %s", spec.name, spec.args[i].name);
        op.args[i] = -1;
        continue;
      }
      VT_CHECK((ref % 2 == 1) == is_weight, "program: %s.%s must be a %s", spec.name,
               spec.args[i].name, is_weight ? "weight" : "buffer");
      VT_CHECK(static_cast<std::size_t>(ref / 2) < count, "program: %s.%s refers to nothing",
               spec.name, spec.args[i].name);
      op.args[i] = ref / 2;
    }
    for (int i = 0; i < spec.num_attrs; i++) {
      op.attrs[i] = flat.attrs[attr++];
      VT_CHECK(std::isfinite(op.attrs[i]), "program: %s.%s is not finite", spec.name,
               spec.attrs[i]);
    }
    try {
      check_shapes(program, op);
      check_dtypes(program, op, rules);
    } catch (KernelError& error) {
      error.op = spec.name;
      throw;
    }
    program.ops.push_back(op);
  }
}

}  // namespace

Program parse_program(const FlatProgram& flat, const BackendRules& rules) {
  Program program{};
  program.vocab_size = static_cast<int>(whole(flat.vocab_size, 1e9, "the vocabulary size"));
  program.arena_bytes = whole(flat.arena_bytes, 9e15, "the arena's size");
  program.max_num_tokens = static_cast<int>(whole(flat.max_num_tokens, 1e9, "maxNumTokens"));
  program.max_num_logits = static_cast<int>(whole(flat.max_num_logits, 1e9, "maxNumLogits"));
  VT_CHECK(program.max_num_tokens > 0, "program: maxNumTokens is 0");
  parse_buffers(flat, rules, program);
  parse_weights(flat, rules, program);
  parse_kv_groups(flat, rules, program);
  parse_ops(flat, rules, program);
  return program;
}

}  // namespace vt
