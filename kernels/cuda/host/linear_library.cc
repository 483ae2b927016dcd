#include "linear_library.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <tuple>
#include <vector>

#include "../vt_cuda_backend.h"
#include "cublaslt.h"
#include "cuda_error.h"
#include "gemm_check.h"
#include "gemm_table.h"

namespace vt {

namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
/// Up to here our skinny kernels serve, unless the table names something faster.
constexpr int kSkinnyM = 64;
/// Sizes of a check: past two tiles of any algorithm both ways.
constexpr int kCheckN = 8192;
constexpr int kCheckM = 257;
constexpr int kWanted = 8;

/// Who serves a class of m.
struct Choice {
  bool by_library = false;
  lt::Algorithm algorithm = {};
};
using Choices = std::array<Choice, kNumGemmClasses>;
/// n, k, dtype, dtype of out, addend
using Key = std::tuple<int, int, int, int, Addend>;

Key key_of(const VtCudaLinear& a) { return {a.n, a.k, a.dtype, a.out_dtype, addend_of(a)}; }

bool is_zero(const lt::Algorithm& algorithm) {
  return std::all_of(std::begin(algorithm.words), std::end(algorithm.words),
                     [](std::uint64_t word) { return word == 0; });
}

bool same(const lt::Algorithm& a, const lt::Algorithm& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

}  // namespace

struct LinearLibrary::State {
  std::unique_ptr<CublasLt> library;
  std::string why_not, device;
  bool fast_math;
  DeviceBuffer workspace;
  std::map<Key, Choices> choices;
  /// The last class of m that was asked for.
  std::map<Key, int> prepared;
  int num_from_table = 0, num_checked = 0, num_own = 0;

  /// The first of the heuristic's choices that gives our bits; with fast_math the first.
  Choice choose(const VtCudaLinear& shape, std::unique_ptr<GemmCheck>& check,
                std::vector<std::pair<lt::Algorithm, bool>>& known) {
    for (const lt::Algorithm& algorithm :
         library->candidates(shape, kWanted, workspace.bytes(), fast_math)) {
      if (fast_math) return {true, algorithm};
      auto found = std::find_if(known.begin(), known.end(), [&](const auto& entry) {
        return same(entry.first, algorithm);
      });
      if (found == known.end()) {
        if (check == nullptr) check = std::make_unique<GemmCheck>(shape, kCheckN, kCheckM);
        const bool equal = check->equal(*library, algorithm, kCheckM, workspace.as<void>(),
                                        workspace.bytes());
        found = known.insert(known.end(), {algorithm, equal});
      }
      if (found->second) return {true, algorithm};
    }
    return {};
  }

  /// Runs the algorithm once, so that its kernel is loaded: a capture may not do that. False where
  /// it does not run.
  bool load_kernel(const VtCudaLinear& shape, const lt::Algorithm& algorithm) {
    Ledger of_the_load;
    VtCudaLinear args = shape;
    args.m = kSkinnyM;
    args.x_stride = shape.k;
    args.out_stride = args.residual_stride = shape.n;
    DeviceBuffer x(std::size_t{2} * args.m * shape.k, "check of linear", of_the_load);
    DeviceBuffer out(std::size_t{4} * args.m * shape.n, "check of linear", of_the_load);
    args.x = x.as<void>();
    args.out = out.as<void>();
    DeviceBuffer residual;
    if (shape.residual != nullptr) {
      // In place it would be another kernel.
      residual = {std::size_t{2} * args.m * shape.n, "check of linear", of_the_load};
      args.residual = residual.as<void>();
    }
    const bool runs =
        library->linear(args, algorithm, workspace.as<void>(), workspace.bytes(), nullptr) == 0;
    VT_CUDA(cudaStreamSynchronize(nullptr));
    return runs;
  }
};

LinearLibrary::LinearLibrary(const std::string& search_path, bool fast_math, Ledger& ledger)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.fast_math = fast_math;
  VtCudaDevice device;
  VT_CHECK(vt_cuda_device(&device) == 0, "%s", vt_cuda_error());
  s.device = device.name;
  s.library = CublasLt::load(search_path, s.why_not);
  if (s.library != nullptr) s.workspace = DeviceBuffer(kWorkspaceBytes, "cublasWorkspace", ledger);
}

