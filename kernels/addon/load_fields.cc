#include "load_fields.h"

#include "addon.h"

namespace vt {

namespace {

LoadPart read_part(const Napi::Object& part) {
  const auto data = field<Napi::Uint8Array>(part, "data");
  const int dtype = int_field(part, "dtype");
  VT_CHECK(dtype >= 0 && dtype < kNumDtypes, "a weight part's dtype is %d", dtype);
  const LoadPart result{dtype, field<Napi::Number>(part, "numRows").Int64Value(),
                        field<Napi::Number>(part, "numColumns").Int64Value(),
                        reinterpret_cast<const char*>(data.Data()), data.ByteLength()};
  const double bytes = number_field(part, "numRows") * number_field(part, "numColumns") *
                       dtype_bytes(static_cast<Dtype>(dtype));
  VT_CHECK(result.num_rows >= 0 && result.num_columns >= 0 &&
               bytes == static_cast<double>(result.num_bytes),
           "a weight part has %zu bytes, expected %.0f", result.num_bytes, bytes);
  return result;
}

}  // namespace

double number_field(const Napi::Object& object, const char* name) {
  return field<Napi::Number>(object, name).DoubleValue();
}

int int_field(const Napi::Object& object, const char* name) {
  return field<Napi::Number>(object, name).Int32Value();
}

bool bool_field(const Napi::Object& object, const char* name) {
  return field<Napi::Boolean>(object, name).Value();
}

FlatProgram read_flat_program(const Napi::Object& load) {
  const auto flat = field<Napi::Object>(load, "flat");
  const auto ops = field<Napi::Int32Array>(flat, "ops");
  const auto attrs = field<Napi::Float64Array>(flat, "attrs");
  const auto buffers = field<Napi::Float64Array>(flat, "buffers");
  const auto weights = field<Napi::Float64Array>(flat, "weights");
  const auto kv_groups = field<Napi::Float64Array>(flat, "kvGroups");
  return {ops.Data(),
          ops.ElementLength(),
          attrs.Data(),
          attrs.ElementLength(),
          buffers.Data(),
          buffers.ElementLength(),
          weights.Data(),
          weights.ElementLength(),
          kv_groups.Data(),
          kv_groups.ElementLength(),
          number_field(load, "vocabSize"),
          number_field(load, "arenaBytes"),
          number_field(load, "maxNumTokens"),
          number_field(load, "maxNumLogits")};
}

std::vector<std::vector<LoadPart>> read_parts(const Napi::Object& load) {
  const auto weights = field<Napi::Array>(load, "weights");
  std::vector<std::vector<LoadPart>> result(weights.Length());
  for (uint32_t i = 0; i < weights.Length(); i++) {
    const auto parts = weights.Get(i).As<Napi::Array>();
    for (uint32_t j = 0; j < parts.Length(); j++)
      result[i].push_back(read_part(parts.Get(j).As<Napi::Object>()));
  }
  return result;
}

}  // namespace vt
