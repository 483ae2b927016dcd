// Steps of one program on the device: the row table, the input kernel, the ops (as a graph for each
// bucket of decode rows, else one by one), the sampler, and the ring of results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "../../host/program.h"
#include "../vt_cuda_backend.h"
#include "linear_library.h"
#include "memory.h"
#include "rank_group.h"
#include "weights.h"

namespace vt {

struct ExecutorOptions {
  int block_size, max_num_seqs, max_model_len, max_logprobs, async_depth;
  bool debug_sync, eager;
};

class Executor {
 public:
  /// Allocates arena, tables, rings and scratch. `kv_base` need not be mapped before the first
  /// step.
  /// `ranks` is null where this one runs the whole model.
  Executor(const Program& program, const Weights& weights, const LinearLibrary& linears,
           void* kv_base, RankGroup* ranks, const ExecutorOptions& options, Ledger& ledger);
  ~Executor();

  /// One graph for each bucket of decode rows; loads every kernel. Ledger gets what it measured.
  void capture(Ledger& ledger);
  /// Blocks whose ids may occur, the null block included; before the first step.
  void set_num_blocks(int num_blocks);

  void submit(double step, std::int64_t num_tokens, const void* body, std::size_t body_bytes,
              const std::int32_t* table, std::size_t table_words);
  /// See vt_cuda_backend_wait. Throws KernelError.
  int wait(VtCudaStepOutput* output);
  void position(double* step, std::int32_t* op_index) const;
  void stop();
  void read_buffer(int index, void* data, std::size_t bytes) const;
  void write_buffer(int index, const void* data, std::size_t bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vt
