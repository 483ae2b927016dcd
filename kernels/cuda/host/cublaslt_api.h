// What is used of cuBLASLt 13, declared here so that its headers are not needed to build: the
// numbers and layouts are those of its C API, which is stable within a major version.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace vt::lt {

using Handle = struct HandleObject*;
using MatmulDesc = struct MatmulDescObject*;
using MatrixLayout = struct MatrixLayoutObject*;
using Preference = struct PreferenceObject*;
/// cublasStatus_t
using Status = int;

constexpr Status kSuccess = 0;

/// cudaDataType_t
enum DataType : int { kF32 = 0, kF16 = 2, kBf16 = 14 };
/// cublasComputeType_t: f32 sums
constexpr int kCompute32F = 68;
/// cublasOperation_t
enum Operation : std::int32_t { kNotTransposed = 0, kTransposed = 1 };
/// cublasLtEpilogue_t
enum Epilogue : std::uint32_t { kNoEpilogue = 1, kBiasEpilogue = 4 };

/// cublasLtMatmulDescAttributes_t
enum DescAttribute : int { kTransA = 3, kEpilogue = 7, kBiasPointer = 8 };
/// cublasLtMatrixLayoutAttribute_t
enum LayoutAttribute : int { kType = 0, kRows = 2, kColumns = 3, kLeadingDimension = 4 };
/// cublasLtMatmulPreferenceAttributes_t
enum PreferenceAttribute : int {
  kMaxWorkspaceBytes = 1,
  kReductionSchemeMask = 3,
  kMinAlignmentA = 5,
  kMinAlignmentB = 6,
  kMinAlignmentC = 7,
  kMinAlignmentD = 8,
};
/// cublasLtMatmulAlgoConfigAttributes_t
enum AlgorithmAttribute : int { kSplitK = 2, kReductionScheme = 3 };

/// cublasLtMatmulAlgo_t
struct Algorithm {
  std::uint64_t words[8];
};
static_assert(sizeof(Algorithm) == 64);

/// cublasLtMatmulHeuristicResult_t
struct HeuristicResult {
  Algorithm algorithm;
  std::size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(HeuristicResult) == 96);

// X(name, parameters): cublasLt<name>, which returns a Status.
#define VT_CUBLASLT_FUNCTIONS(X)                                                                  \
  X(Create, (Handle*))                                                                            \
  X(Destroy, (Handle))                                                                            \
  X(MatmulDescCreate, (MatmulDesc*, int compute_type, int scale_type))                            \
  X(MatmulDescDestroy, (MatmulDesc))                                                              \
  X(MatmulDescSetAttribute, (MatmulDesc, int attribute, const void*, std::size_t))                \
  X(MatrixLayoutCreate, (MatrixLayout*, int type, std::uint64_t rows, std::uint64_t columns,      \
                         std::int64_t leading_dimension))                                         \
  X(MatrixLayoutDestroy, (MatrixLayout))                                                          \
  X(MatrixLayoutSetAttribute, (MatrixLayout, int attribute, const void*, std::size_t))            \
  X(MatmulPreferenceCreate, (Preference*))                                                        \
  X(MatmulPreferenceDestroy, (Preference))                                                        \
  X(MatmulPreferenceSetAttribute, (Preference, int attribute, const void*, std::size_t))          \
  X(MatmulAlgoGetHeuristic, (Handle, MatmulDesc, MatrixLayout a, MatrixLayout b, MatrixLayout c,  \
                             MatrixLayout d, Preference, int wanted, HeuristicResult*, int* found)) \
  X(MatmulAlgoCheck, (Handle, MatmulDesc, MatrixLayout a, MatrixLayout b, MatrixLayout c,         \
                      MatrixLayout d, const Algorithm*, HeuristicResult*))                        \
  X(MatmulAlgoConfigGetAttribute,                                                                 \
    (const Algorithm*, int attribute, void*, std::size_t, std::size_t* written))                  \
  X(Matmul, (Handle, MatmulDesc, const void* alpha, const void* a, MatrixLayout, const void* b,   \
             MatrixLayout, const void* beta, const void* c, MatrixLayout, void* d, MatrixLayout,  \
             const Algorithm*, void* workspace, std::size_t workspace_bytes, cudaStream_t))

struct Functions {
#define VT_CUBLASLT_MEMBER(name, parameters) Status(*name) parameters;
  VT_CUBLASLT_FUNCTIONS(VT_CUBLASLT_MEMBER)
#undef VT_CUBLASLT_MEMBER
  std::size_t (*GetVersion)();
};

}  // namespace vt::lt
