// The program's weights on the device: row-major, rows 128-byte aligned, merged from their parts,
// interleaved where the program says so. Uploads on a stream and a thread of its own.
#pragma once

#include <memory>

#include "../../host/program.h"
#include "../vt_cuda_backend.h"
#include "memory.h"

namespace vt {

class Weights {
 public:
  /// Allocates, and begins to copy; addresses are valid at once, contents after wait().
  Weights(const Program& program, const VtCudaLoad& load, Ledger& ledger);
  ~Weights();

  /// [rows][stride] of the weight's dtype.
  const void* data(int weight) const;
  /// Elements from row to row; the length of a vector.
  std::int64_t stride(int weight) const;
  /// Until all contents are on the device. Throws KernelError naming the weight.
  void wait();

 private:
  struct Upload;
  std::unique_ptr<Upload> upload_;
};

}  // namespace vt
