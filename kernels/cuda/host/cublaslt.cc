// Row-major out[m][n] = x[m][k] weight[n][k]^T is column-major out^T = weight^T^T x^T: A is the
// weight (k x n, transposed), B is x (k x m), C the residual and D the output (n x m).
#include "cublaslt.h"

#include <dlfcn.h>

#include "../error.h"
#include "find_library.h"

namespace vt {

namespace {

const LibraryName kLibrary = {"libcublasLt.so.13", {"cu13", "cublas"}};
/// cp.async and the copy engine move 16 bytes; algorithms that want more are not asked for.
constexpr std::uint32_t kAlignment = 16;

lt::DataType data_type(std::int32_t dtype) {
  return dtype == VT_CUDA_F32 ? lt::kF32 : dtype == VT_CUDA_F16 ? lt::kF16 : lt::kBf16;
}

bool is_aligned(const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; }

}  // namespace

std::unique_ptr<CublasLt> CublasLt::load(const std::string& search_path, std::string& why) {
  std::unique_ptr<CublasLt> result(new CublasLt());
  result->library_ = open_library(kLibrary, search_path, result->path_);
  if (result->library_ == nullptr) {
    why = "cuBLASLt 13 was not found";
    return nullptr;
  }
  why = result->create();
  if (!why.empty()) {
    why = result->path_ + ": " + why;
    return nullptr;
  }
  return result;
}

std::string CublasLt::create() {
#define VT_CUBLASLT_FIND(name, parameters)                                                     \
  if ((lt_.name = reinterpret_cast<decltype(lt_.name)>(dlsym(library_, "cublasLt" #name))) == \
      nullptr)                                                                                 \
    return "cublasLt" #name " is missing";
  VT_CUBLASLT_FUNCTIONS(VT_CUBLASLT_FIND)
  VT_CUBLASLT_FIND(GetVersion, )
#undef VT_CUBLASLT_FIND
  version_ = static_cast<int>(lt_.GetVersion());
  if (version_ / 10000 != 13) return "version " + std::to_string(version_) + ", 13 is needed";
  bool good = lt_.Create(&handle_) == lt::kSuccess &&
              lt_.MatmulDescCreate(&matmul_, lt::kCompute32F, lt::kF32) == lt::kSuccess &&
              lt_.MatmulPreferenceCreate(&preference_) == lt::kSuccess;
  for (lt::MatrixLayout* layout : {&weight_, &x_, &residual_, &out_})
    good = good && lt_.MatrixLayoutCreate(layout, lt::kBf16, 16, 16, 16) == lt::kSuccess;
  const std::int32_t transposed = lt::kTransposed;
  good = good && lt_.MatmulDescSetAttribute(matmul_, lt::kTransA, &transposed, 4) == lt::kSuccess;
  for (const int attribute :
       {lt::kMinAlignmentA, lt::kMinAlignmentB, lt::kMinAlignmentC, lt::kMinAlignmentD})
    good = good && lt_.MatmulPreferenceSetAttribute(preference_, attribute, &kAlignment, 4) ==
                       lt::kSuccess;
  return good ? "" : "it does not start on this device";
}

CublasLt::~CublasLt() {
  for (lt::MatrixLayout layout : {weight_, x_, residual_, out_})
    if (layout != nullptr) lt_.MatrixLayoutDestroy(layout);
  if (preference_ != nullptr) lt_.MatmulPreferenceDestroy(preference_);
  if (matmul_ != nullptr) lt_.MatmulDescDestroy(matmul_);
  if (handle_ != nullptr) lt_.Destroy(handle_);
  // The library stays loaded: its kernels may be part of a graph that is still alive.
}

bool CublasLt::takes(const VtCudaLinear& a) {
  if (a.norm_weight != nullptr || a.epilogue != VT_CUDA_PLAIN || a.row_scale != nullptr)
    return false;
  // It adds the residual before the bias, and no residual of 2 bytes to f32. In place it rounds the
  // sum and then adds to memory, which is a rounding more than ours (seen with 13.1 on an H100).
  if (a.bias != nullptr && a.residual != nullptr) return false;
  if (a.residual != nullptr && a.residual == a.out) return false;
  if (a.out_dtype != a.dtype && (a.bias != nullptr || a.residual != nullptr)) return false;
  const bool strides = a.k % 16 == 0 && a.n % 8 == 0 && a.x_stride % 8 == 0 &&
                       a.weight_stride % 8 == 0 && a.out_stride % 8 == 0 &&
                       (a.residual == nullptr || a.residual_stride % 8 == 0);
  return strides && is_aligned(a.x) && is_aligned(a.weight) && is_aligned(a.out) &&
         is_aligned(a.residual) && is_aligned(a.bias);
}

lt::Status CublasLt::describe(const VtCudaLinear& a) const {
  lt::Status status = lt::kSuccess;
  const auto layout = [&](lt::MatrixLayout layout, std::int32_t dtype, std::uint64_t rows,
                          std::uint64_t columns, std::int64_t stride) {
    const lt::DataType type = data_type(dtype);
    status |= lt_.MatrixLayoutSetAttribute(layout, lt::kType, &type, sizeof type);
    status |= lt_.MatrixLayoutSetAttribute(layout, lt::kRows, &rows, sizeof rows);
    status |= lt_.MatrixLayoutSetAttribute(layout, lt::kColumns, &columns, sizeof columns);
    status |= lt_.MatrixLayoutSetAttribute(layout, lt::kLeadingDimension, &stride, sizeof stride);
  };
  layout(weight_, a.dtype, a.k, a.n, a.weight_stride);
  layout(x_, a.dtype, a.k, a.m, a.x_stride);
  layout(residual_, a.out_dtype, a.n, a.m, a.residual != nullptr ? a.residual_stride : a.out_stride);
  layout(out_, a.out_dtype, a.n, a.m, a.out_stride);
  const std::uint32_t epilogue = a.bias != nullptr ? lt::kBiasEpilogue : lt::kNoEpilogue;
  status |= lt_.MatmulDescSetAttribute(matmul_, lt::kEpilogue, &epilogue, sizeof epilogue);
  status |= lt_.MatmulDescSetAttribute(matmul_, lt::kBiasPointer, &a.bias, sizeof a.bias);
  return status;
}

std::vector<lt::Algorithm> CublasLt::candidates(const VtCudaLinear& args, int wanted,
                                                std::size_t workspace_bytes, bool any) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<lt::HeuristicResult> results(wanted);
  const std::uint64_t workspace = workspace_bytes;
  const std::uint32_t reductions = any ? 7 : 0;
  int found = 0;
  if (describe(args) != lt::kSuccess ||
      lt_.MatmulPreferenceSetAttribute(preference_, lt::kMaxWorkspaceBytes, &workspace,
                                       sizeof workspace) != lt::kSuccess ||
      lt_.MatmulPreferenceSetAttribute(preference_, lt::kReductionSchemeMask, &reductions,
                                       sizeof reductions) != lt::kSuccess ||
      lt_.MatmulAlgoGetHeuristic(handle_, matmul_, weight_, x_, residual_, out_, preference_,
                                 wanted, results.data(), &found) != lt::kSuccess)
    return {};
  std::vector<lt::Algorithm> algorithms;
  for (int i = 0; i < found; i++) {
    const lt::HeuristicResult& result = results[i];
    std::uint32_t splits = 0, reduction = 0;
    std::size_t written = 0;
    if (result.state != lt::kSuccess || result.workspace_bytes > workspace_bytes) continue;
    if (lt_.MatmulAlgoConfigGetAttribute(&result.algorithm, lt::kSplitK, &splits, sizeof splits,
                                         &written) != lt::kSuccess ||
        lt_.MatmulAlgoConfigGetAttribute(&result.algorithm, lt::kReductionScheme, &reduction,
                                         sizeof reduction, &written) != lt::kSuccess)
      continue;
    if (any || (splits <= 1 && reduction == 0)) algorithms.push_back(result.algorithm);
  }
  return algorithms;
}

bool CublasLt::can_run(const VtCudaLinear& args, const lt::Algorithm& algorithm,
                       std::size_t workspace_bytes) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  lt::HeuristicResult result = {};
  return describe(args) == lt::kSuccess &&
         lt_.MatmulAlgoCheck(handle_, matmul_, weight_, x_, residual_, out_, &algorithm, &result) ==
             lt::kSuccess &&
         result.state == lt::kSuccess && result.workspace_bytes <= workspace_bytes;
}

int CublasLt::linear(const VtCudaLinear& args, const lt::Algorithm& algorithm, void* workspace,
                     std::size_t workspace_bytes, void* stream) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const float one = 1, zero = 0;
  const bool adds = args.residual != nullptr;
  lt::Status status = describe(args);
  if (status == lt::kSuccess)
    status = lt_.Matmul(handle_, matmul_, &one, args.weight, weight_, args.x, x_,
                        adds ? &one : &zero, adds ? args.residual : args.out,
                        residual_, args.out, out_, &algorithm, workspace, workspace_bytes,
                        static_cast<cudaStream_t>(stream));
  if (status == lt::kSuccess) return 0;
  return fail("linear: cuBLASLt refused %d x %d x %d: status %d", args.m, args.n, args.k, status);
}

}  // namespace vt
