"""Of single_ops.py: paged attention, decode and prefill, by every kernel and way of sharing rows out."""

import ctypes

import numpy as np

from abi import EARLY_READS
from bare import BF16, F16, F32

NAN = np.float32("nan")
#: Works times KV heads that a decode has room for where clusters are to take its rows.
CLUSTER_ITEMS = 140


def keys_ahead(ops):
    """Blocks of rmsNorm, siluAndMul and ropeAndCache fetch the keys of a decode attention. Of as many rows
    as works that it may fetch for, and of fewer; the second launch goes beyond the end of short rows."""
    device, columns = ops.device, 1024
    for dim, lens in ((64, [610, 1, 65, 300] * 20), (128, [1, 65, 300])):
        of = Attention(ops, dim, BF16, 6, 2, 0)
        of.rows(lens, decode=True)
        lists = of.plan()
        room = max(int(device.get(lists["work_counts"])[0]), 132)
        following = device.struct("VtCudaAttention", kv_cache=of.cache, block_tables=ops.ints(of.tables),
                                  num_layers=2, layer=1, num_heads=6, num_kv_heads=2, head_dim=dim, block_size=16,
                                  max_num_blocks=of.tables.shape[1], max_decode_work=room, dtype=BF16, **lists)
        function = device.lib.vt_cuda_keys_ahead
        function.restype = device.structs["VtCudaKeysAhead"]
        x, gate_up, qkv = ops.rows(3, columns), ops.rows(3, 2 * columns), device.get(ops.rows(3, 10 * dim))
        fixed = dict(cos_sin=ops.rows(3, dim, dtype=F32), slots=ops.ints([16, 40, -1]), weight=ops.rows(columns),
                     norms=[ops.rows(dim) for _ in "qk"])

        def run(**ahead):
            outs = [ops.full(4, columns), ops.full(4, columns), device.put(qkv), device.put(qkv)]
            caches = [ops.full(3, 1, 2, 2, 16, dim) for _ in range(2)]
            device.call("vt_cuda_rms_norm", "VtCudaRmsNorm", out=outs[0], x=x, weight=fixed["weight"], num_rows=3,
                        columns=columns, out_stride=columns, x_stride=columns, eps=1e-5, dtype=BF16, **ahead)
            device.call("vt_cuda_silu_and_mul", "VtCudaSiluAndMul", out=outs[1], gate_up=gate_up, num_rows=3,
                        columns=columns, out_stride=columns, gate_up_stride=2 * columns, dtype=BF16, **ahead)
            for out, cache, weights in zip(outs[2:], caches, ((None, None), fixed["norms"])):
                device.call("vt_cuda_rope_and_cache", "VtCudaRopeAndCache", qkv=out, cos_sin=fixed["cos_sin"],
                            slots=fixed["slots"], kv_cache=cache, num_tokens=3, num_heads=6, num_kv_heads=2,
                            head_dim=dim, num_layers=1, block_size=16, qkv_stride=10 * dim, q_weight=weights[0],
                            k_weight=weights[1], eps=1e-6, dtype=BF16, **ahead)
            return [*outs, *caches]

        without, done = run(), 0
        for launch in range(2):
            ahead = function(ctypes.byref(following), 256, done)
            done += ahead.num_pieces
            if ahead.num_pieces < ahead.num_works:
                raise RuntimeError(f"keys ahead: {ahead.num_pieces} pieces of {ahead.num_works} works")
            found = run(ahead=ahead)
            ops.report(f"{ahead.num_pieces} pieces of keys ahead from {ahead.first_piece} on, head_dim {dim}, "
                       f"{len(lens)} rows", *found)
            for pair in zip(without, found):
                ops.same(f"beside keys ahead of head_dim {dim}", pair)


def attention(dim, way):
    def run(ops):
        for dtype, heads, kv_heads, window in ((BF16, 6, 2, 0), (F16, 3, 1, 70)):
            Attention(ops, dim, dtype, heads, kv_heads, window).run(way)
    return run


