// What norms, activations and ropeAndCache fetch for the attention behind them, against the works that
// it begins with: each byte once, all of the layer's, none beyond a row's keys; and what they compute
// beside it, against the same calls without. `keys_ahead_check`.
#include <cstdlib>
#include <map>

#include "checks.h"

// What attention.cu launches beside the plan.
namespace vt {
int attention_decode_by_shape(const VtCudaAttention&, void*) { return fail("not here"); }
int attention_prefill_by_shape(const VtCudaAttention&, void*) { return fail("not here"); }
int attention_wgmma_by_shape(const VtCudaAttention&, void*) { return fail("not here"); }
int attention_wgmma_rows(int) { return 192; }
}  // namespace vt

namespace {

constexpr int kRows = 80, kLayers = 3, kLayer = 1, kBlock = 16, kHeads = 4, kKvHeads = 2, kDim = 64;
constexpr int kMostBlocks = 64, kLayerBytes = 2 * kKvHeads * kBlock * kDim * 2;
constexpr int kColumns = (kHeads + 2 * kKvHeads) * kDim;

std::mt19937 random_bits(11);

void run(int status) {
  if (status != 0) std::exit(1);
}

int below(int bound) { return static_cast<int>(random_bits() % static_cast<unsigned>(bound)); }

/// A step's work lists, its cache, and the call that reads it.
struct Step {
  std::vector<std::int32_t> query_start, seq_lens, tables, decode_work, prefill_work, counts;
  Words cache;
  VtCudaAttention next = {};

  Step(int window, int longest) : seq_lens(kRows), tables(kRows * kMostBlocks), counts(4) {
    for (int row = 0; row <= kRows; row++) query_start.push_back(row);
    for (std::int32_t& len : seq_lens) len = 1 + below(longest);
    seq_lens[7] = 0;
    for (int i = 0; i < kRows * kMostBlocks; i++) tables[i] = i;
    std::shuffle(tables.begin(), tables.end(), random_bits);
    const int works = kRows * kMostBlocks;
    decode_work.resize(works * 8);
    prefill_work.resize(8);
    cache.assign(std::size_t(kRows) * kMostBlocks * kLayers * kLayerBytes / 2, kUntouched);
    VtCudaPlanAttention plan = {};
    plan.query_start = query_start.data();
    plan.seq_lens = seq_lens.data();
    plan.decode_work = decode_work.data();
    plan.prefill_work = prefill_work.data();
    plan.work_counts = counts.data();
    plan.num_seqs = kRows;
    plan.max_work = works;
    plan.num_heads = kHeads;
    plan.num_kv_heads = kKvHeads;
    plan.window = window;
    plan.prefill_rows = 64;
    run(vt_cuda_plan_attention(&plan, nullptr));
    next.kv_cache = cache.data();
    next.block_tables = tables.data();
    next.decode_work = decode_work.data();
    next.work_counts = counts.data();
    next.max_decode_work = works;
    next.num_layers = kLayers;
    next.layer = kLayer;
    next.num_heads = kHeads;
    next.num_kv_heads = kKvHeads;
    next.head_dim = kDim;
    next.block_size = kBlock;
    next.max_num_blocks = kMostBlocks;
    next.window = window;
  }

