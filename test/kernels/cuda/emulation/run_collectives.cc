// Collectives of kernels/cuda over fibers: random calls one after another on 2 to 8 ranks, each
// result against the sum in rank order, bit for bit. As soon as a call is over its x and its
// residual are scribbled over, so that a rank that reads late is found out.
//   run_collectives SEED NUM_CALLS   one line, exit code 0 if all is right
//   run_collectives SEED fault       one rank stops in the middle
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "boards.h"
#include "elementwise.cuh"
#include "group.cuh"
#include "norm_scale.h"
#include "print_errors.h"
#include "sending_linear.h"

namespace {

using emulation::machine;
using vt::round_bf16;
using vt::widen;

constexpr int64_t kArenaBytes = 1 << 20;

struct Rank {
  std::vector<char> arena;
  /// Of the calls queued so far.
  int num_epochs = 0;
};

struct Call {
  int rows, columns, way, split;
  bool bias, residual, in_place, norm;
  /// VT_CUDA_WAY_SENT: in units of 16 columns.
  bool wide;
};

/// Where operands lie in the arena.
constexpr int64_t kX = 0, kOut = 512 << 10, kResidual = 640 << 10, kNorm = 768 << 10;

float vt_nothing() { return __uint_as_float(vt::kNothing); }
float part(int seed, int rank, int i) {
  // In some calls, the one value that cannot be sent as it is.
  if (seed % 4 == 1 && (i + rank) % 199 == 0) return vt_nothing();
  uint32_t h = static_cast<uint32_t>(seed * 31 + rank * 7 + i) * 2654435761u;
  h ^= h >> 13;
  return static_cast<float>(static_cast<int32_t>(h * 2246822519u)) * 0x1p-31f;
}
uint16_t half_part(int seed, int i) { return round_bf16(part(seed, 100, i)); }

class Run {
 public:
  Run(uint64_t seed, int num_ranks)
      : machine_(num_ranks, seed),
        ranks_(num_ranks),
        bias_(16384),
        weight_(16384),
        first_epoch_(seed),
        // So small that many calls take several launches; or with room for the widest rows.
        slot_bytes_(seed % 2 == 0 ? 12'416 : 49'152),
        boards_(num_ranks, slot_bytes_, &first_epoch_) {
    machine = &machine_;
    for (int i = 0; i < 16384; i++) bias_[i] = half_part(77, i), weight_[i] = half_part(78, i);
    for (Rank& rank : ranks_) rank.arena.resize(kArenaBytes);
  }

  /// Queues a call on rank r, with kernels around it that write its operands and look at results.
  void queue(const Call& call, int index, int r) {
    Rank& rank = ranks_[r];
    char* arena = rank.arena.data();
    auto* stream = reinterpret_cast<void*>(static_cast<intptr_t>(r) + 1);
    plain(r, [=, this] {
      auto* x = reinterpret_cast<float*>(arena + kX);
      for (int i = 0; i < call.rows * call.columns; i++) x[i] = part(index, r, i);
      auto* residual = reinterpret_cast<uint16_t*>(arena + (call.in_place ? kOut : kResidual));
      if (call.residual)
        for (int i = 0; i < call.rows * call.columns; i++) residual[i] = half_part(index, i);
    });
    if (call.way == VT_CUDA_WAY_SENT) {
      emulation::launch({boards_.group(r), rank.num_epochs, call.rows, call.columns, call.wide,
                         [=](int row, int column) {
                           return reinterpret_cast<float*>(arena + kX)[row * call.columns + column];
                         }},
                        r);
    }
    VtCudaAllReduce args = {};
    args.group = &boards_.group(r);
    args.out = arena + kOut;
    args.x = reinterpret_cast<float*>(arena + kX);
    args.bias = call.bias ? bias_.data() : nullptr;
    args.residual = !call.residual ? nullptr : call.in_place ? arena + kOut : arena + kResidual;
    args.norm_out = call.norm ? arena + kNorm : nullptr;
    args.norm_weight = weight_.data();
    args.eps = 1e-5f;
    args.num_rows = call.rows;
    args.columns = args.x_stride = args.out_stride = call.columns;
    args.residual_stride = args.norm_stride = call.columns;
    args.ordinal = rank.num_epochs;
    args.op_index = index;
    args.way = call.way;
    args.split = call.split;
    args.dtype = VT_CUDA_BF16;
    if (vt_cuda_all_reduce(&args, stream) != 0) exit(2);
    rank.num_epochs += vt_cuda_all_reduce_epochs(&boards_.group(r), call.rows, call.columns, call.way);
    plain(r, [=, this] {
      if (!stops_) check(call, index, r);
      const auto scribble = [](char* from, int64_t bytes) {
        for (int64_t i = 0; i < bytes; i++) from[i] = static_cast<char>(0xee);
      };
      scribble(arena + kX, int64_t{4} * call.rows * call.columns);
      scribble(arena + kResidual, int64_t{2} * call.rows * call.columns);
      scribble(arena + kOut, int64_t{2} * call.rows * call.columns);
      scribble(arena + kNorm, int64_t{2} * call.rows * call.columns);
    });
  }

  void run() { machine_.run(); }
  void expect_stop() { stops_ = true; }
  int num_wrong() const { return num_wrong_; }
  uint32_t draw(uint32_t bound) { return machine_.draw(bound); }
  const VtCudaGroupReport& report(int r) const { return boards_.report(r); }
  uint64_t first_epoch() const { return first_epoch_; }
  uint64_t now_ns() const { return machine_.now_ns; }
  int num_ranks() const { return static_cast<int>(ranks_.size()); }
  bool wide_rows_fit() const { return slot_bytes_ >= 8192 * 6; }
  int num_epochs(int r) const { return ranks_[r].num_epochs; }
  bool inboxes_are_empty() const { return boards_.are_empty(); }