class Attention:
    """Rows with their keys in blocks of 16, shuffled."""

    def __init__(self, ops, dim, dtype, heads, kv_heads, window):
        self.ops, self.device, self.dim, self.dtype = ops, ops.device, dim, dtype
        self.heads, self.kv_heads, self.window = heads, kv_heads, window

    def run(self, way):
        """All ways of `way` give the same bits. Works are merged at once, or later, in steps of many more
        works than blocks; rings of tiles turn round; rows of two chunks are one block's, or shared by
        clusters where heads are wider than 64."""
        lib = self.device.lib
        if way == "prefill":
            kernels = [kernel for kernel in range(3) if lib.vt_cuda_prefill_for(kernel, self.dim) == kernel]
            self.rows([2, 65, 150], decode=False)
            outs = [self.attend(f"prefill {kernel}", prefill=kernel) for kernel in kernels]
            return self.ops.same("prefill", outs)
        if way == "later":
            self.rows([610, 300, *[1] * 1100], decode=True)
            outs = [self.attend("merged later"), self.attend("merged later, early", flags=EARLY_READS)]
            return self.ops.same("merged later", outs)
        self.rows([1, 65, 300, 610], decode=True)
        outs = [self.attend("decode", flags=EARLY_READS), self.attend("decode, much room", room=1 << 12)]
        self.ops.same("decode", outs)
        self.rows([1, 65, 300, 500], decode=True)
        room = CLUSTER_ITEMS // self.kv_heads
        cluster = lib.vt_cuda_decode_cluster(room, len(self.lens), self.kv_heads, self.dim)
        if (cluster > 1) != (self.dim > 64):
            raise RuntimeError(f"decode of head_dim {self.dim} with room for {room} works: clusters of {cluster}")
        outs = [self.attend("decode apart"), self.attend("decode with room", room=room, cluster=cluster),
                self.attend("decode with much room", room=1 << 12, cluster=cluster)]
        self.ops.same("decode with room", outs)

    def rows(self, lens, decode):
        """Each row's last token, or all of it."""
        ops = self.ops
        blocks = [(n + 15) // 16 for n in lens]
        self.lens, self.tables = lens, np.zeros((len(lens), max(blocks)), np.int32)
        order, at = ops.random.permutation(sum(blocks)).astype(np.int32) + 1, 0
        for row, count in enumerate(blocks):
            self.tables[row, :count] = order[at:at + count]
            at += count
        self.start = np.cumsum([0, *(1 if decode else n for n in lens)])
        self.cache = ops.rows(sum(blocks) + 1, 2, 2, self.kv_heads, 16, self.dim, dtype=self.dtype)
        self.qkv = ops.rows(int(self.start[-1]), (self.heads + 2 * self.kv_heads) * self.dim, dtype=self.dtype)

    def plan(self, prefill=0, room=None, cluster=1):
        """Lists of works. room: as in attend."""
        ops, device = self.ops, self.device
        most = max(512, 2 * len(self.lens))
        # Works are read before it is known how many there are.
        lists = dict(decode_work=ops.ints(np.zeros((max(room or 0, most), 8))),
                     prefill_work=ops.ints(np.zeros((most, 8))), work_counts=ops.ints(np.zeros(4)))
        device.call("vt_cuda_plan_attention", "VtCudaPlanAttention", query_start=ops.ints(self.start),
                    seq_lens=ops.ints(self.lens), num_seqs=len(self.lens), max_work=most, num_heads=self.heads,
                    num_kv_heads=self.kv_heads, window=self.window, decode_cluster=cluster,
                    prefill_rows=device.lib.vt_cuda_prefill_rows(prefill, self.dim), **lists)
        return lists

    def attend(self, name, prefill=0, flags=0, room=None, cluster=1):
        """room: of decode works; as many as there are where it is None."""
        ops, device, dim = self.ops, self.device, self.dim
        tokens, rows = int(self.start[-1]), len(self.lens)
        lists = self.plan(prefill, room, cluster)
        num_decode, _, _, by_clusters = (int(count) for count in device.get(lists["work_counts"]))
        if by_clusters != (cluster > 1):
            raise RuntimeError(f"{name}: the plan says {by_clusters} of clusters")
        out = ops.full(tokens + 1, self.heads * dim, dtype=self.dtype)
        counters = ops.ints(np.zeros(rows * self.kv_heads))
        device.call("vt_cuda_attention", "VtCudaAttention", out=out, qkv=self.qkv, kv_cache=self.cache,
                    block_tables=ops.ints(self.tables), num_layers=2, layer=1, num_heads=self.heads,
                    num_kv_heads=self.kv_heads, head_dim=dim, block_size=16, max_num_blocks=self.tables.shape[1],
                    scratch=ops.full(max(room or num_decode, 1) * self.kv_heads, 16, dim + 2, dtype=F32, value=NAN),
                    counters=counters, qkv_stride=self.qkv.shape[1], out_stride=self.heads * dim,
                    window=self.window, scale=dim**-0.5, dtype=self.dtype, max_prefill_work=512, prefill=prefill,
                    max_decode_work=room or max(num_decode, 1), decode_cluster=cluster, flags=flags, **lists)
        ops.report(f"attention {self.dtype} {self.heads}/{self.kv_heads} x {dim}, window {self.window}: {name}",
                   out, counters)
        return out
