// embedding and gatherLogitRows: rows by index.
//
// What it computes: out[i][:] = source[index[i] - first_index][:], 2 bytes an element, or widened to
// f32; zeros for an index out of range (padding, or another rank's).
//
// Launch: a block a row, 16 bytes a thread; ropeCosSin beside embedding in as many blocks more.
#include "elementwise.cuh"

namespace vt {
namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ void gather_row(const VtCudaGather& args) {
  const int row = blockIdx.x;
  const int id = args.index[row];
  for (int i = threadIdx.x; i < args.columns / 8; i += kThreads) {
    put_gathered(args, row, i, gathered(args, id, i));
  }
}

__global__ void __launch_bounds__(kThreads) gather_rows(const __grid_constant__ VtCudaGather args) {
  // In this order: what comes later may read the step's inputs without waiting (vt_cuda.h).
  wait_for_previous();
  start_next();
  gather_row(args);
}

__global__ void __launch_bounds__(kThreads)
    gather_rows_and_angles(const __grid_constant__ VtCudaGather args,
                           const __grid_constant__ VtCudaRopeCosSin angles) {
  wait_for_previous();
  start_next();
  if (blockIdx.y == 0) {
    gather_row(args);
  } else {
    put_angles(angles, blockIdx.x, angles.positions[blockIdx.x], threadIdx.x, kThreads);
  }
}

/** The same rows in f32. */
template <typename T>
__global__ void __launch_bounds__(kThreads) widen_rows(const __grid_constant__ VtCudaGather args) {
  wait_for_previous();
  start_next();
  const int64_t row = blockIdx.x;
  const int64_t from = static_cast<int64_t>(args.index[row]) - args.first_index;
  const bool valid = from >= 0 && from < args.num_source_rows;
  const T* source = static_cast<const T*>(args.source) + (valid ? from : 0) * args.source_stride;
  float* out = static_cast<float*>(args.out) + row * args.out_stride;
  for (int i = threadIdx.x; i < args.columns / 8; i += kThreads) {
    float values[8] = {};
    if (valid) load8(source + i * 8, values);
    float4* to = reinterpret_cast<float4*>(out + i * 8);
    to[0] = make_float4(values[0], values[1], values[2], values[3]);
    to[1] = make_float4(values[4], values[5], values[6], values[7]);
  }
}

int check(const char* op, const VtCudaGather& args) {
  VT_REQUIRE(args.num_rows > 0 && args.columns > 0 && args.columns % 8 == 0,
             "%s: %d rows of %d columns (a multiple of 8)", op, args.num_rows, args.columns);
  VT_REQUIRE(aligned16(args.out, args.out_stride) && aligned16(args.source, args.source_stride),
             "%s: rows must be 16-byte aligned", op);
  VT_REQUIRE((args.dtype == VT_CUDA_F16 || args.dtype == VT_CUDA_BF16) &&
                 (args.out_dtype == args.dtype || args.out_dtype == VT_CUDA_F32),
             "%s: dtype %d to %d", op, args.dtype, args.out_dtype);
  return check_gained(args);
}

int gather(const char* op, const VtCudaGather& args, void* stream) {
  if (check(op, args) != 0) return -1;
  const auto kernel = args.out_dtype != VT_CUDA_F32 ? gather_rows
                      : args.dtype == VT_CUDA_F16   ? widen_rows<__half>
                                                    : widen_rows<__nv_bfloat16>;
  return launch(op, kernel, dim3(args.num_rows), dim3(kThreads), 0, args.flags, stream, args);
}

}  // namespace
}  // namespace vt

extern "C" int vt_cuda_embedding(const VtCudaGather* args, void* stream) {
  return vt::gather("embedding", *args, stream);
}

extern "C" int vt_cuda_embedding_and_angles(const VtCudaGather* args,
                                            const VtCudaRopeCosSin* angles, void* stream) {
  using namespace vt;
  if (check("embedding", *args) != 0 || check_angles(*angles) != 0) return -1;
  VT_REQUIRE(args->num_rows == angles->num_tokens && args->out_dtype == args->dtype,
             "embedding of %d rows to dtype %d beside ropeCosSin of %d tokens", args->num_rows,
             args->out_dtype, angles->num_tokens);
  return launch("embedding", gather_rows_and_angles, dim3(args->num_rows, 2), dim3(kThreads), 0,
                args->flags, stream, *args, *angles);
}

extern "C" int vt_cuda_gather_logit_rows(const VtCudaGather* args, void* stream) {
  return vt::gather("gatherLogitRows", *args, stream);
}
