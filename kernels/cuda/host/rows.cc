#include "rows.h"

#include <algorithm>
#include <cstring>

#include "../../check.h"

namespace vt {

using In = StepInputColumn;

namespace {

constexpr const char* kOnDevice = "rowTable";
constexpr const char* kOnHost = "rowTableHost";

std::size_t words(const RowTableSizes& sizes, std::size_t each = 1) {
  return sizes.num_rows * each * sizeof(std::int32_t);
}

/// Lays lists one after another, 16-byte aligned; counts first, then copies.
class ListWriter {
 public:
  explicit ListWriter(char* memory) : memory_(memory) {}
  template <typename T>
  const T* put(const std::vector<T>& list) {
    if (list.empty()) return nullptr;
    const std::size_t at = bytes_;
    bytes_ += (list.size() * sizeof(T) + 15) / 16 * 16;
    if (memory_ == nullptr) return nullptr;
    std::memcpy(memory_ + at, list.data(), list.size() * sizeof(T));
    return reinterpret_cast<const T*>(memory_ + at);
  }
  std::size_t bytes() const { return bytes_; }

 private:
  char* memory_;
  std::size_t bytes_ = 0;
};

}  // namespace

Rows::Rows(const RowTableSizes& sizes, Ledger& ledger)
    : sizes_(sizes),
      histories_(sizes.token_bytes(), kOnHost, ledger),
      host_block_tables_(sizes.block_bytes(), kOnHost, ledger),
      setups_(sizes.num_rows * sizeof(RowSetup), kOnHost, ledger),
      block_tables_(sizes.block_bytes(), kOnDevice, ledger),
      params_(sizes.num_rows * sizeof(VtCudaRowParams), kOnDevice, ledger),
      stop_ids_(words(sizes, kStopIdsOnDevice), kOnDevice, ledger),
      num_tokens_(words(sizes), kOnDevice, ledger),
      finished_(words(sizes), kOnDevice, ledger),
      last_token_(words(sizes), kOnDevice, ledger),
      table_(sizes, histories_.as<std::int32_t>(), host_block_tables_.as<std::int32_t>()),
      sides_(sizes.num_rows) {}

void Rows::describe(StepArrays& arrays) const {
  arrays.setups = setups_.as<RowSetup>();
  arrays.histories = histories_.as<std::int32_t>();
  arrays.host_block_tables = host_block_tables_.as<std::int32_t>();
  arrays.block_tables = block_tables_.as<std::int32_t>();
  arrays.params = params_.as<VtCudaRowParams>();
  arrays.stop_ids = stop_ids_.as<std::int32_t>();
  arrays.num_tokens = num_tokens_.as<std::int32_t>();
  arrays.finished = finished_.as<std::int32_t>();
  arrays.last_token = last_token_.as<std::int32_t>();
  arrays.history_stride = sizes_.token_stride();
  arrays.block_stride = sizes_.block_stride();
  arrays.block_size = sizes_.block_size;
  arrays.max_model_len = sizes_.max_model_len;
}

void Rows::apply(const StepView& step, std::uint64_t step_index, std::uint64_t num_reported) {
  step_index_ = step_index;
  new_rows_.clear();
  const Column<std::int32_t> filled = step.i32(In::newRow);
  // What a step in flight reads of a row must stay as it is.
  for (std::int64_t i = 0; i < filled.count; i++)
    VT_CHECK(filled[i] < 0 || filled[i] >= sizes_.num_rows ||
                 sides_[filled[i]].named <= num_reported,
             "column newRow: row %d is named by a step in flight", filled[i]);
  table_.apply(step);
  for (std::int64_t i = 0; i < filled.count; i++) {
    Side& side = sides_[filled[i]];
    if (side.filled == step_index + 1) continue;
    side.filled = side.named = step_index + 1;
    side.copy_from = 0;
    new_rows_.push_back(filled[i]);
    set_up(filled[i]);
  }
  const Column<std::int32_t> rows = step.i32(In::blockRow), indices = step.i32(In::blockIndex);
  for (std::int64_t i = 0; i < rows.count; i++) {
    Side& side = sides_[rows[i]];
    side.copy_from = std::min(side.copy_from, indices[i]);
  }
}

bool Rows::is_new(int row) const { return sides_[row].filled == step_index_ + 1; }

int Rows::schedule(int row, int last_block) {
  Side& side = sides_[row];
  side.named = step_index_ + 1;
  const int from = side.copy_from;
  side.copy_from = std::max(from, last_block + 1);
  return from;
}

void Rows::set_up(int row) {
  const Row& known = table_.row(row);
  const SamplingParams& from = known.params;
  RowSetup& setup = setups_.as<RowSetup>()[row];
  VtCudaRowParams& to = setup.params;
  to = {};
  to.seed = from.seed;
  to.temperature = from.temperature;
  to.min_p = from.min_p;
  to.top_p = from.top_p;
  to.top_k = from.top_k;
  to.repetition_penalty = from.repetition_penalty;
  to.frequency_penalty = from.frequency_penalty;
  to.presence_penalty = from.presence_penalty;
  to.num_prompt_tokens = known.num_prompt_tokens;
  to.min_tokens = from.min_tokens;
  to.max_num_tokens = known.max_num_tokens;
  to.num_logprobs = from.num_logprobs;
  to.num_logprob_ids = static_cast<std::int32_t>(from.logprob_ids.size());
  to.num_stop_ids = static_cast<std::int32_t>(from.stop_ids.size());
  to.num_biases = static_cast<std::int32_t>(from.bias_ids.size());
  to.num_allowed_ids = static_cast<std::int32_t>(from.allowed_ids.size());
  to.num_bad_words = static_cast<std::int32_t>(from.bad_word_lengths.size());
  put_lists(row, to);
  if (from.stop_ids.size() <= kStopIdsOnDevice) {
    std::copy(from.stop_ids.begin(), from.stop_ids.end(), setup.stop_ids);
    to.stop_ids = stop_ids_.as<std::int32_t>() + row * kStopIdsOnDevice;
  }
  setup.num_tokens = known.num_tokens;
  setup.last_token = table_.tokens(row)[known.num_tokens - 1];
}

void Rows::put_lists(int row, VtCudaRowParams& params) {
  const SamplingParams& from = table_.row(row).params;
  std::vector<std::int32_t> word_starts, stop_ids;
  if (!from.bad_word_lengths.empty()) word_starts.push_back(0);
  for (const std::int32_t length : from.bad_word_lengths)
    word_starts.push_back(word_starts.back() + length);
  if (from.stop_ids.size() > kStopIdsOnDevice) stop_ids = from.stop_ids;
  const auto put = [&](ListWriter& writer) {
    params.stop_ids = writer.put(stop_ids);
    params.bias_ids = writer.put(from.bias_ids);
    params.biases = writer.put(from.biases);
    params.allowed_ids = writer.put(from.allowed_ids);
    params.bad_word_starts = writer.put(word_starts);
    params.bad_word_ids = writer.put(from.bad_word_ids);
    params.logprob_ids = writer.put(from.logprob_ids);
  };
  ListWriter counter(nullptr);
  put(counter);
  Side& side = sides_[row];
  if (side.list_bytes > 0) heap_.free(side.lists, side.list_bytes);
  side.list_bytes = counter.bytes();
  if (side.list_bytes == 0) return;
  side.lists = heap_.allocate(side.list_bytes);
  ListWriter writer(side.lists);
  put(writer);
}

}  // namespace vt