  /// Where the first `num_pieces` pieces of `num_works` works begin, those that exist.
  std::map<const std::uint8_t*, int> pieces(int num_works, int num_pieces) const {
    std::map<const std::uint8_t*, int> found;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(cache.data());
    for (int w = 0; w < std::min(num_works, int(counts[0])); w++) {
      const std::int32_t* work = &decode_work[w * 8];
      int key = work[1];
      for (int piece = w; piece < num_pieces && key < work[7]; piece += num_works) {
        const std::int64_t block = tables[work[0] * kMostBlocks + key / kBlock];
        found[bytes + (block * kLayers + kLayer) * kLayerBytes] = kLayerBytes;
        key += kBlock;
      }
    }
    return found;
  }
};

/// What was fetched, neighbours joined; empty where something was fetched twice.
std::map<const std::uint8_t*, int> fetched_pieces() {
  std::map<const std::uint8_t*, int> parts, found;
  for (const emulated::Fetched& part : emulated::fetched)
    if (!parts.emplace(part.from, part.bytes).second || part.bytes % 16 != 0) return {};
  for (const auto& [from, bytes] : parts) {
    auto last = found.empty() ? found.end() : std::prev(found.end());
    const bool joins = last != found.end() && last->first + last->second == from &&
                       last->second < kLayerBytes;
    if (joins) last->second += bytes;
    else found[from] = bytes;
  }
  return found;
}

/// The call with and without what it fetches: whether it computes the same.
template <typename Args>
bool computes_the_same(int (*call)(const Args*, void*), Args args, const VtCudaKeysAhead& ahead,
                       Words& out) {
  const Words before = out;
  run(call(&args, nullptr));
  const Words want = out;
  out = before;
  args.ahead = ahead;
  run(call(&args, nullptr));
  return out == want;
}

bool norm(const VtCudaKeysAhead& ahead) {
  const Words x = normal_words(random_bits, Element::bf16, kRows * kColumns);
  const Words weight = normal_words(random_bits, Element::bf16, kColumns);
  Words out((kRows + 1) * kColumns, kUntouched);
  VtCudaRmsNorm args = {};
  args.out = out.data();
  args.x = x.data();
  args.weight = weight.data();
  args.num_rows = kRows;
  args.columns = args.out_stride = args.x_stride = kColumns;
  args.eps = 1e-5f;
  args.dtype = VT_CUDA_BF16;
  return computes_the_same(vt_cuda_rms_norm, args, ahead, out);
}

bool silu(const VtCudaKeysAhead& ahead) {
  constexpr int kWide = 4096;  // two blocks a row
  const Words x = normal_words(random_bits, Element::bf16, kRows * 2 * kWide);
  Words out((kRows + 1) * kWide, kUntouched);
  VtCudaSiluAndMul args = {};
  args.out = out.data();
  args.gate_up = x.data();
  args.num_rows = kRows;
  args.columns = args.out_stride = kWide;
  args.gate_up_stride = 2 * kWide;
  args.interleave = 8;
  args.dtype = VT_CUDA_BF16;
  return computes_the_same(vt_cuda_silu_and_mul, args, ahead, out);
}

bool rope(const VtCudaKeysAhead& ahead, bool norms) {
  Words qkv = normal_words(random_bits, Element::bf16, (kRows + 1) * kColumns);
  const Words weight = normal_words(random_bits, Element::bf16, kDim);
  const std::vector<float> angles(kRows * kDim, 0.5f);
  const std::vector<std::int32_t> slots(kRows, -1);
  VtCudaRopeAndCache args = {};
  args.qkv = qkv.data();
  args.cos_sin = angles.data();
  args.slots = slots.data();
  args.kv_cache = const_cast<void*>(ahead.kv_cache);
  args.num_tokens = kRows;
  args.num_heads = kHeads;
  args.num_kv_heads = kKvHeads;
  args.head_dim = kDim;
  args.num_layers = kLayers;
  args.block_size = kBlock;
  args.qkv_stride = kColumns;
  if (norms) args.q_weight = args.k_weight = weight.data();
  args.dtype = VT_CUDA_BF16;
  return computes_the_same(vt_cuda_rope_and_cache, args, ahead, qkv);
}

void check(const std::string& what, int window, int longest, bool norms) {
  const Step step(window, longest);
  emulated::fetched.clear();
  int pieces = 0, works = 0, launches = 0;
  bool same = true;
  for (int i = 0; i < 4; i++) {
    VtCudaKeysAhead ahead = vt_cuda_keys_ahead(&step.next, kRows, pieces);
    // As many blocks as that are not emulated in a second.
    ahead.num_pieces = std::min(ahead.num_pieces, 150);
    same &= i == 1 ? silu(ahead) : i == 3 ? rope(ahead, norms) : norm(ahead);
    pieces += ahead.num_pieces;
    works = ahead.num_works;
    launches += ahead.num_pieces > 0;
  }
  const auto found = fetched_pieces();
  report(what + ", fetched", !found.empty() && found == step.pieces(works, pieces),
         std::to_string(found.size()) + " blocks by " + std::to_string(launches) + " launches");
  report(what + ", computed", same);
}

}  // namespace

int main() {
  vt::multiprocessors = 22;
  check("rows of up to 900 keys", 0, 900, true);
  check("rows of up to 60 keys", 0, 60, false);
  check("a window of 100", 100, 900, false);
  const Step step(0, 900);
  report("few rows", vt_cuda_keys_ahead(&step.next, 8, 0).num_pieces == 0, "nothing ahead");
  VtCudaKeysAhead all = {};
  std::int64_t bytes = 0;
  for (int i = 0, pieces = 0; i < 99; i++, pieces += all.num_pieces) {
    all = vt_cuda_keys_ahead(&step.next, 256, pieces);
    bytes += std::int64_t{all.num_pieces} * kLayerBytes;
  }
  report("however many launches there are", bytes > 0 && bytes <= 10 << 20,
         std::to_string(bytes >> 20) + " MiB");
  emulated::fetched.clear();
  const VtCudaKeysAhead good = vt_cuda_keys_ahead(&step.next, 256, 0);
  VtCudaRmsNorm args = {};
  Words row(8);
  args.weight = row.data();
  args.x = args.out = row.data();
  args.num_rows = 1;
  args.columns = args.x_stride = args.out_stride = 8;
  args.dtype = VT_CUDA_BF16;
  const auto refuses = [&](const char* what, const VtCudaKeysAhead& ahead) {
    args.ahead = ahead;
    report(what, vt_cuda_rms_norm(&args, nullptr) != 0 && emulated::fetched.empty(), "refused");
  };
  VtCudaKeysAhead no_works = good, apart = good;
  no_works.num_works = 0;
  refuses("pieces of no works", no_works);
  apart.kv_cache = static_cast<const std::uint8_t*>(good.kv_cache) + 8;
  refuses("a cache that is not aligned", apart);
  return exit_status();
}
