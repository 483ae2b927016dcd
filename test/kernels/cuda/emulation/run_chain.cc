// A layer after another over fibers, with nothing between them that would keep kernels apart: each
// linear reads the norm of the sum before, and its kernel sends its sums, or writes them and leaves
// sending to the collective. What the last layer gives, bit for bit as the same in plain loops.
//   run_chain SEED   one line, exit code 0 if all is right
#include <cstdio>
#include <cstdlib>

#include "boards.h"
#include "elementwise.cuh"
#include "norm_scale.h"
#include "print_errors.h"
#include "sending_linear.h"

namespace {

using emulation::machine;
using vt::round_bf16;
using vt::widen;

constexpr int kLayers = 24;

struct Layer {
  bool sends, wide, has_middle;
};

/// What rank r makes of a row in layer i, at a column: of another column, as a linear does of all.
float scaled(const uint16_t* row, int columns, int r, int i, int column) {
  const float factor = 0.25f + 0.125f * static_cast<float>((r * 5 + i * 3 + column) % 7);
  return widen(row[(column + columns / 2 + 8) % columns]) * factor;
}

struct Rank {
  /// `norm` and `sum` are what collectives give, in place; `parts` what linears that do not send
  /// write.
  std::vector<uint16_t> norm, sum;
  std::vector<float> parts;
};

class Chain {
 public:
  Chain(uint64_t seed, int num_ranks, int rows, int columns)
      : machine_(num_ranks, seed),
        rows_(rows),
        columns_(columns),
        first_epoch_(seed),
        boards_(num_ranks, kSlotBytes, &first_epoch_),
        ranks_(num_ranks),
        weight_(columns) {
    machine = &machine_;
    const int count = rows * columns;
    for (int c = 0; c < columns; c++) weight_[c] = round_bf16(0.5f + 0.01f * (c % 50));
    Rank start;
    for (int i = 0; i < count; i++)
      start.norm.push_back(round_bf16(0.001f * (i * 37 % 1999 - 900)));
    start.sum = start.norm;
    start.parts.resize(count);
    for (Rank& rank : ranks_) rank = start;
    wanted_ = start;
    for (int i = 0; i < kLayers; i++)
      layers_.push_back({machine_.draw(3) != 0, machine_.draw(2) == 0, machine_.draw(3) == 0});
  }

  void queue(int r, int i) {
    Rank& rank = ranks_[r];
    const Layer& layer = layers_[i];
    if (layer.has_middle)
      machine_.launch(r, 1, 32, 1, 0, [] {
        vt::start_next();
        vt::wait_for_previous();
      });
    const auto sum = [=, &rank](int row, int column) {
      return scaled(&rank.norm[row * columns_], columns_, r, i, column);
    };
    if (layer.sends) {
      emulation::launch({boards_.group(r), i, rows_, columns_, layer.wide, sum}, r);
    } else {
      machine_.launch(r, 2, 32, 1, 0, [=, &rank] {
        vt::start_next();
        vt::wait_for_previous();
        const int thread = static_cast<int>(blockIdx.x * 32 + threadIdx.x);
        for (int at = thread; at < rows_ * columns_; at += 64) {
          rank.parts[at] = sum(at / columns_, at % columns_);
          vt::let_others();
        }
      });
    }
    VtCudaAllReduce args = {};
    args.group = &boards_.group(r);
    args.out = rank.sum.data();
    args.residual = rank.sum.data();
    args.norm_out = rank.norm.data();
    args.norm_weight = weight_.data();
    args.x = layer.sends ? nullptr : rank.parts.data();
    args.eps = 1e-5f;
    args.num_rows = rows_;
    args.columns = args.x_stride = args.out_stride = columns_;
    args.residual_stride = args.norm_stride = columns_;
    args.ordinal = args.op_index = i;
    args.way = layer.sends ? VT_CUDA_WAY_SENT : VT_CUDA_WAY_BY_SIZE;
    args.dtype = VT_CUDA_BF16;
    auto* stream = reinterpret_cast<void*>(static_cast<intptr_t>(r) + 1);
    if (vt_cuda_all_reduce(&args, stream) != 0) exit(2);
  }

  int run() {
    for (int i = 0; i < kLayers; i++)
      for (std::size_t r = 0; r < ranks_.size(); r++) queue(static_cast<int>(r), i);
    machine_.run();
    for (int i = 0; i < kLayers; i++) compute(i);
    int num_wrong = 0;
    for (std::size_t r = 0; r < ranks_.size(); r++) {
      if (boards_.report(static_cast<int>(r)).state != 0) {
        printf("rank %zu gave up in layer %d\n", r, boards_.report(static_cast<int>(r)).op_index);
        return 1;
      }
      num_wrong += ranks_[r].norm != wanted_.norm || ranks_[r].sum != wanted_.sum;
    }
    printf("%d layers of %d x %d on %zu ranks: %d wrong, %d lost%s\n", kLayers, rows_, columns_,
           ranks_.size(), num_wrong, vt::num_lost, boards_.are_empty() ? "" : ", some left");
    return num_wrong == 0 && vt::num_lost == 0 && boards_.are_empty() ? 0 : 1;
  }

 private:
  static constexpr int64_t kSlotBytes = 49'152;

  void compute(int i) {
    for (int row = 0; row < rows_; row++) {
      uint16_t* sums = &wanted_.sum[row * columns_];
      uint16_t* norm = &wanted_.norm[row * columns_];
      for (int c = 0; c < columns_; c++) {
        float sum = scaled(norm, columns_, 0, i, c);
        for (std::size_t r = 1; r < ranks_.size(); r++)
          sum += scaled(norm, columns_, static_cast<int>(r), i, c);
        sums[c] = round_bf16(sum + widen(sums[c]));
      }
      const float scale = scale_of(sums, columns_);
      for (int c = 0; c < columns_; c++)
        norm[c] = round_bf16(widen(sums[c]) * scale * widen(weight_[c]));
    }
  }

  emulation::Machine machine_;
  const int rows_, columns_;
  const uint64_t first_epoch_;
  Boards boards_;
  std::vector<Rank> ranks_;
  std::vector<uint16_t> weight_;
  Rank wanted_;
  std::vector<Layer> layers_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 64;
  const auto seed = static_cast<int>(strtol(argv[1], nullptr, 10));
  const int ranks = seed % 5 == 4 ? 8 : 2 + seed % 3;
  const int columns[] = {144, 16, 1040, 80};
  const int rows = seed % 4 == 2 ? 1 : 1 + seed * 7 % 10;
  return Chain(seed, ranks, rows, columns[seed % 4]).run();
}
