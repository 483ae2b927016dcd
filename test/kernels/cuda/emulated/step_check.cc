// A step's first and last kernel in the emulated block: attention's work lists, embedding and angles
// made in the first one against those of the kernels that make nothing else, and what the last one
// makes of sampled ids against a few lines that say it; and the calls that attention refuses.
// `step_check`.
#include <cstdlib>
#include <cstring>

#include "checks.h"
#include "kernels/cuda/host/step_arrays.h"

extern "C" const char* vt_cuda_error() { return "printed above"; }

// What attention.cu launches beside the plan.
namespace vt {
int attention_decode_by_shape(const VtCudaAttention&, void*) { return 0; }
int attention_prefill_by_shape(const VtCudaAttention&, void*) { return fail("not here"); }
int attention_wgmma_by_shape(const VtCudaAttention&, void*) { return fail("not here"); }
int attention_wgmma_rows(int) { return 192; }
}  // namespace vt

namespace {

using vt::StepArrays;

void report_wrong(const std::string& what, int wrong) {
  report(what, wrong == 0, std::to_string(wrong) + " wrong");
}

/// Memory of a step of at most kRows rows and kTokens tokens.
class Step {
 public:
  static constexpr int kTable = 24, kTokens = 2048, kLength = 20000, kBlock = 16, kWorks = 400;
  static constexpr int kSlot = 4096, kResult = 1024, kMostSlots = 9;

  Step(std::mt19937& random, int num_rows, int most_queries, int num_slots = 4) : random_(random) {
    arrays.layout = {64, 1024, 2048, kSlot, 64, 512, 0, 0, 0, 0, 0, kResult, num_slots};
    arrays.inputs = inputs_;
    arrays.results = results_;
    arrays.histories = take<std::int32_t>(kTable * kLength);
    arrays.host_block_tables = take<std::int32_t>(kTable * kLength / kBlock);
    arrays.block_tables = take<std::int32_t>(kTable * kLength / kBlock);
    arrays.params = take<VtCudaRowParams>(kTable);
    arrays.stop_ids = take<std::int32_t>(kTable * vt::kStopIdsOnDevice);
    for (auto by_row : {&arrays.num_tokens, &arrays.finished, &arrays.last_token,
                        &arrays.query_start, &arrays.seq_lens, &arrays.row_of, &arrays.logit_of,
                        &arrays.unfit})
      *by_row = take<std::int32_t>(kTable + 1);
    for (auto by_token : {&arrays.token_ids, &arrays.positions, &arrays.slots, &arrays.logit_index,
                          &arrays.logit_row, &arrays.judged_ids, &arrays.batch_of,
                          &arrays.sampled_ids})
      *by_token = take<std::int32_t>(kTokens);
    arrays.sampled_flags = take<std::uint8_t>(kTokens);
    arrays.step_index = take<std::uint64_t>(1);
    arrays.start_ns = take<std::uint64_t>(1);
    arrays.first_epoch = take<std::uint64_t>(1);
    arrays.counts = take<vt::StepCounts>(1);
    arrays.history_stride = kLength;
    arrays.block_stride = kLength / kBlock;
    arrays.block_size = kBlock;
    arrays.max_model_len = kLength;
    *arrays.step_index = below(9);
    fill(num_rows, most_queries);
  }

  int below(int bound) { return static_cast<int>(random_() % static_cast<unsigned>(bound)); }

  VtCudaPlanAttention plan(int num_rows, int heads, int kv_heads, int window, int max_work) {
    VtCudaPlanAttention plan = {};
    plan.query_start = arrays.query_start;
    plan.seq_lens = arrays.seq_lens;
    plan.row_of = arrays.row_of;
    plan.decode_work = take<std::int32_t>(kWorks * 8);
    plan.prefill_work = take<std::int32_t>(kWorks * 8);
    plan.work_counts = take<std::int32_t>(4);
    plan.num_seqs = num_rows;
    plan.max_work = max_work;
    plan.num_heads = heads;
    plan.num_kv_heads = kv_heads;
    plan.window = window;
    plan.prefill_rows = 64;
    plan.decode_cluster = 4;
    return plan;
  }

  StepArrays arrays{};
  std::vector<vt::RowEntry> entries;

  /// 16-byte aligned, of a value that is nobody's.
  template <typename T>
  T* take(std::size_t count) {
    pieces_.emplace_back((count * sizeof(T) + 15) / 16);
    std::memset(pieces_.back().data(), 0x03, pieces_.back().size() * 16);
    return reinterpret_cast<T*>(pieces_.back().data());
  }

