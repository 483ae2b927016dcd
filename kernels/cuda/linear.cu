// linear: checks a call and picks the kernel of its class of m. All of them give the same bits for
// the same row of x: one f32 chain an output, k ascending by 16.
#include "linear.cuh"

extern "C" int vt_cuda_linear_fuses(const VtCudaLinear* args) {
  return args->norm_weight == nullptr && args->epilogue == VT_CUDA_PLAIN ? 1 : 0;
}

extern "C" int vt_cuda_linear(const VtCudaLinear* args, void* stream) {
  using vt::fail;
  const VtCudaLinear& a = *args;
  VT_REQUIRE(a.m > 0 && a.n > 0 && a.k > 0, "linear: m %d, n %d, k %d must be positive", a.m, a.n,
             a.k);
  VT_REQUIRE(a.k % 16 == 0, "linear: k %d is not a multiple of 16", a.k);
  VT_REQUIRE(a.dtype == VT_CUDA_F16 || a.dtype == VT_CUDA_BF16, "linear: dtype %d", a.dtype);
  VT_REQUIRE(a.out_dtype == a.dtype || a.out_dtype == VT_CUDA_F32, "linear: out dtype %d",
             a.out_dtype);
  VT_REQUIRE(a.x_stride >= a.k && a.weight_stride >= a.k && a.out_stride >= a.n,
             "linear: a row stride is shorter than its row");
  VT_REQUIRE(a.x_stride % 8 == 0 && a.weight_stride % 8 == 0 &&
                 reinterpret_cast<uintptr_t>(a.x) % 16 == 0 &&
                 reinterpret_cast<uintptr_t>(a.weight) % 16 == 0,
             "linear: rows of x and weight must be 16-byte aligned");
  VT_REQUIRE(a.norm_weight == nullptr, "linear: a norm of x is not built for m %d, n %d, k %d", a.m,
             a.n, a.k);
  VT_REQUIRE(a.epilogue == VT_CUDA_PLAIN, "linear: epilogue %d is not built for m %d, n %d, k %d",
             a.epilogue, a.m, a.n, a.k);
  if (a.m > 64) return vt::linear_large(a, stream);
  return a.dtype == VT_CUDA_F16 ? vt::linear_skinny_f16(a, stream)
                                : vt::linear_skinny_bf16(a, stream);
}
