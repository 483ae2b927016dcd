// A libvt_cuda.so that computes nothing: the ABI of kernels/cuda/vt_cuda_backend.h over a queue, so
// that the addon and kernels/cuda-backend.ts can be tested without a GPU. A row samples token
// 5 + row. FAKE_CUDA says what goes wrong: "no device", "load", or "step N".
#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/cuda/vt_cuda_backend.h"
#include "kernels/step.h"

#ifndef FAKE_ABI
#define FAKE_ABI VT_CUDA_ABI
#endif

namespace {

thread_local std::string error;

int fail(const std::string& reason) {
  error = reason;
  return -1;
}

std::string wanted_fault() {
  const char* text = std::getenv("FAKE_CUDA");
  return text == nullptr ? "" : text;
}

struct Output {
  double step;
  std::vector<char> body;
  std::int32_t table[2 * vt::kNumStepOutputColumns];
};

}  // namespace

struct VtCudaBackend {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Output> queue;
  Output current;
  bool stopped = false;
  std::string failure;
  double last_step = -1;
  int num_ranks = 1;
  std::map<int, std::vector<char>> buffers;
};

int vt_cuda_abi() { return FAKE_ABI; }
const char* vt_cuda_error() { return error.c_str(); }

int vt_cuda_device(VtCudaDevice* device) {
  if (wanted_fault() == "no device") return fail("no CUDA device is visible");
  *device = VtCudaDevice{"Fake GPU", 9, 0, 13000, 80ull << 30};
  return 0;
}

VtCudaBackend* vt_cuda_backend_load(const VtCudaLoad* load, VtCudaLoaded* loaded) {
  if (wanted_fault() == "load") {
    fail("out of memory: weights");
    return nullptr;
  }
  const int num_weights = static_cast<int>(load->num_weight_words / 4);
  int num_parts = 0;
  for (int i = 0; i < num_weights; i++) num_parts += load->num_parts[i];
  std::uint64_t bytes = 0;
  int num_made_up = 0;
  for (int i = 0; i < num_parts; i++) {
    bytes += load->parts[i].num_bytes;
    num_made_up += load->parts[i].data == nullptr;
  }
  snprintf(loaded->device, sizeof loaded->device, "cuda (Fake GPU, %d ops' words, seed %lld)",
           static_cast<int>(load->num_op_words), static_cast<long long>(load->dummy_seed));
  snprintf(loaded->notes, sizeof loaded->notes,
           "kv %lld bytes or %.2f%s%s\nlibraries in '%s'\n%d parts made up\n",
           static_cast<long long>(load->kv_cache_memory_bytes), load->memory_utilization,
           load->eager ? ", eager" : "",
           load->fit_model_len ? ", fitted" : "", load->library_path, num_made_up);
  loaded->num_blocks = 1 + load->max_num_seqs * (load->max_model_len / load->block_size);
  loaded->num_owners = 2;
  strcpy(loaded->memory[0].owner, "weights");
  loaded->memory[0].bytes = bytes;
  strcpy(loaded->memory[1].owner, "parts");
  loaded->memory[1].bytes = static_cast<std::uint64_t>(num_parts);
  auto* backend = new VtCudaBackend();
  if (load->ranks != nullptr) {
    const VtCudaRanks& ranks = *load->ranks;
    backend->num_ranks = ranks.num_ranks;
    snprintf(loaded->device, sizeof loaded->device, "cuda (Fake GPU %d of %d, %d ms)", ranks.rank,
             ranks.num_ranks, ranks.timeout_ms);
    const bool is_alone = ranks.addresses == nullptr;
    snprintf(loaded->notes, sizeof loaded->notes,
             "collectives %s: %d of %d on this host, at %s, tokens %d\n", ranks.collectives,
             ranks.local_rank, ranks.num_local_ranks,
             is_alone ? ranks.path : ranks.addresses[ranks.num_ranks - 1],
             is_alone ? 0 : static_cast<const unsigned char*>(ranks.expected_tokens)[0]);
  }
  return backend;
}

int vt_cuda_backend_submit(VtCudaBackend* backend, double step, int64_t, const void* body, uint64_t,
                           const int32_t* table, uint64_t table_words) {
  using Column = vt::StepInputColumn;
  if (table_words != 2 * vt::kNumStepInputColumns) return fail("a table of the wrong length");
  const auto column = [&](Column name) {
    return reinterpret_cast<const int32_t*>(static_cast<const char*>(body) +
                                            table[2 * static_cast<int>(name)]);
  };
  const int num_rows = table[2 * static_cast<int>(Column::row) + 1];
  Output output{step, std::vector<char>(static_cast<size_t>(num_rows) * 8 + 8), {}};
  auto* ids = reinterpret_cast<int32_t*>(output.body.data());
  for (int i = 0; i < num_rows; i++)
    ids[i] = column(Column::flags)[i] & vt::kStepFlagSample ? 5 + column(Column::row)[i] : -1;
  const int flags_at = (num_rows * 4 + 7) / 8 * 8;
  output.table[1] = output.table[3] = num_rows;
  output.table[2] = flags_at;
  const std::lock_guard<std::mutex> lock(backend->mutex);
  if (!backend->failure.empty())
    return fail("the backend has failed and takes no more steps: " + backend->failure);
  backend->queue.push_back(std::move(output));
  backend->changed.notify_all();
  return 0;
}

int vt_cuda_backend_wait(VtCudaBackend* backend, VtCudaStepOutput* output, double* step,
                         const char** op, int32_t* rank) {
  std::unique_lock<std::mutex> lock(backend->mutex);
  backend->changed.wait(lock, [&] { return backend->stopped || !backend->queue.empty(); });
  if (backend->stopped) return 1;
  backend->current = std::move(backend->queue.front());
  backend->queue.pop_front();
  Output& done = backend->current;
  if (wanted_fault() == "step " + std::to_string(static_cast<int>(done.step))) {
    const char* text = "an illegal memory access was encountered";
    backend->failure = text + (" (linear, " + wanted_fault() + ")");
    *step = done.step;
    *op = "linear";
    *rank = backend->num_ranks > 1 ? 1 : -1;
    return fail(text);
  }
  backend->last_step = done.step;
  *output = {
      done.step,        7u,        done.step * 100, done.step * 100 + 90, 10, done.body.data(),
      done.body.size(), done.table};
  return 0;
}

void vt_cuda_backend_position(VtCudaBackend* backend, double* step, int32_t* op_index) {
  const std::lock_guard<std::mutex> lock(backend->mutex);
  *step = backend->last_step;
  *op_index = 3;
}

void vt_cuda_backend_stop(VtCudaBackend* backend) {
  const std::lock_guard<std::mutex> lock(backend->mutex);
  backend->stopped = true;
  backend->changed.notify_all();
}

void vt_cuda_backend_close(VtCudaBackend* backend) { delete backend; }

int vt_cuda_backend_buffer(VtCudaBackend* backend, int32_t index, void* data, uint64_t num_bytes,
                           int32_t write) {
  if (index > 1000) return fail("no such buffer");
  std::vector<char>& buffer = backend->buffers[index];
  buffer.resize(std::max<size_t>(buffer.size(), num_bytes));
  char* bytes = static_cast<char*>(data);
  if (write)
    std::copy(bytes, bytes + num_bytes, buffer.begin());
  else
    std::copy(buffer.begin(), buffer.begin() + static_cast<long>(num_bytes), bytes);
  return 0;
}
