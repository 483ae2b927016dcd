// vt_cuda_test.h: single parts of a load.
#include <chrono>
#include <cstdio>
#include <vector>

#include "../vt_cuda_test.h"
#include "cublaslt.h"
#include "cuda_error.h"
#include "guarded.h"
#include "kv_size.h"
#include "linear_library.h"
#include "readahead.h"
#include "weights.h"

struct VtCudaLinearLibrary {
  vt::Ledger ledger;
  vt::LinearLibrary library;

  VtCudaLinearLibrary(const char* search_path, bool fast_math)
      : library(search_path, fast_math, ledger) {}
};

namespace vt {
namespace {

double now_ms() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace
}  // namespace vt

extern "C" {

int vt_cuda_test_weight(int32_t dtype, int64_t rows, int64_t columns, int32_t interleave,
                        const VtCudaWeightPart* parts, int32_t num_parts, int64_t dummy_seed,
                        void* data, uint64_t num_bytes, int64_t* stride, double* ms) {
  return vt::guarded([&] {
    vt::Program program = {};
    program.weights.push_back({static_cast<vt::Dtype>(dtype), rows, columns, interleave});
    VtCudaLoad load = {};
    load.num_weight_words = 4;
    load.parts = parts;
    load.num_parts = &num_parts;
    load.dummy_seed = dummy_seed;
    vt::Ledger ledger;
    VT_CUDA(cudaFree(nullptr));
    const double begin = vt::now_ms();
    vt::Weights weights(program, load, ledger);
    weights.wait();
    *ms = vt::now_ms() - begin;
    *stride = weights.stride(0);
    if (data != nullptr)
      VT_CUDA(cudaMemcpy(data, weights.data(0), num_bytes, cudaMemcpyDeviceToHost));
  });
}

void vt_cuda_test_readahead(const VtCudaWeightPart* parts, int32_t num_parts) {
  vt::Readahead(parts, static_cast<std::size_t>(num_parts)).wait();
}

int vt_cuda_test_kv_cache(uint64_t reserved, uint64_t mapped, uint64_t* wrong) {
  return vt::guarded([&] {
    VT_CUDA(cudaFree(nullptr));
    vt::Ledger ledger;
    vt::KvCache kv(reserved);
    kv.map(mapped, ledger);
    std::vector<unsigned char> bytes(mapped);
    *wrong = 0;
    for (const int value : {0, 165}) {
      if (value != 0) VT_CUDA(cudaMemset(kv.base(), value, mapped));
      VT_CUDA(cudaMemcpy(bytes.data(), kv.base(), mapped, cudaMemcpyDeviceToHost));
      for (const unsigned char byte : bytes) *wrong += byte != value;
    }
  });
}

int vt_cuda_test_kv_blocks(const VtCudaLoad* load, int32_t num_layers, int32_t num_kv_heads,
                           int32_t head_dim, uint64_t total, uint64_t free_before,
                           uint64_t free_now, int32_t* num_blocks) {
  return vt::guarded([&] {
    vt::Program program = {};
    program.kv_groups.push_back({num_layers, num_kv_heads, head_dim, vt::Dtype::bf16, 0});
    *num_blocks = vt::num_kv_blocks(program, *load, {total, free_before, free_now});
  });
}

int vt_cuda_test_find_cublaslt(const char* search_path, char* text, uint64_t size) {
  return vt::guarded([&] {
    std::string why;
    const auto library = vt::CublasLt::load(search_path, why);
    std::snprintf(text, size, "%s", library == nullptr ? why.c_str() : library->path().c_str());
  });
}

VtCudaLinearLibrary* vt_cuda_linear_library(const char* search_path, int32_t fast_math) {
  VtCudaLinearLibrary* library = nullptr;
  vt::guarded([&] { library = new VtCudaLinearLibrary(search_path, fast_math != 0); });
  return library;
}

int vt_cuda_linear_library_prepare(VtCudaLinearLibrary* library, const VtCudaLinear* shape,
                                   int32_t max_m) {
  return vt::guarded([&] { library->library.prepare(*shape, max_m); });
}

int vt_cuda_linear_library_run(VtCudaLinearLibrary* library, const VtCudaLinear* args,
                               void* stream) {
  return library->library.linear(*args, stream);
}

int vt_cuda_linear_library_notes(VtCudaLinearLibrary* library, char* text, uint64_t size) {
  return vt::guarded(
      [&] { std::snprintf(text, size, "%s", library->library.notes().c_str()); });
}

void vt_cuda_linear_library_close(VtCudaLinearLibrary* library) { delete library; }

}  // extern "C"
