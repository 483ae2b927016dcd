// One rank of a RankGroup without a GPU, over fake_nccl.cc and a stream that is a thread:
//   nccl_run MEETING RANK NUM_RANKS COLLECTIVES WHAT
// MEETING is a path, or HOST:PORT of rank 0 for ranks that are hosts of their own; COLLECTIVES is
// auto, peer or nccl, with "+fast" for --fast-math. WHAT: sums (each is compared with the sum in
// rank order; then gathers, and rows that are sampled), or stay, die, stop: the last rank does so
// after three sums; stay-away: before rows are sampled. Prints the group's note and what came of
// it; an error on stderr and exit code 1. FAKE_PEER=0: no GPU reaches another.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "fake_stream.h"
#include "kernels/check.h"
#include "kernels/cuda/error.h"
#include "kernels/cuda/host/rank_group.h"

namespace {

int own_rank = 0, num_local = 1, num_all = 1;

float part(int seed, int rank, int i) {
  std::uint32_t h = static_cast<std::uint32_t>(seed * 31 + rank * 7 + i) * 2654435761u;
  h ^= h >> 13;
  return static_cast<float>(static_cast<std::int32_t>(h * 2246822519u)) * 0x1p-31f;
}

}  // namespace

// ---------------------------------------------------------------- the runtime

cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "fake"; }
cudaError_t cudaGetDevice(int* device) {
  *device = own_rank % num_local;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  const char* gpus = std::getenv("FAKE_GPUS");
  *count = gpus == nullptr ? num_local : std::atoi(gpus);
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int) {
  *prop = {};
  prop->multiProcessorCount = 132;
  const char* gpus = std::getenv("FAKE_GPUS");
  const int device = gpus == nullptr ? own_rank : own_rank % std::atoi(gpus);
  std::snprintf(prop->uuid.bytes, sizeof prop->uuid.bytes, "%d", device);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 9;
  return cudaSuccess;
}
// Boards are nothing here: no kernel of our own runs.
cudaError_t cudaMemset(void*, int, std::size_t) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  const char* text = std::getenv("FAKE_PEER");
  *can = text == nullptr || std::string(text) != "0";
  return cudaSuccess;
}
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t*, void*) { return cudaSuccess; }
cudaError_t cudaIpcOpenMemHandle(void** memory, cudaIpcMemHandle_t, unsigned) {
  *memory = nullptr;
  return cudaSuccess;
}
cudaError_t cudaIpcCloseMemHandle(void*) { return cudaSuccess; }
extern "C" __attribute__((visibility("default"))) cudaError_t cudaLaunchHostFunc(
    cudaStream_t stream, void (*function)(void*), void* data) {
  stream->push([=] { function(data); });
  return cudaSuccess;
}

// ---------------------------------------------------------------- memory

namespace vt {

void Ledger::add(const std::string&, std::size_t, bool) {}
void* DeviceAllocator::allocate(std::size_t bytes, const std::string&) { return calloc(bytes, 1); }
void DeviceAllocator::free(void* data) noexcept { ::free(data); }
void* PinnedAllocator::allocate(std::size_t bytes, const std::string&) { return calloc(bytes, 1); }
void PinnedAllocator::free(void* data) noexcept { ::free(data); }

int fail(const char*, ...) { return -1; }

}  // namespace vt

// ---------------------------------------------------------------- the rank

namespace {

constexpr std::uint64_t kFirstEpoch = 7;

class Run {
 public:
  explicit Run(vt::RankGroup& ranks) : ranks_(ranks) {
    ranks.join(0, ledger_);
    group_ = ranks.describe(&first_epoch_);
    printf("note: %s\n", ranks.note().c_str());
  }

  /// How many values are wrong; of sums that NCCL added, by more than rounding.
  int reduce(int rows, int columns, int op_index, bool exact) {
    const int count = rows * columns;
    std::vector<float> x(count);
    std::vector<std::uint16_t> out(count), norm(count);
    for (int i = 0; i < count; i++) x[i] = part(op_index, ranks_.rank(), i);
    VtCudaAllReduce args = {};
    args.group = &group_;
    args.out = out.data();
    args.x = x.data();
    args.norm_out = op_index % 2 == 0 ? norm.data() : nullptr;
    args.norm_weight = out.data();
    args.num_rows = rows;
    args.columns = args.out_stride = args.x_stride = args.norm_stride = columns;
    args.ordinal = num_epochs_++;
    args.op_index = op_index;
    ranks_.all_reduce(args, &stream_);
    stream_.synchronize();
    if (ranks_.failure()) return 0;
    int wrong = 0;
    for (int i = 0; i < count; i++) {
      float sum = part(op_index, 0, i);
      for (int rank = 1; rank < ranks_.num_ranks(); rank++) sum += part(op_index, rank, i);
      const int off = std::abs(out[i] - rounded(sum));
      num_other_bits_ += off != 0;
      wrong += off > (exact ? 0 : 64) && std::abs(sum) > 0.1f;
      if (args.norm_out != nullptr) wrong += norm[i] != static_cast<std::uint16_t>(out[i] + 1);
    }
    return wrong;
  }