LinearLibrary::~LinearLibrary() = default;

void LinearLibrary::prepare(const VtCudaLinear& shape, int max_m) {
  State& s = *state_;
  Choices choices;
  const Key key = key_of(shape);
  const int last = gemm_class(max_m);
  // The layers of a model repeat each other.
  int& prepared = s.prepared.try_emplace(key, -1).first->second;
  if (prepared >= last) return;
  prepared = last;
  std::vector<std::pair<lt::Algorithm, bool>> known;
  std::unique_ptr<GemmCheck> check;
  const bool takes = s.library != nullptr && CublasLt::takes(shape);
  for (int i = 0; i <= last && takes; i++) {
    VtCudaLinear sized = shape;
    sized.m = gemm_class_end(i);
    // What was tuned for the largest class serves what is above it.
    const int tuned = gemm_class_end(std::min(i, kNumGemmClasses - 2));
    const GemmTableRow* row = find_gemm(s.device, s.library->version(), shape, tuned);
    if (row != nullptr) {
      if (is_zero(row->algorithm)) continue;
      if (s.library->can_run(sized, row->algorithm, s.workspace.bytes())) {
        choices[i] = {true, row->algorithm};
        s.num_from_table++;
        continue;
      }
    }
    if (sized.m <= kSkinnyM) continue;
    choices[i] = s.choose(sized, check, known);
    (choices[i].by_library ? s.num_checked : s.num_own)++;
  }
  check.reset();
  known.clear();
  for (Choice& choice : choices) {
    if (!choice.by_library) continue;
    auto loaded = std::find_if(known.begin(), known.end(), [&](const auto& entry) {
      return same(entry.first, choice.algorithm);
    });
    if (loaded == known.end())
      loaded = known.insert(known.end(), {choice.algorithm, s.load_kernel(shape, choice.algorithm)});
    choice.by_library = loaded->second;
  }
  s.choices[key] = choices;
}

int LinearLibrary::linear(const VtCudaLinear& args, void* stream) const {
  if (vt_cuda_linear_is_ahead(&args) != 0) return vt_cuda_linear(&args, stream);
  const State& s = *state_;
  const auto found = s.choices.find(key_of(args));
  if (found != s.choices.end()) {
    const Choice& choice = found->second[gemm_class(args.m)];
    if (choice.by_library && CublasLt::takes(args))
      return s.library->linear(args, choice.algorithm, s.workspace.as<void>(),
                               s.workspace.bytes(), stream);
  }
  return vt_cuda_linear(&args, stream);
}

std::string LinearLibrary::notes() const {
  const State& s = *state_;
  if (s.library == nullptr)
    return s.why_not + ": our own GEMM serves more than " + std::to_string(kSkinnyM) +
           " rows, more slowly (VLLM_TS_CUDA_LIBS names its folder)";
  const int version = s.library->version();
  std::string text = "linear above " + std::to_string(kSkinnyM) + " rows: cuBLASLt " +
                     std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) +
                     "." + std::to_string(version % 100) + " (" + s.library->path() + ")";
  text += ", " + std::to_string(s.num_from_table) + " algorithms from the table, " +
          std::to_string(s.num_checked);
  if (!s.fast_math) {
    text += " checked bit for bit at load";
  } else {
    text += " that cuBLASLt ranks first, of --fast-math";
    if (s.num_checked > 0) text += ": tokens may depend on what else is in the batch";
  }
  if (s.num_own > 0) text += ", " + std::to_string(s.num_own) + " classes on our own GEMM";
  return text;
}

}  // namespace vt