 private:
  void fill(int num_rows, int most_queries) {
    vt::StepHeader header = {num_rows, 0, 0, 0, 0, -1, 0, 77};
    for (int r = 0; r < kTable; r++) {
      arrays.finished[r] = below(6) == 0 ? vt::kFinished : vt::kNotFinished;
      // Many of one length, so that the order of equal rows counts.
      arrays.num_tokens[r] = below(3) == 0 ? 300 : 1 + below(below(2) == 0 ? 900 : kLength - 300);
      arrays.last_token[r] = 5;
      VtCudaRowParams& params = arrays.params[r];
      params.num_prompt_tokens = arrays.num_tokens[r] - below(3);
      params.min_tokens = below(3);
      params.max_num_tokens = arrays.num_tokens[r] + 1 + below(3);
      params.num_stop_ids = below(12);
      more_stop_ids_.emplace_back(params.num_stop_ids);
      for (std::int32_t& id : more_stop_ids_.back()) id = below(20);
      for (int s = 0; s < vt::kStopIdsOnDevice; s++)
        arrays.stop_ids[r * vt::kStopIdsOnDevice + s] =
            s < params.num_stop_ids ? more_stop_ids_.back()[s] : below(20);
      params.stop_ids = more_stop_ids_.back().data();
    }
    for (int i = 0; i < num_rows; i++) {
      const int row = (i * 7 + 3) % kTable;
      const int count = below(2) == 0 ? 1 : 1 + below(most_queries);
      const int start = arrays.num_tokens[row] - 1;
      const bool samples = below(5) != 0;
      for (int t = 0; t < count; t++) arrays.histories[row * kLength + start + t] = below(40);
      entries.push_back({row, start, count, header.num_tokens, (start + kBlock) / kBlock,
                         samples ? header.num_logit_rows : -1, below(7) == 0 ? 1 : 0, 0});
      header.num_tokens += count;
      header.num_logit_rows += samples;
    }
    char* slot = inputs_ + *arrays.step_index % arrays.layout.num_slots * kSlot;
    std::memcpy(slot, &header, sizeof header);
    std::memcpy(slot + 64, entries.data(), entries.size() * sizeof(vt::RowEntry));
  }

