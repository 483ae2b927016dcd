// A CUDA stream and events that end with their owner.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "cuda_error.h"

namespace vt {

/// Of its own: waits for no other stream.
class Stream {
 public:
  Stream() { VT_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }
  void synchronize() const { VT_CUDA(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

/// Events for which a thread sleeps, used in turn.
class Events {
 public:
  explicit Events(int count) : events_(count) {
    for (cudaEvent_t& event : events_)
      VT_CUDA(cudaEventCreateWithFlags(&event, cudaEventBlockingSync | cudaEventDisableTiming));
  }
  ~Events() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  cudaEvent_t of(std::uint64_t step_index) const { return events_[step_index % events_.size()]; }

 private:
  std::vector<cudaEvent_t> events_;
};

}  // namespace vt
