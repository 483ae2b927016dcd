#include "load_fields.h"

#include "addon.h"

namespace vt {

namespace {

MadeUpPart read_made_up(const Napi::Object& source) {
  const auto number = [&](const char* name) {
    return static_cast<std::int64_t>(number_field(source, name));
  };
  return {static_cast<std::uint32_t>(number("tensor")), number("firstRow"), number("firstColumn"),
          number("tensorRows"), number("tensorColumns")};
}

LoadPart read_part(const Napi::Object& part) {
  const auto data = field<Napi::Uint8Array>(part, "data");
  const int dtype = int_field(part, "dtype");
  VT_CHECK(dtype >= 0 && dtype < kNumDtypes, "a weight part's dtype is %d", dtype);
  const double num_rows = number_field(part, "numRows");
  const double num_columns = number_field(part, "numColumns");
  const double packed_bytes = num_columns * dtype_bytes(static_cast<Dtype>(dtype));
  const double row_bytes =
      part.Get("rowBytes").IsNumber() ? number_field(part, "rowBytes") : packed_bytes;
  const bool is_made_up = part.Get("madeUp").IsObject();
  const double bytes =
      num_rows == 0 || is_made_up ? 0 : (num_rows - 1) * row_bytes + packed_bytes;
  VT_CHECK(num_rows >= 0 && num_columns >= 0 && row_bytes >= packed_bytes &&
               bytes == static_cast<double>(data.ByteLength()),
           "a weight part has %zu bytes, expected %.0f", data.ByteLength(), bytes);
  return {dtype,
          static_cast<std::int64_t>(num_rows),
          static_cast<std::int64_t>(num_columns),
          static_cast<std::int64_t>(row_bytes),
          is_made_up ? nullptr : reinterpret_cast<const char*>(data.Data()),
          data.ByteLength(),
          is_made_up ? read_made_up(field<Napi::Object>(part, "madeUp")) : MadeUpPart{}};
}

}  // namespace

double number_field(const Napi::Object& object, const char* name) {
  return field<Napi::Number>(object, name).DoubleValue();
}

int int_field(const Napi::Object& object, const char* name) {
  const double value = number_field(object, name);
  const int whole = field<Napi::Number>(object, name).Int32Value();
  VT_CHECK(whole == value, "%s is %.17g, which is no 32-bit integer", name, value);
  return whole;
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

NetworkFields read_network(const Napi::Object& group) {
  NetworkFields network;
  const auto given = group.Get("network");
  if (!given.IsObject()) return network;
  const auto fields = given.As<Napi::Object>();
  const auto addresses = field<Napi::Array>(fields, "addresses");
  for (uint32_t i = 0; i < addresses.Length(); i++)
    network.addresses.push_back(addresses.Get(i).As<Napi::String>().Utf8Value());
  const auto bytes = [&](const char* name) {
    const auto array = field<Napi::Uint8Array>(fields, name);
    return std::string(reinterpret_cast<const char*>(array.Data()), array.ByteLength());
  };
  network.shown_tokens = bytes("shownTokens");
  network.expected_tokens = bytes("expectedTokens");
  return network;
}

}  // namespace vt
