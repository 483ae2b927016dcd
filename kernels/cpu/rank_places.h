// What every carrier of a Communicator has in common: places as words that can be exchanged, who is
// to blame when ranks are not at one place, and the words for it.
#pragma once

#include <string>

#include "communicator.h"

namespace vt {

/// Step and op in one word, so that they are read together.
inline std::uint64_t pack_position(double step, int op_index) {
  return static_cast<std::uint64_t>(step) << 16 | static_cast<std::uint16_t>(op_index);
}
inline long long step_of(std::uint64_t position) { return static_cast<long long>(position >> 16); }
inline int op_of(std::uint64_t position) { return static_cast<std::int16_t>(position & 0xffff); }

/// With what a rank comes to a meeting.
struct Arrival {
  std::uint64_t position;
  std::uint32_t checksum;
  bool operator==(const Arrival& other) const {
    return position == other.position && checksum == other.checksum;
  }
};

/// The rank with which fewest agree, of two the second; -1 if all agree. Every rank that has the
/// same arrivals finds the same one.
int odd_one_out(const Arrival* arrivals, int num_ranks);

/// What is wrong with the odd one, for a message that begins with its rank.
std::string why_odd(const Arrival& arrival, const Place& place);
/// For a rank that was last at `position` and ran no op for `timeout_ms`.
std::string why_absent(const Place& place, std::uint64_t position, int timeout_ms);

}  // namespace vt
