// The kernel of sample: a cluster of blocks takes a row of logits into its shared memory, reading
// it once; whatever the row's parameters ask is then done there. A row that has a temperature alone
// goes through registers instead. What comes after a row is its launch's choice.
//
// A row's result does not depend on the number of blocks: maxima, counts and masses in integers are
// the same in any order, and sums of exponentials go by tiles at absolute borders.
#ifndef VT_CUDA_SAMPLE_ROW_CUH_
#define VT_CUDA_SAMPLE_ROW_CUH_

#include <algorithm>

#include "sample_draw.cuh"
#include "sample_edit.cuh"
#include "sample_logprobs.cuh"
#include "sample_scan.cuh"
#include "sample_stream.cuh"
#include "sample_threshold.cuh"

namespace vt {
namespace sample {

/** By block 0 of the row's cluster. */
__device__ __forceinline__ void answer(const VtCudaSample& args, const Row& row, int index, int id,
                                       bool flagged, bool with_logprob) {
  if (row.rank != 0 || threadIdx.x != 0) return;
  row.shared->answer = {id, flagged ? 1 : 0};
  args.token_ids[index] = id;
  args.row_flags[index] = flagged ? 1 : 0;
  if (args.num_top >= 0 && !with_logprob) args.ranks[index] = 0;
}

/** The draw of a row whose greatest logit, after section 3, is `best`; ranked. */
__device__ __forceinline__ Word sample(Row& row, Word best) {
  const Shared& shared = *row.shared;
  const float temperature = shared.params.temperature;
  if (temperature < kGreedyBelow) return best;
  const float z_max = __fdiv_rn(ranked_value(best), temperature);
  const float least = truncation_threshold(row, temperature, z_max);
  Draw draw(row, temperature, least, shared.num_tokens);
  return cluster_max(row, draw.run(z_max, ranked_id(best)));
}

/** A row that is to be sampled, or judged: its state is in shared memory. */
template <int kKept>
__device__ __forceinline__ void sample_known(const VtCudaSample& args, int num_tiles, Row& row,
                                             int index, int table_row) {
  Shared& shared = *row.shared;
  row.logits = args.logits + static_cast<int64_t>(index) * args.logits_stride;
  row.z = VT_HAS_SM_90 ? reinterpret_cast<float*>(dynamic_shared())
                       : args.scratch + static_cast<int64_t>(index) * args.scratch_stride;
  row.vocab_size = args.vocab_size;
  row.num_tiles = num_tiles;
  row.begin = row.rank * num_tiles * kTile;
  row.count = max(0, min(num_tiles * kTile, row.vocab_size - row.begin));
  row.turn = 0;
  const bool judges = shared.judged_id >= 0;
  const bool has_edits_here = !judges && has_edits(shared);

  Word best;
  if (!judges && !has_edits_here && !has_logprob(args, shared) && is_streamed(row)) {
    cluster_arrive();
    best = stream_draw(row.logits, row.begin, row.count);
    cluster_wait();  // all blocks are there
    best = cluster_max(row, best);
    const bool is_fit = best != kNone && best != kUnfit;
    return answer(args, row, index, is_fit ? ranked_id(best) : -1, !is_fit, false);
  }
  if (has_edits_here) {
    const int32_t* history =
        args.history + static_cast<int64_t>(table_row) * args.history_stride;
    best = scan_edited(row, history);
  } else {
    cluster_arrive();
    best = scan_logits(row);
    cluster_wait();  // all blocks are there
  }
  best = cluster_max(row, best);
  if (best == kUnfit || (!judges && greatest_z(shared, best) == -INFINITY)) {
    return answer(args, row, index, -1, true, false);
  }

  const int id = judges ? shared.judged_id : ranked_id(sample(row, best));
  const bool with_logprob = has_logprob(args, shared);
  answer(args, row, index, id, false, with_logprob);
  if (!with_logprob) return;
  if (has_edits_here) {
    fence_async();  // the copy engine writes where threads have written
    __syncthreads();
    best = cluster_max(row, scan_logits(row));
  }
  const float max = best == kNone ? -INFINITY : ranked_value(best);
  write_logprobs<kKept>(row, args, index, max, id);
}

/** A row whose best ids the head's linear has found; by block 0 of its cluster. */
__device__ __forceinline__ void answer_best(const VtCudaSample& args, const Row& row, int index) {
  if (row.rank != 0 || threadIdx.x >= 32) return;
  const Word best = best_of_head(args, index);
  const bool is_fit = best != kNone && best != kUnfit;
  answer(args, row, index, is_fit ? ranked_id(best) : -1, !is_fit, false);
}

/** After a row: nothing. */
struct NoEnd {
  __device__ __forceinline__ void read() const {}
  __device__ __forceinline__ void run(const Shared&) const {}
};

/**
 * `end`, of block 0 of a row's cluster, all its threads: read() before the kernel in front of this one
 * has finished, where early reads are allowed; run() when the row is answered.
 */
template <int kKept, typename End>
__global__ void __launch_bounds__(32 * kMaxWarps, 2)
    sample_row(const __grid_constant__ VtCudaSample args, const int num_tiles,
               const __grid_constant__ End end) {
  Shared& shared = block_shared<Shared>();
  start_next();
  // With early reads, only logits are waited for.
  const bool early = (args.flags & VT_CUDA_EARLY_READS) != 0;
  if (!early) wait_for_previous();
  Row row;
  row.num_blocks = cluster_size();
  row.rank = cluster_rank();
  row.shared = &shared;
  const int index = blockIdx.x / row.num_blocks;
  const int table_row = args.row_of[index];
  if (row.rank == 0) end.read();
  // Few rows of such a launch need more than their best ids.
  const bool by_best = args.best != nullptr;
  if (early && by_best) wait_for_previous();
  const bool is_told = has_best(args, index);
  if (table_row >= 0 && !is_told) {
    prepare_copy(shared);
    load_state(args, table_row, index, shared);
  }
  // Also by rows without work: the kernels behind this one rely on it.
  if (early && !by_best) wait_for_previous();
  if (is_told) {
    answer_best(args, row, index);
  } else if (table_row >= 0 && shared.finished == 0) {
    sample_known<kKept>(args, num_tiles, row, index, table_row);
  } else if (table_row != VT_CUDA_ROW_ANSWERED) {
    answer(args, row, index, -1, false, false);
  }
  if (row.rank == 0) end.run(shared);
}

inline int check(const VtCudaSample& a) {
  VT_REQUIRE(a.num_rows > 0 && a.num_rows <= INT32_MAX / kMaxCluster, "sample: %d rows",
             a.num_rows);
  VT_REQUIRE(a.vocab_size > 0 && a.vocab_size <= kMaxVocab, "sample: %d ids (at most %d)",
             a.vocab_size, kMaxVocab);
  VT_REQUIRE(a.logits_stride >= a.vocab_size, "sample: logits_stride %d below %d ids",
             a.logits_stride, a.vocab_size);
  VT_REQUIRE(a.num_top >= -1 && a.num_top <= VT_CUDA_MAX_LOGPROBS,
             "sample: num_top %d (at most %d)", a.num_top, VT_CUDA_MAX_LOGPROBS);
  VT_REQUIRE(a.num_named >= 0 && a.num_named <= VT_CUDA_MAX_LOGPROB_IDS,
             "sample: num_named %d (at most %d)", a.num_named, VT_CUDA_MAX_LOGPROB_IDS);
  if (check_best(a) != 0) return -1;
  const int scratch_stride = vt_cuda_sample_scratch_stride(a.vocab_size);
  VT_REQUIRE(scratch_stride == 0 || (a.scratch != nullptr && aligned16(a.scratch, 0) &&
                                     a.scratch_stride >= scratch_stride &&
                                     a.scratch_stride % 4 == 0),
             "sample: scratch_stride %d, at least %d", a.scratch_stride, scratch_stride);
  return 0;
}

/** Of arguments that are checked. */
template <int kKept, typename End>
int launch_sample(const VtCudaSample& args, const End& end, void* stream) {
  const Shape shape = shape_of(args.num_rows, args.vocab_size);
  const size_t logit_bytes = static_cast<size_t>(shape.tiles) * kTile * sizeof(float);
  const size_t shared_bytes = target() < Target::sm_90
                                  ? 0
                                  : std::max(logit_bytes, list_bytes(shape.threads, args.num_top));
  return launch_clusters("sample", sample_row<kKept, End>, shape.blocks,
                         dim3(args.num_rows * shape.blocks), dim3(shape.threads), shared_bytes,
                         args.flags, stream, args, shape.tiles, end);
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_ROW_CUH_
