#include "rank_group.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include "cuda_error.h"
#include "launch_error.h"

namespace vt {

namespace {

/// What a rank may be behind another while they load; weights are on their way meanwhile.
constexpr int kLoadTimeoutMs = 60'000;
/// Of an inbox: 7,100 rows of 4,096 columns in a launch of allReduce, 256 rows of 152 K logits with
/// their candidates (more take each launch of sampleSharded twice).
constexpr std::int64_t kInboxBytes = std::int64_t{336} << 20;

/// Of a rank's part in half an inbox.
std::int64_t slot_bytes(int num_ranks) { return kInboxBytes / 2 / num_ranks / 64 * 64; }

/// Where its ranks meet while they load.
TcpGroup group_of(const VtCudaRanks& ranks) {
  if (ranks.addresses == nullptr)
    return local_group(ranks.path, ranks.rank, ranks.num_ranks, ranks.timeout_ms);
  const std::size_t bytes = static_cast<std::size_t>(ranks.num_ranks) * kNumTcpKinds * kTokenBytes;
  TcpGroup group{ranks.rank,
                 ranks.num_ranks,
                 ranks.timeout_ms,
                 {},
                 std::string(static_cast<const char*>(ranks.shown_tokens), bytes),
                 std::string(static_cast<const char*>(ranks.expected_tokens), bytes)};
  group.addresses.assign(ranks.addresses, ranks.addresses + ranks.num_ranks);
  return group;
}

/// Of our own kernels, also of those that tell rows where NCCL carries them.
constexpr int kLeastCapability = 9;
int capability_of(int device) {
  int major = 0;
  VT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major;
}

const VtCudaGroupReport* report_of(const PinnedBuffer& buffer) {
  return buffer.as<VtCudaGroupReport>();
}

}  // namespace

/// A rank's message to the others; plain bytes between processes of one build.
struct RankGroup::Introduction {
  cudaIpcMemHandle_t board;
  std::uint64_t arena_bytes;
  std::int32_t num_multiprocessors, capability, abi;
  char device[16];
  Wish wish;
  /// Why it wants NCCL.
  char why[120];

