// The last kernel of a step of one row: sample, and the end of the step behind it (finish.cuh). One
// launch less, and what the end reads is there before the logits are.
#include "../sample_row.cuh"
#include "finish.cuh"
#include "launch_error.h"

namespace vt {
namespace {

struct EndState {
  StepEnd step;
  Known known;
};

struct FinishStep {
  StepArrays arrays;
  LogprobStrides strides;

  __device__ __forceinline__ void read() const {
    EndState& state = block_shared<EndState>();
    // By threads that read nothing of what the row is sampled by.
    if (threadIdx.x == 160) state.step = begin_end(arrays);
    if (threadIdx.x == 192) state.known = known_of(arrays, 0);
  }

  __device__ __forceinline__ void run(const sample::Shared& shared) const {
    const EndState& state = block_shared<EndState>();
    __syncthreads();
    // A step of padding has none.
    if (threadIdx.x == 0 && state.step.counts.num_rows > 0) {
      finish_row(arrays, state.step, 0, state.known, shared.answer.id, shared.answer.flags);
    }
    publish(arrays, state.step, strides);
  }
};

}  // namespace

bool sample_can_finish(const VtCudaSample& args) { return args.num_rows == 1 && args.num_top <= 32; }

void launch_sample_and_finish(const VtCudaSample& args, const StepArrays& arrays,
                              const LogprobStrides& strides, void* stream) {
  VT_LAUNCH(sample::check(args));
  VT_LAUNCH(sample::launch_sample<1>(args, FinishStep{arrays, strides}, stream));
}

}  // namespace vt
