// What parse_program says of programs: on stdin, for each, a word that names the rules (cpu, cuda)
// and six lists of numbers, each with its length in front: ops, attrs, buffers, weights, kvGroups,
// and vocabSize, arenaBytes, maxNumTokens and maxNumLogits. Prints "ok", or op and message, a line for each.
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "kernels/host/program.h"

namespace {

using vt::Dtype;

/// As those of addon/cpu_backend.cc and cuda/host/backend.cc.
constexpr vt::BackendRules kCpu = {
    "cpu", {Dtype::f32}, {Dtype::f32, Dtype::f16, Dtype::bf16}, {Dtype::f32, Dtype::f16, Dtype::bf16},
    false, false,        false};
constexpr vt::BackendRules kCuda = {
    "cuda", {Dtype::f16, Dtype::bf16}, {Dtype::f16, Dtype::bf16}, {Dtype::f16, Dtype::bf16},
    true,   true,                      true};

template <typename T>
std::vector<T> read() {
  std::size_t count = 0;
  std::cin >> count;
  std::vector<T> values(count);
  for (T& value : values) {
    std::string word;
    std::cin >> word;
    value = static_cast<T>(std::stod(word));
  }
  return values;
}

}  // namespace

int main() {
  for (std::string rules; std::cin >> rules;) {
    const auto ops = read<std::int32_t>();
    const auto attrs = read<double>(), buffers = read<double>(), weights = read<double>(),
               kv_groups = read<double>(), sizes = read<double>();
    try {
      vt::parse_program({ops.data(), ops.size(), attrs.data(), attrs.size(), buffers.data(),
                         buffers.size(), weights.data(), weights.size(), kv_groups.data(),
                         kv_groups.size(), sizes[0], sizes[1], sizes[2], sizes[3]},
                        rules == "cpu" ? kCpu : kCuda);
      std::printf("ok\n");
    } catch (const vt::KernelError& error) {
      std::printf("[%s] %s\n", error.op.c_str(), error.what());
    }
  }
}
