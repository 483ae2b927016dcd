#include "step_buffers.h"

#include <cstring>

#include "../../check.h"

namespace vt {

namespace {

constexpr std::size_t kAlignment = 256;

/// Gives out places one after another; with a base, addresses.
class Places {
 public:
  explicit Places(char* base = nullptr) : base_(base) {}
  std::int64_t take(std::size_t bytes) {
    const std::int64_t at = static_cast<std::int64_t>(end_);
    end_ = (end_ + bytes + kAlignment - 1) / kAlignment * kAlignment;
    return at;
  }
  template <typename T>
  void take(T*& array, std::size_t count) {
    const std::int64_t at = take(count * sizeof(T));
    array = reinterpret_cast<T*>(base_ + at);
  }
  std::size_t bytes() const { return end_; }

 private:
  char* base_;
  std::size_t end_ = 0;
};

SlotLayout lay_out(std::size_t rows, std::size_t tokens, std::size_t num_top, int num_slots) {
  SlotLayout layout{};
  layout.num_slots = num_slots;
  Places inputs;
  inputs.take(sizeof(StepHeader));
  // A block of the input kernel reads 16 at a time.
  layout.row_entries = inputs.take((rows + 15) / 16 * 16 * sizeof(RowEntry));
  layout.new_rows = inputs.take(rows * 4);
  layout.judged_entries = inputs.take(tokens * sizeof(JudgedEntry));
  layout.input_bytes = static_cast<std::int64_t>(inputs.bytes());
  Places results;
  results.take(sizeof(ResultHeader));
  layout.token_ids = results.take(rows * 4);
  layout.row_flags = results.take(rows);
  layout.logprobs = results.take(tokens * 4);
  layout.ranks = results.take(tokens * 4);
  layout.top_ids = results.take(tokens * num_top * 4);
  layout.top_logprobs = results.take(tokens * num_top * 4);
  layout.named_logprobs = results.take(rows * kMaxLogprobIds * 4);
  layout.result_bytes = static_cast<std::int64_t>(results.bytes());
  return layout;
}

/// The device arrays at `base`; returns their bytes.
std::size_t cut_up(StepArrays& a, char* base, std::size_t rows, std::size_t tokens,
                   std::size_t num_top) {
  Places places(base);
  for (std::int32_t** by_token : {&a.token_ids, &a.positions, &a.slots})
    places.take(*by_token, tokens);
  for (std::int32_t** by_row : {&a.query_start, &a.seq_lens, &a.row_of, &a.logit_of, &a.unfit})
    places.take(*by_row, rows + 1);
  for (std::int32_t** by_logit : {&a.logit_index, &a.logit_row, &a.judged_ids, &a.batch_of,
                                  &a.sampled_ids, &a.ranks})
    places.take(*by_logit, tokens);
  places.take(a.sampled_flags, tokens);
  places.take(a.logprobs, tokens);
  places.take(a.top_ids, tokens * num_top);
  places.take(a.top_logprobs, tokens * num_top);
  places.take(a.named_logprobs, rows * kMaxLogprobIds);
  places.take(a.step_index, 1);
  places.take(a.start_ns, 1);
  places.take(a.first_epoch, 1);
  places.take(a.counts, 1);
  return places.bytes();
}

std::size_t array_bytes(std::size_t rows, std::size_t tokens, std::size_t num_top) {
  StepArrays unused{};
  return cut_up(unused, nullptr, rows, tokens, num_top);
}

}  // namespace

StepBuffers::StepBuffers(int max_num_seqs, int max_num_tokens, int max_logprobs, int num_slots,
                         Ledger& ledger)
    : layout_(lay_out(max_num_seqs, max_num_tokens, max_logprobs, num_slots)),
      inputs_(layout_.input_bytes * num_slots, "stepRingsHost", ledger),
      results_(layout_.result_bytes * num_slots, "stepRingsHost", ledger),
      max_rows_(max_num_seqs),
      max_tokens_(max_num_tokens),
      max_logprobs_(max_logprobs),
      arrays_(array_bytes(max_rows_, max_tokens_, max_logprobs_), "stepRings", ledger) {}

void StepBuffers::describe(StepArrays& arrays) const {
  cut_up(arrays, arrays_.as<char>(), max_rows_, max_tokens_, max_logprobs_);
  arrays.layout = layout_;
  arrays.inputs = inputs_.as<char>();
  arrays.results = results_.as<char>();
}

char* StepBuffers::input_slot(std::uint64_t step_index) const {
  return inputs_.as<char>() + step_index % layout_.num_slots * layout_.input_bytes;
}

const char* StepBuffers::result_slot(std::uint64_t step_index) const {
  return results_.as<char>() + step_index % layout_.num_slots * layout_.result_bytes;
}

void StepBuffers::write(std::uint64_t step_index, const Batch& batch, bool has_logprobs, Rows& rows,
                        std::uint64_t first_epoch) {
  char* slot = input_slot(step_index);
  auto* header = reinterpret_cast<StepHeader*>(slot);
  auto* entries = reinterpret_cast<RowEntry*>(slot + layout_.row_entries);
  auto* new_rows = reinterpret_cast<std::int32_t*>(slot + layout_.new_rows);
  auto* judged = reinterpret_cast<JudgedEntry*>(slot + layout_.judged_entries);
  const RowTable& table = rows.table();
  const int num_logits = static_cast<int>(batch.logit_rows.size());
  if (!rows.new_rows().empty())
    std::memcpy(new_rows, rows.new_rows().data(), rows.new_rows().size() * 4);
  int logit = 0, num_judged = 0;
  for (std::size_t i = 0; i < batch.rows.size(); i++) {
    const BatchRow& row = batch.rows[i];
    const int last_block = (row.start + row.count - 1) / table.block_size();
    const int copy_from = rows.schedule(row.row, last_block);
    entries[i] = {row.row,   row.start, row.count, row.token_begin, copy_from, -1,
                  rows.is_new(row.row) ? 1 : 0, 0};
    // Rows of logits follow the rows of the batch.
    for (; logit < num_logits && batch.logit_rows[logit].index == row.index; logit++) {
      const LogitRow& of = batch.logit_rows[logit];
      if (!of.is_prompt) {
        entries[i].logit_row = logit;
        continue;
      }
      judged[num_judged++] = {of.row, of.token, table.tokens(of.row)[of.position],
                              static_cast<std::int32_t>(i), logit, {}};
    }
  }
  *header = {static_cast<std::int32_t>(batch.rows.size()), batch.num_tokens, num_logits,
             static_cast<std::int32_t>(rows.new_rows().size()), num_judged,
             static_cast<std::int16_t>(has_logprobs ? batch.num_top : -1),
             static_cast<std::int16_t>(batch.num_named), first_epoch};
}

bool StepBuffers::is_done(std::uint64_t step_index) const {
  const auto* header = reinterpret_cast<const ResultHeader*>(result_slot(step_index));
  return __atomic_load_n(&header->done, __ATOMIC_ACQUIRE) == step_index + 1;
}

StepResults StepBuffers::results(std::uint64_t step_index) const {
  const char* slot = result_slot(step_index);
  const auto* header = reinterpret_cast<const ResultHeader*>(slot);
  return {reinterpret_cast<const std::int32_t*>(slot + layout_.token_ids),
          reinterpret_cast<const std::uint8_t*>(slot + layout_.row_flags),
          reinterpret_cast<const float*>(slot + layout_.logprobs),
          reinterpret_cast<const std::int32_t*>(slot + layout_.ranks),
          reinterpret_cast<const std::int32_t*>(slot + layout_.top_ids),
          reinterpret_cast<const float*>(slot + layout_.top_logprobs),
          reinterpret_cast<const float*>(slot + layout_.named_logprobs),
          header->start_ns,
          header->end_ns};
}

}  // namespace vt
