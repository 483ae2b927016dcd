// Decode steps as CUDA graphs, one for each bucket of rows: a step of n rows runs that of the
// smallest bucket from n on. Knows nothing of what is captured.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <vector>

namespace vt {

/// 1, 2, 4, then multiples of 8 to 256, of 16 to 512, of 32 beyond; and `most`, the last.
std::vector<int> decode_buckets(int most);

class Graphs {
 public:
  Graphs() = default;
  ~Graphs();
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  /// Buckets come ascending; `queue` queues the bucket's launches on `stream`.
  void capture(int bucket, cudaStream_t stream, const std::function<void()>& queue);
  /// The bucket that was launched; 0 if there is no graph for `num_rows` rows.
  int launch(int num_rows, cudaStream_t stream) const;

 private:
  struct Captured {
    int bucket;
    cudaGraphExec_t graph;
  };
  std::vector<Captured> graphs_;
};

}  // namespace vt
