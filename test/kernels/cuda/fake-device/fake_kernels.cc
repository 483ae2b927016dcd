// Kernels of vt_cuda_parts.h and vt_cuda_collective.h on streams of fake_stream.h, as far as NCCL's
// host code needs them to be seen.
#include "fake_stream.h"
#include "kernels/cuda/vt_cuda_parts.h"

extern "C" {

const char* vt_cuda_error() { return "a fake kernel was asked for what it does not have"; }
std::uint64_t vt_cuda_board_bytes(std::int32_t, std::int64_t) { return 64; }
int vt_cuda_all_reduce(const VtCudaAllReduce*, void*) { return -1; }
/// What a rank tells a row here: all of its slot, in three rounds of sizes that differ.
static std::uint32_t told(int rank, int round, std::size_t i) {
  return static_cast<std::uint32_t>(rank * 1000003 + round * 10007 + i);
}
constexpr std::int64_t kRoundBytes[] = {64, 1 << 20, 4160};
constexpr std::int64_t kRoundOffsets[] = {0, 0, 1 << 20};

/// Counts in token_ids[0] what is wrong of what others have told.
int vt_cuda_sample_sharded(const VtCudaSampleSharded* args, void* stream) {
  const VtCudaSampleSharded a = *args;
  const VtCudaGroup group = *a.group;
  std::int32_t* wrong = a.sample->token_ids;
  if (a.carry == nullptr) return -1;
  for (int round = 0; round < 3; round++) {
    const std::int64_t bytes = kRoundBytes[round], offset = kRoundOffsets[round];
    const auto slot = [=](int owner, int rank) {
      return reinterpret_cast<std::uint32_t*>(static_cast<char*>(group.boards[owner]) +
                                              VT_CUDA_INBOX_OFFSET + offset + rank * bytes);
    };
    if (bytes > group.slot_bytes) return -1;
    const std::size_t count = bytes / 4;
    static_cast<FakeStream*>(stream)->push([=] {
      for (std::size_t i = 0; i < count; i++) slot(0, group.rank)[i] = told(group.rank, round, i);
    });
    if (a.carry(a.carrier, offset, bytes, stream) != 0) return -1;
    static_cast<FakeStream*>(stream)->push([=] {
      for (int rank = 0; rank < group.num_ranks; rank++)
        for (std::size_t i = 0; i < count; i++)
          *wrong += slot(rank, rank)[i] != told(rank, round, i);
    });
  }
  return 0;
}
int vt_cuda_all_reduce_epochs(const VtCudaGroup*, std::int32_t, std::int32_t, std::int32_t) {
  return -1;
}

static void write_mark(const VtCudaMark& mark) {
  if (mark.word == nullptr) return;
  const std::uint64_t epoch = *mark.first_epoch + static_cast<std::uint64_t>(mark.ordinal);
  __atomic_store_n(mark.word, epoch << 16 | static_cast<std::uint64_t>(mark.op_index),
                   __ATOMIC_RELEASE);
}

int vt_cuda_mark(const VtCudaMark* mark, std::int32_t, void* stream) {
  static_cast<FakeStream*>(stream)->push([mark = *mark] { write_mark(mark); });
  return 0;
}

int vt_cuda_sum_parts(const VtCudaSumParts* args, void* stream) {
  static_cast<FakeStream*>(stream)->push([a = *args] {
    write_mark(a.mark);
    auto* out = static_cast<std::uint16_t*>(a.out);
    for (int i = 0; i < a.num_rows * a.columns; i++) {
      float sum = 0;
      for (int p = 0; p < a.num_parts; p++) {
        const float* from = p == a.own_part ? a.own : a.parts + p * a.part_stride;
        sum = p == 0 ? from[i] : sum + from[i];
      }
      out[i] = rounded(sum);
      if (a.norm_out != nullptr) static_cast<std::uint16_t*>(a.norm_out)[i] = out[i] + 1;
    }
  });
  return 0;
}

/// Enough to see that it ran, on what, and after what.
int vt_cuda_rms_norm(const VtCudaRmsNorm* args, void* stream) {
  static_cast<FakeStream*>(stream)->push([a = *args] {
    for (int i = 0; i < a.num_rows * a.columns; i++)
      static_cast<std::uint16_t*>(a.out)[i] = static_cast<const std::uint16_t*>(a.x)[i] + 1;
  });
  return 0;
}

int vt_cuda_join_parts(const VtCudaJoinParts* args, void* stream) {
  static_cast<FakeStream*>(stream)->push([a = *args] {
    write_mark(a.mark);
    for (int row = 0; row < a.num_rows; row++)
      for (int c = 0; c < a.out_columns; c++)
        a.out[row * a.out_stride + c] =
            a.parts[(c / a.columns * a.num_rows + row) * a.columns + c % a.columns];
  });
  return 0;
}

}  // extern "C"
