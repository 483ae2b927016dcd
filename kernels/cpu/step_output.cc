#include "step_output.h"

#include <cstring>

namespace vt {

using Out = StepOutputColumn;

namespace {

/// Lays columns out one after another, 8-byte aligned.
class BodyWriter {
 public:
  explicit BodyWriter(StepOutput& output) : output_(output) {}

  template <typename T>
  void put(Out column, const std::vector<T>& values) {
    const int i = static_cast<int>(column);
    const std::size_t offset = (output_.body.size() + 7) / 8 * 8;
    output_.table[2 * i] = static_cast<std::int32_t>(offset);
    output_.table[2 * i + 1] = static_cast<std::int32_t>(values.size());
    output_.body.resize(offset + values.size() * sizeof(T));
    if (!values.empty())
      std::memcpy(output_.body.data() + offset, values.data(), values.size() * sizeof(T));
  }

 private:
  StepOutput& output_;
};

/// The columns of one kind of logprobs: of sampled tokens, or of prompt tokens.
struct LogprobColumns {
  std::vector<std::int32_t> index, position, rank, top_ids;
  std::vector<float> logprob, top_logprobs;

  void add(const LogitRow& row, const LogitResult& result, int num_top) {
    index.push_back(row.index);
    position.push_back(row.position);
    logprob.push_back(result.logprob);
    rank.push_back(result.rank);
    top_ids.insert(top_ids.end(), result.top_ids, result.top_ids + num_top);
    top_logprobs.insert(top_logprobs.end(), result.top_logprobs, result.top_logprobs + num_top);
  }
};

void fold(std::uint32_t& hash, std::uint32_t word) { hash = (hash ^ word) * 0x01000193u; }

}  // namespace

void finish_step(const StepState& state, const Column<std::int32_t>& scheduled, RowTable& rows,
                 StepOutput& output) {
  const Batch& batch = state.batch;
  std::vector<std::int32_t> token_ids(batch.num_scheduled, -1);
  std::vector<std::uint8_t> flags(batch.num_scheduled, 0);
  LogprobColumns sampled, prompt;
  for (std::size_t i = 0; i < batch.logit_rows.size(); i++) {
    const LogitRow& row = batch.logit_rows[i];
    const LogitResult& result = state.results[i];
    if (result.is_nan) flags[row.index] |= kRowFlagNan;
    if (result.has_logprob) (row.is_prompt ? prompt : sampled).add(row, result, batch.num_top);
    if (!row.is_prompt) token_ids[row.index] = result.id;
  }
  output.hash = 0x811c9dc5u;
  for (int i = 0; i < batch.num_scheduled; i++) {
    const std::int32_t row = scheduled[i];
    // A request with unfit logits ends here, whatever this step sampled for it.
    if (flags[i] & kRowFlagNan) {
      token_ids[i] = -1;
      rows.row(row).finished = true;
    } else if (token_ids[i] >= 0) {
      rows.append(row, token_ids[i]);
    }
    fold(output.hash, static_cast<std::uint32_t>(row));
    fold(output.hash, static_cast<std::uint32_t>(rows.row(row).num_tokens));
    fold(output.hash, static_cast<std::uint32_t>(token_ids[i]));
  }
  output.num_top = batch.num_top;
  output.body.clear();
  BodyWriter writer(output);
  writer.put(Out::tokenId, token_ids);
  writer.put(Out::rowFlags, flags);
  writer.put(Out::logprobIndex, sampled.index);
  writer.put(Out::logprob, sampled.logprob);
  writer.put(Out::logprobRank, sampled.rank);
  writer.put(Out::topIds, sampled.top_ids);
  writer.put(Out::topLogprobs, sampled.top_logprobs);
  writer.put(Out::promptLogprobIndex, prompt.index);
  writer.put(Out::promptLogprobPosition, prompt.position);
  writer.put(Out::promptLogprob, prompt.logprob);
  writer.put(Out::promptLogprobRank, prompt.rank);
  writer.put(Out::promptTopIds, prompt.top_ids);
  writer.put(Out::promptTopLogprobs, prompt.top_logprobs);
}

}  // namespace vt
