// What every backend's load() is given: a program as flat numbers, weights in parts, and sizes.
// kernels/native-backend.ts makes it.
#pragma once

#include <napi.h>

#include <vector>

#include "../host/program.h"

namespace vt {

template <typename T>
T field(const Napi::Object& object, const char* name) {
  return object.Get(name).As<T>();
}

double number_field(const Napi::Object& object, const char* name);
int int_field(const Napi::Object& object, const char* name);
bool bool_field(const Napi::Object& object, const char* name);

/// Views of the load's arrays.
FlatProgram read_flat_program(const Napi::Object& load);

/// Ranks on several hosts; without addresses where the group has none.
struct NetworkFields {
  std::vector<std::string> addresses;
  /// Of kernels/host/tcp_join.h.
  std::string shown_tokens, expected_tokens;
};
NetworkFields read_network(const Napi::Object& group);

/// What a backend that makes up weights is told of a part.
struct MadeUpPart {
  /// A hash of its name.
  std::uint32_t tensor;
  std::int64_t first_row, first_column, tensor_rows, tensor_columns;
};

/// Rows of a checkpoint tensor, or a range of their columns: a view of its bytes; without data, one
/// that the backend makes up.
struct LoadPart {
  int dtype;
  std::int64_t num_rows, num_columns;
  /// From the begin of a row to that of the next.
  std::int64_t row_bytes;
  const char* data;
  std::size_t num_bytes;
  MadeUpPart made_up;
};

/// Parts of each weight; none of any weight where the backend makes its own. Throws KernelError.
std::vector<std::vector<LoadPart>> read_parts(const Napi::Object& load);

}  // namespace vt
