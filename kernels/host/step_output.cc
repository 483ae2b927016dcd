#include "step_output.h"

#include <cstring>

namespace vt {

using Out = StepOutputColumn;

namespace {

/// Lays columns out one after another, 8-byte aligned.
class BodyWriter {
 public:
  explicit BodyWriter(StepOutput& output) : output_(output) { output_.body.clear(); }

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

}  // namespace

void LogprobColumns::clear() {
  for (std::vector<std::int32_t>* column : {&index, &position, &rank, &top_count, &top_ids})
    column->clear();
  for (std::vector<float>* column : {&logprob, &top_logprobs}) column->clear();
}

void LogprobColumns::add(std::int32_t row_index, std::int32_t token_position, float token_logprob,
                         std::int32_t token_rank, const std::int32_t* ids, const float* logprobs,
                         int num_alternatives) {
  index.push_back(row_index);
  position.push_back(token_position);
  logprob.push_back(token_logprob);
  rank.push_back(token_rank);
  top_count.push_back(num_alternatives);
  top_ids.insert(top_ids.end(), ids, ids + num_alternatives);
  top_logprobs.insert(top_logprobs.end(), logprobs, logprobs + num_alternatives);
}

void pack_output(const OutputColumns& columns, StepOutput& output) {
  BodyWriter writer(output);
  writer.put(Out::tokenId, columns.token_ids);
  writer.put(Out::rowFlags, columns.flags);
  writer.put(Out::logprobIndex, columns.sampled.index);
  writer.put(Out::logprob, columns.sampled.logprob);
  writer.put(Out::logprobRank, columns.sampled.rank);
  writer.put(Out::topCount, columns.sampled.top_count);
  writer.put(Out::topIds, columns.sampled.top_ids);
  writer.put(Out::topLogprobs, columns.sampled.top_logprobs);
  writer.put(Out::promptLogprobIndex, columns.prompt.index);
  writer.put(Out::promptLogprobPosition, columns.prompt.position);
  writer.put(Out::promptLogprob, columns.prompt.logprob);
  writer.put(Out::promptLogprobRank, columns.prompt.rank);
  writer.put(Out::promptTopCount, columns.prompt.top_count);
  writer.put(Out::promptTopIds, columns.prompt.top_ids);
  writer.put(Out::promptTopLogprobs, columns.prompt.top_logprobs);
}

}  // namespace vt
