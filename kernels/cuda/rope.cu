// ropeCosSin and ropeAndCache.
//
// What it computes: the angles of a step's positions, once for all layers; then for each token and
// head (a, b) = (x[i], x[i + head_dim / 2]) becomes (a cos - b sin, b cos + a sin) in f32, rounded
// once: q in place, k into its slot of the cache, v copied there as it is. With weights for them, q
// and k go through headRmsNorm first, rounded in between as that op rounds. With row_scale all of a
// row, v too, is multiplied by it and rounded before.
//
// Launch: blocks of a token's heads; a thread has 8 pairs of one head, or 16 values of V. With norms
// 8, 16 or 32 lanes a head, 8 values a lane, of one head or, where tokens are many, of four.
#include "elementwise.cuh"
#include "keys_ahead.cuh"

namespace vt {
namespace {

constexpr int kThreads = 128;
/** From so many on a thread has four heads of its token, whose angles it then reads once. */
constexpr int kManyTokens = 1024;

__global__ void rope_cos_sin(const __grid_constant__ VtCudaRopeCosSin args) {
  start_next();
  wait_for_previous();
  put_angles(args, blockIdx.x, args.positions[blockIdx.x], threadIdx.x, blockDim.x);
}

/** Where head `kv_head` of the K heads, then the V heads, has its slot. */
template <typename T>
__device__ __forceinline__ T* cached(const VtCudaRopeAndCache& args, int slot, int kv_head) {
  return static_cast<T*>(args.kv_cache) +
         slot_offset(slot, args.block_size, args.num_layers, args.layer, args.num_kv_heads,
                     args.head_dim) +
         static_cast<int64_t>(kv_head) * args.block_size * args.head_dim;
}

template <typename T, bool kScaled>
__global__ void __launch_bounds__(kThreads)
    rope_and_cache(const __grid_constant__ VtCudaRopeAndCache args) {
  start_next();
  if (fetches_keys(args.ahead, args.num_tokens)) return;
  wait_for_previous();
  const int64_t token = blockIdx.x;
  const int half = args.head_dim / 2;
  const int pieces = half / 8;  // of 8 pairs, in a head
  const int p = blockIdx.y * kThreads + threadIdx.x;
  const int head = p / pieces;
  if (head >= args.num_heads + 2 * args.num_kv_heads) return;
  const int i = (p - head * pieces) * 8;
  const int kv_head = head - args.num_heads;  // K heads, then V heads
  // All reads at once: each takes most of a microsecond.
  const int slot = args.slots[token];
  T* from = static_cast<T*>(args.qkv) + token * args.qkv_stride + head * args.head_dim + i;
  uint4 low = *reinterpret_cast<const uint4*>(from);
  uint4 high = *reinterpret_cast<const uint4*>(from + half);
  float scale = 1.0f;
  if constexpr (kScaled) scale = args.row_scale[token];
  const float* angles = args.cos_sin + token * args.head_dim + i;
  float cosine[8];
  float sine[8];
  load8(angles, cosine);
  load8(angles + half, sine);
  if (kv_head >= 0 && slot < 0) return;
  if constexpr (kScaled) {
    low = scaled8<T>(low, scale);
    high = scaled8<T>(high, scale);
  }
  T* to = kv_head < 0 ? from : cached<T>(args, slot, kv_head) + i;
  if (kv_head >= args.num_kv_heads) {
    *reinterpret_cast<uint4*>(to) = low;
    *reinterpret_cast<uint4*>(to + half) = high;
    return;
  }
  float a[8];
  float b[8];
  unpack8<T>(low, a);
  unpack8<T>(high, b);
#pragma unroll
  for (int e = 0; e < 8; e++) rotate(a[e], b[e], cosine[e], sine[e]);
  store8(to, a);
  store8(to + half, b);
}

/** kLanes lanes have a head, 8 values each, and kHeads heads one after another. */
template <typename T, int kLanes, int kHeads, bool kScaled>
__global__ void __launch_bounds__(kThreads)
    norm_rope_and_cache(const __grid_constant__ VtCudaRopeAndCache args) {
  start_next();
  if (fetches_keys(args.ahead, args.num_tokens)) return;
  constexpr int kAtOnce = kThreads / kLanes;
  const int64_t token = blockIdx.x;
  const int head0 = blockIdx.y * (kAtOnce * kHeads) + threadIdx.x / kLanes;
  const int heads = args.num_heads + 2 * args.num_kv_heads;
  const int first_value = args.num_heads + args.num_kv_heads;
  const int i = threadIdx.x % kLanes * 8;
  const int half = args.head_dim / 2;
  const bool inside = i < args.head_dim;
  const bool first = i < half;
  uint4 weights[2] = {};  // of queries, of keys
  if (inside && head0 < first_value) {
    weights[0] = *reinterpret_cast<const uint4*>(static_cast<const T*>(args.q_weight) + i);
    weights[1] = *reinterpret_cast<const uint4*>(static_cast<const T*>(args.k_weight) + i);
  }
  wait_for_previous();
  // All reads at once: each takes most of a microsecond.
  T* from = static_cast<T*>(args.qkv) + token * args.qkv_stride + head0 * args.head_dim + i;
  int slot = -1;
  uint4 words[kHeads] = {};
  float cosine[8] = {};
  float sine[8] = {};
  float scale = 1.0f;
  if constexpr (kScaled) scale = args.row_scale[token];
  if (inside) {
    slot = args.slots[token];
#pragma unroll
    for (int j = 0; j < kHeads; j++) {
      if (head0 + j * kAtOnce < heads) {
        words[j] = *reinterpret_cast<const uint4*>(from + j * kAtOnce * args.head_dim);
      }
    }
    if (head0 < first_value) {
      const float* angles = args.cos_sin + token * args.head_dim + (first ? i : i - half);
      load8(angles, cosine);
      load8(angles + half, sine);
#pragma unroll
      for (int e = 0; e < 8; e++) sine[e] = first ? -sine[e] : sine[e];
    }
  }
  // A lane turns its own 8 of the pairs (a, b); their partners lie half a head away.
  const int partner = threadIdx.x % 32 + (first ? half / 8 : -half / 8);
#pragma unroll
  for (int j = 0; j < kHeads; j++) {
    const int head = head0 + j * kAtOnce;
    const int kv_head = head - args.num_heads;  // K heads, then V heads
    if constexpr (kScaled) words[j] = scaled8<T>(words[j], scale);
    float x[8];
    unpack8<T>(words[j], x);
    if (!__all_sync(~0u, head >= first_value)) {
      float weight[8];
      const uint4 of_head = kv_head < 0 ? weights[0] : weights[1];
      unpack8<T>(of_head, weight);
      const float sum = warp_sum<kLanes>(sum_of_squares(x));
      apply_norm(x, norm_scale(sum, args.head_dim, args.eps), weight);
      // Rounded as by headRmsNorm.
      uint4 own;
      store8(reinterpret_cast<T*>(&own), x);
      unpack8<T>(own, x);
      const uint4 others = make_uint4(
          __shfl_sync(~0u, own.x, partner & 31), __shfl_sync(~0u, own.y, partner & 31),
          __shfl_sync(~0u, own.z, partner & 31), __shfl_sync(~0u, own.w, partner & 31));
      float other[8];
      unpack8<T>(others, other);
#pragma unroll
      for (int e = 0; e < 8; e++) x[e] = rotated(x[e], other[e], cosine[e], sine[e]);
    }
    if (!inside || head >= heads || (kv_head >= 0 && slot < 0)) continue;
    T* to = kv_head < 0 ? from + j * kAtOnce * args.head_dim : cached<T>(args, slot, kv_head) + i;
    if (head >= first_value) {
      *reinterpret_cast<uint4*>(to) = words[j];
    } else {
      store8(to, x);
    }
  }
}

template <typename T, int kHeads, bool kScaled>
int launch_heads(const VtCudaRopeAndCache& args, void* stream) {
  const int lanes = args.head_dim <= 64 ? 8 : args.head_dim <= 128 ? 16 : 32;
  const int heads = args.num_heads + 2 * args.num_kv_heads;
  const int of_block = kThreads / lanes * kHeads;
  return launch("ropeAndCache",
                lanes == 8    ? norm_rope_and_cache<T, 8, kHeads, kScaled>
                : lanes == 16 ? norm_rope_and_cache<T, 16, kHeads, kScaled>
                              : norm_rope_and_cache<T, 32, kHeads, kScaled>,
                with_fetchers(dim3(args.num_tokens, (heads + of_block - 1) / of_block), args.ahead),
                dim3(kThreads), 0, args.flags, stream, args);
}

template <typename T, bool kScaled>
int launch_rope(const VtCudaRopeAndCache& args, void* stream) {
  if (args.q_weight != nullptr) {
    return args.num_tokens < kManyTokens ? launch_heads<T, 1, kScaled>(args, stream)
                                         : launch_heads<T, 4, kScaled>(args, stream);
  }
  const int pieces = (args.num_heads + 2 * args.num_kv_heads) * (args.head_dim / 16);
  return launch("ropeAndCache", rope_and_cache<T, kScaled>,
                with_fetchers(dim3(args.num_tokens, (pieces + kThreads - 1) / kThreads), args.ahead),
                dim3(kThreads), 0, args.flags, stream, args);
}

template <typename T>
int launch_rope(const VtCudaRopeAndCache& args, void* stream) {
  return args.row_scale != nullptr ? launch_rope<T, true>(args, stream)
                                   : launch_rope<T, false>(args, stream);
}

}  // namespace
}  // namespace vt