  static Introduction of(const std::string& message) {
    VT_CHECK(message.size() == sizeof(Introduction), "a rank of another build has joined");
    Introduction introduction;
    std::memcpy(&introduction, message.data(), sizeof introduction);
    introduction.why[sizeof introduction.why - 1] = '\0';
    return introduction;
  }
};

int device_of(const std::string& collectives, int local_rank) {
  if (!shares_devices(collectives)) return local_rank;
  int count = 0;
  VT_CUDA(cudaGetDeviceCount(&count));
  return local_rank % count;
}

RankGroup::RankGroup(const VtCudaRanks& ranks, const RankGroupOptions& options, Ledger& ledger)
    : options_(options),
      wanted_(ranks.collectives),
      local_rank_(ranks.local_rank),
      num_local_ranks_(ranks.num_local_ranks),
      report_(sizeof(VtCudaGroupReport), "collectivesHost", ledger),
      exchange_(group_of(ranks), kLoadTimeoutMs) {
  group_.rank = ranks.rank;
  group_.num_ranks = ranks.num_ranks;
  group_.timeout_ns = static_cast<std::uint64_t>(ranks.timeout_ms) * 1'000'000;
  group_.slot_bytes = slot_bytes(ranks.num_ranks);
  group_.report = report_.as<VtCudaGroupReport>();
}

RankGroup::~RankGroup() {
  for (void* memory : mapped_) cudaIpcCloseMemHandle(memory);
}

std::string RankGroup::why_not_peer() const {
  if (num_local_ranks_ < group_.num_ranks) return "the ranks are on several hosts";
  if (group_.num_ranks > VT_CUDA_MAX_RANKS)
    return "our own kernels are for " + std::to_string(VT_CUDA_MAX_RANKS) + " ranks at most";
  const int own = device_of(wanted_, local_rank_);
  if (capability_of(own) < kLeastCapability)
    return "our own kernels need GPUs of compute capability 9.0";
  for (int peer = 0; peer < num_local_ranks_; peer++) {
    const int device = device_of(wanted_, peer);
    int reaches = 0;
    if (device == own) continue;
    VT_CUDA(cudaDeviceCanAccessPeer(&reaches, own, device));
    if (reaches == 0)
      return "GPUs " + std::to_string(own) + " and " + std::to_string(device) +
             " cannot reach each other's memory (no NVLink, or peer access is off)";
  }
  return "";
}

RankGroup::Wish RankGroup::wish(std::string& why) const {
  why = why_not_peer();
  const bool must_be_ours = wanted_ == "peer" || shares_devices(wanted_);
  VT_CHECK(why.empty() || !must_be_ours, "VLLM_TS_CUDA_COLLECTIVES=%s: %s", wanted_.c_str(),
           why.c_str());
  if (!why.empty()) return Wish::needs_nccl;
  why = "VLLM_TS_CUDA_COLLECTIVES asks for it";
  if (wanted_ == "nccl") return Wish::needs_nccl;
  std::string ignored;
  why = "of --fast-math";
  const bool is_faster = options_.fast_math && group_.num_ranks > 2 && !must_be_ours;
  return is_faster && Nccl::load(options_.library_path, ignored) != nullptr ? Wish::likes_nccl
                                                                            : Wish::none;
}

RankGroup::Introduction RankGroup::introduce(std::size_t arena_bytes, Ledger& ledger) {
  Introduction mine = {};
  std::string why;
  mine.wish = wish(why);
  std::snprintf(mine.why, sizeof mine.why, "%s", why.c_str());
  mine.arena_bytes = arena_bytes;
  mine.abi = VT_CUDA_ABI;
  cudaDeviceProp prop;
  int device = 0;
  VT_CUDA(cudaGetDevice(&device));
  VT_CUDA(cudaGetDeviceProperties(&prop, device));
  mine.num_multiprocessors = prop.multiProcessorCount;
  mine.capability = capability_of(device);
  static_assert(sizeof mine.device == sizeof prop.uuid.bytes);
  std::memcpy(mine.device, prop.uuid.bytes, sizeof mine.device);
  if (mine.wish == Wish::needs_nccl) return mine;
  board_ = DeviceBuffer(vt_cuda_board_bytes(group_.num_ranks, group_.slot_bytes), "collectives",
                        ledger);
  VT_CUDA(cudaMemset(board_.as<char>() + VT_CUDA_INBOX_OFFSET, 0xff,
                     board_.bytes() - VT_CUDA_INBOX_OFFSET));
  VT_CUDA(cudaDeviceSynchronize());
  VT_CUDA(cudaIpcGetMemHandle(&mine.board, board_.as<char>()));
  return mine;
}

void RankGroup::join(std::size_t arena_bytes, Ledger& ledger) {
  const Introduction mine = introduce(arena_bytes, ledger);
  std::vector<Introduction> all;
  for (const std::string& message :
       exchange_.meet(std::string(reinterpret_cast<const char*>(&mine), sizeof mine)))
    all.push_back(Introduction::of(message));
  const Introduction* needs = nullptr;
  bool all_like = true;
  bool all_able = group_.num_ranks <= VT_CUDA_MAX_RANKS;
  group_.max_blocks = mine.num_multiprocessors;
  for (int rank = 0; rank < group_.num_ranks; rank++) {
    const Introduction& peer = all[rank];
    if (needs == nullptr && peer.wish == Wish::needs_nccl) needs = &peer;
    all_like = all_like && peer.wish != Wish::none;
    all_able = all_able && peer.capability >= kLeastCapability;
    if (rank == group_.rank) continue;
    VT_CHECK(peer.abi == mine.abi && peer.arena_bytes == mine.arena_bytes,
             "rank %d runs another program: its activations take %llu bytes, not %llu", rank,
             static_cast<unsigned long long>(peer.arena_bytes),
             static_cast<unsigned long long>(mine.arena_bytes));
    const bool is_same = std::memcmp(peer.device, mine.device, sizeof mine.device) == 0;
    VT_CHECK(shares_devices(wanted_) || !is_same, "ranks %d and %d have the same GPU", rank,
             group_.rank);
    group_.max_blocks = std::min(group_.max_blocks, peer.num_multiprocessors);
  }
  if (needs != nullptr || all_like) {
    join_nccl(needs != nullptr ? needs->why : mine.why, ledger);
    tells_over_nccl_ = all_able;
    if (all_able) nccl_->describe(group_);
  } else {
    map(all);
  }
  // Nobody may end before all have mapped it.
  meet();
}

void RankGroup::map(const std::vector<Introduction>& peers) {
  group_.boards[group_.rank] = board_.as<char>();
  for (int rank = 0; rank < group_.num_ranks; rank++) {
    if (rank == group_.rank) continue;
    VT_CUDA(cudaIpcOpenMemHandle(&group_.boards[rank], peers[rank].board,
                                 cudaIpcMemLazyEnablePeerAccess));
    mapped_.push_back(group_.boards[rank]);
  }
}

void RankGroup::join_nccl(const std::string& why, Ledger& ledger) {
  board_ = DeviceBuffer();
  std::string missing;
  std::unique_ptr<Nccl> nccl = Nccl::load(options_.library_path, missing);
  // Rank 0's message is the id, the others' that they are able.
  const std::string able = nccl == nullptr ? "" : group_.rank == 0 ? nccl->make_id() : "able";
  const std::vector<std::string> messages = exchange_.meet(able);
  VT_CHECK(nccl != nullptr, "the ranks' collectives need NCCL, because %s: %s", why.c_str(),
           missing.c_str());
  for (int rank = 0; rank < group_.num_ranks; rank++)
    VT_CHECK(!messages[rank].empty(),
             "the ranks' collectives need NCCL, because %s: rank %d has none", why.c_str(), rank);
  nccl->join(messages[0], group_.rank, group_.num_ranks, kLoadTimeoutMs);
  const int timeout_ms = static_cast<int>(group_.timeout_ns / 1'000'000);
  note_ = "collectives: NCCL " + nccl->version() + " (" + nccl->path() + "), because " + why +
          (options_.fast_math
               ? "; it adds in its own order: tokens may depend on what else is in the batch"
               : "; sums in rank order");
  auto news = std::make_unique<TcpNews>(group_.rank, exchange_.take_news_sockets(),
                                        news_beat_ms(timeout_ms));
  nccl_ = std::make_unique<NcclRanks>(std::move(nccl), std::move(news), group_.rank,
                                      group_.num_ranks, timeout_ms, options_.fast_math, ledger);
}

void RankGroup::meet() { exchange_.meet(""); }

void RankGroup::all_reduce(const VtCudaAllReduce& args, void* stream) const {
  if (nccl_ != nullptr) return nccl_->all_reduce(args, stream);
  VT_LAUNCH(vt_cuda_all_reduce(&args, stream));
}

void RankGroup::sample_sharded(const VtCudaSampleSharded& args, void* stream) const {
  if (nccl_ != nullptr) return nccl_->sample_sharded(args, stream);
  VT_LAUNCH(vt_cuda_sample_sharded(&args, stream));
}

void RankGroup::all_gather(const VtCudaAllGather& args, void* stream) const {
  VT_CHECK(nccl_ != nullptr, "allGather: only NCCL carries it");
  nccl_->all_gather(args, stream);
}

int RankGroup::num_epochs(int num_rows, int columns) const {
  return nccl_ != nullptr ? 1
                          : vt_cuda_all_reduce_epochs(&group_, num_rows, columns,
                                                      VT_CUDA_WAY_BY_SIZE);
}

VtCudaGroup RankGroup::describe(const std::uint64_t* first_epoch) const {
  VtCudaGroup group = group_;
  group.first_epoch = first_epoch;
  return group;
}

std::optional<RankFailure> RankGroup::failure() const {
  if (nccl_ != nullptr) {
    if (const auto failure = nccl_->watch().failure()) return failure;
  }
  const VtCudaGroupReport* report = report_of(report_);
  const std::uint32_t state = __atomic_load_n(&report->state, __ATOMIC_ACQUIRE);
  if (state == VT_CUDA_GROUP_WELL) return std::nullopt;
  const int rank = report->missing_rank;
  const std::string reason =
      state == VT_CUDA_GROUP_DISAGREES
          ? "rank " + std::to_string(rank) + " disagrees with the others: it has read other tokens"
          : "";
  return RankFailure{rank, report->op_index, report->epoch, reason};
}

int RankGroup::waiting_op() const {
  if (nccl_ != nullptr) return nccl_->watch().waiting_op();
  return __atomic_load_n(&report_of(report_)->waiting_op, __ATOMIC_RELAXED) - 1;
}

}  // namespace vt
