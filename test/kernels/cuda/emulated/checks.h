// What the programs of emulated blocks share: tensors of 16-bit words, and a line for each check.
// Included once a program, behind device.h.
#pragma once

#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "device.h"
#include "test/kernels/cuda/emulation/print_errors.h"

emulated::Dim first_block, gridDim;

namespace {

using emulated::Element;
using Words = std::vector<std::uint16_t>;

/// What a kernel must leave as it is.
constexpr std::uint16_t kUntouched = 0x1234;

int dtype_of(Element element) { return element == Element::f16 ? VT_CUDA_F16 : VT_CUDA_BF16; }

Words normal_words(std::mt19937& random, Element element, std::size_t count, float scale = 1) {
  std::normal_distribution<float> normal;
  Words words(count);
  for (std::uint16_t& word : words) word = emulated::from_float(element, normal(random) * scale);
  return words;
}

int num_failed = 0;

void report(const std::string& what, bool good, const std::string& outcome) {
  num_failed += !good;
  std::printf("%s %s: %s\n", good ? "ok " : "BAD", what.c_str(), outcome.c_str());
  std::fflush(stdout);
}

std::string bits(bool same) { return same ? "the same bits" : "OTHER BITS"; }

void report(const std::string& what, bool same) { report(what, same, bits(same)); }

std::string error_and_bits(double error, bool same) {
  char text[40];
  std::snprintf(text, sizeof text, "error %.1e, ", error);
  return text + bits(same);
}

/// The program's.
int exit_status() { return num_failed == 0 ? 0 : 1; }

}  // namespace
