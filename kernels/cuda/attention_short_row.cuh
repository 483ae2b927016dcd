// A short row in one block of decode attention: which warp has which keys and dims, where they lie
// in shared memory, and the copies that begin before the kernel in front has finished. Knows
// nothing of what is computed: attention_decode_short.cuh.
#ifndef VT_CUDA_ATTENTION_SHORT_ROW_CUH_
#define VT_CUDA_ATTENTION_SHORT_ROW_CUH_

#include "attention_decode_cluster.cuh"

namespace vt {

/** Heads that share a KV head, at most: columns of the n8 operand. */
constexpr int kShortHeads = 8;

/** How the warps of a block share a row of head_dim kDim, and where things lie. */
template <int kDim>
struct Short {
  static constexpr bool kBuilt = kDim == 64 || kDim == 128;
  static constexpr int kWarps = (kFolders + kCopiers) / 32;
  /** Each has 16 dims of a chunk, so of narrow heads a block has two chunks. */
  static constexpr int kWarpsOfChunk = kDim / 16;
  static constexpr int kChunks = kWarps / kWarpsOfChunk;
  /** And the keys of a tile, or of every 8 of them those 4 whose weights are summed together. */
  static constexpr int kWarpsOfTile = kWarpsOfChunk / 4;
  static constexpr int kProducts = 4 / kWarpsOfTile;  // of 16 keys

  using L = Layout<kDim>;
  /** Slots of a tile: for the keys, then for values. Those that find none replace their keys. */
  static constexpr int kSlots = (L::kWeights - L::kRing) / L::kTileBytes;
  static constexpr int kWeights = L::kWeights;            // [tile][64 keys][8 heads]
  static constexpr int kMaxima = L::kMaxima;              // f32 [kWarps][8 heads]
  static constexpr int kSums = kMaxima + kWarps * 8 * 4;  // f32 [kWarps][8 heads]
  static constexpr int kNewKey = L::kLater + 256;         // [kDim]
  static constexpr int kOther = L::kRing;  // of the second chunk, where keys lay: f32 [4][32][4]

  static_assert(!kBuilt || kWarps / kWarpsOfTile * kTileKeys * 16 <= 16 * kWeightRow);
  static_assert(kSums + kWarps * 8 * 4 <= L::kTold);
  static_assert(256 + kDim * 2 <= kMostLater * 4 || !kBuilt);
};

/** Whether a block may take all works of this one's row, or the chunk of a cluster that it is. */
template <int kDim>
__device__ __forceinline__ bool is_short(const AttentionWork& work, int group) {
  return work.num_queries == 1 && group <= kShortHeads && work.seq_len <= 8192 &&
         work.count <= Short<kDim>::kChunks &&
         (work.key_end - 1) / kGroupKeys - work.key_begin / kGroupKeys < Short<kDim>::kChunks;
}

/** A short row, or the chunk of it that a block has, and where that lies; small, to fit in registers. */
template <typename T>
struct ShortWork {
  const T* keys;     // of the layer and the KV head, in the cache's block 0
  const T* queries;  // of the first head of those that share the KV head
  T* out;            // of the same
  const int32_t* block_table;
  int64_t block_stride;  // elements
  int to_values;         // from a key to its value, elements
  int block_size;
  int seq_len;
  int key_begin;
  int key_end;
  int window;
  float c;
  int8_t group;
  int8_t rank;    // of the block in its cluster: which chunk it has; 0 where it has all
  int8_t chunks;  // of the cluster's blocks; 1 where a block has all of the row
  bool early;     // the kernel in front may not have finished
};

template <typename T, int kDim>
__device__ __forceinline__ ShortWork<T> short_work(const VtCudaAttention& args,
                                                   const AttentionWork& work, int kv_head,
                                                   int rank, int chunks, bool early) {
  const int group = args.num_heads / args.num_kv_heads;
  const int64_t plane = static_cast<int64_t>(args.block_size) * kDim;  // of a KV head in a block
  ShortWork<T> of;
  of.keys = static_cast<const T*>(args.kv_cache) +
            (int64_t{args.layer} * 2 * args.num_kv_heads + kv_head) * plane;
  of.queries = static_cast<const T*>(args.qkv) +
               static_cast<int64_t>(work.query_start) * args.qkv_stride + kv_head * group * kDim;
  of.out = static_cast<T*>(args.out) + static_cast<int64_t>(work.query_start) * args.out_stride +
           kv_head * group * kDim;
  of.block_table = args.block_tables + static_cast<int64_t>(work.row) * args.max_num_blocks;
  of.block_stride = int64_t{args.num_layers} * 2 * args.num_kv_heads * plane;
  of.to_values = args.num_kv_heads * args.block_size * kDim;
  of.block_size = args.block_size;
  of.seq_len = work.seq_len;
  of.key_begin = work.key_begin;
  of.key_end = work.key_end;
  of.group = static_cast<int8_t>(group);
  of.window = args.window;
  of.c = args.scale * kLog2E;
  of.rank = static_cast<int8_t>(rank);
  of.chunks = static_cast<int8_t>(chunks);
  of.early = early;
  return of;
}

/** What a warp has of it: 16 dims of a chunk, and a tile of that, or its part of one. */
template <typename T, int kDim>
struct ShortRow {
  using S = Short<kDim>;
  static constexpr int kPieces = kDim / 8;  // of 16 bytes, of a key

