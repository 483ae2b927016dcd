// Who computes a linear: our skinny kernels and those that say that they are ahead, cuBLASLt where
// it is present and was seen to give the same bits, else our own large kernel. Knows nothing of
// steps.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "../vt_cuda.h"
#include "memory.h"

namespace vt {

class LinearLibrary {
 public:
  /// `search_path`: folders to look for cuBLASLt in before the loader's, ':' between.
  LinearLibrary(const std::string& search_path, bool fast_math, Ledger& ledger);
  ~LinearLibrary();

  /// Chooses algorithms for a weight [n][k] and every class of m up to max_m: from the committed
  /// table, else by a check against our own kernel on the device. `shape` has the addresses of
  /// the weight and of a bias, which are read, whatever they hold, so that every kernel is loaded;
  /// `residual` only says whether there is one. Before any capture.
  void prepare(const VtCudaLinear& shape, int max_m);
  /// As vt_cuda_linear, whoever computes it; may be captured. 0, or -1 with vt_cuda_error(). Above
  /// 64 rows a residual in place is slow: only our own kernel gives the same bits.
  int linear(const VtCudaLinear& args, void* stream) const;
  /// Lines for the log: what serves, and why.
  std::string notes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vt
