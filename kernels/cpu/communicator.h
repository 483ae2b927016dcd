// How a rank meets the others that run the same program: the border between collectives and what
// carries them. Collectives (op_collective.cc) know this alone, so that another carrier (sockets
// between hosts) changes nothing in what they compute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "../host/group_failure.h"

namespace vt {

/// Where a rank is when it meets the others; ranks at different places have gone different ways.
struct Place {
  double step;
  int op_index;
  /// For messages: "allReduce".
  const char* op;
  /// Hash of every token that the rank has read and sampled so far, those of this step's batch
  /// included.
  std::uint32_t checksum;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int num_ranks() const = 0;
  /// Memory for the rank's activations; the `data` of meet() lies in it.
  virtual char* memory() const = 0;

  /// Waits until every rank is at `place`, then part() gives what each had in `data`: `count` floats
  /// at the same offset of its memory, unchanged until this rank comes to its next meeting. One
  /// thread calls it; all ranks with the same count. False if a rank did not come, came to another
  /// place, or has left: failure() says which, and no later meeting succeeds.
  virtual bool meet(const Place& place, const float* data, std::size_t count) = 0;
  virtual const float* part(int rank) const = 0;
  virtual const GroupFailure& failure() const = 0;
  bool failed() const { return failure().rank >= 0; }

  /// What others are told of this rank while they wait for it. Cheap.
  virtual void set_position(double step, int op_index) = 0;
  /// This rank comes to no further meeting: nobody need wait for it. Any thread.
  virtual void leave(const std::string& why) = 0;
};

}  // namespace vt
