// sampleSharded over fibers: random rows of every kind on 2 to 8 ranks, each answer against that of
// vt_cuda_sample with all logits in one place, bit for bit.
//   run_samples SEED [carried] [best]   one line, exit code 0 if all is right
// carried: by a library, between two launches, not by stores to the memory of others. best: each
// rank's head has found the best ids of rows that need no more, most of them here, and of which no
// logits are there.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "best_words.h"
#include "carrier.h"
#include "drawn_row.h"
#include "group.cuh"
#include "print_errors.h"
#include "sample_outputs.h"

namespace {

/// The row table, and what `sample` reads of the step.
struct Table {
  std::vector<VtCudaRowParams> params;
  std::vector<int32_t> num_tokens, finished, history, row_of, judged;
  std::vector<float> logits;
  int stride, vocab, top;

  Table(std::deque<Row>& rows, int vocab_size, int num_top)
      : stride(32), vocab(vocab_size), top(num_top) {
    for (Row& row : rows) {
      VtCudaRowParams& p = row.params;
      p.allowed_ids = row.allowed.data();
      p.num_allowed_ids = static_cast<int32_t>(row.allowed.size());
      p.bias_ids = row.bias_ids.data();
      p.biases = row.biases.data();
      p.num_biases = static_cast<int32_t>(row.bias_ids.size());
      p.logprob_ids = row.named.data();
      p.num_logprob_ids = static_cast<int32_t>(row.named.size());
      params.push_back(p);
      num_tokens.push_back(static_cast<int32_t>(row.history.size()));
      finished.push_back(row.finished);
      row_of.push_back(row.row_of < 0 ? -1 : static_cast<int32_t>(row_of.size()));
      judged.push_back(row.judged);
      row.history.resize(stride);
      history.insert(history.end(), row.history.begin(), row.history.end());
      logits.insert(logits.end(), row.logits.begin(), row.logits.end());
    }
  }

  VtCudaSample sample(Outputs& out, const float* from, int logits_stride) const {
    VtCudaSample a = {};
    out.receive(a);
    a.logits = from;
    a.row_of = row_of.data();
    a.judged_ids = judged.data();
    a.params = params.data();
    a.num_tokens = num_tokens.data();
    a.finished = finished.data();
    a.history = history.data();
    a.num_rows = static_cast<int32_t>(row_of.size());
    a.vocab_size = vocab;
    a.logits_stride = logits_stride;
    a.history_stride = stride;
    return a;
  }
};

/// A rank, with what it has of the logits.
struct Rank {
  std::vector<uint64_t> board;
  std::vector<float> part, all;
  std::vector<uint64_t> best;
  std::vector<int32_t> rest;
  VtCudaGroup group = {};
  VtCudaGroupReport report = {};
  Outputs out;
  Rank(int rows, int top) : rest(VT_CUDA_SAMPLE_SCRATCH * rows, -9), out(rows, top, kNamed) {}
};

void* stream_of(int device) { return reinterpret_cast<void*>(static_cast<intptr_t>(device) + 1); }

}  // namespace

