// How many KV blocks a load gets.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../../host/program.h"
#include "../vt_cuda_backend.h"

namespace vt {

/// Free memory of the device when the load began, with its context made, and once all but the KV
/// cache is there.
struct DeviceMemory {
  std::size_t total, free_before, free_now;
};

/// Bytes of one block over all layers; 0 without a KV cache.
std::int64_t block_bytes(const Program& program, int block_size);
/// Blocks that max_num_seqs rows of max_model_len can fill, and the null block.
std::int64_t most_blocks(const Program& program, const VtCudaLoad& load);
/// Blocks of the pool, the null block included. Throws KernelError with the largest length that
/// fits, and the flags, if one request of max_model_len does not.
int num_kv_blocks(const Program& program, const VtCudaLoad& load, const DeviceMemory& memory);

}  // namespace vt
