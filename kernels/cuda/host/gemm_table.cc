#include "gemm_table.h"

namespace vt {

namespace {

constexpr GemmTableRow kRows[] = {
#include "gemm_table.inc"
    // An end, so that the table may be empty.
    {nullptr, 0, 0, 0, 0, 0, Addend::none, 0, {}},
};

}  // namespace

const GemmTableRow* find_gemm(const std::string& device, int version, const VtCudaLinear& shape,
                              int max_m) {
  for (const GemmTableRow& row : kRows)
    if (row.device != nullptr && row.device == device && row.version == version &&
        row.n == shape.n && row.k == shape.k && row.dtype == shape.dtype &&
        row.out_dtype == shape.out_dtype && row.addend == addend_of(shape) && row.max_m == max_m)
      return &row;
  return nullptr;
}

}  // namespace vt