int main(int argc, char** argv) {
  const auto is_given = [&](const char* word) {
    return std::any_of(argv + 1, argv + argc, [=](char* arg) { return !std::strcmp(arg, word); });
  };
  const bool is_carried = is_given("carried"), has_best = is_given("best");
  if (argc != 2 + is_carried + has_best) return 64;
  const uint64_t seed = strtoull(argv[1], nullptr, 10);
  Draws draws(seed);
  const int num_ranks = seed % 16 == 5 ? 3 : seed % 4 == 3 ? 8 : seed % 4 == 2 ? 4 : 2;
  const bool are_searched = seed >= kSearches;
  const int num_rows = seed % 5 == 0 ? 1 : num_ranks == 8 ? 5 : are_searched ? 12 : 8;
  const int tiles = 1 + static_cast<int>(draws.below(num_ranks == 8 ? 1 : 2));
  const int columns = tiles * 1024;
  const int vocab = num_ranks * columns - 4 * static_cast<int>(draws.below(300));
  const int top = seed % 7 == 6 ? 33 + static_cast<int>(draws.below(96))
                                : 1 + static_cast<int>(draws.below(32));
  std::deque<Row> rows;
  const bool have_equals = seed >= kEquals && !are_searched;
  const bool are_plain = seed >= kNuclei && seed < kEquals;
  for (int i = 0; i < num_rows; i++) {
    const int kind = are_plain ? 8 : have_equals ? 1 + i % 2 : static_cast<int>(seed) + i;
    rows.push_back(draw_row(draws, kind, vocab, columns, top, are_plain, have_equals));
    if (are_searched && i % 6 != 5) draw_cut(draws, rows.back(), vocab);
    if (!has_best) continue;
    if (i % 3 != 2) make_greedy(draws, rows.back(), columns);
    // In some steps nothing is cut.
    VtCudaRowParams& p = rows.back().params;
    if (seed % 4 < 2) p.min_p = 0, p.top_k = 0, p.top_p = 1;
  }
  const Table table(rows, vocab, top);

  emulation::Machine one(1, seed);
  emulation::machine = &one;
  Outputs wanted(num_rows, top, kNamed);
  const VtCudaSample sample = table.sample(wanted, table.logits.data(), vocab);
  if (vt_cuda_sample(&sample, stream_of(0)) != 0) return 2;
  one.run();

  emulation::Machine machine(num_ranks, seed);
  emulation::machine = &machine;
  const uint64_t first_epoch = seed;
  // Room for all rows, or for two: several epochs.
  const int64_t row_bytes =
      16 * (1 + columns / 4 + 2048 / num_ranks + tiles + VT_CUDA_MAX_LOGPROB_IDS);
  const int64_t most_bytes = std::max(row_bytes, is_carried ? int64_t{2 * 8 * 768} : 0);
  const int64_t slot_bytes = (160 + (seed % 3 == 0 ? 2 : num_rows) * most_bytes + 63) / 64 * 64;
  const std::vector<int32_t> tokens = {5, 6, 7};
  std::deque<Rank> ranks;
  for (int r = 0; r < num_ranks; r++) {
    Rank& rank = ranks.emplace_back(num_rows, top);
    // What a library writes to has been used for something else.
    rank.board.assign(vt_cuda_board_bytes(num_ranks, slot_bytes) / 8,
                      is_carried ? 0x4123456741234567u : ~uint64_t{0});
    std::fill_n(rank.board.begin(), VT_CUDA_INBOX_OFFSET / 8, 0);
    rank.all.assign(static_cast<std::size_t>(num_rows) * vocab, -5.0f);
    // What is beyond the vocabulary counts for nothing.
    rank.part.assign(static_cast<std::size_t>(num_rows) * columns, 1e30f);
    const int ids = std::clamp(vocab - r * columns, 0, columns);
    for (int row = 0; row < num_rows; row++) {
      float* part = &rank.part[row * columns];
      std::copy_n(rows[row].logits.data() + r * columns, ids, part);
      if (!has_best) continue;
      const bool is_told = rows[row].is_likeliest();
      add_best_words(rank.best, part, ids, is_told);
      if (is_told) std::fill_n(part, columns, NAN);
    }
  }
  std::vector<VtCudaSample> samples;
  for (Rank& rank : ranks) {
    samples.push_back(table.sample(rank.out, rank.all.data(), vocab));
    if (!has_best) continue;
    samples.back().best = rank.best.data();
    samples.back().num_best = kBest;
  }
  Carriers carriers;
  for (Rank& rank : ranks) carriers.add(rank.board.data());
  int search_steps = 0, num_listed = 0;
  bool by_best_ids = true;
  for (const Row& row : rows) {
    by_best_ids &= !row.is_cut();
    search_steps = std::max(search_steps, row.search_steps());
    num_listed += row.is_cut() && row.search_steps() == 0;
  }
  for (int r = 0; r < num_ranks; r++) {
    Rank& rank = ranks[r];
    VtCudaGroup& group = rank.group;
    for (int p = 0; p < num_ranks; p++) group.boards[p] = ranks[is_carried ? r : p].board.data();
    group.first_epoch = &first_epoch;
    group.report = &rank.report;
    group.timeout_ns = 2'000'000'000;
    group.slot_bytes = slot_bytes;
    group.rank = r;
    group.num_ranks = num_ranks;
    group.max_blocks = 3;
    VtCudaSampleSharded args = {};
    args.group = &group;
    args.sample = &samples[r];
    args.x = rank.part.data();
    args.all_logits = rank.all.data();
    args.rest = rank.rest.data();
    args.tokens = tokens.data();
    args.num_tokens = static_cast<int32_t>(tokens.size());
    args.x_columns = args.x_stride = columns;
    if (is_carried) {
      args.carry = Carriers::carry;
      args.carrier = &carriers.of(r);
      args.search_steps = search_steps;
      args.has_candidates = num_listed > 0;
    } else {
      args.by_best_ids = by_best_ids;
    }
    if (vt_cuda_sample_sharded(&args, stream_of(r)) != 0) return 2;
  }
  machine.run();

  int wrong = is_carried ? 0 : vt::num_lost, in_round = 0;
  if (is_carried) {
    // What a rank tells, with up to 63 bytes more in each round; of all logits it would be 4 columns.
    const Carriers::Carrier& own = carriers.of(0);
    const bool is_long = search_steps >= VT_CUDA_SEARCH_STEPS;
    const int64_t search = is_long ? search_steps / VT_CUDA_SEARCH_STEPS * (768 + 3 * 256) * 8 +
                                         (2 + 256) * 8
                                   : search_steps * 16;
    const int64_t news = 16 + (num_listed > 0 ? VT_CUDA_CARRIED_CANDIDATES * 16 : 0);
    const int64_t logprobs = 16 * (tiles + std::max(kNamed, (top + 1) / 2));
    const int64_t bytes = num_rows * (news + search + logprobs);
    const int64_t rounding = own.num_calls * (64 + 16);
    if (own.num_bytes < bytes || own.num_bytes > bytes + rounding)
      printf("%lld bytes, not %lld\n", static_cast<long long>(own.num_bytes),
             static_cast<long long>(bytes)),
          wrong++;
  }
  int told[3] = {}, gathered[3] = {};  // by kind
  for (int r = 0; r < num_ranks; r++) {
    const Rank& rank = ranks[r];
    if (rank.report.state != 0) printf("rank %d gave up\n", r), wrong++;
    for (int row = 0; row < num_rows; row++)
      if (rank.out.token_ids[row] != wanted.token_ids[row])
        printf("rank %d, row %d: %d, not %d\n", r, row, rank.out.token_ids[row],
               wanted.token_ids[row]);
    wrong += !(rank.out == wanted);
    for (std::size_t i = VT_CUDA_INBOX_OFFSET / 8; i < rank.board.size() && !is_carried; i++)
      if (rank.board[i] != ~uint64_t{0}) {
        printf("rank %d: its inbox is not empty\n", r);
        wrong++;
        break;
      }
  }
  // Of all rows in one epoch: what was kept of them.
  for (int row = 0; row < num_rows && seed % 3 != 0; row++) {
    // Or searched.
    const bool is_gathered = ranks[0].rest[row] >= 0;
    // No logits are needed of what is told by candidates in any case.
    const VtCudaRowParams& p = rows[row].params;
    const bool is_listed = rows[row].is_cut() && rows[row].search_steps() == 0;
    wrong += is_gathered && is_listed && p.min_p == 0;
    wrong += is_carried && is_gathered && rows[row].search_steps() == 0;
    (is_gathered ? gathered : told)[static_cast<int>(rows[row].kind(num_ranks, vocab))]++;
    in_round += ranks[0].rest[num_rows + row] >= 0;
  }
  int by_head = 0;
  for (const Row& row : rows) by_head += has_best && row.is_likeliest();
  printf("%d rows on %d ranks, complete: %d, %d gathered; likeliest: %d, %d gathered; "
         "others gathered: %d, logprobs in a round: %d; by the head: %d; by best ids: %d; wrong: %d\n",
         num_rows, num_ranks, told[1], gathered[1], told[2], gathered[2], gathered[0], in_round,
         by_head, by_best_ids, wrong);
  return wrong == 0 ? 0 : 1;
}
