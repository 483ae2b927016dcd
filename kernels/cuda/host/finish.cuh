// The end of a step on the device: sampled ids to histories and results, rows that end marked, and
// the step's number published. By one block, whichever kernel it is of.
#ifndef VT_CUDA_HOST_FINISH_CUH_
#define VT_CUDA_HOST_FINISH_CUH_

#include "../common.cuh"
#include "../peer_memory.cuh"
#include "step_arrays.h"

namespace vt {

__device__ __forceinline__ char* result_slot(const StepArrays& a, uint64_t step_index) {
  return a.results +
         step_index % static_cast<uint64_t>(a.layout.num_slots) * a.layout.result_bytes;
}

/// By `num_threads` threads. In the slot two lists are as far apart as the step's longest is long.
__device__ __forceinline__ void put_logprobs(const StepArrays& a, char* slot,
                                             const StepCounts& counts,
                                             const LogprobStrides& strides, int thread,
                                             int num_threads) {
  const int num_rows = counts.num_logit_rows;
  const int num_top = counts.num_top;
  const int num_named = counts.num_named;
  float* logprobs = reinterpret_cast<float*>(slot + a.layout.logprobs);
  int32_t* ranks = reinterpret_cast<int32_t*>(slot + a.layout.ranks);
  int32_t* top_ids = reinterpret_cast<int32_t*>(slot + a.layout.top_ids);
  float* top_logprobs = reinterpret_cast<float*>(slot + a.layout.top_logprobs);
  for (int i = thread; i < num_rows; i += num_threads) {
    logprobs[i] = a.logprobs[i];
    ranks[i] = a.ranks[i];
  }
  for (int i = thread; i < num_rows * num_top; i += num_threads) {
    const int l = i / num_top;
    const int64_t from = static_cast<int64_t>(l) * strides.top + i - l * num_top;
    top_ids[i] = a.top_ids[from];
    top_logprobs[i] = a.top_logprobs[from];
  }
  float* named_logprobs = reinterpret_cast<float*>(slot + a.layout.named_logprobs);
  for (int i = thread; i < num_rows * num_named; i += num_threads) {
    const int l = i / num_named;
    const int k = i - l * num_named;
    const int row = a.logit_row[l];
    if (row < 0 || a.judged_ids[l] >= 0 || k >= a.params[row].num_logprob_ids) continue;
    named_logprobs[static_cast<int64_t>(row) * num_named + k] =
        a.named_logprobs[static_cast<int64_t>(row) * strides.named + k];
  }
}

/// What sampling does not change of a row, asked for at once: each answer takes most of a
/// microsecond.
struct Known {
  int row, logit;
  int finished, num_tokens, num_prompt_tokens, min_tokens, max_num_tokens, num_stop_ids;
  const int32_t* more_stop_ids;
  int32_t stop_ids[kStopIdsOnDevice];
};

__device__ __forceinline__ Known known_of(const StepArrays& a, int i) {
  const int row = a.row_of[i];
  const VtCudaRowParams& params = a.params[row];
  Known known = {row,
                 a.logit_of[i],
                 a.finished[row],
                 a.num_tokens[row],
                 params.num_prompt_tokens,
                 params.min_tokens,
                 params.max_num_tokens,
                 params.num_stop_ids,
                 params.stop_ids,
                 {}};
  // Of a row that has more of them, none lies here.
  const int4* ids = reinterpret_cast<const int4*>(a.stop_ids + row * kStopIdsOnDevice);
  reinterpret_cast<int4*>(known.stop_ids)[0] = ids[0];
  reinterpret_cast<int4*>(known.stop_ids)[1] = ids[1];
  return known;
}

__device__ __forceinline__ bool is_stop_id(const Known& known, int id) {
  bool is = false;
  if (known.num_stop_ids <= kStopIdsOnDevice) {
#pragma unroll
    for (int s = 0; s < kStopIdsOnDevice; s++) {
      is |= s < known.num_stop_ids && known.stop_ids[s] == id;
    }
  } else {
    for (int s = 0; s < known.num_stop_ids; s++) is |= known.more_stop_ids[s] == id;
  }
  return is;
}

/// RowTable::append of kernels/host, on the device. Returns whether the row ends.
__device__ __forceinline__ bool append(const StepArrays& a, const Known& known, int id) {
  const int count = known.num_tokens + 1;
  a.histories[known.row * a.history_stride + known.num_tokens] = id;
  a.last_token[known.row] = id;
  a.num_tokens[known.row] = count;
  if (count >= known.max_num_tokens || count >= a.max_model_len) return true;
  return count - known.num_prompt_tokens >= known.min_tokens && is_stop_id(known, id);
}

/// What the end needs to know of the step, and where it says so.
struct StepEnd {
  uint64_t step_index, start_ns;
  StepCounts counts;
  char* slot;
};

__device__ __forceinline__ StepEnd begin_end(const StepArrays& a) {
  const uint64_t step_index = *a.step_index;
  return {step_index, *a.start_ns, *a.counts, result_slot(a, step_index)};
}

/// Rows of which a judged row of logits was unfit. A barrier of the block, where rows are judged.
__device__ __forceinline__ void mark_unfit(const StepArrays& a, const StepCounts& counts) {
  if (counts.num_judged == 0) return;
  for (int l = threadIdx.x; l < counts.num_logit_rows; l += static_cast<int>(blockDim.x)) {
    if ((a.sampled_flags[l] & kRowFlagNan) != 0) a.unfit[a.batch_of[l]] = 1;
  }
  __syncthreads();
}

/// Batch row i, whose logits gave `sampled` with `flags`.
__device__ __forceinline__ void finish_row(const StepArrays& a, const StepEnd& step, int i,
                                           const Known& known, int sampled, int flags) {
  const bool unfit =
      (step.counts.num_judged > 0 && a.unfit[i] != 0) || (flags & kRowFlagNan) != 0;
  int end = known.finished;
  int id = -1;
  if (end == kNotFinished && unfit) end = kUnfitLogits;
  if (end == kNotFinished && known.logit >= 0) {
    id = sampled;
    if (append(a, known, id)) end = kFinished;
  }
  if (end != known.finished) a.finished[known.row] = end;
  reinterpret_cast<int32_t*>(step.slot + a.layout.token_ids)[i] = id;
  // Also in later steps of the row, until it is filled anew.
  reinterpret_cast<uint8_t*>(step.slot + a.layout.row_flags)[i] =
      end == kUnfitLogits ? kRowFlagNan : 0;
}

/// After all rows, by the whole block. A barrier.
__device__ __forceinline__ void publish(const StepArrays& a, const StepEnd& step,
                                        const LogprobStrides& strides) {
  if (strides.top >= 0 && step.counts.num_top >= 0) {
    put_logprobs(a, step.slot, step.counts, strides, threadIdx.x, blockDim.x);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  ResultHeader* header = reinterpret_cast<ResultHeader*>(step.slot);
  header->start_ns = step.start_ns;
  header->end_ns = global_timer_ns();
  *a.step_index = step.step_index + 1;
  // What the block wrote before the barrier is published too.
  store_release(&header->done, step.step_index + 1);
}

}  // namespace vt

#endif  // VT_CUDA_HOST_FINISH_CUH_
