// What the parts of the sampler share: a row of logits that lies in the shared memory of a cluster
// of blocks, each with a run of whole tiles of 1,024 ids, and what the blocks tell each other.
#ifndef VT_CUDA_SAMPLE_CUH_
#define VT_CUDA_SAMPLE_CUH_

#include "cluster.cuh"
#include "sample_needs.cuh"
#include "sample_words.cuh"

namespace vt {
namespace sample {

constexpr int kTile = 1024;
constexpr int kMaxCluster = 8;
constexpr int kMaxTiles = 55;  // of a block: 220 KiB
constexpr int kMaxWarps = 16;
constexpr int kBins = 512;
constexpr int kMaxListed = 256;
constexpr int kMaxBiases = 512;
/** Of a row that is told by candidates, from all ranks together. */
constexpr int kMaxCandidates = 2048;

constexpr int kMaxVocab = kMaxCluster * kMaxTiles * kTile;

struct Shape {
  int blocks, tiles, threads; /* of a row; of a block; of a block */
};

/** So that several blocks share a multiprocessor, or all multiprocessors are used. */
inline Shape shape_of(int num_rows, int num_ids) {
  const int tiles = (num_ids + kTile - 1) / kTile;
  if (target() == Target::sm_80) return {1, tiles, 32 * kMaxWarps};
  const bool few_rows = num_rows * kMaxCluster <= num_multiprocessors();
  const int most_tiles = few_rows ? 1 : 24;
  Shape shape;
  for (shape.blocks = 1; shape.blocks < kMaxCluster && tiles > shape.blocks * most_tiles;) {
    shape.blocks *= 2;
  }
  shape.tiles = (tiles + shape.blocks - 1) / shape.blocks;
  shape.threads = few_rows || shape.tiles > 16 ? 512 : 256;
  return shape;
}

/** Beside the logits. */
struct Shared {
  VtCudaRowParams params;
  int num_tokens, finished, judged_id;
  /** Of block 0: what the row was answered with. */
  struct {
    int id, flags;
  } answer;
  /** Barrier of the copy that brings the logits. */
  Word copied;
  /** What the blocks tell each other, by rank; two turns, so that one may be read yet. */
  Word told[2][kMaxCluster];
  Word warps[kMaxWarps];
  /** Entries of `list`, or of `biases`; more than there is room for if they were not listed. */
  int num_listed;
  /** Of a selection. */
  uint32_t chosen; /* bin, or key */
  Word above_chosen;
  /** Of a draw: key of the best value so far. */
  uint32_t best_key;
  /** Of logprobs, in block 0. */
  uint32_t num_greater;
  union alignas(8) {
    uint32_t bins[kBins][2]; /* 64-bit weights of a selection, low half first */
    struct {
      int32_t ids[kMaxBiases];
      float values[kMaxBiases];
    } biases;
    struct {
      Word weights[kMaxListed];
      float all[kMaxListed];
      float mine[kMaxListed];
    } list;
    uint32_t queues[kMaxWarps][64];
    int32_t candidates[kMaxCandidates / 2]; /* places in z, of one of two ranks or more */
    double tile_sums[kMaxVocab / kTile];
  };
};

/** Once in a block's life, before load_state. */
__device__ __forceinline__ void prepare_copy(Shared& shared) {
  if (threadIdx.x != 128) return;
  barrier_init(shared_address(&shared.copied), 1);
  fence_barrier_init();
}

/** What is known of a row, all read at once. A barrier of the block. */
__device__ __forceinline__ void load_state(const VtCudaSample& args, int table_row, int index,
                                           Shared& shared) {
  const int thread = threadIdx.x;
  constexpr int kWords = sizeof(VtCudaRowParams) / sizeof(Word);
  if (thread < kWords) {
    const Word* from = reinterpret_cast<const Word*>(args.params + table_row);
    reinterpret_cast<Word*>(&shared.params)[thread] = from[thread];
  } else if (thread == 32) {
    shared.num_tokens = args.num_tokens[table_row];
  } else if (thread == 64) {
    shared.finished = args.finished != nullptr ? args.finished[table_row] : 0;
  } else if (thread == 96) {
    shared.judged_id = args.judged_ids != nullptr ? args.judged_ids[index] : -1;
    shared.num_greater = 0;
    shared.best_key = 0;
  }
  __syncthreads();
}

/** A row of logits, as one block sees it; in groups of four, group i is thread i % blockDim's. */
struct Row {
  const float* logits; /* [vocab_size] in global memory, never changed */
  float* z;            /* this block's ids: logits, or logits after section 3; in shared memory, on
                          sm_80, where a block has all ids, in the row's scratch */
  Shared* shared;
  int vocab_size;
  int first = 0; /* least of the row's ids: above 0 where other ranks have those before */
  int rank, num_blocks;
  int num_tiles;    /* of a block, the last block's perhaps beyond the vocabulary */
  int begin, count; /* this block's ids; z is -Infinity from `count` to the next multiple of 4 */
  int turn;
  float greatest; /* z of this thread's groups */
};

__device__ __forceinline__ Word warp_max(Word word) {
  const uint32_t high = word >> 32;
  const uint32_t low = static_cast<uint32_t>(word);
  const uint32_t top = __reduce_max_sync(~0u, high);
  const uint32_t rest = __reduce_max_sync(~0u, high == top ? low : 0);
  return static_cast<Word>(top) << 32 | rest;
}

/** Whether the head's linear has found the best ids of row `index`, whose logits are not there. */
__device__ __forceinline__ bool has_best(const VtCudaSample& args, int index) {
  return args.best != nullptr && args.row_of[index] >= 0 &&
         args.best[index * args.num_best] != kHasLogits;
}

/** The best of them, in all lanes of a warp. */
__device__ __forceinline__ Word best_of_head(const VtCudaSample& args, int index) {
  Word best = kNone;
  for (int i = threadIdx.x % 32; i < args.num_best; i += 32) {
    best = max(best, static_cast<Word>(args.best[index * args.num_best + i]));
  }
  return warp_max(best);
}

inline int check_best(const VtCudaSample& a) {
  VT_REQUIRE(a.best == nullptr || (a.num_best > 0 && a.num_best <= VT_CUDA_MAX_BEST &&
                                   a.num_rows <= VT_CUDA_MAX_BEST_ROWS),
             "sample: %d best ids of %d rows", a.num_best, a.num_rows);
  return 0;
}

/** `word` of thread r to block r of the cluster; a barrier. Then told() is what each has sent. */
__device__ __forceinline__ void tell(Row& row, Word word) {
  if (static_cast<int>(threadIdx.x) < row.num_blocks) {
    const Word* place = &row.shared->told[row.turn][row.rank];
    store_in_cluster(address_in(shared_address(place), threadIdx.x), word);
  }
  cluster_sync();
  row.turn ^= 1;
}

/** From block `rank`, until the turn after the next tell(). */
__device__ __forceinline__ Word told(const Row& row, int rank) {
  return row.shared->told[row.turn ^ 1][rank];
}

/** The greatest word of the cluster, in every thread. A barrier of the cluster. */
__device__ __forceinline__ Word cluster_max(Row& row, Word word) {
  Shared& shared = *row.shared;
  word = warp_max(word);
  if (threadIdx.x % 32 == 0) shared.warps[threadIdx.x / 32] = word;
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < row.num_blocks) {
    for (int w = 0; w < static_cast<int>(blockDim.x) / 32; w++) word = max(word, shared.warps[w]);
  }
  tell(row, word);
  word = kNone;
  for (int r = 0; r < row.num_blocks; r++) word = max(word, told(row, r));
  return word;
}

/** z of the row's greatest logit, ranked; of a greedy row that logit. */
__device__ __forceinline__ float greatest_z(const Shared& shared, Word greatest) {
  const float temperature = shared.params.temperature;
  const float logit = greatest == kNone ? -INFINITY : ranked_value(greatest);
  return temperature < kGreedyBelow ? logit : __fdiv_rn(logit, temperature);
}

/** A logit below all whose quotient by `temperature` is at least `z`. */
__device__ __forceinline__ float lowest_logit(float z, float temperature) {
  const float x = z * temperature;
  return x - fabsf(x) * 0x1p-20f - 1e-30f;
}

/**
 * f(z, place in row.z) for this thread's ids with z = logit / temperature at least `least` and not
 * -Infinity.
 */
template <typename F>
__device__ __forceinline__ void for_each_from(const Row& row, float temperature, float least, F f) {
  const float lowest = lowest_logit(least, temperature);
  if (!(row.greatest >= lowest)) return;
  const float4* groups = reinterpret_cast<const float4*>(row.z);
  for (int i = threadIdx.x; 4 * i < row.count; i += blockDim.x) {
    const float4 group = groups[i];
    const float logits[4] = {group.x, group.y, group.z, group.w};
    if (!(fmaxf(fmaxf(group.x, group.y), fmaxf(group.z, group.w)) >= lowest)) continue;
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const float z = __fdiv_rn(logits[e], temperature);
      if (z >= least && z > -INFINITY) f(z, 4 * i + e);
    }
  }
}

}  // namespace sample
}  // namespace vt

#endif  // VT_CUDA_SAMPLE_CUH_
