#include "rank_group.h"

#include <cstring>
#include <string>

#include "cuda_error.h"

namespace vt {

namespace {

/// What a rank may be behind another while they load; weights are on their way meanwhile.
constexpr int kLoadTimeoutMs = 60'000;
/// Of a rank's part in an inbox: 64 rows of 4,096 columns, in words of 8 bytes.
constexpr std::int64_t kSlotBytes = std::int64_t{2} << 20;
/// Allocations of whole units of this size share nothing with others.
constexpr std::size_t kShareable = std::size_t{2} << 20;

const VtCudaGroupReport* report_of(const PinnedBuffer& buffer) {
  return buffer.as<VtCudaGroupReport>();
}

}  // namespace

/// A rank's message to the others; plain bytes between processes of one build.
struct RankGroup::Introduction {
  cudaIpcMemHandle_t board, arena;
  std::uint64_t arena_bytes;
  std::int32_t num_multiprocessors, abi;
  char device[16];

  static Introduction of(const std::string& message) {
    VT_CHECK(message.size() == sizeof(Introduction), "a rank of another build has joined");
    Introduction introduction;
    std::memcpy(&introduction, message.data(), sizeof introduction);
    return introduction;
  }
};

std::size_t RankGroup::arena_bytes(std::size_t bytes) {
  return (bytes + kShareable - 1) / kShareable * kShareable;
}

RankGroup::RankGroup(const VtCudaRanks& ranks, Ledger& ledger)
    : board_(vt_cuda_board_bytes(ranks.num_ranks, kSlotBytes), "collectives", ledger),
      report_(sizeof(VtCudaGroupReport), "collectivesHost", ledger),
      mapped_(),
      exchange_(ranks.path, ranks.rank, ranks.num_ranks, kLoadTimeoutMs) {
  group_.rank = ranks.rank;
  group_.num_ranks = ranks.num_ranks;
  group_.timeout_ns = static_cast<std::uint64_t>(ranks.timeout_ms) * 1'000'000;
  group_.slot_bytes = kSlotBytes;
  group_.report = report_.as<VtCudaGroupReport>();
}

RankGroup::~RankGroup() {
  for (void* memory : mapped_) cudaIpcCloseMemHandle(memory);
}

void RankGroup::join(void* arena, std::size_t bytes) {
  Introduction mine = {};
  VT_CUDA(cudaIpcGetMemHandle(&mine.board, board_.as<char>()));
  VT_CUDA(cudaIpcGetMemHandle(&mine.arena, arena));
  mine.arena_bytes = bytes;
  mine.abi = VT_CUDA_ABI;
  cudaDeviceProp prop;
  int device = 0;
  VT_CUDA(cudaGetDevice(&device));
  VT_CUDA(cudaGetDeviceProperties(&prop, device));
  mine.num_multiprocessors = prop.multiProcessorCount;
  static_assert(sizeof mine.device == sizeof prop.uuid.bytes);
  std::memcpy(mine.device, prop.uuid.bytes, sizeof mine.device);

  group_.max_blocks = mine.num_multiprocessors;
  group_.boards[group_.rank] = board_.as<char>();
  group_.arenas[group_.rank] = arena;
  const auto messages =
      exchange_.meet(std::string(reinterpret_cast<const char*>(&mine), sizeof mine));
  for (int rank = 0; rank < group_.num_ranks; rank++) {
    if (rank == group_.rank) continue;
    const Introduction peer = Introduction::of(messages[rank]);
    VT_CHECK(peer.abi == mine.abi && peer.arena_bytes == mine.arena_bytes,
             "rank %d runs another program: its activations take %llu bytes, not %llu", rank,
             static_cast<unsigned long long>(peer.arena_bytes),
             static_cast<unsigned long long>(mine.arena_bytes));
    VT_CHECK(std::memcmp(peer.device, mine.device, sizeof mine.device) != 0,
             "ranks %d and %d have the same GPU", rank, group_.rank);
    group_.max_blocks = std::min(group_.max_blocks, peer.num_multiprocessors);
    open(peer, rank);
  }
  // Nobody may end before all have mapped it.
  meet();
}

void RankGroup::open(const Introduction& peer, int rank) {
  int device = 0, reaches = 0;
  VT_CUDA(cudaGetDevice(&device));
  VT_CUDA(cudaDeviceCanAccessPeer(&reaches, device, rank));
  VT_CHECK(reaches != 0,
           "GPUs %d and %d cannot reach each other's memory (no NVLink, or peer access is off): "
           "--tensor-parallel-size needs that",
           device, rank);
  for (const auto& [handle, to] : {std::pair(peer.board, &group_.boards[rank]),
                                   std::pair(peer.arena, &group_.arenas[rank])}) {
    VT_CUDA(cudaIpcOpenMemHandle(to, handle, cudaIpcMemLazyEnablePeerAccess));
    mapped_.push_back(*to);
  }
}

void RankGroup::meet() { exchange_.meet(""); }

VtCudaGroup RankGroup::describe(const std::uint64_t* first_epoch) const {
  VtCudaGroup group = group_;
  group.first_epoch = first_epoch;
  return group;
}

std::optional<RankFailure> RankGroup::failure() const {
  const VtCudaGroupReport* report = report_of(report_);
  if (__atomic_load_n(&report->state, __ATOMIC_ACQUIRE) == 0) return std::nullopt;
  return RankFailure{report->missing_rank, report->op_index, report->epoch};
}

int RankGroup::waiting_op() const {
  return __atomic_load_n(&report_of(report_)->waiting_op, __ATOMIC_RELAXED) - 1;
}

}  // namespace vt
