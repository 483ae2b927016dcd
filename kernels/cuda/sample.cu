// sample: logits to token ids and logprobs, docs/sampling.md as one kernel (sample_row.cuh). Parts:
// sample_scan, sample_edit, sample_threshold, sample_draw, sample_logprobs.
#include "sample_row.cuh"

extern "C" int vt_cuda_sample_scratch_stride(int32_t vocab_size) {
  using namespace vt::sample;
  if (vt::target() >= vt::Target::sm_90) return 0;
  const int of_lists =
      static_cast<int>(list_bytes(32 * kMaxWarps, VT_CUDA_MAX_LOGPROBS) / sizeof(float));
  return std::max((vocab_size + kTile - 1) / kTile * kTile, of_lists);
}

extern "C" int vt_cuda_sample(const VtCudaSample* args, void* stream) {
  using namespace vt::sample;
  if (check(*args) != 0) return -1;
  return args->num_top > 32 ? launch_sample<kMostKept>(*args, NoEnd(), stream)
                            : launch_sample<1>(*args, NoEnd(), stream);
}
