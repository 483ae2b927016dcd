// The C ABI of the backend: a load in the order that hides most of its time, then steps handed to
// the executor. Nothing is thrown from here.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>

#include "../vt_cuda_backend.h"
#include "cuda_error.h"
#include "executor.h"
#include "guarded.h"
#include "kv_size.h"
#include "readahead.h"

using vt::KernelError;

struct VtCudaBackend {
  /// Every call sets it: threads come and go.
  int device = 0;
  vt::Ledger ledger;
  vt::Program program;
  std::unique_ptr<vt::Weights> weights;
  std::unique_ptr<vt::LinearLibrary> linears;
  std::unique_ptr<vt::KvCache> kv;
  /// Null where this process runs the whole model.
  std::unique_ptr<vt::RankGroup> ranks;
  std::unique_ptr<vt::Executor> executor;
  /// Of the failure that was reported.
  std::string op;
};

namespace vt {
namespace {

constexpr BackendRules kRules = {
    "cuda",
    /*activations=*/{Dtype::f16, Dtype::bf16},
    /*kv_cache=*/{Dtype::f16, Dtype::bf16},
    /*weights=*/{Dtype::f16, Dtype::bf16},
    /*one_dtype=*/true,
    /*interleave=*/true,
    /*rows_at_once=*/true,
};

Program parse(const VtCudaLoad& load) {
  return parse_program({load.ops, load.num_op_words, load.attrs, load.num_attrs, load.buffers,
                        load.num_buffer_words, load.weights, load.num_weight_words, load.kv_groups,
                        load.num_kv_group_words, load.vocab_size, load.arena_bytes,
                        load.max_num_tokens, load.max_num_logits},
                       kRules);
}

constexpr int kMostRanks = 256;

void check_options(const VtCudaLoad& o) {
  VT_CHECK(o.block_size >= 16 && o.block_size <= 65536 && (o.block_size & (o.block_size - 1)) == 0,
           "--block-size %d is not supported on cuda: a power of two from 16", o.block_size);
  VT_CHECK(o.max_num_seqs >= 1 && o.max_num_seqs <= 1 << 20, "%d rows", o.max_num_seqs);
  VT_CHECK(o.max_model_len >= 1 && o.max_model_len <= 1 << 26, "%d tokens a row", o.max_model_len);
  VT_CHECK(o.max_logprobs >= 0 && o.max_logprobs <= VT_CUDA_MAX_LOGPROBS,
           "--max-logprobs %d is not supported on cuda: at most %d", o.max_logprobs,
           VT_CUDA_MAX_LOGPROBS);
  VT_CHECK(o.async_depth >= 0 && o.async_depth <= 64, "async depth %d", o.async_depth);
}

int choose_device(const VtCudaRanks* ranks) {
  if (ranks == nullptr) return 0;
  VT_CHECK(ranks->num_ranks >= 2 && ranks->num_ranks <= kMostRanks && ranks->rank >= 0 &&
               ranks->rank < ranks->num_ranks && ranks->timeout_ms > 0 && ranks->local_rank >= 0 &&
               ranks->local_rank < ranks->num_local_ranks &&
               ranks->num_local_ranks <= ranks->num_ranks,
           "rank %d of %d, %d of %d on this host", ranks->rank, ranks->num_ranks,
           ranks->local_rank, ranks->num_local_ranks);
  int count = 0;
  VT_CUDA(cudaGetDeviceCount(&count));
  VT_CHECK(count >= ranks->num_local_ranks || shares_devices(ranks->collectives),
           "--tensor-parallel-size %d needs %d GPUs on this host, %d are visible "
           "(CUDA_VISIBLE_DEVICES decides which are)",
           ranks->num_ranks, ranks->num_local_ranks, count);
  return device_of(ranks->collectives, ranks->local_rank);
}

/// What the load does when, in ms since it began.
class Clock {
 public:
  void mark(const char* what) {
    const auto now = std::chrono::steady_clock::now();
    const double ms = std::chrono::duration<double, std::milli>(now - last_).count();
    char text[64];
    std::snprintf(text, sizeof text, "%s%s %.0f", marks_.empty() ? "" : ", ", what, ms);
    marks_ += text;
    last_ = now;
  }
  std::string notes() const { return "load, ms: " + marks_; }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  std::string marks_;
};

/// An algorithm for every linear of the program.
void prepare_linears(VtCudaBackend& backend) {
  const Program& program = backend.program;
  for (const OpRecord& op : program.ops) {
    if (op.id != OpId::linear) continue;
    const BufferSpec& out = program.buffers[op.args[0]];
    const BufferSpec& x = program.buffers[op.args[1]];
    const int weight = op.args[2];
    VtCudaLinear shape = {};
    shape.weight = backend.weights->data(weight);
    shape.bias = op.args[3] < 0 ? nullptr : backend.weights->data(op.args[3]);
    shape.residual = op.args[4] < 0 ? nullptr : shape.weight;
    shape.n = static_cast<int>(out.columns);
    shape.k = static_cast<int>(x.columns);
    shape.out_stride = shape.residual_stride = shape.n;
    shape.x_stride = shape.k;
    shape.weight_stride = static_cast<int>(backend.weights->stride(weight));
    shape.dtype = static_cast<int>(x.dtype);
    shape.out_dtype = static_cast<int>(out.dtype);
    backend.linears->prepare(shape, static_cast<int>(program.max_rows(out)));
  }
}

/// Of all weights.
std::size_t num_parts(const Program& program, const VtCudaLoad& load) {
  return static_cast<std::size_t>(
      std::accumulate(load.num_parts, load.num_parts + program.weights.size(), std::int64_t{0}));
}

void describe(const VtCudaBackend& backend, const VtCudaDevice& device, const std::string& notes,
              int num_blocks, VtCudaLoaded* loaded) {
  std::memset(loaded, 0, sizeof *loaded);
  loaded->num_blocks = num_blocks;
  for (const auto& [owner, bytes] : backend.ledger.entries()) {
    if (loaded->num_owners == VT_CUDA_MAX_OWNERS) break;
    auto& entry = loaded->memory[loaded->num_owners++];
    std::snprintf(entry.owner, sizeof entry.owner, "%s", owner.c_str());
    entry.bytes = bytes;
  }
  std::snprintf(loaded->device, sizeof loaded->device, "cuda (%s)", device.name);
  std::snprintf(loaded->notes, sizeof loaded->notes, "%s", notes.c_str());
}

std::unique_ptr<VtCudaBackend> load_backend(const VtCudaLoad& load, VtCudaLoaded* loaded) {
  Clock clock;
  auto backend = std::make_unique<VtCudaBackend>();
  check_options(load);
  backend->program = parse(load);
  const Program& program = backend->program;
  const Readahead readahead(load.parts, num_parts(program, load));

  VtCudaDevice device;
  VT_CHECK(vt_cuda_device(&device) == 0, "%s", vt_cuda_error());
  backend->device = choose_device(load.ranks);
  VT_CUDA(cudaSetDevice(backend->device));
  VT_CUDA(cudaFree(nullptr));
  DeviceMemory memory = {};
  VT_CUDA(cudaMemGetInfo(&memory.free_before, &memory.total));
  clock.mark("context");

  Ledger& ledger = backend->ledger;
  backend->weights = std::make_unique<Weights>(program, load, ledger);
  backend->linears =
      std::make_unique<LinearLibrary>(load.library_path, load.fast_math != 0, ledger);
  clock.mark("cuBLASLt");
  prepare_linears(*backend);
  clock.mark("linears");

  const std::int64_t most = most_blocks(program, load) * block_bytes(program, load.block_size);
  backend->kv = std::make_unique<KvCache>(
      static_cast<std::size_t>(std::min<std::int64_t>(most, memory.total)));
  if (load.ranks != nullptr)
    backend->ranks = std::make_unique<RankGroup>(
        *load.ranks, RankGroupOptions{load.library_path, load.fast_math != 0}, ledger);
  backend->executor = std::make_unique<Executor>(
      program, *backend->weights, *backend->linears, backend->kv->base(), backend->ranks.get(),
      ExecutorOptions{load.block_size, load.max_num_seqs, load.max_model_len, load.max_logprobs,
                      load.async_depth, load.debug_sync != 0, load.eager != 0},
      ledger);
  backend->executor->capture(ledger);
  clock.mark("capture");
  backend->weights->wait();
  clock.mark("weights");

  VT_CUDA(cudaMemGetInfo(&memory.free_now, &memory.total));
  const std::size_t used = memory.free_before - std::min(memory.free_now, memory.free_before);
  ledger.add("modules", used - std::min(used, ledger.device_bytes()));
  ledger.add("context", memory.total - memory.free_before);
  const int num_blocks = num_kv_blocks(program, load, memory);
  backend->kv->map(
      static_cast<std::size_t>(num_blocks * block_bytes(program, load.block_size)), ledger);
  backend->executor->set_num_blocks(num_blocks);
  clock.mark("kv");
  const std::string ranks_note = backend->ranks == nullptr ? "" : backend->ranks->note() + "\n";
  describe(*backend, device, ranks_note + backend->linears->notes() + "\n" + clock.notes(),
           num_blocks, loaded);
  return backend;
}

}  // namespace
}  // namespace vt

