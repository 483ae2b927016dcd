// A mapped file that becomes shorter while it is read ends the process by SIGBUS: no error can be
// returned from a load. This names the file on stderr before that happens, and changes nothing
// else.
#pragma once

#include <cstddef>
#include <string>

namespace vt {

/// Watches one mapping for as long as it exists.
class BusErrorWatch {
 public:
  BusErrorWatch(const void* data, std::size_t bytes, const std::string& path);
  ~BusErrorWatch();
  BusErrorWatch(const BusErrorWatch&) = delete;
  BusErrorWatch& operator=(const BusErrorWatch&) = delete;

 private:
  struct WatchedMapping* entry_;
};

}  // namespace vt
