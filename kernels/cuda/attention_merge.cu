// The second kernel of decode attention, where there is much work: rows of several chunks get their
// output from their parts.
//
// What it computes: the merge of attention.cuh, chunks ascending.
//
// Launch: blocks of kFolders threads walk the same work list; one takes the row's first work of a
// KV head, and skips the others. 16 bytes a thread and part, 8 parts read at a time.
#include "attention_decode.cuh"

namespace vt {
namespace {

/** A block a row and KV head with several parts. */
template <typename T, int kDim>
__global__ void __launch_bounds__(kFolders)
    attention_merge(const __grid_constant__ VtCudaAttention args) {
  start_next();
  wait_for_previous();
  const float c = args.scale * kLog2E;
  const Walk walk = {args, args.work_counts[0] * args.num_kv_heads};
  for (int item = blockIdx.x; item < walk.num_items; item += gridDim.x) {
    Group g;
    g.item = item;
    walk.begin(g);
    if (g.work.count > 1 && g.work.first == item / args.num_kv_heads) {
      merge_parts<T, kDim, 8>(args, g.work, item % args.num_kv_heads, c);
    }
  }
}

template <typename T, int kDim>
int launch_merge(const VtCudaAttention& args, void* stream) {
  const int items = args.max_decode_work * args.num_kv_heads;
  return launch("attention", attention_merge<T, kDim>, dim3(min(items, 8 * num_multiprocessors())),
                dim3(kFolders), 0, args.flags, stream, args);
}

}  // namespace

int attention_merge_by_shape(const VtCudaAttention& args, void* stream) {
  return by_shape(args, [&](auto type, auto dim) {
    return launch_merge<decltype(type), decltype(dim)::value>(args, stream);
  });
}

}  // namespace vt
