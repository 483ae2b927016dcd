// The first kernel of a step: the host's row changes, and the arrays that the ops read. It finds
// its slot by the device's count of steps, so that a graph's launch is always the same.
//
// Launch: a block a row (times parts of 1,024 tokens of a long chunk). The slot, histories and new
// block ids lie in host memory: every thread asks for what it needs at once, so that a block waits
// for the bus about twice.
#include "../../check.h"
#include "../common.cuh"
#include "step_arrays.h"

namespace vt {
namespace {

constexpr int kThreads = 128;
constexpr int kPartTokens = 1024;

__device__ __forceinline__ uint64_t global_timer() {
  uint64_t ns;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns));
  return ns;
}

__device__ __forceinline__ void fill_row(const StepArrays& a, int row) {
  const int* from = reinterpret_cast<const int*>(a.setups + row);
  int* params = reinterpret_cast<int*>(a.params + row);
  constexpr int kParamWords = sizeof(VtCudaRowParams) / 4;
  for (int i = threadIdx.x; i < kParamWords + kStopIdsOnDevice + 2; i += kThreads) {
    const int word = __ldcv(from + i);
    if (i < kParamWords) {
      params[i] = word;
    } else if (i < kParamWords + kStopIdsOnDevice) {
      a.stop_ids[row * kStopIdsOnDevice + i - kParamWords] = word;
    } else if (i == kParamWords + kStopIdsOnDevice) {
      a.num_tokens[row] = word;
      a.finished[row] = kNotFinished;
    } else {
      // A chunk that ends the prompt asks for it as it would for a sampled one.
      a.last_token[row] = word;
    }
  }
}

__device__ __forceinline__ void build_tokens(const StepArrays& a, const RowEntry& entry,
                                             bool alive) {
  const int32_t* history = a.histories + entry.row * a.history_stride;
  const int32_t* host_blocks = a.host_block_tables + entry.row * a.block_stride;
  int32_t* blocks = a.block_tables + entry.row * a.block_stride;
  // A row that is filled in this very launch has no sampled token yet.
  const int last = alive && entry.is_new == 0 ? a.num_tokens[entry.row] - 1 : -1;
  const int begin = blockIdx.y * kPartTokens;
  const int end = min(entry.count, begin + kPartTokens);
  for (int t = begin + threadIdx.x; t < end; t += kThreads) {
    const int at = entry.token_begin + t;
    if (!alive) {
      a.token_ids[at] = -1;
      a.positions[at] = 0;
      a.slots[at] = -1;
      continue;
    }
    const int position = entry.start + t;
    const int index = position / a.block_size;
    const int block = index >= entry.copy_from ? __ldcv(host_blocks + index) : blocks[index];
    a.token_ids[at] = position == last ? a.last_token[entry.row] : __ldcv(history + position);
    a.positions[at] = position;
    a.slots[at] = block * a.block_size + position % a.block_size;
  }
  if (!alive || blockIdx.y != 0) return;
  const int last_block = (entry.start + entry.count - 1) / a.block_size;
  for (int i = entry.copy_from + static_cast<int>(threadIdx.x); i <= last_block; i += kThreads) {
    blocks[i] = __ldcv(host_blocks + i);
  }
}

__global__ void __launch_bounds__(kThreads)
    build_inputs(const __grid_constant__ StepArrays a, const StepPadding padding) {
  wait_for_previous();
  start_next();
  const char* slot =
      a.inputs + *a.sequence % static_cast<uint64_t>(a.layout.num_slots) * a.layout.input_bytes;
  const int i = blockIdx.x;
  // Both at once; an entry beyond the step's rows is some other step's, and is not used.
  const int4 header = __ldcv(reinterpret_cast<const int4*>(slot));
  RowEntry entry;
  const int4* from = reinterpret_cast<const int4*>(slot + a.layout.row_entries) + i * 2;
  reinterpret_cast<int4*>(&entry)[0] = __ldcv(from);
  reinterpret_cast<int4*>(&entry)[1] = __ldcv(from + 1);
  const int num_rows = header.x;
  const int num_tokens = header.y;
  const int num_logit_rows = header.z;
  const int num_new_rows = header.w;

  const int block = blockIdx.y * gridDim.x + blockIdx.x;
  const int num_blocks = gridDim.x * gridDim.y;
  if (block == 0 && threadIdx.x == 0) {
    *a.start_ns = global_timer();
    a.counts[0] = num_rows;
    a.counts[1] = num_logit_rows;
  }
  if (i < num_rows) {
    const bool alive = entry.is_new != 0 || a.finished[entry.row] == kNotFinished;
    build_tokens(a, entry, alive);
    if (blockIdx.y == 0 && threadIdx.x == 0) {
      a.query_start[i] = entry.token_begin;
      a.seq_lens[i] = alive ? entry.start + entry.count : 0;
      a.row_of[i] = entry.row;
      a.logit_of[i] = entry.logit_row;
      a.unfit[i] = 0;
    }
  } else if (i < padding.num_rows && blockIdx.y == 0 && threadIdx.x == 0) {
    a.query_start[i] = num_tokens;
    a.seq_lens[i] = 0;
    a.row_of[i] = 0;
  }
  const int thread = block * kThreads + threadIdx.x;
  const int num_threads = num_blocks * kThreads;
  if (thread == 0) a.query_start[max(num_rows, padding.num_rows)] = num_tokens;
  for (int t = num_tokens + thread; t < padding.num_tokens; t += num_threads) {
    a.token_ids[t] = -1;
    a.positions[t] = 0;
    a.slots[t] = -1;
  }
  const int4* logits = reinterpret_cast<const int4*>(slot + a.layout.logit_entries);
  for (int l = thread; l < max(num_logit_rows, padding.num_logit_rows); l += num_threads) {
    const int4 logit = l < num_logit_rows ? __ldcv(logits + l) : make_int4(-1, -1, -1, -1);
    a.logit_row[l] = logit.x;
    a.logit_index[l] = logit.y;
    a.judged_ids[l] = logit.z;
    a.batch_of[l] = logit.w;
  }
  const int32_t* new_rows = reinterpret_cast<const int32_t*>(slot + a.layout.new_rows);
  for (int j = block; j < num_new_rows; j += num_blocks) fill_row(a, __ldcv(new_rows + j));
}

}  // namespace

void launch_build_inputs(const StepArrays& arrays, const StepPadding& padding, int max_count,
                         int flags, void* stream) {
  const dim3 grid(max(1, padding.num_rows), max(1, (max_count + kPartTokens - 1) / kPartTokens));
  VT_CHECK(launch("inputs", build_inputs, grid, dim3(kThreads), 0, flags, stream, arrays,
                  padding) == 0,
           "%s", vt_cuda_error());
}

}  // namespace vt