  int gather(int rows, int columns, int out_columns, int op_index) {
    std::vector<float> x(rows * columns), out(rows * out_columns);
    for (int i = 0; i < rows * columns; i++) x[i] = part(op_index, ranks_.rank(), i);
    VtCudaAllGather args = {};
    args.group = &group_;
    args.out = out.data();
    args.x = x.data();
    args.num_rows = rows;
    args.x_columns = args.x_stride = columns;
    args.out_columns = args.out_stride = out_columns;
    args.ordinal = num_epochs_++;
    args.op_index = op_index;
    ranks_.all_gather(args, &stream_);
    stream_.synchronize();
    int wrong = 0;
    for (int i = 0; i < rows * out_columns; i++) {
      const int row = i / out_columns, column = i % out_columns;
      wrong += out[i] != part(op_index, column / columns, row * columns + column % columns);
    }
    return wrong;
  }

  /// Rows told by what is carried between two kernels.
  int sample(int op_index) {
    std::int32_t wrong = 0;
    VtCudaSample rows = {};
    rows.token_ids = &wrong;
    VtCudaSampleSharded args = {};
    args.group = &group_;
    args.sample = &rows;
    args.ordinal = num_epochs_++;
    args.op_index = op_index;
    ranks_.sample_sharded(args, &stream_);
    stream_.synchronize();
    return wrong;
  }

  int num_other_bits() const { return num_other_bits_; }

 private:
  vt::RankGroup& ranks_;
  vt::Ledger ledger_;
  VtCudaGroup group_{};
  const std::uint64_t first_epoch_ = kFirstEpoch;
  int num_epochs_ = 0, num_other_bits_ = 0;
  FakeStream& stream_ = *new FakeStream;
};

int sums(Run& run, bool exact) {
  int wrong = 0, op = 0;
  // Shares that are equal, unequal, and empty; a part of more than a MiB, and one of many turns.
  const int rows[] = {1, 2, 3, 7, 64, 257, 1100, 5001};
  for (const int m : rows) wrong += run.reduce(m, 64, op++, exact);
  for (const int m : {1, 3, 200}) wrong += run.reduce(m, 4096, op++, exact);
  wrong += run.reduce(2, 1 << 19, op++, exact);
  wrong += run.reduce(5, 2 << 20, op++, exact);
  wrong += run.gather(1, 1000, 1999, op++);
  wrong += run.gather(300, 16384, 32001, op++);
  wrong += run.gather(3, 6, 11, op++);
  for (int i = 0; i < 2; i++) wrong += run.sample(op++);
  printf("%d wrong, %s\n", wrong, run.num_other_bits() == 0 ? "our bits" : "other bits");
  return wrong == 0 ? 0 : 1;
}

int fault(Run& run, vt::RankGroup& ranks, const std::string& what) {
  for (int op = 0; op < 3; op++) run.reduce(2, 64, op, true);
  if (ranks.rank() == ranks.num_ranks() - 1) {
    if (what == "die") _exit(0);
    if (what == "stop") raise(SIGSTOP);
    ranks.meet();  // until the others have ended
    return 0;
  }
  try {
    if (what == "stay-away") {
      run.sample(3);
    } else {
      run.reduce(2, 64, 3, true);
    }
    run.reduce(2, 64, 4, true);
    printf("went on\n");
  } catch (const vt::KernelError& error) {
    printf("then: %s\n", error.what());
  }
  const auto failure = ranks.failure();
  if (!failure) return 1;
  printf("rank %d, op %d, epoch %d: %s\n", failure->missing_rank, failure->op_index,
         static_cast<int>(failure->epoch), failure->reason.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 64;
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string meeting = argv[1], what = argv[5];
  std::string collectives = argv[4];
  const bool fast = collectives.find("+fast") != std::string::npos;
  if (fast) collectives.resize(collectives.size() - 5);
  VtCudaRanks ranks = {};
  own_rank = ranks.rank = atoi(argv[2]);
  num_all = ranks.num_ranks = atoi(argv[3]);
  const std::size_t colon = meeting.find(':');
  num_local = ranks.num_local_ranks = colon == std::string::npos ? num_all : 1;
  ranks.local_rank = ranks.rank % num_local;
  // Long enough for ranks that only wait for a processor.
  ranks.timeout_ms = what == "stay" || what == "stay-away" || what == "stop" ? 5000 : 60000;
  ranks.path = argv[1];
  ranks.collectives = collectives.c_str();
  std::vector<std::string> addresses;
  std::vector<const char*> pointers;
  const std::string tokens(static_cast<std::size_t>(num_all) * 64, 't');
  for (int rank = 0; rank < num_all; rank++)
    addresses.push_back(meeting.substr(0, colon + 1) +
                        std::to_string(atoi(meeting.c_str() + colon + 1) + rank));
  for (const std::string& address : addresses) pointers.push_back(address.c_str());
  if (colon != std::string::npos) {
    ranks.addresses = pointers.data();
    ranks.shown_tokens = ranks.expected_tokens = tokens.data();
  }
  const char* libraries = std::getenv("VLLM_TS_CUDA_LIBS");
  int result = 1;
  try {
    vt::Ledger ledger;
    vt::RankGroup group(ranks, {libraries == nullptr ? "" : libraries, fast}, ledger);
    Run run(group);
    if (what == "note") return 0;
    result = what == "sums" ? sums(run, !fast) : fault(run, group, what);
    // Who goes early takes the group along.
    if (what == "sums") group.meet();
  } catch (const vt::KernelError& error) {
    fprintf(stderr, "%s\n", error.what());
  }
  fflush(stdout);
  _exit(result);
}
