// The last kernels of a step: logprobs to the result slot where rows asked for them, and its end
// (finish.cuh).
//
// Launch of the last: one block, a thread a row, so that one thread can publish for all. It copies
// logprobs too, so that one graph serves steps with and without: 20 ids of 256 rows are 40 KB.
#include "finish.cuh"
#include "launch_error.h"

namespace vt {
namespace {

constexpr int kThreads = 1024;

__global__ void __launch_bounds__(256)
    copy_logprobs(const __grid_constant__ StepArrays a, const LogprobStrides strides) {
  wait_for_previous();
  start_next();
  put_logprobs(a, result_slot(a, *a.step_index), *a.counts, strides,
               blockIdx.x * blockDim.x + threadIdx.x, gridDim.x * blockDim.x);
}

/// `early`: what the step began with was complete before this kernel could start, so it waits for
/// sampled ids alone.
__global__ void __launch_bounds__(kThreads)
    finish_step(const __grid_constant__ StepArrays a, const LogprobStrides strides,
                const bool early) {
  if (!early) wait_for_previous();
  const StepEnd step = begin_end(a);
  int i = threadIdx.x;
  Known known = {};
  if (i < step.counts.num_rows) known = known_of(a, i);
  if (early) wait_for_previous();
  mark_unfit(a, step.counts);
  while (i < step.counts.num_rows) {
    const int l = known.logit;
    finish_row(a, step, i, known, l >= 0 ? a.sampled_ids[l] : -1, l >= 0 ? a.sampled_flags[l] : 0);
    i += kThreads;
    if (i < step.counts.num_rows) known = known_of(a, i);
  }
  publish(a, step, strides);
}

}  // namespace

void launch_copy_logprobs(const StepArrays& arrays, int num_logit_rows,
                          const LogprobStrides& strides, int flags, void* stream) {
  const int widest = max(1, max(strides.top, strides.named));
  const int blocks = min(num_multiprocessors(), (num_logit_rows * widest + 255) / 256);
  VT_LAUNCH(launch("logprobs", copy_logprobs, dim3(blocks), dim3(256), 0, flags, stream, arrays,
                   strides));
}

void launch_finish_step(const StepArrays& arrays, const LogprobStrides& strides, int flags,
                        void* stream) {
  VT_LAUNCH(launch("finish", finish_step, dim3(1), dim3(kThreads), 0, flags, stream, arrays, strides,
                   (flags & VT_CUDA_EARLY_READS) != 0));
}

}  // namespace vt
