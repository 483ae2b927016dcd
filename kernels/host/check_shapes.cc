// Shapes of an op: sizes with the same letter in the op table must agree. Done once, at load.
#include "../check.h"
#include "program.h"

namespace vt {

namespace {

class Shapes {
 public:
  Shapes(const Program& program, const OpRecord& op) : program_(program), op_(op) {}

  bool has(int arg) const { return op_.args[arg] >= 0; }
  const BufferSpec& buffer(int arg) const { return program_.buffers[op_.args[arg]]; }
  const WeightSpec& weight(int arg) const { return program_.weights[op_.args[arg]]; }

  void columns(int arg, std::int64_t wanted) const {
    same(arg, "columns", buffer(arg).columns, wanted);
  }
  void rows(int arg, Symbol wanted) const {
    VT_CHECK(buffer(arg).rows == wanted, "%s.%s has the wrong kind of rows", spec().name,
             spec().args[arg].name);
  }
  void vector(int arg, std::int64_t wanted) const {
    same(arg, "dimensions less one", weight(arg).columns == 0 ? 0 : 1, 0);
    same(arg, "elements", weight(arg).rows, wanted);
  }
  void matrix(int arg, std::int64_t wanted_rows, std::int64_t wanted_columns) const {
    same(arg, "rows", weight(arg).rows, wanted_rows);
    same(arg, "columns", weight(arg).columns, wanted_columns);
  }
  void heads(std::int64_t columns, int arg) const {
    const int num_heads = attr("numHeads"), num_kv_heads = attr("numKvHeads");
    const int head_dim = attr("headDim");
    VT_CHECK(num_heads > 0 && num_kv_heads > 0 && num_heads % num_kv_heads == 0,
             "%s: %d heads over %d KV heads", spec().name, num_heads, num_kv_heads);
    VT_CHECK(head_dim > 0 && head_dim % 2 == 0, "%s: head dim %d", spec().name, head_dim);
    same(arg, "columns", columns,
         static_cast<std::int64_t>(num_heads + 2 * num_kv_heads) * head_dim);
  }
  void layer() const {
    VT_CHECK(program_.kv_groups.size() == 1, "%s without a KV group", spec().name);
    const KvGroupSpec& group = program_.kv_groups[0];
    VT_CHECK(attr("layer") >= 0 && attr("layer") < group.num_layers, "%s: layer %d of %d",
             spec().name, attr("layer"), group.num_layers);
    VT_CHECK(attr("numKvHeads") == group.num_kv_heads && attr("headDim") == group.head_dim,
             "%s: its KV heads are not the KV group's", spec().name);
  }
  int attr(const char* name) const {
    for (int i = 0; i < spec().num_attrs; i++)
      if (std::string(spec().attrs[i]) == name) return op_.attr_int(i);
    VT_FAIL("%s has no attribute %s", spec().name, name);
  }

 private:
  const OpSpec& spec() const { return op_spec(op_.id); }
  void same(int arg, const char* what, std::int64_t actual, std::int64_t wanted) const {
    VT_CHECK(actual == wanted, "%s.%s has %lld %s, expected %lld", spec().name,
             spec().args[arg].name, static_cast<long long>(actual), what,
             static_cast<long long>(wanted));
  }

  const Program& program_;
  const OpRecord& op_;
};

}  // namespace

void check_shapes(const Program& program, const OpRecord& op) {
  const Shapes s(program, op);
  switch (op.id) {
    case OpId::embedding:
      s.rows(0, Symbol::num_tokens);
      VT_CHECK(s.attr("firstId") >= 0, "embedding: its first id is %d", s.attr("firstId"));
      return s.matrix(1, s.weight(1).rows, s.buffer(0).columns);
    case OpId::rope_cos_sin:
      s.rows(0, Symbol::num_tokens);
      s.vector(1, s.weight(1).rows);
      return s.columns(0, 2 * s.weight(1).rows);
    case OpId::rms_norm:
      s.rows(1, s.buffer(0).rows);
      s.columns(1, s.buffer(0).columns);
      return s.vector(2, s.buffer(0).columns);
    case OpId::linear:
      s.rows(1, s.buffer(0).rows);
      s.matrix(2, s.buffer(0).columns, s.buffer(1).columns);
      if (s.has(3)) s.vector(3, s.buffer(0).columns);
      if (!s.has(4)) return;
      s.rows(4, s.buffer(0).rows);
      return s.columns(4, s.buffer(0).columns);
    case OpId::head_rms_norm:
      s.heads(s.buffer(0).columns, 0);
      s.vector(1, s.attr("headDim"));
      return s.vector(2, s.attr("headDim"));
    case OpId::rope_and_cache:
      s.heads(s.buffer(0).columns, 0);
      s.layer();
      s.rows(0, Symbol::num_tokens);
      s.rows(1, Symbol::num_tokens);
      return s.columns(1, s.attr("headDim"));
    case OpId::attention:
      s.heads(s.buffer(1).columns, 1);
      s.layer();
      s.rows(0, Symbol::num_tokens);
      s.rows(1, Symbol::num_tokens);
      return s.columns(0, static_cast<std::int64_t>(s.attr("numHeads")) * s.attr("headDim"));
    case OpId::silu_and_mul:
      s.rows(1, s.buffer(0).rows);
      return s.columns(1, 2 * s.buffer(0).columns);
    case OpId::gather_logit_rows:
      s.rows(0, Symbol::num_logits);
      s.rows(1, Symbol::num_tokens);
      return s.columns(1, s.buffer(0).columns);
    case OpId::sample:
      s.rows(0, Symbol::num_logits);
      return s.columns(0, program.vocab_size);
    case OpId::all_reduce:
      s.rows(1, s.buffer(0).rows);
      s.columns(1, s.buffer(0).columns);
      if (s.has(2)) s.vector(2, s.buffer(0).columns);
      if (!s.has(3)) return;
      s.rows(3, s.buffer(0).rows);
      return s.columns(3, s.buffer(0).columns);
    case OpId::all_reduce_residual_norm:
      s.rows(1, s.buffer(0).rows);
      s.columns(1, s.buffer(0).columns);
      s.rows(2, s.buffer(0).rows);
      s.columns(2, s.buffer(0).columns);
      s.vector(3, s.buffer(0).columns);
      if (s.has(4)) s.vector(4, s.buffer(0).columns);
      if (!s.has(5)) return;
      s.rows(5, s.buffer(0).rows);
      return s.columns(5, s.buffer(0).columns);
    case OpId::sample_sharded:
      s.rows(0, Symbol::num_logits);
      s.rows(1, Symbol::num_logits);
      VT_CHECK(s.buffer(1).columns > 0 && s.buffer(1).columns % kTileIds == 0,
               "sampleSharded: %lld ids are no whole tiles",
               static_cast<long long>(s.buffer(1).columns));
      VT_CHECK(s.attr("firstId") >= 0 && s.attr("firstId") % s.buffer(1).columns == 0,
               "sampleSharded: its first id is %d, of %lld a rank", s.attr("firstId"),
               static_cast<long long>(s.buffer(1).columns));
      return s.columns(0, shard_room(static_cast<int>(s.buffer(1).columns)));
    case OpId::count:
      return;
  }
}

}  // namespace vt
