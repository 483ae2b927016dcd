// Sums and joins of parts (kernels/cuda/parts.cu) over fibers: random calls, each against the sum
// in the order of parts and rmsNorm's tree, bit for bit, and the marks that they leave.
//   run_parts SEED NUM_CALLS   one line, exit code 0 if all is right
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "elementwise.cuh"
#include "vt_cuda_parts.h"
#include "norm_scale.h"
#include "print_errors.h"

namespace {

using vt::round_bf16;
using vt::widen;

void* const kStream = reinterpret_cast<void*>(1);
constexpr std::uint64_t kFirstEpoch = 40;

float value(int seed, int part, int i) {
  std::uint32_t h = static_cast<std::uint32_t>(seed * 31 + part * 7 + i) * 2654435761u;
  h ^= h >> 13;
  return static_cast<float>(static_cast<std::int32_t>(h * 2246822519u)) * 0x1p-31f;
}

struct Call {
  int seed, parts, own, rows, columns;
  bool bias, residual, in_place, norm;
};

/// How many values are wrong.
int sum(const Call& call, const std::uint64_t* first_epoch, VtCudaProgress* progress) {
  const int count = call.rows * call.columns;
  // One part more than is read: what lies behind must not be.
  std::vector<float> parts(static_cast<std::size_t>(call.parts + 1) * count, 9.0f), own(count);
  for (int p = 0; p < call.parts; p++)
    for (int i = 0; i < count; i++)
      (p == call.own ? own[i] : parts[p * count + i]) = value(call.seed, p, i);
  std::vector<std::uint16_t> out(count, 7), norm(count, 7), residual(count), bias(call.columns),
      weight(call.columns);
  for (int i = 0; i < count; i++) residual[i] = round_bf16(value(call.seed, 100, i));
  for (int c = 0; c < call.columns; c++) {
    bias[c] = round_bf16(value(call.seed, 101, c));
    weight[c] = round_bf16(value(call.seed, 102, c));
  }
  if (call.in_place) out = residual;
  VtCudaSumParts args = {};
  args.out = out.data();
  args.parts = parts.data();
  args.own = own.data();
  args.bias = call.bias ? bias.data() : nullptr;
  args.residual = !call.residual ? nullptr : call.in_place ? out.data() : residual.data();
  args.norm_out = call.norm ? norm.data() : nullptr;
  args.norm_weight = weight.data();
  args.mark = {&progress->done, first_epoch, call.seed, 3};
  args.part_stride = count;
  args.num_parts = call.parts;
  args.own_part = call.own;
  args.num_rows = call.rows;
  args.columns = args.out_stride = args.residual_stride = args.norm_stride = call.columns;
  args.eps = 1e-5f;
  args.dtype = VT_CUDA_BF16;
  const VtCudaMark arrived = {&progress->arrived, first_epoch, call.seed, 3};
  if (vt_cuda_mark(&arrived, 0, kStream) != 0) exit(2);
  if (vt_cuda_sum_parts(&args, kStream) != 0) exit(2);
  emulation::machine->run();
  const std::uint64_t word = (kFirstEpoch + call.seed) << 16 | 3;
  int wrong = progress->arrived != word || progress->done != word;
  for (int row = 0; row < call.rows; row++) {
    for (int c = 0; c < call.columns; c++) {
      const int i = row * call.columns + c;
      float wanted = value(call.seed, 0, i);
      for (int p = 1; p < call.parts; p++) wanted += value(call.seed, p, i);
      if (call.bias) wanted += widen(bias[c]);
      if (call.residual) wanted += widen(residual[i]);
      wrong += out[i] != round_bf16(wanted);
    }
    if (!call.norm) continue;
    const float scale = scale_of(&out[row * call.columns], call.columns);
    for (int c = 0; c < call.columns; c++) {
      const int i = row * call.columns + c;
      wrong += norm[i] != round_bf16(widen(out[i]) * scale * widen(weight[c]));
    }
  }
  return wrong;
}

int join(const Call& call, const std::uint64_t* first_epoch, VtCudaProgress* progress) {
  const int columns = call.columns / 8 + 1, dropped = call.seed % 3;
  const int out_columns = call.parts * columns - dropped, stride = out_columns + 2;
  std::vector<float> parts(static_cast<std::size_t>(call.parts) * call.rows * columns);
  for (std::size_t i = 0; i < parts.size(); i++)
    parts[i] = value(call.seed, 5, static_cast<int>(i));
  std::vector<float> out(static_cast<std::size_t>(call.rows) * stride, 7.0f);
  VtCudaJoinParts args = {};
  args.out = out.data();
  args.parts = parts.data();
  args.mark = {&progress->done, first_epoch, call.seed, 4};
  args.num_parts = call.parts;
  args.num_rows = call.rows;
  args.columns = columns;
  args.out_columns = out_columns;
  args.out_stride = stride;
  if (vt_cuda_join_parts(&args, kStream) != 0) exit(2);
  emulation::machine->run();
  int wrong = progress->done != ((kFirstEpoch + call.seed) << 16 | 4);
  for (int row = 0; row < call.rows; row++)
    for (int c = 0; c < stride; c++) {
      const int from = (c / columns * call.rows + row) * columns + c % columns;
      const float wanted = c < out_columns ? value(call.seed, 5, from) : 7.0f;
      wrong += out[row * stride + c] != wanted;
    }
  return wrong;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 64;
  const std::uint64_t seed = strtoull(argv[1], nullptr, 10);
  const int num_calls = atoi(argv[2]);
  int wrong = 0;
  for (int i = 0; i < num_calls; i++) {
    emulation::Machine machine(1, seed * 1000 + i);
    emulation::machine = &machine;
    const std::uint64_t first_epoch = kFirstEpoch;
    VtCudaProgress progress = {};
    // A tree of 128 threads, with and without idle ones; of 256; of 512, with two pieces and more.
    const int widths[] = {8, 144, 1024, 2064, 4096, 8192, 16384};
    Call call = {};
    call.seed = i + static_cast<int>(seed);
    call.parts = 1 + static_cast<int>(machine.draw(8));
    call.own = static_cast<int>(machine.draw(call.parts + 1)) - 1;
    call.columns = widths[machine.draw(machine.draw(4) == 0 ? 7 : 3)];
    call.rows = 1 + static_cast<int>(machine.draw(call.columns > 1024 ? 2 : 5));
    call.bias = machine.draw(3) == 0;
    call.residual = machine.draw(3) != 0;
    call.in_place = call.residual && machine.draw(2) == 0;
    call.norm = machine.draw(3) != 0;
    wrong += machine.draw(4) == 0 ? join(call, &first_epoch, &progress)
                                  : sum(call, &first_epoch, &progress);
  }
  printf("%d calls: %d wrong\n", num_calls, wrong);
  return wrong == 0 ? 0 : 1;
}
