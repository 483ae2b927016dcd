// linear for m > 64: our own GEMM, for machines without cuBLASLt and for what it is asked not to
// do.
//
// What it computes: as linear_skinny, the same chain an output: mma.sync m16n8k16, k ascending.
//
// Launch: a block an output tile of 128 x 128 (tiles of the same rows of weight run side by side,
// so that they share it in L2), 8 warps of 64 x 32 each; 4 stages of 64 columns by cp.async. Rows
// out of range and columns beyond k are zeros in shared memory.
#include "linear.cuh"

namespace vt {
namespace {

constexpr int kTileM = 128;
constexpr int kTileN = 128;
constexpr int kColumns = 64;
constexpr int kStages = 4;
constexpr int kThreads = 256;
constexpr int kStageBytes = (kTileM + kTileN) * kColumns * 2;

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) linear_large_kernel(const VtCudaLinear args) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const uint32_t stages = shared_address(shared);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int m0 = blockIdx.x * kTileM;
  const int n0 = blockIdx.y * kTileN;
  const int chunks = (args.k + kColumns - 1) / kColumns;

  start_next();
  wait_for_previous();

  // A thread copies piece threadIdx % 8 of rows threadIdx / 8 + 32 i.
  const int piece = threadIdx.x % 8;
  const auto copy = [&](int chunk) {
    const int column = chunk * kColumns + piece * 8;
    const uint32_t to = stages + chunk % kStages * kStageBytes;
#pragma unroll
    for (int i = 0; i < (kTileM + kTileN) / 32; i++) {
      const int r = threadIdx.x / 8 + i * 32;
      const bool of_x = i < kTileM / 32;
      const int row = of_x ? m0 + r : n0 + r - kTileM;
      const bool valid = row < (of_x ? args.m : args.n) && column < args.k;
      const T* base = static_cast<const T*>(of_x ? args.x : args.weight);
      const int64_t at = static_cast<int64_t>(row) * (of_x ? args.x_stride : args.weight_stride);
      copy16_async(to + r * 128 + ((piece ^ (r % 8)) << 4), valid ? base + at + column : base,
                   valid);
    }
  };

  const int warp_m = warp / 4 * 64;
  const int warp_n = warp % 4 * 32;
  float sum[4][4][4] = {};
#pragma unroll
  for (int s = 0; s < kStages - 1; s++) {
    if (s < chunks) copy(s);
    commit_copies();
  }
  const int swizzle = lane % 8;
  for (int chunk = 0; chunk < chunks; chunk++) {
    wait_copies<kStages - 2>();
    __syncthreads();
    if (chunk + kStages - 1 < chunks) copy(chunk + kStages - 1);
    commit_copies();
    const uint32_t stage = stages + chunk % kStages * kStageBytes;
#pragma unroll
    for (int k = 0; k < kColumns / 16; k++) {
      uint32_t a[4][4];
      uint32_t b[2][4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        ldmatrix4(a[i], stage + (warp_m + i * 16 + lane % 16) * 128 +
                            (((k * 2 + lane / 16) ^ swizzle) << 4));
      }
#pragma unroll
      for (int j = 0; j < 2; j++) {
        ldmatrix4(b[j], stage + (kTileM + warp_n + j * 16 + lane / 16 * 8 + lane % 8) * 128 +
                            (((k * 2 + lane / 8 % 2) ^ swizzle) << 4));
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          mma<T>(sum[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int m = m0 + warp_m + i * 16 + h * 8 + lane / 4;
      if (m >= args.m) continue;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        write_pair<T>(args, m, n0 + warp_n + j * 8 + lane % 4 * 2, sum[i][j][h * 2],
                      sum[i][j][h * 2 + 1]);
      }
    }
  }
}

}  // namespace

int linear_large(const VtCudaLinear& args, void* stream) {
  const dim3 grid((args.m + kTileM - 1) / kTileM, (args.n + kTileN - 1) / kTileN);
  VT_REQUIRE(grid.y <= 65535, "linear: n %d is too large", args.n);
  return launch(
      "linear",
      args.dtype == VT_CUDA_F16 ? linear_large_kernel<__half> : linear_large_kernel<__nv_bfloat16>,
      grid, dim3(kThreads), kStages * kStageBytes, args.flags, stream, args);
}

}  // namespace vt
