// Makes one row of the table of algorithms: times what cuBLASLt's heuristic offers, in graphs over
// weights that do not fit the L2 cache, and keeps the fastest that gives the bits of our kernels.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include "../error.h"
#include "../vt_cuda_test.h"
#include "cublaslt.h"
#include "cuda_error.h"
#include "gemm_check.h"
#include "gemm_table.h"
#include "weight_rows.h"

namespace vt {

namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
/// Weights in rotation: three times the L2 cache of an H100.
constexpr std::int64_t kRotatedBytes = std::int64_t{160} << 20;
constexpr int kWanted = 16;
constexpr int kRepeats = 4;
/// Below m = 64 a kernel of ours overlaps its neighbours by dependent launch, one of cuBLASLt does
/// not: it must be ahead by more than that.
constexpr double kAhead = 0.9;

using Run = std::function<int(const VtCudaLinear&, void* stream)>;

/// The operands of one linear with several weights in turn.
class Rotation {
 public:
  explicit Rotation(const VtCudaLinear& shape) : shape_(shape) {
    const auto fill = [&](std::int64_t rows, std::int64_t columns, int seed) {
      const Dtype dtype = static_cast<Dtype>(shape.dtype);
      buffers_.emplace_back(rows * columns * 2, "tuning", ledger_);
      make_up_rows({buffers_.back().as<void>(), dtype, rows, columns, columns, 0}, 0,
                   {0, 0, rows, columns, rows}, seed, 0, nullptr);
      return buffers_.back().as<void>();
    };
    const std::int64_t bytes = std::int64_t{2} * shape.n * shape.k;
    const std::int64_t copies = (kRotatedBytes + bytes - 1) / bytes;
    for (std::int64_t i = 0; i < copies; i++)
      weights_.push_back(fill(shape.n, shape.k, static_cast<int>(i)));
    shape_.x = fill(shape.m, shape.k, 1000);
    if (shape.bias != nullptr) shape_.bias = fill(1, shape.n, 1001);
    if (shape.residual != nullptr) shape_.residual = fill(shape.m, shape.n, 1002);
    buffers_.emplace_back(std::size_t{4} * shape.m * shape.n, "tuning", ledger_);
    shape_.out = buffers_.back().as<void>();
    VT_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    VT_CUDA(cudaEventCreate(&begin_));
    VT_CUDA(cudaEventCreate(&end_));
    VT_CUDA(cudaDeviceSynchronize());
  }
  ~Rotation() {
    if (end_ != nullptr) cudaEventDestroy(end_);
    if (begin_ != nullptr) cudaEventDestroy(begin_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  /// Microseconds of one call, best of several replays of a graph; below 0 where it fails.
  double time(const Run& run) {
    VtCudaLinear args = shape_;
    args.weight = weights_[0];
    if (run(args, stream_) != 0 || cudaStreamSynchronize(stream_) != cudaSuccess) {
      cudaGetLastError();
      return -1;
    }
    const int calls = num_calls();
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    VT_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    bool good = true;
    for (int i = 0; i < calls; i++) {
      args.weight = weights_[i % weights_.size()];
      good = good && run(args, stream_) == 0;
    }
    VT_CUDA(cudaStreamEndCapture(stream_, &graph));
    good = good && cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess;
    float best = -1;
    for (int i = 0; i <= kRepeats && good; i++) {
      VT_CUDA(cudaEventRecord(begin_, stream_));
      VT_CUDA(cudaGraphLaunch(exec, stream_));
      VT_CUDA(cudaEventRecord(end_, stream_));
      VT_CUDA(cudaEventSynchronize(end_));
      float ms = 0;
      VT_CUDA(cudaEventElapsedTime(&ms, begin_, end_));
      if (i > 0 && (best < 0 || ms < best)) best = ms;  // The first one warms up.
    }
    if (exec != nullptr) cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    return good ? best * 1e3 / calls : -1;
  }

 private:
  /// About a millisecond and a half of them, and at least once through the weights.
  int num_calls() const {
    const double flops = 2.0 * shape_.m * shape_.n * shape_.k;
    const double bytes = 2.0 * shape_.n * shape_.k;
    const double us = std::max({flops / 6e8, bytes / 3e6, 2.0});
    const int most = static_cast<int>(std::clamp(1500 / us, 2.0, 96.0));
    return std::max(most, static_cast<int>(std::min<std::size_t>(weights_.size(), 96)));
  }

  VtCudaLinear shape_;
  Ledger ledger_;
  std::vector<DeviceBuffer> buffers_;
  std::vector<void*> weights_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

struct Timed {
  lt::Algorithm algorithm;
  double us;
};

std::string row_text(const VtCudaLinear& shape, const char* device, int version, int addend,
                     const lt::Algorithm& algorithm, const std::string& note) {
  std::string words;
  int used = 8;
  while (used > 1 && algorithm.words[used - 1] == 0) used--;
  char text[256];
  for (int i = 0; i < used; i++) {
    std::snprintf(text, sizeof text, "%s0x%llx", i == 0 ? "" : ", ",
                  static_cast<unsigned long long>(algorithm.words[i]));
    words += text;
  }
  const char* names[] = {"none", "bias", "residual"};
  std::snprintf(text, sizeof text, "{\"%s\", %d, %d, %d, %d, %d, Addend::%s, %d, {{", device,
                version, shape.n, shape.k, shape.dtype, shape.out_dtype, names[addend], shape.m);
  return text + words + "}}},  // " + note;
}

std::string tune(const CublasLt& library, const VtCudaLinear& shape, int addend,
                 const char* device) {
  Ledger ledger;
  DeviceBuffer workspace(kWorkspaceBytes, "tuning", ledger);
  std::vector<Timed> timed;
  double own = 0, first = 0;
  {
    Rotation rotation(shape);
    own = rotation.time([](const VtCudaLinear& args, void* stream) {
      VtCudaLinear dependent = args;
      dependent.flags = VT_CUDA_DEPENDENT;
      return vt_cuda_linear(&dependent, stream);
    });
    for (const lt::Algorithm& algorithm :
         library.candidates(shape, kWanted, workspace.bytes(), false)) {
      const double us = rotation.time([&](const VtCudaLinear& args, void* stream) {
        return library.linear(args, algorithm, workspace.as<void>(), workspace.bytes(), stream);
      });
      if (us < 0) continue;
      if (timed.empty()) first = us;
      timed.push_back({algorithm, us});
    }
  }
  std::stable_sort(timed.begin(), timed.end(),
                   [](const Timed& a, const Timed& b) { return a.us < b.us; });
  const double limit = shape.m <= 64 ? own * kAhead : own;
  const int most = std::min(shape.m, 2048);
  GemmCheck check(shape, 16384, most);
  int num_unequal = 0;
  lt::Algorithm chosen = {};
  double best = own;
  for (const Timed& candidate : timed) {
    if (candidate.us >= limit) break;
    bool equal = true;
    for (const int m : {std::min(shape.m / 2 + 1, most), most - 3, most})
      equal = equal &&
              check.equal(library, candidate.algorithm, m, workspace.as<void>(), workspace.bytes());
    if (equal) {
      chosen = candidate.algorithm;
      best = candidate.us;
      break;
    }
    num_unequal++;
  }
  char note[128];
  std::snprintf(note, sizeof note, "%.1f us; its first choice %.1f, ours %.1f; %d faster unequal",
                best, first, own, num_unequal);
  return row_text(shape, device, library.version(), addend, chosen, note);
}

}  // namespace

}  // namespace vt

extern "C" int vt_cuda_tune_linear(const char* search_path, int32_t n, int32_t k, int32_t dtype,
                                   int32_t out_dtype, int32_t addend, int32_t max_m, char* row,
                                   uint64_t size) {
  VtCudaDevice device;
  if (vt_cuda_device(&device) != 0) return -1;
  try {
    std::string why;
    static const auto library = vt::CublasLt::load(search_path, why);
    VT_REQUIRE(library != nullptr, "%s", why.c_str());
    VtCudaLinear shape = {};
    shape.m = max_m;
    shape.n = shape.out_stride = shape.residual_stride = n;
    shape.k = shape.x_stride = shape.weight_stride = k;
    shape.dtype = dtype;
    shape.out_dtype = out_dtype;
    // Whose numbers come later: an address says that there is one.
    void* const some = reinterpret_cast<void*>(std::uintptr_t{256});
    if (addend == 1) shape.bias = some;
    if (addend == 2) shape.residual = some;
    std::snprintf(row, size, "%s", vt::tune(*library, shape, addend, device.name).c_str());
    return 0;
  } catch (const std::exception& error) {
    return vt::fail("%s", error.what());
  }
}
