// One rank of a RankExchange, for rank-exchange.test.ts; with "HOST:PORT" in place of a path it and
// the ports after it are those of ranks that meet over TCP:
//   exchange_run PATH RANK NUM_RANKS NUM_ROUNDS TIMEOUT_MS
// prints what each round gave, a line a round; an error on stderr and exit code 1.
#include <cstdio>
#include <cstdlib>

#include "kernels/check.h"
#include "kernels/cuda/host/rank_exchange.h"

int main(int argc, char** argv) {
  if (argc != 6) return 64;
  try {
    const int rank = atoi(argv[2]), num_ranks = atoi(argv[3]), timeout_ms = atoi(argv[5]);
    const std::string path = argv[1];
    vt::TcpGroup group = vt::local_group(path, rank, num_ranks, timeout_ms);
    const std::size_t colon = path.find(':');
    for (int r = 0; r < num_ranks && colon != std::string::npos; r++)
      group.addresses[r] =
          path.substr(0, colon + 1) + std::to_string(atoi(path.c_str() + colon + 1) + r);
    vt::RankExchange exchange(group, timeout_ms);
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
