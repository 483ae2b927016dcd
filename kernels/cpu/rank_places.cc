#include "rank_places.h"

#include <cstdio>

namespace vt {

int odd_one_out(const Arrival* arrivals, int num_ranks) {
  int odd = -1, fewest = num_ranks;
  for (int rank = num_ranks; rank-- > 0;) {
    int num_same = 0;
    for (int other = 0; other < num_ranks; other++) num_same += arrivals[rank] == arrivals[other];
    if (num_same < fewest) odd = rank, fewest = num_same;
  }
  return fewest == num_ranks ? -1 : odd;
}

std::string why_odd(const Arrival& arrival, const Place& place) {
  char reason[200];
  if (arrival.position == pack_position(place.step, place.op_index))
    std::snprintf(reason, sizeof reason,
                  "disagrees with the others at %s (op %d of step %.0f): the tokens that it has "
                  "read or sampled are others",
                  place.op, place.op_index, place.step);
  else
    std::snprintf(reason, sizeof reason, "is in op %d of step %lld where the others are elsewhere",
                  op_of(arrival.position), step_of(arrival.position));
  return reason;
}

std::string why_absent(const Place& place, std::uint64_t position, int timeout_ms) {
  char reason[200];
  std::snprintf(reason, sizeof reason,
                "did not come to %s (op %d of step %.0f) within %g s; it was last in op %d of "
                "step %lld",
                place.op, place.op_index, place.step, timeout_ms / 1000.0, op_of(position),
                step_of(position));
  return reason;
}

}  // namespace vt
