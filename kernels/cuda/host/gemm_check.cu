#include "gemm_check.h"

#include <algorithm>

#include "cuda_error.h"
#include "weight_rows.h"

namespace vt {
namespace {

constexpr int kThreads = 256;

/// Counts words that differ; mapped host memory.
__global__ void __launch_bounds__(kThreads)
    count_differences(const uint32_t* a, const uint32_t* b, int64_t num_words,
                      unsigned long long* count) {
  unsigned long long differ = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < num_words;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    if (a[i] != b[i]) differ++;
  if (differ > 0) atomicAdd(count, differ);
}

Dtype dtype_of(int dtype) {
  return dtype == VT_CUDA_F32 ? Dtype::f32 : dtype == VT_CUDA_F16 ? Dtype::f16 : Dtype::bf16;
}

int64_t round8(int64_t n) { return (n + 7) / 8 * 8; }

}  // namespace

struct GemmCheck::State {
  VtCudaLinear shape;
  Ledger ledger;
  DeviceBuffer x, weight, addend, outs[2], count;
  std::size_t out_bytes = 0;
  cudaStream_t stream = nullptr;

  ~State() {
    if (stream != nullptr) cudaStreamDestroy(stream);
  }

  /// [rows][columns] of uniform numbers, variance 1 / columns times `columns_for_scale`.
  DeviceBuffer random(int dtype, int64_t rows, int64_t columns, int seed) {
    const Dtype type = dtype_of(dtype);
    DeviceBuffer buffer(rows * columns * dtype_bytes(type), "check of linear", ledger);
    make_up_rows({buffer.as<void>(), type, rows, columns, columns, 0}, 0,
                   {0, 0, rows, columns, rows}, seed, 0, stream);
    return buffer;
  }
};

GemmCheck::GemmCheck(const VtCudaLinear& shape, int max_n, int max_m)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  VT_CUDA(cudaStreamCreateWithFlags(&s.stream, cudaStreamNonBlocking));
  s.shape = shape;
  s.shape.n = std::min(shape.n, max_n);
  s.shape.m = max_m;
  s.shape.out_stride = s.shape.residual_stride = static_cast<int>(round8(s.shape.n));
  s.shape.x_stride = s.shape.weight_stride = shape.k;
  s.x = s.random(shape.dtype, max_m, shape.k, 1);
  s.weight = s.random(shape.dtype, s.shape.n, shape.k, 2);
  if (shape.bias != nullptr) s.addend = s.random(shape.dtype, 1, s.shape.out_stride, 3);
  if (shape.residual != nullptr) s.addend = s.random(shape.dtype, max_m, s.shape.out_stride, 4);
  s.out_bytes = static_cast<std::size_t>(max_m) * s.shape.out_stride *
                dtype_bytes(dtype_of(shape.out_dtype));
  for (DeviceBuffer& out : s.outs) out = DeviceBuffer(s.out_bytes, "check of linear", s.ledger);
  s.count = DeviceBuffer(sizeof(unsigned long long), "check of linear", s.ledger);
}

GemmCheck::~GemmCheck() = default;

void* GemmCheck::stream() const { return state_->stream; }

VtCudaLinear GemmCheck::operands(int m, int out) const {
  const State& s = *state_;
  VtCudaLinear args = s.shape;
  args.m = m;
  args.x = s.x.as<void>();
  args.weight = s.weight.as<void>();
  args.out = s.outs[out].as<void>();
  args.bias = s.shape.bias != nullptr ? s.addend.as<void>() : nullptr;
  args.residual = s.shape.residual != nullptr ? s.addend.as<void>() : nullptr;
  args.flags = args.tuning = 0;
  return args;
}

bool GemmCheck::equal(const CublasLt& library, const lt::Algorithm& algorithm, int m,
                      void* workspace, std::size_t workspace_bytes) {
  State& s = *state_;
  // What is not written must not pass: the outputs begin different.
  VT_CUDA(cudaMemsetAsync(s.outs[0].as<void>(), 0x00, s.out_bytes, s.stream));
  VT_CUDA(cudaMemsetAsync(s.outs[1].as<void>(), 0x55, s.out_bytes, s.stream));
  VT_CUDA(cudaMemsetAsync(s.count.as<void>(), 0, s.count.bytes(), s.stream));
  const VtCudaLinear own = operands(m, 0), other = operands(m, 1);
  VT_CHECK(vt_cuda_linear(&own, s.stream) == 0, "%s", vt_cuda_error());
  if (library.linear(other, algorithm, workspace, workspace_bytes, s.stream) != 0) {
    cudaGetLastError();
    return false;
  }
  const int64_t words =
      static_cast<int64_t>(m) * s.shape.out_stride * dtype_bytes(dtype_of(own.out_dtype)) / 4;
  count_differences<<<264, kThreads, 0, s.stream>>>(
      s.outs[0].as<uint32_t>(), s.outs[1].as<uint32_t>(), words, s.count.as<unsigned long long>());
  VT_CUDA(cudaGetLastError());
  unsigned long long differ = 0;
  VT_CUDA(cudaMemcpyAsync(&differ, s.count.as<void>(), sizeof differ, cudaMemcpyDeviceToHost,
                          s.stream));
  VT_CUDA(cudaStreamSynchronize(s.stream));
  return differ == 0;
}

}  // namespace vt
