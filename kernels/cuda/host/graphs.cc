#include "graphs.h"

#include <algorithm>

#include "cuda_error.h"

namespace vt {

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

void Graphs::launch(int bucket, cudaStream_t stream) const {
  const auto found = std::find_if(graphs_.begin(), graphs_.end(),
                                  [bucket](const Captured& c) { return c.bucket == bucket; });
  VT_CHECK(found != graphs_.end(), "no graph was captured for %d rows", bucket);
  VT_CUDA(cudaGraphLaunch(found->graph, stream));
}

}  // namespace vt