 private:
  void plain(int r, std::function<void()> body) {
    machine_.launch(r, 1, 1, 1, 0, [body] {
      vt::wait_for_previous();
      body();
    });
  }

  void wrong(const Call& call, int index, int r, const char* what, int i) {
    if (num_wrong_++ == 0)
      printf("call %d on rank %d of %d: %s %d differs (%d x %d, way %d)\n", index, r, num_ranks(),
             what, i, call.rows, call.columns, call.way);
  }

  void check(const Call& call, int index, int r) {
    const char* arena = ranks_[r].arena.data();
    const auto* out = reinterpret_cast<const uint16_t*>(arena + kOut);
    const auto* norm = reinterpret_cast<const uint16_t*>(arena + kNorm);
    for (int row = 0; row < call.rows; row++) {
      for (int c = 0; c < call.columns; c++) {
        const int i = row * call.columns + c;
        float sum = part(index, 0, i);
        for (int p = 1; p < num_ranks(); p++) sum += part(index, p, i);
        if (call.bias) sum += widen(bias_[c]);
        if (call.residual) sum += widen(half_part(index, i));
        if (out[i] != round_bf16(sum)) return wrong(call, index, r, "sum", i);
      }
      if (!call.norm) continue;
      const float scale = scale_of(out + row * call.columns, call.columns);
      for (int c = 0; c < call.columns; c++) {
        const int i = row * call.columns + c;
        if (norm[i] != round_bf16(widen(out[i]) * scale * widen(weight_[c])))
          return wrong(call, index, r, "norm", i);
      }
    }
  }

  emulation::Machine machine_;
  std::vector<Rank> ranks_;
  std::vector<uint16_t> bias_, weight_;
  const uint64_t first_epoch_;
  const int64_t slot_bytes_;
  Boards boards_;
  int num_wrong_ = 0;
  bool stops_ = false;
};

Call draw_call(Run& run) {
  Call call = {};
  call.way = 1 + static_cast<int>(run.draw(3));
  call.rows = 1 + static_cast<int>(run.draw(call.way == 2 ? 9 : 3));
  call.wide = run.draw(2) == 0;
  // A tree of 128 threads, with and without idle ones; of 256 and two turns; of 512.
  const int widths[] = {16, 144, 1024, 1024, 2064, 4096, 8192};
  call.columns = widths[run.draw(run.draw(4) != 0 ? 4 : run.wide_rows_fit() ? 7 : 5)];
  call.split = run.draw(2) == 0 ? 0 : 1 << run.draw(3);
  if (call.columns > 1024) call.rows = 1;
  // As many as a linear may send, in both tiles of 8.
  if (call.way == VT_CUDA_WAY_SENT && call.columns <= 144)
    call.rows = 1 + static_cast<int>(run.draw(run.wide_rows_fit() ? 16 : 8));
  call.bias = run.draw(3) == 0;
  call.residual = run.draw(3) != 0;
  call.in_place = call.residual && run.draw(2) == 0;
  call.norm = run.draw(3) != 0;
  return call;
}

int run_calls(uint64_t seed, int num_calls) {
  Run run(seed, 2 + static_cast<int>(seed % 5 == 4 ? 6 : seed % 3));
  for (int i = 0; i < num_calls; i++) {
    const Call call = draw_call(run);
    for (int r = 0; r < run.num_ranks(); r++) run.queue(call, i, r);
  }
  run.run();
  for (int r = 0; r < run.num_ranks(); r++)
    if (run.report(r).state != 0) printf("rank %d gave up\n", r);
  for (int r = 0; r < run.num_ranks(); r++)
    if (run.report(r).state != 0) return 1;
  if (!run.inboxes_are_empty() || vt::num_lost != 0) {
    printf("an inbox is not empty, or %d values were lost\n", vt::num_lost);
    return 1;
  }
  printf("%d calls on %d ranks: %d wrong\n", num_calls, run.num_ranks(), run.num_wrong());
  return run.num_wrong() == 0 ? 0 : 1;
}

/// The last rank makes 3 of 8 calls: the others blame it for the fourth, and end all the same.
int run_fault(uint64_t seed) {
  constexpr int kBefore = 3, kCalls = 8;
  Run run(seed, seed % 3 == 0 ? 8 : 2 + static_cast<int>(seed % 3));
  run.expect_stop();
  const int missing = run.num_ranks() - 1;
  int expected_epoch = 0;
  for (int i = 0; i < kCalls; i++) {
    const Call call = draw_call(run);
    if (i == kBefore) expected_epoch = run.num_epochs(0);
    for (int r = 0; r < run.num_ranks(); r++)
      if (r != missing || i < kBefore) run.queue(call, i, r);
  }
  run.run();
  for (int r = 0; r < missing; r++) {
    const VtCudaGroupReport& report = run.report(r);
    if (report.state != 1 || report.missing_rank != missing || report.op_index != kBefore ||
        report.epoch != run.first_epoch() + expected_epoch) {
      printf("rank %d: state %u, rank %d in op %d\n", r, report.state, report.missing_rank,
             report.op_index);
      return 1;
    }
  }
  printf("rank %d of %d was missed in call %d\n", missing, run.num_ranks(), kBefore);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 64;
  const uint64_t seed = strtoull(argv[1], nullptr, 10);
  return std::string(argv[2]) == "fault" ? run_fault(seed) : run_calls(seed, atoi(argv[2]));
}
