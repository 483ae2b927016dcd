// A program as native backends hold it: the flat numbers of kernels/program.ts, read back into
// structs and checked once, by the rules of the backend, so that no op needs a check of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "../dtype.h"
#include "../op_table.h"

namespace vt {

enum class Symbol : int { num_tokens, num_logits };

struct BufferSpec {
  Dtype dtype;
  Symbol rows;
  std::int64_t columns;
  std::int64_t offset;
  /// 0, or the rows that it has room for where a step may have more: of what goes from a linear to
  /// siluAndMul.
  int rows_at_once;
};

struct WeightSpec {
  Dtype dtype;
  std::int64_t rows;
  /// 0 for a vector.
  std::int64_t columns;
  int interleave;
};

struct KvGroupSpec {
  int num_layers, num_kv_heads, head_dim;
  Dtype dtype;
  int window;
};

struct OpRecord {
  OpId id;
  /// By argument of the op table: index of a buffer or of a weight, -1 where it is missing.
  int args[kMaxOpArgs];
  double attrs[kMaxOpAttrs];

  int attr_int(int i) const { return static_cast<int>(attrs[i]); }
};

struct Program {
  std::vector<OpRecord> ops;
  std::vector<BufferSpec> buffers;
  std::vector<WeightSpec> weights;
  /// Empty, or one.
  std::vector<KvGroupSpec> kv_groups;
  int vocab_size;
  std::int64_t arena_bytes;
  int max_num_tokens;
  int max_num_logits;

  /// Rows of the largest step that a buffer has room for.
  std::int64_t max_rows(const BufferSpec& buffer) const {
    const int all = buffer.rows == Symbol::num_tokens ? max_num_tokens : max_num_logits;
    return buffer.rows_at_once > 0 && buffer.rows_at_once < all ? buffer.rows_at_once : all;
  }
};

struct FlatProgram {
  const std::int32_t* ops;
  std::size_t num_op_words;
  const double* attrs;
  std::size_t num_attrs;
  const double* buffers;
  std::size_t num_buffer_words;
  const double* weights;
  std::size_t num_weight_words;
  const double* kv_groups;
  std::size_t num_kv_group_words;
  double vocab_size, arena_bytes, max_num_tokens, max_num_logits;
};

/// A set of dtypes.
class DtypeSet {
 public:
  constexpr DtypeSet(std::initializer_list<Dtype> dtypes) {
    for (const Dtype dtype : dtypes) bits_ |= 1u << static_cast<int>(dtype);
  }
  constexpr bool has(Dtype dtype) const { return (bits_ >> static_cast<int>(dtype) & 1) != 0; }

 private:
  unsigned bits_ = 0;
};

/// What a backend takes of a program; anything else is refused by name.
struct BackendRules {
  /// For messages: "cpu".
  const char* name;
  /// Of arguments whose dtype is `act` in the op table.
  DtypeSet activations;
  DtypeSet kv_cache;
  DtypeSet weights;
  /// An op's activations, its weights and the KV cache share one dtype.
  bool one_dtype;
  bool interleave;
  /// Runs a linear and the siluAndMul behind it for some of a step's rows at a time.
  bool rows_at_once;
};

/// Throws KernelError, with the op where it has one, if anything is out of range or does not fit.
Program parse_program(const FlatProgram& flat, const BackendRules& rules);

/// The shapes of one op against each other and against the KV group.
void check_shapes(const Program& program, const OpRecord& op);
void check_dtypes(const Program& program, const OpRecord& op, const BackendRules& rules);

}  // namespace vt
