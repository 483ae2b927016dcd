// sample: logits to token ids. Its kernel for the struct below is being written; until then a call
// is refused by name.
#include "common.cuh"

extern "C" int vt_cuda_sample(const VtCudaSample* args, void* stream) {
  static_cast<void>(args);
  static_cast<void>(stream);
  return vt::fail("sample: not built on cuda");
}
