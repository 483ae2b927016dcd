// Which graph serves a step: kernels/cuda/host/graph_choice.cc, asked for steps that lines describe.
//   graph_choice_run KEY=VALUE..
// The keys are fields of GraphOptions, and best=FROM-TO: rows of logits of which the head finds the
// greatest. First line of output: the buckets. Then for each line of stdin, which has groups of
// rows, "200 temperature=0.6 top_k=50, 1 count=7", a line "KIND BUCKET", or "op by op". For the line
// "graphs": each kind with its buckets and its room.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "kernels/cuda/host/graph_choice.h"

namespace {

using In = vt::StepInputColumn;

constexpr const char* kKinds[] = {"few_logits", "no_alternatives", "told",
                                  "bounded",    "searched",        "all"};
constexpr int kMostTokens = 2048, kVocabSize = 1000;

struct Group {
  int num_rows = 0;
  std::map<std::string, double> words;

  explicit Group(const std::string& text) {
    std::istringstream in(text);
    in >> num_rows;
    for (std::string word; in >> word;) {
      const std::size_t at = word.find('=');
      words[word.substr(0, at)] = at == std::string::npos ? 1 : std::atof(word.c_str() + at + 1);
    }
  }
  double of(const std::string& word, double otherwise) {
    const auto found = words.find(word);
    if (found == words.end()) return otherwise;
    const double value = found->second;
    words.erase(found);
    return value;
  }
};

/// A step's columns, with the rows that they name.
struct Step {
  std::vector<std::int32_t> rows, starts, counts, flags;
  int num_groups = 1;

  void add(Group& group, vt::RowTable& table) {
    const auto list = [&](const char* word) {
      return std::vector<std::int32_t>(static_cast<std::size_t>(group.of(word, 0)), 1);
    };
    const int count = static_cast<int>(group.of("count", 1));
    const bool waits = group.of("waits", 0) != 0;
    int flag = waits ? 0 : vt::kStepFlagSample;
    num_groups = static_cast<int>(group.of("groups", num_groups));
    vt::Row row;
    row.filled = true;
    row.num_tokens = count + (waits ? 2 : 1);
    row.max_num_tokens = 100;
    vt::SamplingParams& p = row.params;
    p = {};
    p.temperature = static_cast<float>(group.of("temperature", 0));
    p.top_p = static_cast<float>(group.of("top_p", 1));
    p.min_p = static_cast<float>(group.of("min_p", 0));
    p.top_k = static_cast<int>(group.of("top_k", 0));
    p.presence_penalty = static_cast<float>(group.of("presence", 0));
    p.frequency_penalty = static_cast<float>(group.of("frequency", 0));
    p.repetition_penalty = static_cast<float>(group.of("repetition", 1));
    p.min_tokens = static_cast<int>(group.of("min_tokens", 0));
    p.num_logprobs = static_cast<int>(group.of("logprobs", -1));
    p.num_prompt_logprobs = static_cast<int>(group.of("prompt_logprobs", -1));
    if (p.num_prompt_logprobs >= 0) flag |= vt::kStepFlagPromptLogprobs;
    row.num_prompt_tokens = p.num_prompt_logprobs >= 0 ? row.num_tokens : 1;
    p.logprob_ids = list("named");
    p.stop_ids = list("stops");
    p.allowed_ids = list("allowed");
    p.bad_word_lengths = p.bad_word_ids = list("bad");
    p.bias_ids = list("bias");
    p.biases.assign(p.bias_ids.size(), 1);
    VT_CHECK(group.words.empty(), "no row has '%s'", group.words.begin()->first.c_str());
    for (int i = 0; i < group.num_rows; i++) {
      const int index = static_cast<int>(rows.size());
      table.row(index) = row;
      rows.push_back(index);
      starts.push_back(1);
      counts.push_back(count);
      flags.push_back(flag);
    }
  }

  void build(vt::BatchBuilder& builder, vt::Batch& batch) const {
    std::vector<std::int32_t> body, layout(2 * vt::kNumStepInputColumns, 0);
    std::int64_t num_tokens = 0;
    for (const std::int32_t count : counts) num_tokens += count;
    const auto put = [&](In column, const std::vector<std::int32_t>& values) {
      body.resize((body.size() + 1) / 2 * 2);
      layout[2 * static_cast<int>(column)] = static_cast<std::int32_t>(body.size() * 4);
      layout[2 * static_cast<int>(column) + 1] = static_cast<std::int32_t>(values.size());
      body.insert(body.end(), values.begin(), values.end());
    };
    put(In::row, rows);
    put(In::start, starts);
    put(In::count, counts);
    put(In::flags, flags);
    const vt::StepView view(reinterpret_cast<const char*>(body.data()),
                            static_cast<std::int64_t>(body.size() * 4), layout.data(),
                            static_cast<std::int64_t>(layout.size()));
    builder.build(view, num_tokens, batch);
  }
};

void print_graphs(const vt::GraphChoice& choice) {
  for (int k = 0; k < vt::kNumGraphKinds; k++) {
    const auto kind = static_cast<vt::GraphKind>(k);
    std::string buckets;
    for (const int bucket : choice.buckets())
      if (choice.has(kind, bucket)) buckets += " " + std::to_string(bucket);
    if (buckets.empty()) continue;
    const vt::GraphSampling s = choice.sampling(kind, 72);
    std::printf("%s top=%d named=%d candidates=%d steps=%d best=%d:%s\n", kKinds[k], s.num_top,
                s.num_named, s.kinds.has_candidates, s.kinds.search_steps, s.kinds.finds_best(),
                buckets.c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  vt::GraphOptions options;
  int from = 0, to = -1;
  options.has_sample = true;
  for (int i = 1; i < argc; i++) {
    const std::string text = argv[i];
    const std::size_t at = text.find('=');
    const std::string key = text.substr(0, at);
    const int value = std::atoi(text.c_str() + at + 1);
    if (key == "max_rows") options.max_rows = value;
    else if (key == "max_logprobs") options.max_logprobs = value;
    else if (key == "tells_rows") options.tells_rows = value != 0;
    else if (key == "needs_kinds") options.needs_kinds = value != 0;
    else if (key == "op_by_op") options.op_by_op = value != 0;
    else if (key == "best") std::sscanf(text.c_str(), "best=%d-%d", &from, &to);
    else return 64;
  }
  const vt::GraphChoice choice(options, [&](int rows) { return rows >= from && rows <= to; });
  for (const int bucket : choice.buckets()) std::printf("%d ", bucket);
  std::printf("\n");
  const vt::RowTableSizes sizes = {2048, kMostTokens, 16, 1, kVocabSize, 128};
  std::vector<std::int32_t> tokens(sizes.token_bytes() / 4), blocks(sizes.block_bytes() / 4);
  vt::RowTable table(sizes, tokens.data(), blocks.data());
  vt::BatchBuilder builder(table, {kMostTokens, kMostTokens, 0, false});
  vt::Batch batch;
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "graphs") {
      print_graphs(choice);
      continue;
    }
    Step step;
    std::istringstream in(line);
    for (std::string text; std::getline(in, text, ',');) {
      Group group(text);
      step.add(group, table);
    }
    step.build(builder, batch);
    const auto graph = choice.choose(batch, vt::sampled_rows(batch, table), step.num_groups);
    if (graph)
      std::printf("%s %d\n", kKinds[static_cast<int>(graph->kind)], graph->bucket);
    else
      std::printf("op by op\n");
  }
}
