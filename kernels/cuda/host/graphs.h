// Decode steps as CUDA graphs, one for each of some buckets of rows. Knows nothing of what is captured,
// nor which graph serves a step (graph_choice.h).
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <vector>

namespace vt {

class Graphs {
 public:
  Graphs() = default;
  ~Graphs();
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  /// `queue` queues the bucket's launches on `stream`. Throws KernelError.
  void capture(int bucket, cudaStream_t stream, const std::function<void()>& queue);
  /// The graph that was captured for the bucket. Throws KernelError.
  void launch(int bucket, cudaStream_t stream) const;

 private:
  struct Captured {
    int bucket;
    cudaGraphExec_t graph;
  };
  std::vector<Captured> graphs_;
};

}  // namespace vt
