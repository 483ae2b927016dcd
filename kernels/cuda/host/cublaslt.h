// cuBLASLt as this library uses it: found and loaded at run time, asked for algorithms, and called
// for out = x @ weight^T. Which algorithm may serve is not known here.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../vt_cuda.h"
#include "cublaslt_api.h"

namespace vt {

class CublasLt {
 public:
  /// Null where it is absent or lacks something, with the reason in `why`.
  static std::unique_ptr<CublasLt> load(const std::string& search_path, std::string& why);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  /// 130100 for 13.1.0.
  int version() const { return version_; }
  const std::string& path() const { return path_; }

  /// Whether a call of these sizes, strides and addresses can be given to it at all.
  static bool takes(const VtCudaLinear& args);
  /// Its heuristic's choice, best first; those that split k or reduce in a second step only if
  /// `any`. Nothing in `args` is read.
  std::vector<lt::Algorithm> candidates(const VtCudaLinear& args, int wanted,
                                        std::size_t workspace_bytes, bool any) const;
  /// Whether this version and device can run it for these sizes.
  bool can_run(const VtCudaLinear& args, const lt::Algorithm& algorithm,
               std::size_t workspace_bytes) const;
  /// As vt_cuda_linear, of what it takes.
  int linear(const VtCudaLinear& args, const lt::Algorithm& algorithm, void* workspace,
             std::size_t workspace_bytes, void* stream) const;

 private:
  CublasLt() = default;
  std::string create();
  /// Describes a call; its numbers lie in the descriptors until the next one.
  lt::Status describe(const VtCudaLinear& args) const;

  void* library_ = nullptr;
  std::string path_;
  int version_ = 0;
  lt::Functions lt_ = {};
  lt::Handle handle_ = nullptr;
  /// One set for all calls, under the mutex: making them anew costs more than changing numbers.
  mutable std::mutex mutex_;
  lt::MatmulDesc matmul_ = nullptr;
  lt::MatrixLayout weight_ = nullptr, x_ = nullptr, residual_ = nullptr, out_ = nullptr;
  lt::Preference preference_ = nullptr;
};

}  // namespace vt