  std::mt19937& random_;
  struct alignas(16) Piece {
    char bytes[16];
  };
  std::vector<std::vector<Piece>> pieces_;
  std::vector<std::vector<std::int32_t>> more_stop_ids_;
  alignas(64) char inputs_[kMostSlots * kSlot] = {};
  alignas(64) char results_[kMostSlots * kResult] = {};
};

void check_lists(std::mt19937& random) {
  int wrong = 0, num_decode = 0, num_prefill = 0, num_by_clusters = 0;
  for (int turn = 0; turn < 60; turn++) {
    const int rows = 1 + turn % 16, padded = turn % 3 == 0 ? 16 : rows;
    const int kv_heads = 1 << turn % 3, heads = kv_heads * (turn % 5 == 0 ? 1 : 4);
    const int window = turn % 4 == 1 ? 500 : 0, max_work = turn % 10 == 9 ? 5 : Step::kWorks;
    vt::multiprocessors = turn % 2 == 0 ? 2 : 132;
    Step step(random, rows, turn % 3 == 2 ? 100 : 1);
    const VtCudaPlanAttention made = step.plan(padded, heads, kv_heads, window, max_work);
    const VtCudaPlanAttention wanted = step.plan(padded, heads, kv_heads, window, max_work);
    emulated::timing = {false, false, static_cast<unsigned>(turn)};
    vt::launch_build_inputs(step.arrays, {padded, Step::kTokens, padded}, 100, {made, {}, {}}, 0,
                            nullptr);
    for (int i = 0; i < rows; i++) {
      const vt::RowEntry& entry = step.entries[i];
      const bool alive = entry.is_new != 0 || step.arrays.finished[entry.row] == 0;
      wrong += step.arrays.seq_lens[i] != (alive ? entry.start + entry.count : 0);
    }
    if (vt_cuda_plan_attention(&wanted, nullptr) != 0) std::exit(1);
    for (int i = 0; i < 4; i++) wrong += made.work_counts[i] != wanted.work_counts[i];
    // All of it: beyond the works nothing is written.
    for (int i = 0; i < Step::kWorks * 8; i++)
      wrong += made.decode_work[i] != wanted.decode_work[i] ||
               made.prefill_work[i] != wanted.prefill_work[i];
    num_decode += made.work_counts[0];
    num_prefill += made.work_counts[1];
    num_by_clusters += made.work_counts[3];
  }
  wrong += num_decode < 300 || num_prefill < 30 || num_by_clusters < 5;
  report_wrong("work lists made with the inputs", wrong);
}

/// Of a row of embedding, what a norm with a late scale needs of it.
int num_wrong_products(const VtCudaGather& gather) {
  const auto value = [](const void* words, int i) {
    return emulated::to_float(Element::bf16, static_cast<const std::uint16_t*>(words)[i]);
  };
  int wrong = 0;
  for (int c = 0; c < gather.columns; c += 8) {
    float sums[8];
    for (int e = 0; e < 8; e++) {
      const float x = value(gather.out, c + e);
      sums[e] = x * x;
      wrong += static_cast<const std::uint16_t*>(gather.gained)[c + e] !=
               emulated::from_float(Element::bf16, x * value(gather.out_gain, c + e));
    }
    for (int width = 4; width > 0; width /= 2)
      for (int e = 0; e < width; e++) sums[e] = sums[2 * e] + sums[2 * e + 1];
    wrong += gather.out_squares[c / 8] != sums[0];
  }
  return wrong;
}

void check_embedding(std::mt19937& random) {
  constexpr int kIds = 30, kDim = 96;
  int wrong = 0, num_real = 0;
  for (int turn = 0; turn < 60; turn++) {
    // A step of padding alone, too.
    Step step(random, turn % 10 == 9 ? 0 : 1, 1, turn % 4 == 3 ? Step::kMostSlots : 4);
    const VtCudaPlanAttention made = step.plan(1, 8, 2, 0, Step::kWorks);
    const VtCudaPlanAttention listed = step.plan(1, 8, 2, 0, Step::kWorks);
    const int columns = turn % 5 == 0 ? 17'000 : 1088;
    VtCudaGather gather = {};
    auto* table = step.take<std::uint16_t>(kIds * columns);
    const Words words = normal_words(random, Element::bf16, kIds * columns);
    std::memcpy(table, words.data(), 2 * words.size());
    gather.source = table;
    gather.index = step.arrays.token_ids;
    gather.num_rows = 1;
    gather.columns = gather.source_stride = columns;
    gather.out_stride = columns + 8;
    gather.num_source_rows = kIds;
    gather.first_index = turn % 2 == 0 ? 0 : 4;
    gather.dtype = gather.out_dtype = VT_CUDA_BF16;
    VtCudaRopeCosSin angles = {};
    auto* frequencies = step.take<float>(kDim / 2);
    for (int i = 0; i < kDim / 2; i++) frequencies[i] = 1.0f / static_cast<float>(1 + i * i);
    angles.inv_freq = frequencies;
    angles.positions = step.arrays.positions;
    angles.num_tokens = 1;
    angles.head_dim = kDim;
    angles.factor = 1.5f;
    // A norm with a late scale behind it.
    const bool gains = turn % 5 != 0 && turn % 3 != 0;
    auto* gain = step.take<std::uint16_t>(columns);
    if (gains) {
      gather.out_gain = std::memcpy(gain, table + columns, 2 * columns);
      gather.gained_stride = columns + 16;
    }
    VtCudaGather gather_too = gather;
    VtCudaRopeCosSin angles_too = angles;
    for (VtCudaGather* of : {&gather, &gather_too})
    {
      of->out = step.take<std::uint16_t>(2 * gather.out_stride);
      of->gained = step.take<std::uint16_t>(2 * (columns + 16));
      of->out_squares = step.take<float>(2 * VT_CUDA_SQUARES);
    }
    for (VtCudaRopeCosSin* of : {&angles, &angles_too}) of->out = step.take<float>(2 * kDim);
    emulated::timing = {false, false, static_cast<unsigned>(turn)};
    vt::launch_build_inputs(step.arrays, {1, 1, 1}, 1, {made, gather, angles}, 0,
                            nullptr);
    if (vt_cuda_plan_attention(&listed, nullptr) != 0) std::exit(1);
    if (vt_cuda_embedding_and_angles(&gather_too, &angles_too, nullptr) != 0) std::exit(1);
    num_real += step.arrays.token_ids[0] >= 0;
    wrong += std::memcmp(made.decode_work, listed.decode_work, Step::kWorks * 32) != 0;
    wrong += std::memcmp(gather.out, gather_too.out, 2 * gather.out_stride * 2) != 0;
    wrong += std::memcmp(angles.out, angles_too.out, 2 * kDim * 4) != 0;
    wrong += std::memcmp(gather.gained, gather_too.gained, 4 * (columns + 16)) != 0;
    wrong += std::memcmp(gather.out_squares, gather_too.out_squares, 8 * VT_CUDA_SQUARES) != 0;
    if (gains) wrong += num_wrong_products(gather);
  }
  wrong += num_real < 30;
  report_wrong("embedding and angles with the inputs", wrong);
}

void check_results(std::mt19937& random) {
  int wrong = 0, ended = 0;
  for (int turn = 0; turn < 60; turn++) {
    const int rows = 1 + turn % 16;
    Step step(random, rows, 1);
    StepArrays& a = step.arrays;
    vt::launch_build_inputs(a, {rows, Step::kTokens, rows}, 1, {}, 0, nullptr);
    for (int l = 0; l < rows; l++) {
      a.sampled_ids[l] = step.below(20);
      a.sampled_flags[l] = step.below(6) == 0 ? vt::kRowFlagNan : 0;
    }
    const std::uint64_t index = *a.step_index;
    const std::vector<std::int32_t> known(a.num_tokens, a.num_tokens + Step::kTable);
    const std::vector<std::int32_t> before(a.finished, a.finished + Step::kTable);
    vt::launch_finish_step(a, {}, turn % 2 == 0 ? VT_CUDA_EARLY_READS : 0, nullptr);
    const char* slot = a.results + index % a.layout.num_slots * Step::kResult;
    const auto* header = reinterpret_cast<const vt::ResultHeader*>(slot);
    wrong += header->done != index + 1 || *a.step_index != index + 1;
    wrong += header->start_ns != *a.start_ns || header->end_ns <= header->start_ns;
    for (int i = 0; i < rows; i++) {
      const vt::RowEntry& entry = step.entries[i];
      const int row = entry.row, l = entry.logit_row, count = known[row] + 1;
      const VtCudaRowParams& params = a.params[row];
      int end = before[row], id = -1;
      if (end == vt::kNotFinished && l >= 0 && a.sampled_flags[l] != 0) end = vt::kUnfitLogits;
      if (end == vt::kNotFinished && l >= 0) {
        id = a.sampled_ids[l];
        bool ends = count >= params.max_num_tokens || count >= a.max_model_len;
        for (int s = 0; s < params.num_stop_ids; s++)
          ends |= params.stop_ids[s] == id && count - params.num_prompt_tokens >= params.min_tokens;
        if (ends) end = vt::kFinished, ended++;
        wrong += a.histories[row * a.history_stride + known[row]] != id || a.last_token[row] != id;
      }
      wrong += a.num_tokens[row] != known[row] + (id >= 0 ? 1 : 0) || a.finished[row] != end;
      wrong += reinterpret_cast<const std::int32_t*>(slot + a.layout.token_ids)[i] != id;
      wrong += static_cast<std::uint8_t>(slot[a.layout.row_flags + i]) !=
               (end == vt::kUnfitLogits ? vt::kRowFlagNan : 0);
    }
  }
  wrong += ended < 50;
  report_wrong("what a step ends with", wrong);
}

/// Whether a call is taken whose pointers and strides are as they must be, but for what `change` does
/// with an address that is not 16-byte aligned.
template <typename F>
bool takes(F change) {
  alignas(16) static std::uint16_t data[64];
  VtCudaAttention args = {};
  args.out = args.scratch = data;
  args.qkv = args.kv_cache = data;
  args.decode_work = args.prefill_work = reinterpret_cast<const std::int32_t*>(data);
  args.num_heads = 2;
  args.num_kv_heads = args.num_layers = args.max_decode_work = 1;
  args.head_dim = args.out_stride = 64;
  args.qkv_stride = 4 * 64;
  args.block_size = 16;
  args.scale = 1;
  args.dtype = VT_CUDA_BF16;
  args.prefill = VT_CUDA_PREFILL_MMA;
  change(args, data + 4);
  return vt_cuda_attention(&args, nullptr) == 0;
}

void check_refusals() {
  using Args = VtCudaAttention;
  using Words = std::uint16_t*;
  const auto list = [](Words words) { return reinterpret_cast<const std::int32_t*>(words); };
  int wrong = 0;
  wrong += !takes([](Args&, Words) {});
  wrong += takes([](Args& a, Words odd) { a.qkv = odd; });
  wrong += takes([](Args& a, Words odd) { a.out = odd; });
  wrong += takes([](Args& a, Words odd) { a.kv_cache = odd; });
  wrong += takes([](Args& a, Words odd) { a.scratch = odd; });
  wrong += takes([&](Args& a, Words odd) { a.decode_work = list(odd); });
  wrong += takes([&](Args& a, Words odd) { a.prefill_work = list(odd); });
  wrong += takes([](Args& a, Words) { a.qkv_stride += 4; });
  wrong += takes([](Args& a, Words) { a.out_stride += 2; });
  report_wrong("what attention refuses", wrong);
}

}  // namespace

int main() {
  std::mt19937 random(11);
  check_refusals();
  check_lists(random);
  check_embedding(random);
  check_results(random);
  return exit_status();
}
