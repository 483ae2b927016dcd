// Asks the system for the files that weights are mapped from while the device is opened and its
// context made, during which nothing can be copied: what lies on a disk is under way when the copies
// begin. Of what is in the page cache already it costs nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <thread>

#include "../vt_cuda_backend.h"

namespace vt {

class Readahead {
 public:
  /// Of these parts in their order; what they point to must live as long as this.
  Readahead(const VtCudaWeightPart* parts, std::size_t num_parts);
  /// What was not asked for yet is left.
  ~Readahead();

  /// Until all has been asked for.
  void wait();

 private:
  void run(const VtCudaWeightPart* parts, std::size_t num_parts) const;

  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

}  // namespace vt
