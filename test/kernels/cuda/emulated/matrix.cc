// The matrix instructions: fragments of registers as the PTX manual lays them out.
#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <vector>

#include "block.h"
#include "memory.h"

namespace emulated {

void check_fenced(std::uint32_t address);

namespace {

struct Product {
  Element element;
  int n;
  float* d;
  const std::uint32_t* a;
  std::uint64_t a_descriptor, b_descriptor;
  bool add, b_transposed;
};

/// A thread's products that are under way.
struct Products {
  std::vector<Product> open;
  std::deque<std::vector<Product>> groups;
  bool fenced = false;
};

std::map<int, Products> products;

struct Descriptor {
  std::uint32_t start, leading, stride;
  int swizzle;

  explicit Descriptor(std::uint64_t bits)
      : start((bits & 0x3fff) << 4),
        leading((bits >> 16 & 0x3fff) << 4),
        stride((bits >> 32 & 0x3fff) << 4),
        swizzle(static_cast<int>(bits >> 62)) {
    if ((bits >> 49 & 7) != 0) give_up("a descriptor with a base offset");
    if (swizzle != 1) give_up("a descriptor without the 128-byte swizzle");
  }

  /// Element (row, k) of an operand: `row` counts m or n.
  float element(Element type, int row, int k, bool transposed) const {
    // In bytes, before the swizzle. Not transposed: rows of 128 bytes along k, 8 rows an atom.
    // Transposed: rows of 128 bytes along n, of one k each, 8 k an atom.
    const std::uint32_t offset =
        transposed ? row / 64 * leading + k / 8 * stride + k % 8 * 128 + row % 64 * 2
                   : row / 8 * stride + row % 8 * 128 + k * 2;
    std::uint32_t address = start + offset;
    address ^= (address >> 7 & 7) << 4;
    check_fenced(address);
    std::uint16_t bits;
    std::memcpy(&bits, at(address, 2), 2);
    return to_float(type, bits);
  }
};

float half_of(Element element, std::uint32_t word, int which) {
  return to_float(element, static_cast<std::uint16_t>(which == 0 ? word : word >> 16));
}

using Columns = float[256][16];

void read_b(const Product& product, Columns& b) {
  const Descriptor b_of(product.b_descriptor);
  for (int n = 0; n < product.n; n++)
    for (int k = 0; k < 16; k++)
      b[n][k] = b_of.element(product.element, n, k, product.b_transposed);
}

/// This lane's part of a product of the warp; `quad`: register operands of its four lanes.
void multiply(const Product& product, const std::uint32_t* const (&quad)[4], const Columns& b) {
  const int lane = this_thread() % 32, warp = this_thread() / 32 % 4;
  for (int h = 0; h < 2; h++) {
    float a[16];
    for (int k = 0; k < 16; k++) {
      if (product.a == nullptr) {
        a[k] = Descriptor(product.a_descriptor)
                   .element(product.element, warp * 16 + lane / 4 + h * 8, k, false);
      } else {
        // Word h holds k 0-7 of the row, word h + 2 holds k 8-15; lane k / 2 % 4 of the quad.
        a[k] = half_of(product.element, quad[k / 2 % 4][h + k / 8 * 2], k % 2);
      }
    }
    for (int j = 0; j < product.n / 8; j++) {
      for (int e = 0; e < 2; e++) {
        float& d = product.d[j * 4 + h * 2 + e];
        d = chain_step(product.add ? d : 0.0f, a, b[j * 8 + lane % 4 * 2 + e]);
      }
    }
  }
}

/// Of eight rows of a matrix.
void check_banks(const std::uint64_t* rows, const char* what) {
  std::uint64_t of_bank[8] = {};  // a group of 16 bytes
  for (int i = 0; i < 8; i++) {
    std::uint64_t& known = of_bank[rows[i] >> 4 & 7];
    if (known != 0 && known != rows[i]) give_up(what + std::string(" meets a bank twice"));
    known = rows[i];
  }
}

/// All threads of the warp, for the same group.
void multiply_all(const std::vector<Product>& group) {
  for (const Product& product : group) {
    const int lane = this_thread() % 32;
    const std::uint64_t* bs = meet_warp(product.b_descriptor);
    for (int i = 0; i < 32; i++)
      if (bs[i] != product.b_descriptor) give_up("lanes give wgmma different descriptors");
    const std::uint64_t* as = meet_warp(reinterpret_cast<std::uint64_t>(product.a));
    const std::uint32_t* quad[4];
    for (int i = 0; i < 4; i++)
      quad[i] = reinterpret_cast<const std::uint32_t*>(as[lane / 4 * 4 + i]);
    static Columns b[256];  // by warp of the cluster
    Columns& mine = b[this_fiber() / 32];
    if (lane == 0) read_b(product, mine);
    meet_warp(0);
    multiply(product, quad, mine);
    meet_warp(0);  // nobody's registers change before all have read them
  }
}

}  // namespace

float to_float(Element element, std::uint16_t bits) {
  if (element == Element::bf16) {
    const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
  }
  _Float16 value;
  std::memcpy(&value, &bits, 2);
  return static_cast<float>(value);
}

std::uint16_t from_float(Element element, float value) {
  std::uint16_t result;
  if (element == Element::f16) {
    const _Float16 half = static_cast<_Float16>(value);
    std::memcpy(&result, &half, 2);
    return result;
  }
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (std::isnan(value)) return 0x7fff;
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float chain_step(float c, const float (&a)[16], const float (&b)[16]) {
  double sum = c;
  for (int k = 0; k < 16; k++) sum += static_cast<double>(a[k]) * b[k];
  return static_cast<float>(sum);
}

void mma_m16n8k16(Element element, float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                  std::uint32_t b1) {
  const int lane = this_thread() % 32;
  const std::uint64_t* low = meet_warp(a[0] | static_cast<std::uint64_t>(a[1]) << 32);
  std::uint32_t words[4][4];  // of the quad
  for (int i = 0; i < 4; i++) {
    words[i][0] = static_cast<std::uint32_t>(low[lane / 4 * 4 + i]);
    words[i][1] = static_cast<std::uint32_t>(low[lane / 4 * 4 + i] >> 32);
  }
  const std::uint64_t* high = meet_warp(a[2] | static_cast<std::uint64_t>(a[3]) << 32);
  for (int i = 0; i < 4; i++) {
    words[i][2] = static_cast<std::uint32_t>(high[lane / 4 * 4 + i]);
    words[i][3] = static_cast<std::uint32_t>(high[lane / 4 * 4 + i] >> 32);
  }
  const std::uint64_t* bs = meet_warp(b0 | static_cast<std::uint64_t>(b1) << 32);
  for (int h = 0; h < 2; h++) {
    for (int e = 0; e < 2; e++) {
      const int column = lane % 4 * 2 + e;
      float x[16], y[16];
      for (int k = 0; k < 16; k++) {
        x[k] = half_of(element, words[k / 2 % 4][h + k / 8 * 2], k % 2);
        const std::uint64_t pair = bs[column * 4 + k / 2 % 4];
        y[k] = half_of(element, static_cast<std::uint32_t>(pair >> (k / 8 * 32)), k % 2);
      }
      c[h * 2 + e] = chain_step(c[h * 2 + e], x, y);
    }
  }
}

void ldmatrix4(std::uint32_t (&r)[4], std::uint32_t address, bool transposed) {
  const int lane = this_thread() % 32;
  const std::uint64_t* addresses = meet_warp(address);
  for (int i = 0; i < 4; i++) {
    check_banks(addresses + i * 8, "ldmatrix");
    std::uint16_t pair[2];
    for (int e = 0; e < 2; e++) {
      const int row = transposed ? lane % 4 * 2 + e : lane / 4;
      const int column = transposed ? lane / 4 : lane % 4 * 2 + e;
      const auto from = static_cast<std::uint32_t>(addresses[i * 8 + row]);
      std::memcpy(&pair[e], at(from + column * 2, 2), 2);
    }
    r[i] = pair[0] | static_cast<std::uint32_t>(pair[1]) << 16;
  }
  meet_warp(0);
}

void store_matrix2_trans(std::uint32_t address, std::uint32_t first, std::uint32_t second) {
  const int lane = this_thread() % 32;
  const std::uint64_t* addresses = meet_warp(address);
  for (int i = 0; i < 2; i++) {
    check_banks(addresses + i * 8, "stmatrix");
    for (int e = 0; e < 2; e++) {
      const auto row = static_cast<std::uint32_t>(addresses[i * 8 + lane % 4 * 2 + e]);
      const auto half = static_cast<std::uint16_t>((i == 0 ? first : second) >> (e * 16));
      std::memcpy(at(row + lane / 4 * 2, 2), &half, 2);
    }
  }
  meet_warp(0);
}

void wgmma(Element element, int n, float* d, const std::uint32_t* a, std::uint64_t a_descriptor,
           std::uint64_t b_descriptor, bool add, bool b_transposed) {
  Products& mine = products[this_fiber()];
  if (!mine.fenced) give_up("wgmma without wgmma.fence");
  mine.open.push_back({element, n, d, a, a_descriptor, b_descriptor, add, b_transposed});
  if (!timing.late_products) {
    multiply_all(mine.open);
    mine.open.clear();
  }
}

void wgmma_fence() { products[this_fiber()].fenced = true; }

void wgmma_commit() {
  Products& mine = products[this_fiber()];
  mine.groups.push_back(std::move(mine.open));
  mine.open.clear();
}

void wgmma_wait(int pending) {
  Products& mine = products[this_fiber()];
  while (static_cast<int>(mine.groups.size()) > pending) {
    multiply_all(mine.groups.front());
    mine.groups.pop_front();
  }
  mine.fenced = false;
}

}  // namespace emulated
