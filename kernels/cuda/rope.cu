// ropeCosSin and ropeAndCache.
//
// What it computes: the angles of a step's positions, once for all layers; then for each token and
// head (a, b) = (x[i], x[i + head_dim / 2]) becomes (a cos - b sin, b cos + a sin) in f32, rounded
// once: q in place, k into its slot of the cache, v copied there as it is. With weights for them, q
// and k go through headRmsNorm first, rounded in between as that op rounds.
//
// Launch: a block a token; a thread takes 8 pairs of one head (or 16 values of V) at a time. With
// norms a warp a head, 8 values a lane.
#include "elementwise.cuh"

namespace vt {
namespace {

constexpr int kThreads = 128;

__global__ void rope_cos_sin(const __grid_constant__ VtCudaRopeCosSin args) {
  start_next();
  wait_for_previous();
  const int half = args.head_dim / 2;
  const float position = static_cast<float>(args.positions[blockIdx.x]);
  float* out = args.out + static_cast<int64_t>(blockIdx.x) * args.head_dim;
  for (int i = threadIdx.x; i < half; i += blockDim.x) {
    const float angle = __fmul_rn(position, args.inv_freq[i]);
    out[i] = __fmul_rn(cosf(angle), args.factor);
    out[half + i] = __fmul_rn(sinf(angle), args.factor);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    rope_and_cache(const __grid_constant__ VtCudaRopeAndCache args) {
  start_next();
  wait_for_previous();
  const int64_t token = blockIdx.x;
  const int slot = args.slots[token];
  const int half = args.head_dim / 2;
  const int pieces = half / 8;  // of 8 pairs, in a head
  const int heads = args.num_heads + 2 * args.num_kv_heads;
  T* qkv = static_cast<T*>(args.qkv) + token * args.qkv_stride;
  const float* cosine = args.cos_sin + token * args.head_dim;
  const int64_t head_size = static_cast<int64_t>(args.block_size) * args.head_dim;
  T* keys =
      static_cast<T*>(args.kv_cache) + slot_offset(slot, args.block_size, args.num_layers,
                                                   args.layer, args.num_kv_heads, args.head_dim);
  for (int p = threadIdx.x; p < heads * pieces; p += kThreads) {
    const int head = p / pieces;
    const int i = p % pieces * 8;
    T* from = qkv + head * args.head_dim + i;
    const int kv_head = head - args.num_heads;  // K heads, then V heads
    if (kv_head >= 0 && slot < 0) continue;
    T* to = kv_head < 0 ? from : keys + kv_head * head_size + i;
    if (kv_head >= args.num_kv_heads) {
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
      *reinterpret_cast<uint4*>(to + half) = *reinterpret_cast<const uint4*>(from + half);
      continue;
    }
    float a[8];
    float b[8];
    load8(from, a);
    load8(from + half, b);
#pragma unroll
    for (int e = 0; e < 8; e++) rotate(a[e], b[e], cosine[i + e], cosine[half + i + e]);
    store8(to, a);
    store8(to + half, b);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    norm_rope_and_cache(const __grid_constant__ VtCudaRopeAndCache args) {
  start_next();
  const int heads = args.num_heads + 2 * args.num_kv_heads;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int64_t token = item / heads;
  const int head = static_cast<int>(item % heads);
  const int kv_head = head - args.num_heads;  // K heads, then V heads
  const int i = threadIdx.x % 32 * 8;
  const int half = args.head_dim / 2;
  const bool active = token < args.num_tokens && i < args.head_dim;
  float weight[8] = {};
  if (active && kv_head < args.num_kv_heads) {
    load8(static_cast<const T*>(kv_head < 0 ? args.q_weight : args.k_weight) + i, weight);
  }
  wait_for_previous();
  if (token >= args.num_tokens) return;
  const int slot = args.slots[token];
  T* from = static_cast<T*>(args.qkv) + token * args.qkv_stride + head * args.head_dim + i;
  float x[8] = {};
  if (active) load8(from, x);
  T* to = from;
  if (kv_head >= 0) {
    if (slot < 0) return;
    to = static_cast<T*>(args.kv_cache) + i +
         slot_offset(slot, args.block_size, args.num_layers, args.layer, args.num_kv_heads,
                     args.head_dim) +
         static_cast<int64_t>(kv_head) * args.block_size * args.head_dim;
  }
  if (kv_head < args.num_kv_heads) {
    const float scale = norm_scale(warp_sum(sum_of_squares(x, 0.0f)), args.head_dim, args.eps);
    apply_norm(x, scale, weight);
    // A lane turns its own 8 of the pairs (a, b); their partners lie half a head away.
    const bool first = i < half;
    const int partner = threadIdx.x % 32 + (first ? half / 8 : -half / 8);
    const float* cosine = args.cos_sin + token * args.head_dim + (first ? i : i - half);
#pragma unroll
    for (int e = 0; e < 8; e++) {
      x[e] = to_f32(from_f32<T>(x[e]));
      const float other = __shfl_sync(~0u, x[e], partner & 31);
      if (!active) continue;
      float a = first ? x[e] : other;
      float b = first ? other : x[e];
      rotate(a, b, cosine[e], cosine[half + e]);
      x[e] = first ? a : b;
    }
  }
  if (active) store8(to, x);
}

}  // namespace
}  // namespace vt

extern "C" int vt_cuda_rope_cos_sin(const VtCudaRopeCosSin* args, void* stream) {
  using namespace vt;
  const VtCudaRopeCosSin& a = *args;
  VT_REQUIRE(a.num_tokens > 0 && a.head_dim > 0 && a.head_dim % 2 == 0,
             "ropeCosSin: %d tokens, head_dim %d", a.num_tokens, a.head_dim);
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
  if (norms) {
    const int64_t items = static_cast<int64_t>(a.num_tokens) * (a.num_heads + 2 * a.num_kv_heads);
    return launch(
        "ropeAndCache",
        a.dtype == VT_CUDA_F16 ? norm_rope_and_cache<__half> : norm_rope_and_cache<__nv_bfloat16>,
        dim3(static_cast<unsigned>((items * 32 + kThreads - 1) / kThreads)), dim3(kThreads), 0,
        a.flags, stream, a);
  }
  return launch("ropeAndCache",
                a.dtype == VT_CUDA_F16 ? rope_and_cache<__half> : rope_and_cache<__nv_bfloat16>,
                dim3(a.num_tokens), dim3(kThreads), 0, a.flags, stream, a);
}
