// Why ranks that run one model together cannot go on.
#pragma once

#include <string>

namespace vt {

struct GroupFailure {
  /// The rank that is to blame; -1 while all is well.
  int rank = -1;
  std::string message;
};

}  // namespace vt
