// How large a rank's board is.
#include "group.cuh"

extern "C" uint64_t vt_cuda_board_bytes(int32_t num_ranks, int64_t slot_bytes) {
  constexpr uint64_t kUnit = uint64_t{2} << 20;
  const uint64_t slots = 2 * static_cast<uint64_t>(num_ranks);
  const uint64_t bytes = VT_CUDA_INBOX_OFFSET + slots * static_cast<uint64_t>(slot_bytes);
  return (bytes + kUnit - 1) / kUnit * kUnit;
}
