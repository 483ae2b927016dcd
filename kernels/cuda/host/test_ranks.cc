// vt_cuda_test.h: a group of ranks as a load makes it.
#include <memory>

#include "../vt_cuda_test.h"
#include "cuda_error.h"
#include "guarded.h"
#include "rank_group.h"

struct VtCudaTestRanks {
  vt::Ledger ledger;
  std::unique_ptr<vt::RankGroup> ranks;
  vt::DeviceBuffer epoch;
  VtCudaGroup group;
};

extern "C" {

VtCudaTestRanks* vt_cuda_test_ranks(const VtCudaRanks* ranks, const char* library_path,
                                    int32_t fast_math) {
  auto test = std::make_unique<VtCudaTestRanks>();
  const int failed = vt::guarded([&] {
    test->epoch = vt::DeviceBuffer(sizeof(uint64_t), "epoch", test->ledger);
    test->ranks = std::make_unique<vt::RankGroup>(
        *ranks, vt::RankGroupOptions{library_path, fast_math != 0}, test->ledger);
    test->ranks->join(0, test->ledger);
    test->group = test->ranks->describe(test->epoch.as<uint64_t>());
  });
  return failed == 0 ? test.release() : nullptr;
}

const VtCudaGroup* vt_cuda_test_ranks_group(VtCudaTestRanks* test) { return &test->group; }

int vt_cuda_test_ranks_set_epoch(VtCudaTestRanks* test, uint64_t epoch) {
  return vt::guarded([&] {
    VT_CUDA(cudaDeviceSynchronize());
    VT_CUDA(cudaMemcpy(test->epoch.as<char>(), &epoch, sizeof epoch, cudaMemcpyHostToDevice));
    VT_CUDA(cudaDeviceSynchronize());
  });
}

int vt_cuda_test_ranks_all_reduce(VtCudaTestRanks* test, const VtCudaAllReduce* args,
                                  void* stream) {
  return vt::guarded([&] { test->ranks->all_reduce(*args, stream); });
}

int vt_cuda_test_ranks_all_gather(VtCudaTestRanks* test, const VtCudaAllGather* args,
                                  void* stream) {
  return vt::guarded([&] { test->ranks->all_gather(*args, stream); });
}

int vt_cuda_test_ranks_sample_sharded(VtCudaTestRanks* test, const VtCudaSampleSharded* args,
                                      void* stream) {
  return vt::guarded([&] { test->ranks->sample_sharded(*args, stream); });
}

const char* vt_cuda_test_ranks_note(VtCudaTestRanks* test) { return test->ranks->note().c_str(); }

int vt_cuda_test_ranks_meet(VtCudaTestRanks* test) {
  return vt::guarded([&] { test->ranks->meet(); });
}

int vt_cuda_test_ranks_failure(VtCudaTestRanks* test, int32_t* missing_rank, int32_t* op_index) {
  const auto failure = test->ranks->failure();
  if (!failure) return 0;
  *missing_rank = failure->missing_rank;
  *op_index = failure->op_index;
  return 1;
}

void vt_cuda_test_ranks_close(VtCudaTestRanks* test) { delete test; }

}  // extern "C"
