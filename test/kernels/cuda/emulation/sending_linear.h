// What stands for linear_skinny where ranks are fibers: a kernel whose sums are read from memory,
// in the places where its warps have them, and sent by linear_send.cuh. As there, the next kernel may
// start once this one has waited, and not before.
#pragma once

#include <functional>

#include "linear_send.cuh"

namespace emulation {

struct SendingLinear {
  VtCudaGroup group;
  int ordinal;
  int rows, columns;
  bool wide;
  /// The sum at row, column; called behind the wait.
  std::function<float(int, int)> sum;
};

template <bool kWide>
void send_units(const SendingLinear& linear) {
  constexpr int kUnit = kWide ? 16 : 8, kTile = kWide ? 8 : 16;
  vt::wait_for_previous();
  vt::start_next();
  const uint64_t epoch = vt::epoch_of(linear.group, linear.ordinal);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int warps = static_cast<int>(blockDim.x * gridDim.x) / 32;
  int unit = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) / 32;
  for (; unit * kUnit < linear.columns; unit += warps) {
    for (int tile = 0; tile * kTile < linear.rows; tile++) {
      float sum[4];
      for (int e = 0; e < 4; e++) {
        const int h = kWide ? e % 2 : e / 2, c = kWide ? e / 2 * 8 : e % 2;
        const int row = tile * kTile + (kWide ? lane % 4 * 2 + h : lane / 4 + 8 * h);
        const int column = unit * kUnit + (kWide ? lane / 4 : lane % 4 * 2) + c;
        // Whatever: it must not be sent.
        sum[e] = row < linear.rows ? linear.sum(row, column) : 7e30f;
      }
      vt::let_others();
      vt::send_tile<kWide>(linear.group, epoch, linear.rows, linear.columns, unit, tile, sum);
    }
  }
}

/// Some warps have two units. The more threads wait for this one, the slower each gets on.
inline void launch(const SendingLinear& linear, int device) {
  const int units = linear.columns / (linear.wide ? 16 : 8);
  machine->launch(device, (units + 2) / 3, 64, 1, 0, [linear] {
    linear.wide ? send_units<true>(linear) : send_units<false>(linear);
  });
}

}  // namespace emulation
