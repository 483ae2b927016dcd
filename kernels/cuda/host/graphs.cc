#include "graphs.h"

#include <algorithm>

#include "cuda_error.h"

namespace vt {

std::vector<int> decode_buckets(int most) {
  std::vector<int> buckets;
  for (int b = 1; b < most; b += b < 4 ? b : b < 8 ? 4 : b < 256 ? 8 : b < 512 ? 16 : 32)
    buckets.push_back(b);
  buckets.push_back(most);
  return buckets;
}

Graphs::~Graphs() {
  for (const Captured& captured : graphs_) cudaGraphExecDestroy(captured.graph);
}

void Graphs::capture(int bucket, cudaStream_t stream, const std::function<void()>& queue) {
  VT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  cudaGraph_t graph = nullptr;
  try {
    queue();
  } catch (...) {
    // Ends the capture too; the first error is the one to report.
    if (cudaStreamEndCapture(stream, &graph) == cudaSuccess) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  VT_CUDA(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  VT_CUDA(error);
  graphs_.push_back({bucket, executable});
  VT_CUDA(cudaGraphUpload(executable, stream));
}

int Graphs::launch(int num_rows, cudaStream_t stream) const {
  const auto found = std::lower_bound(graphs_.begin(), graphs_.end(), num_rows,
                                      [](const Captured& c, int n) { return c.bucket < n; });
  if (found == graphs_.end()) return 0;
  VT_CUDA(cudaGraphLaunch(found->graph, stream));
  return found->bucket;
}

}  // namespace vt
