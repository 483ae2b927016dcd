// The first kernel of a step: the host's row changes, and the arrays that the ops read. It finds
// its slot by the device's count of steps, so that a graph's launch is always the same.
//
// Launch: a warp a row (times parts of 256 tokens of a long chunk), 16 rows a block. The slot,
// histories and new block ids lie in host memory, and the bus answers few questions at a time: a
// block asks for the entries of its rows once, as one piece. (When every thread asked for itself,
// 256 rows took 900 us.) The host wrote it all before the launch, so that plain loads see it.
// Where one block has all rows it does more, of what its warps have just written: attention's work
// lists, and in steps of one token embedding and ropeCosSin. Launches less, and no reads through
// memory.
#include "../attention_plan.cuh"
#include "../elementwise.cuh"
#include "../peer_memory.cuh"
#include "launch_error.h"
#include "step_arrays.h"

namespace vt {
namespace {

constexpr int kRows = 16;  // of a block
constexpr int kThreads = kRows * 32;
constexpr int kPartTokens = 256;
constexpr int kMostSlots = kRows / 2;  // that are read at once
constexpr int kPiecesAhead = 4;        // of embedding, of a thread

__device__ __forceinline__ void fill_row(const StepArrays& a, int row) {
  const int* from = reinterpret_cast<const int*>(a.setups + row);
  int* params = reinterpret_cast<int*>(a.params + row);
  constexpr int kParamWords = sizeof(VtCudaRowParams) / 4;
  for (int i = threadIdx.x; i < kParamWords + kStopIdsOnDevice + 2; i += kThreads) {
    const int word = from[i];
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

__device__ __forceinline__ void put_token(const StepArrays& a, int at, int id, int position,
                                          int slot) {
  a.token_ids[at] = id;
  a.positions[at] = position;
  a.slots[at] = slot;
}

__device__ __forceinline__ void put_logit(const StepArrays& a, int at, int row, int token,
                                          int judged_id, int batch_row) {
  a.logit_row[at] = row;
  a.logit_index[at] = token;
  a.judged_ids[at] = judged_id;
  a.batch_of[at] = batch_row;
}

/// What the plan of attention needs of a row, and embedding and ropeCosSin of its first token.
struct RowWork {
  int row, query_start, num_queries, seq_len;
  int token_id, position;
};

/// `work`: of the row, in shared memory.
__device__ __forceinline__ void build_row(const StepArrays& a, int i, const RowEntry& entry,
                                          RowWork& work) {
  const int row = entry.row;
  const bool is_new = entry.is_new != 0;
  // Of a row that is filled in this very launch, these are another's.
  const int finished = a.finished[row];
  const int num_known = a.num_tokens[row];
  const int last_token = a.last_token[row];
  const int32_t* history = a.histories + row * a.history_stride;
  const int32_t* host_blocks = a.host_block_tables + row * a.block_stride;
  int32_t* blocks = a.block_tables + row * a.block_stride;
  const bool alive = is_new || finished == kNotFinished;
  const int last = is_new ? -1 : num_known - 1;
  const int lane = threadIdx.x % 32;
  const int begin = blockIdx.y * kPartTokens;
  const int end = min(entry.count, begin + kPartTokens);
  int first_id = -1;
  for (int t = begin + lane; t < end; t += 32) {
    const int position = entry.start + t;
    const int index = position / a.block_size;
    const int block = index >= entry.copy_from ? host_blocks[index] : blocks[index];
    if (alive) {
      const int id = position == last ? last_token : history[position];
      if (t == 0) first_id = id;
      put_token(a, entry.token_begin + t, id, position,
                block * a.block_size + position % a.block_size);
    } else {
      put_token(a, entry.token_begin + t, -1, 0, -1);
    }
  }
  if (blockIdx.y != 0) return;
  const int last_block = (entry.start + entry.count - 1) / a.block_size;
  for (int b = entry.copy_from + lane; b <= last_block; b += 32) blocks[b] = host_blocks[b];
  if (lane != 0) return;
  const int seq_len = alive ? entry.start + entry.count : 0;
  work = {row, entry.token_begin, entry.count, seq_len, first_id, alive ? entry.start : 0};
  a.query_start[i] = entry.token_begin;
  a.seq_lens[i] = seq_len;
  a.row_of[i] = row;
  a.logit_of[i] = entry.logit_row;
  a.unfit[i] = 0;
  if (entry.logit_row >= 0) {
    put_logit(a, entry.logit_row, row, entry.token_begin + entry.count - 1, -1, i);
  }
}

/// The step's slot, of which every block reads the header and the entries of its rows.
__device__ __forceinline__ const char* slot_at(const StepArrays& a, int index) {
  return a.inputs + index * a.layout.input_bytes;
}

/// By warps `warp` (entries) and `warp` + 1 (header).
__device__ __forceinline__ void read_slot(const StepArrays& a, int index, int warp, int4* words) {
  const int lane = threadIdx.x % 32;
  const char* slot = slot_at(a, index);
  if (static_cast<int>(threadIdx.x) / 32 == warp) {
    // Entries beyond the step's rows are some other step's, and are not used.
    const int64_t first = blockIdx.x * kRows * static_cast<int64_t>(sizeof(RowEntry));
    words[2 + lane] = reinterpret_cast<const int4*>(slot + a.layout.row_entries + first)[lane];
  } else if (static_cast<int>(threadIdx.x) / 32 == warp + 1 && lane < 2) {
    words[lane] = reinterpret_cast<const int4*>(slot)[lane];
  }
}

/**
 * Embedding and ropeCosSin of the one token. Lets the next kernels start once all is in memory that
 * they may read without waiting for this one: all but the token's row.
 */
__device__ __forceinline__ void embed(const VtCudaGather& embedding, const VtCudaRopeCosSin& angles,
                                      const RowWork& token) {
  const int pieces = embedding.columns / 8;
  uint4 ahead[kPiecesAhead];
#pragma unroll
  for (int j = 0; j < kPiecesAhead; j++) {
    const int p = threadIdx.x + j * kThreads;
    if (p < pieces) ahead[j] = gathered(embedding, token.token_id, p);
  }
  put_angles(angles, 0, token.position, threadIdx.x, kThreads);
  __threadfence();
  __syncthreads();
  start_next();
#pragma unroll
  for (int j = 0; j < kPiecesAhead; j++) {
    const int p = threadIdx.x + j * kThreads;
    if (p < pieces) put_gathered(embedding, 0, p, ahead[j]);
  }
  for (int p = threadIdx.x + kPiecesAhead * kThreads; p < pieces; p += kThreads) {
    put_gathered(embedding, 0, p, gathered(embedding, token.token_id, p));
  }
}

__global__ void __launch_bounds__(kThreads)
    build_inputs(const __grid_constant__ StepArrays a, const StepPadding padding,
                 const __grid_constant__ FirstOps first, const int decode_blocks) {
  __shared__ __align__(64) int4 slot_words[kMostSlots][2 + kRows * 2];
  __shared__ RowWork works[kRows];
  const int num_slots = a.layout.num_slots;
  const bool embeds = first.embedding.num_rows > 0;
  wait_for_previous();
  if (!embeds) start_next();
  const uint64_t begun = global_timer_ns();
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int i = blockIdx.x * kRows + warp;
  const int4* words = slot_words[0];
  int index;  // of the slot
  if (embeds && num_slots <= kMostSlots) {
    // Of all slots, beside the look at which one it is: that takes a third of a read over the bus.
    if (warp / 2 < num_slots) read_slot(a, warp / 2, warp & ~1, slot_words[warp / 2]);
    index = static_cast<int>(*a.step_index % static_cast<uint64_t>(num_slots));
    words = slot_words[index];
  } else {
    index = static_cast<int>(*a.step_index % static_cast<uint64_t>(num_slots));
    read_slot(a, index, 0, slot_words[0]);
  }
  const char* slot = slot_at(a, index);
  __syncthreads();
  const StepHeader& header = *reinterpret_cast<const StepHeader*>(words);
  const RowEntry entry = *reinterpret_cast<const RowEntry*>(words + 2 + warp * 2);
  const int num_rows = header.num_rows;
  const int num_tokens = header.num_tokens;
  const int num_logit_rows = header.num_logit_rows;

  const int block = blockIdx.y * gridDim.x + blockIdx.x;
  const int num_blocks = gridDim.x * gridDim.y;
  const int thread = block * kThreads + threadIdx.x;
  const int num_threads = num_blocks * kThreads;
  if (i < num_rows) {
    build_row(a, i, entry, works[warp]);
  } else if (i < padding.num_rows && blockIdx.y == 0 && lane == 0) {
    works[warp] = {0, num_tokens, 0, 0, -1, 0};
    a.query_start[i] = num_tokens;
    a.seq_lens[i] = 0;
    a.row_of[i] = 0;
  }
  if (first.plan.num_seqs > 0) {
    __syncthreads();
    // A warp that has no row where they are few.
    if (warp == kRows - 1) {
      RowWork of = {};
      if (lane < first.plan.num_seqs) of = works[lane];
      plan_by_warp(first.plan, decode_blocks, of.row, of.query_start, of.num_queries, of.seq_len);
    }
  }
  if (thread == 0) {
    *a.start_ns = begun;
    *a.first_epoch = header.first_epoch;
    *a.counts = {num_rows, num_logit_rows, header.num_judged, header.num_top, header.num_named};
    a.query_start[max(num_rows, padding.num_rows)] = num_tokens;
  }
  for (int t = num_tokens + thread; t < padding.num_tokens; t += num_threads) {
    put_token(a, t, -1, 0, -1);
  }
  for (int l = num_logit_rows + thread; l < padding.num_logit_rows; l += num_threads) {
    put_logit(a, l, -1, -1, -1, -1);
  }
  const auto* judged = reinterpret_cast<const JudgedEntry*>(slot + a.layout.judged_entries);
  for (int j = thread; j < header.num_judged; j += num_threads) {
    const JudgedEntry of = judged[j];
    put_logit(a, of.logit_row, of.row, of.token, of.judged_id, of.batch_row);
  }
  const auto* new_rows = reinterpret_cast<const int32_t*>(slot + a.layout.new_rows);
  for (int j = block; j < header.num_new_rows; j += num_blocks) fill_row(a, new_rows[j]);
  if (embeds) embed(first.embedding, first.angles, works[0]);
}

}  // namespace

bool inputs_are_one_block(const StepPadding& padding, int max_count) {
  return padding.num_rows <= kRows && max_count <= kPartTokens;
}

void launch_build_inputs(const StepArrays& arrays, const StepPadding& padding, int max_count,
                         const FirstOps& first, int flags, void* stream) {
  const dim3 grid(max(1, (padding.num_rows + kRows - 1) / kRows),
                  max(1, (max_count + kPartTokens - 1) / kPartTokens));
  VT_LAUNCH(launch("inputs", build_inputs, grid, dim3(kThreads), 0, flags, stream, arrays, padding,
                   first, most_decode_blocks()));
}

}  // namespace vt