extern "C" {

VtCudaBackend* vt_cuda_backend_load(const VtCudaLoad* load, VtCudaLoaded* loaded) {
  std::unique_ptr<VtCudaBackend> backend;
  const int failed = vt::guarded([&] {
    backend = vt::load_backend(*load, loaded);
    return 0;
  });
  return failed == 0 ? backend.release() : nullptr;
}

int vt_cuda_backend_submit(VtCudaBackend* backend, double step, int64_t num_tokens,
                           const void* body, uint64_t body_bytes, const int32_t* table,
                           uint64_t table_words) {
  return vt::guarded([&] {
    VT_CUDA(cudaSetDevice(backend->device));
    backend->executor->submit(step, num_tokens, body, body_bytes, table, table_words);
    return 0;
  });
}

int vt_cuda_backend_wait(VtCudaBackend* backend, VtCudaStepOutput* output, double* step,
                         const char** op, int32_t* rank) {
  return vt::guarded([&] {
    VT_CUDA(cudaSetDevice(backend->device));
    try {
      return backend->executor->wait(output);
    } catch (const KernelError& error) {
      backend->op = error.op;
      *step = output->step;
      *op = backend->op.c_str();
      *rank = error.rank;
      throw;
    }
  });
}

void vt_cuda_backend_position(VtCudaBackend* backend, double* step, int32_t* op_index) {
  backend->executor->position(step, op_index);
}

void vt_cuda_backend_stop(VtCudaBackend* backend) { backend->executor->stop(); }

void vt_cuda_backend_close(VtCudaBackend* backend) {
  cudaSetDevice(backend->device);
  delete backend;
}

int vt_cuda_backend_buffer(VtCudaBackend* backend, int32_t index, void* data, uint64_t num_bytes,
                           int32_t write) {
  return vt::guarded([&] {
    VT_CUDA(cudaSetDevice(backend->device));
    VT_CHECK(index >= 0 && index < static_cast<int>(backend->program.buffers.size()),
             "buffer %d of %zu", index, backend->program.buffers.size());
    if (write != 0) {
      backend->executor->write_buffer(index, data, num_bytes);
    } else {
      backend->executor->read_buffer(index, data, num_bytes);
    }
    return 0;
  });
}

}  // extern "C"