  const ShortWork<T>& work;
  uint32_t base;
  int lane;
  int chunk;
  int dims;  // which 16
  int mine;  // the tile, of the chunk
  int part;  // of the tile
  int first_tiles;
  int second_tiles;
  int key0;       // of the tile
  int num_valid;  // keys of the tile; 0: the warp has none
  int new_key;    // the row's last, counted from key0

  __device__ __forceinline__ ShortRow(const ShortWork<T>& work_, uint32_t shared)
      : work(work_), base(shared), lane(threadIdx.x % 32) {
    const int warp = threadIdx.x / 32;
    chunk = warp / S::kWarpsOfChunk;
    dims = warp % S::kWarpsOfChunk;
    mine = dims / S::kWarpsOfTile;
    part = dims % S::kWarpsOfTile;
    const int border = min(chunk_end(work.key_begin), work.key_end);
    first_tiles = (border - work.key_begin + kTileKeys - 1) / kTileKeys;
    second_tiles = (work.key_end - border + kTileKeys - 1) / kTileKeys;
    key0 = (chunk == 0 ? work.key_begin : border) + mine * kTileKeys;
    num_valid = max(min(key0 + kTileKeys, chunk == 0 ? border : work.key_end) - key0, 0);
    new_key = work.seq_len - 1 - key0;
  }

  /** Of the warp's chunk. */
  __device__ __forceinline__ int tiles() const { return chunk == 0 ? first_tiles : second_tiles; }
  /** Of the row. */
  __device__ __forceinline__ int tile() const { return chunk * first_tiles + mine; }
  __device__ __forceinline__ bool has_new() const {
    return new_key >= 0 && new_key < num_valid && new_key / 4 % S::kWarpsOfTile == part;
  }

  /** The key of the tile that is row `row` of half `half` % 2 of the warp's product `half` / 2. */
  __device__ __forceinline__ int key_of(int half, int row) const {
    return S::kWarpsOfTile == 1 ? half * 8 + row : (row / 4 * 4 + half) * 8 + part * 4 + row % 4;
  }
  /** The row of a slot where its keys and values lie: what a warp copies it has to itself. */
  static __device__ __forceinline__ int place_of(int key) {
    if (S::kWarpsOfTile == 1) return key;
    return key / 4 % 2 * 32 + key / 8 % 4 * 8 + key / 32 * 4 + key % 4;
  }
  static __device__ __forceinline__ uint32_t key_address(uint32_t slot, int key, int piece) {
    return row_address<kDim>(slot, place_of(key), piece);
  }
  /** Products read the values of 8 neighbours at a time, wherever they lie. */
  static __device__ __forceinline__ uint32_t value_address(uint32_t slot, int key, int piece) {
    return slot + place_of(key) * (kDim * 2) + ((piece ^ (key % 8)) << 4);
  }
  __device__ __forceinline__ uint32_t key_slot() const { return slot(tile()); }
  __device__ __forceinline__ bool has_room(int of_row) const {
    return first_tiles + second_tiles + of_row < S::kSlots;
  }
  /** For the values of tile `of_row` of the row. */
  __device__ __forceinline__ uint32_t value_slot(int of_row) const {
    return slot(has_room(of_row) ? first_tiles + second_tiles + of_row : of_row);
  }

  /** A key in the cache, of the row. */
  __device__ __forceinline__ const T* place(int block, int key) const {
    return work.keys + block * work.block_stride + (key & (work.block_size - 1)) * kDim;
  }
  __device__ __forceinline__ int read_block(int key) const {
    return __ldcg(work.block_table + (key >> (31 - __clz(work.block_size))));
  }
  /** Where every 16 keys of the tile lie in the cache; of those behind its last the row's first. */
  using Places = const T* [4];
  __device__ __forceinline__ void find(Places& places) const {
    int blocks[4];
#pragma unroll
    for (int i = 0; i < 4; i++) blocks[i] = read_block(i * 16 < num_valid ? key0 + i * 16 : 0);
#pragma unroll
    for (int i = 0; i < 4; i++) places[i] = place(blocks[i], key0 + i * 16);
  }
  /** Begins to copy the warp's keys, or their values, but for the new one; zeros beyond the row. */
  __device__ __forceinline__ void copy(const Places& places, int of_v, uint32_t to) const {
    if (num_valid == 0) return;
    const uint64_t policy = evict_first_policy();
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const T* from = places[i] + (of_v != 0 ? work.to_values : 0);
#pragma unroll
      for (int j = 0; j < kPieces / 2 / S::kWarpsOfTile; j++) {
        const int row = (j * 32 + lane) / kPieces;  // of the warp's of these 16
        const int piece = (j * 32 + lane) % kPieces;
        const int at = S::kWarpsOfTile == 1 ? row : row / 4 * 8 + part * 4 + row % 4;
        const int key = i * 16 + at;
        if (key == new_key) continue;
        copy16_async(of_v != 0 ? value_address(to, key, piece) : key_address(to, key, piece),
                     from + at * kDim + piece * 8, key < num_valid, policy);
      }
    }
  }

 private:
  __device__ __forceinline__ uint32_t slot(int i) const {
    return base + S::L::kRing + i * S::L::kTileBytes;
  }
};

}  // namespace vt

#endif  // VT_CUDA_ATTENTION_SHORT_ROW_CUH_
