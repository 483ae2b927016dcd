// The end of a pass of linear_skinny: what becomes of the sums of one unit of weight rows.
//
// A narrow unit is 8 rows; a lane has the pair n, n + 1 of a row of x. A wide unit is two runs of 8
// rows; a lane has n[0] of the first and n[1] of the second for a row of x, so that what an
// epilogue joins meets in one lane: gate and up, or the two halves of a rope pair.
#ifndef VT_CUDA_LINEAR_EPILOGUE_CUH_
#define VT_CUDA_LINEAR_EPILOGUE_CUH_

#include "linear.cuh"

namespace vt {

/** Where a lane's two outputs of a row of x lie among the weight's rows. */
struct Place {
  int n[2];
  int head;    // ropeAndCache alone
  int column;  // of the head, in its first half
};

template <bool kWide>
__device__ __forceinline__ Place place_of(const VtCudaLinear& args, int unit, int lane) {
  Place place = {};
  if constexpr (!kWide) {
    place.n[0] = unit * 8 + lane % 4 * 2;
    place.n[1] = place.n[0] + 1;
  } else if (args.epilogue == VT_CUDA_ROPE_AND_CACHE) {
    const int per_head = args.head_dim / 16;
    place.head = unit / per_head;
    place.column = unit % per_head * 8 + lane / 4;
    place.n[0] = place.head * args.head_dim + place.column;
    place.n[1] = place.n[0] + args.head_dim / 2;
  } else {
    place.n[0] = unit * 16 + lane / 4;
    place.n[1] = place.n[0] + 8;
  }
  return place;
}

/** What the end of row m needs from memory; zeros where there is nothing to read. */
struct RowAhead {
  float of_first, of_second;  // residuals; cos and sin for ropeAndCache
  int slot;
};

template <typename T, bool kWide>
__device__ __forceinline__ RowAhead fetch_row(const VtCudaLinear& args, const Place& place, int m) {
  RowAhead row = {};
  if (m >= args.m) return row;
  if (kWide && args.epilogue == VT_CUDA_ROPE_AND_CACHE) {
    const float* cosine = args.cos_sin + static_cast<int64_t>(m) * args.head_dim + place.column;
    row.of_first = __ldcg(cosine);
    row.of_second = __ldcg(cosine + args.head_dim / 2);
    if (place.head >= args.num_heads) row.slot = __ldcg(args.slots + m);
  } else if (args.residual != nullptr) {
    const T* residual =
        static_cast<const T*>(args.residual) + static_cast<int64_t>(m) * args.residual_stride;
    if (place.n[0] < args.n) row.of_first = to_f32(__ldcg(residual + place.n[0]));
    if (place.n[1] < args.n) row.of_second = to_f32(__ldcg(residual + place.n[1]));
  }
  return row;
}

/** The bias at `place`. */
template <typename T>
__device__ __forceinline__ float2 fetch_bias(const VtCudaLinear& args, const Place& place) {
  float2 bias = make_float2(0.0f, 0.0f);
  if (args.bias == nullptr) return bias;
  if (place.n[0] < args.n) bias.x = to_f32(static_cast<const T*>(args.bias)[place.n[0]]);
  if (place.n[1] < args.n) bias.y = to_f32(static_cast<const T*>(args.bias)[place.n[1]]);
  return bias;
}

/** out[m][place] = first, second, rounded. */
template <typename T, bool kWide>
__device__ __forceinline__ void store_outputs(const VtCudaLinear& args, const Place& place, int m,
                                              float first, float second, bool pairs) {
  const int64_t row = static_cast<int64_t>(m) * args.out_stride;
  const bool f32 = args.out_dtype == VT_CUDA_F32;
  float* wide_out = static_cast<float*>(args.out) + row;
  T* out = static_cast<T*>(args.out) + row;
  if (!kWide && pairs) {
    if (place.n[0] >= args.n) return;
    if (f32) {
      *reinterpret_cast<float2*>(wide_out + place.n[0]) = make_float2(first, second);
    } else {
      *reinterpret_cast<uint32_t*>(out + place.n[0]) = pack2<T>(first, second);
    }
    return;
  }
  const float values[2] = {first, second};
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (place.n[i] >= args.n) continue;
    if (f32) {
      wide_out[place.n[i]] = values[i];
    } else {
      out[place.n[i]] = from_f32<T>(values[i]);
    }
  }
}

/** Row m's outputs at `place` from their sums. `pairs`: narrow ones are aligned to be moved so. */
template <typename T, bool kWide>
__device__ __forceinline__ void write_row(const VtCudaLinear& args, const Place& place, float2 bias,
                                          const RowAhead& row, int m, float first, float second,
                                          bool pairs) {
  if (m >= args.m) return;
  if (args.bias != nullptr) {
    first = __fadd_rn(first, bias.x);
    second = __fadd_rn(second, bias.y);
  }
  if (!kWide || args.epilogue == VT_CUDA_PLAIN) {
    if (args.residual != nullptr) {
      first = __fadd_rn(first, row.of_first);
      second = __fadd_rn(second, row.of_second);
    }
    store_outputs<T, kWide>(args, place, m, first, second, pairs);
    return;
  }
  if (place.n[0] >= args.n) return;
  // Between two ops there is a rounding.
  first = to_f32(from_f32<T>(first));
  second = to_f32(from_f32<T>(second));
  if (args.epilogue == VT_CUDA_SILU_AND_MUL) {
    // n counts the rows of gate and up: the unit's 16 are 8 columns of the output.
    static_cast<T*>(args.out)[static_cast<int64_t>(m) * args.out_stride + place.n[0] / 16 * 8 +
                              place.n[0] % 8] = from_f32<T>(silu_times(first, second));
    return;
  }
  const int kv_head = place.head - args.num_heads;  // K heads, then V heads
  if (kv_head < args.num_kv_heads) rotate(first, second, row.of_first, row.of_second);
  if (kv_head < 0) {
    store_outputs<T, kWide>(args, place, m, first, second, pairs);
  } else if (row.slot >= 0) {
    T* to = static_cast<T*>(args.kv_cache) +
            slot_offset(row.slot, args.block_size, args.num_layers, args.layer, args.num_kv_heads,
                        args.head_dim) +
            static_cast<int64_t>(kv_head) * args.block_size * args.head_dim + place.column;
    to[0] = from_f32<T>(first);
    to[args.head_dim / 2] = from_f32<T>(second);
  }
}

}  // namespace vt

#endif  // VT_CUDA_LINEAR_EPILOGUE_CUH_
