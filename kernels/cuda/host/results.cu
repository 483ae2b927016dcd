// The last kernels of a step: logprobs to the result slot where rows asked for them; then sampled
// ids to histories and results, rows that end marked, and the step's number published.
//
// Launch of the last: one block, a thread a row, so that one thread can publish for all.
#include "../../check.h"
#include "../common.cuh"
#include "step_arrays.h"

namespace vt {
namespace {

constexpr int kThreads = 1024;

__device__ __forceinline__ char* result_slot(const StepArrays& a) {
  return a.results + *a.sequence % static_cast<uint64_t>(a.layout.num_slots) *
                         a.layout.result_bytes;
}

__global__ void __launch_bounds__(256)
    copy_logprobs(const __grid_constant__ StepArrays a, int num_rows, int num_top) {
  wait_for_previous();
  start_next();
  char* slot = result_slot(a);
  float* logprobs = reinterpret_cast<float*>(slot + a.layout.logprobs);
  int32_t* ranks = reinterpret_cast<int32_t*>(slot + a.layout.ranks);
  int32_t* top_ids = reinterpret_cast<int32_t*>(slot + a.layout.top_ids);
  float* top_logprobs = reinterpret_cast<float*>(slot + a.layout.top_logprobs);
  const int begin = blockIdx.x * blockDim.x + threadIdx.x;
  const int step = gridDim.x * blockDim.x;
  for (int i = begin; i < num_rows; i += step) {
    logprobs[i] = a.logprobs[i];
    ranks[i] = a.ranks[i];
  }
  for (int i = begin; i < num_rows * num_top; i += step) {
    top_ids[i] = a.top_ids[i];
    top_logprobs[i] = a.top_logprobs[i];
  }
}

/// RowTable::append of kernels/host, on the device.
__device__ __forceinline__ void append(const StepArrays& a, int row, int id) {
  const VtCudaRowParams& params = a.params[row];
  const int at = a.num_tokens[row];
  a.histories[row * a.history_stride + at] = id;
  a.last_token[row] = id;
  a.num_tokens[row] = at + 1;
  bool ends = at + 1 >= params.max_num_tokens || at + 1 >= a.max_model_len;
  if (at + 1 - params.num_prompt_tokens >= params.min_tokens) {
    for (int i = 0; i < params.num_stop_ids; i++) ends |= params.stop_ids[i] == id;
  }
  if (ends) a.finished[row] = kFinished;
}

__global__ void __launch_bounds__(kThreads) finish_step(const __grid_constant__ StepArrays a) {
  wait_for_previous();
  start_next();
  const uint64_t sequence = *a.sequence;
  char* slot = result_slot(a);
  const int num_rows = a.counts[0];
  const int num_logit_rows = a.counts[1];
  for (int l = threadIdx.x; l < num_logit_rows; l += kThreads) {
    if ((a.sampled_flags[l] & kRowFlagNan) != 0) a.unfit[a.batch_of[l]] = 1;
  }
  __syncthreads();
  int32_t* token_ids = reinterpret_cast<int32_t*>(slot + a.layout.token_ids);
  uint8_t* row_flags = reinterpret_cast<uint8_t*>(slot + a.layout.row_flags);
  for (int i = threadIdx.x; i < num_rows; i += kThreads) {
    const int row = a.row_of[i];
    const int logit = a.logit_of[i];
    int id = -1;
    if (a.finished[row] == kNotFinished) {
      if (a.unfit[i] != 0) {
        a.finished[row] = kUnfitLogits;
      } else if (logit >= 0) {
        id = a.sampled_ids[logit];
        append(a, row, id);
      }
    }
    token_ids[i] = id;
    // Also in later steps of the row, until it is filled anew.
    row_flags[i] = a.finished[row] == kUnfitLogits ? kRowFlagNan : 0;
  }
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x != 0) return;
  ResultHeader* header = reinterpret_cast<ResultHeader*>(slot);
  uint64_t now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  header->start_ns = *a.start_ns;
  header->end_ns = now;
  *a.sequence = sequence + 1;
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(&header->done), "l"(sequence + 1)
               : "memory");
}

void check(int result) { VT_CHECK(result == 0, "%s", vt_cuda_error()); }

}  // namespace

void launch_copy_logprobs(const StepArrays& arrays, int num_logit_rows, int num_top, int flags,
                          void* stream) {
  const int blocks = min(num_multiprocessors(), (num_logit_rows * max(1, num_top) + 255) / 256);
  check(launch("logprobs", copy_logprobs, dim3(blocks), dim3(256), 0, flags, stream, arrays,
               num_logit_rows, num_top));
}

void launch_finish_step(const StepArrays& arrays, int flags, void* stream) {
  check(launch("finish", finish_step, dim3(1), dim3(kThreads), 0, flags, stream, arrays));
}

}  // namespace vt
