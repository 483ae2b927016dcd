// What ranks of one host tell each other while they load: each leaves its message in a file and
// reads those of the others. Knows nothing of what is in them, nor of devices.
#pragma once

#include <string>
#include <vector>

namespace vt {

class RankExchange {
 public:
  /// Files are `path`, the rank and the round; the folder is the ranks' own. Those of the last
  /// round stay: when a rank goes, others may still be reading.
  RankExchange(std::string path, int rank, int num_ranks, int timeout_ms);
  RankExchange(const RankExchange&) = delete;
  RankExchange& operator=(const RankExchange&) = delete;

  /// The messages of all ranks to this round, by rank; all have come to it. Throws KernelError that
  /// names the rank if one does not come.
  std::vector<std::string> meet(const std::string& message);

 private:
  std::string file_of(int rank, int round) const;
  std::string read(int rank) const;

  const std::string path_;
  const int rank_, num_ranks_, timeout_ms_;
  int round_ = 0;
};

}  // namespace vt
