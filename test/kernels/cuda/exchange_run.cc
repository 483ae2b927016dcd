// One rank of a RankExchange, for rank-exchange.test.ts:
//   exchange_run PATH RANK NUM_RANKS NUM_ROUNDS TIMEOUT_MS
// prints what each round gave, a line a round; an error on stderr and exit code 1.
#include <cstdio>
#include <cstdlib>

#include "kernels/check.h"
#include "kernels/cuda/host/rank_exchange.h"

int main(int argc, char** argv) {
  if (argc != 6) return 64;
  try {
    const int rank = atoi(argv[2]);
    vt::RankExchange exchange(argv[1], rank, atoi(argv[3]), atoi(argv[5]));
    for (int round = 0; round < atoi(argv[4]); round++) {
      // Longer than a buffer, with bytes of all kinds.
      std::string message(5000 * static_cast<std::size_t>(round), static_cast<char>(rank));
      message += "rank " + std::to_string(rank) + " round " + std::to_string(round);
      std::string line;
      for (const std::string& other : exchange.meet(message)) {
        if (other.size() < message.size()) return 2;
        line += other.substr(5000 * static_cast<std::size_t>(round)) + ";";
      }
      printf("%s\n", line.c_str());
    }
  } catch (const vt::KernelError& error) {
    fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