extern "C" int vt_cuda_rope_cos_sin(const VtCudaRopeCosSin* args, void* stream) {
  using namespace vt;
  const VtCudaRopeCosSin& a = *args;
  if (check_angles(a) != 0) return -1;
  return launch("ropeCosSin", rope_cos_sin, dim3(a.num_tokens), dim3(64), 0, a.flags, stream, a);
}

extern "C" int vt_cuda_rope_and_cache(const VtCudaRopeAndCache* args, void* stream) {
  using namespace vt;
  const VtCudaRopeAndCache& a = *args;
  VT_REQUIRE(a.num_tokens > 0 && a.head_dim > 0 && a.head_dim % 16 == 0,
             "ropeAndCache: %d tokens, head_dim %d (a multiple of 16)", a.num_tokens, a.head_dim);
  VT_REQUIRE(a.dtype == VT_CUDA_F16 || a.dtype == VT_CUDA_BF16, "ropeAndCache: dtype %d", a.dtype);
  const bool norms = a.q_weight != nullptr;
  VT_REQUIRE(norms == (a.k_weight != nullptr),
             "ropeAndCache: one of q_weight and k_weight is null");
  VT_REQUIRE(!norms || (a.head_dim <= 256 && aligned16(a.q_weight, 0) && aligned16(a.k_weight, 0)),
             "ropeAndCache: norms of head_dim %d (at most 256, weights 16-byte aligned)",
             a.head_dim);
  VT_REQUIRE(a.layer >= 0 && a.layer < a.num_layers && a.block_size > 0,
             "ropeAndCache: layer %d of %d, block_size %d", a.layer, a.num_layers, a.block_size);
  VT_REQUIRE(aligned16(a.qkv, a.qkv_stride) && aligned16(a.kv_cache, 0),
             "ropeAndCache: rows must be 16-byte aligned");
  VT_REQUIRE(aligned16(a.cos_sin, 0), "ropeAndCache: cos_sin must be 16-byte aligned");
  if (check_keys_ahead("ropeAndCache", a.ahead) != 0) return -1;
  return a.dtype == VT_CUDA_F16 ? launch_rope<__half>(a, stream)
                                : launch_rope<__nv_bfloat16>(a, stream);
}
