// What the host learns of a wait for other ranks that was given up.
#pragma once

#include <cstdint>
#include <string>

namespace vt {

struct RankFailure {
  /// -1 where no rank is known to be to blame.
  int missing_rank, op_index;
  std::uint64_t epoch;
  /// "rank 1 is gone"; empty where it did not come to the op in time.
  std::string reason;
};

}  // namespace vt
