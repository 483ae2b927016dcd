"""Every kernel of the library by itself, in small shapes, for compute-sanitizer (sanitize_ops.py):

    python single_ops.py LIBRARY GROUP

A group is a process. Each case prints a checksum of all that it wrote, which must be the same with
and without a tool; check.py says whether it is right."""

import sys
import zlib

import numpy as np

from abi import DEPENDENT, EARLY_READS
from bare import BF16, F16, F32, Device, as_dtype
from single_rows import collectives, sample, sharded

NAN = np.float32("nan")


class Ops:
    """Makes inputs from one seed, and reports outputs."""

    def __init__(self, device):
        self.device, self.random = device, np.random.default_rng(7)

    def rows(self, *shape, dtype=BF16, scale=1.0):
        values = self.random.standard_normal(shape, np.float32) * np.float32(scale)
        return self.device.put(as_dtype(values, dtype))

    def full(self, *shape, dtype=BF16, value=7.0):
        return self.device.put(as_dtype(np.full(shape, value, np.float32), dtype))

    def ints(self, values):
        return self.device.put(np.asarray(values, np.int32))

    def report(self, name, *buffers):
        sums = [zlib.crc32(self.device.get(buffer).tobytes()) for buffer in buffers]
        print(f"case {name}: " + " ".join(f"{value:08x}" for value in sums), flush=True)


def elementwise(ops):
    call = ops.device.call
    for dtype in (BF16, F16):
        source, index = ops.rows(100, 72, dtype=dtype), ops.ints([0, 99, 5, -1, 100])
        for out_dtype in (dtype, F32):
            out = ops.full(6, 72, dtype=out_dtype)
            call("vt_cuda_embedding", "VtCudaGather", out=out, source=source, index=index, num_rows=5,
                 columns=72, num_source_rows=100, out_stride=72, source_stride=72, dtype=dtype,
                 out_dtype=out_dtype)
            ops.report(f"embedding {dtype} to {out_dtype}", out)
        for columns in (8, 576, 4104, 16384):
            x, weight = ops.rows(3, columns, dtype=dtype), ops.rows(columns, dtype=dtype)
            out = ops.full(4, columns, dtype=dtype)
            call("vt_cuda_rms_norm", "VtCudaRmsNorm", out=out, x=x, weight=weight, num_rows=3,
                 columns=columns, out_stride=columns, x_stride=columns, eps=1e-5, dtype=dtype)
            ops.report(f"rmsNorm {dtype} {columns}", out)
        for heads, kv_heads, dim in ((4, 2, 64), (3, 1, 80), (2, 1, 256)):
            columns, norms = (heads + 2 * kv_heads) * dim, [ops.rows(dim, dtype=dtype) for _ in "qk"]
            sizes = dict(num_tokens=5, num_heads=heads, num_kv_heads=kv_heads, head_dim=dim,
                         qkv_stride=columns, dtype=dtype, q_weight=norms[0], k_weight=norms[1], eps=1e-6)
            qkv = ops.rows(5, columns, dtype=dtype)
            call("vt_cuda_head_rms_norm", "VtCudaHeadRmsNorm", qkv=qkv, **sizes)
            ops.report(f"headRmsNorm {dtype} {dim}", qkv)
            cos_sin = ops.full(5, dim, dtype=F32)
            call("vt_cuda_rope_cos_sin", "VtCudaRopeCosSin", out=cos_sin, head_dim=dim,
                 inv_freq=ops.rows(dim // 2, dtype=F32), positions=ops.ints(range(5)), num_tokens=5, factor=1.0)
            for more in ({}, {"q_weight": None, "k_weight": None}):
                cache = ops.full(3, 2, 2, kv_heads, 16, dim, dtype=dtype)
                call("vt_cuda_rope_and_cache", "VtCudaRopeAndCache", qkv=qkv, cos_sin=cos_sin,
                     slots=ops.ints([16, 17, -1, 40, 32]), kv_cache=cache, num_layers=2, layer=1,
                     block_size=16, **{**sizes, **more})
                ops.report(f"ropeAndCache {dtype} {dim} {'' if more else 'with norms'}", qkv, cache)
        for columns, interleave in ((104, 0), (1536, 8)):
            out, x = ops.full(4, columns, dtype=dtype), ops.rows(3, 2 * columns, dtype=dtype)
            call("vt_cuda_silu_and_mul", "VtCudaSiluAndMul", out=out, gate_up=x, num_rows=3, columns=columns,
                 out_stride=columns, gate_up_stride=2 * columns, interleave=interleave, dtype=dtype)
            ops.report(f"siluAndMul {dtype} {columns}", out)


def linear(ops, m, n, k, dtype=BF16, norm=False, epilogue=0, dim=64, residual=False, f32=False, tuning=0,
           large=0, flags=DEPENDENT):
    heads, kv_heads = n // dim - 2, 1
    if epilogue == 2:
        n = (heads + 2 * kv_heads) * dim
    x, weight = ops.rows(m, k, dtype=dtype), ops.rows(n, k, dtype=dtype, scale=k**-0.5)
    columns = {0: n, 1: n // 2, 2: n}[epilogue]
    out = ops.full(m + 1, columns, dtype=F32 if f32 else dtype)
    cache = ops.full(2 + m // 16, 1, 2, kv_heads, 16, dim, dtype=dtype) if epilogue == 2 else None
    rope = {} if cache is None else dict(
        cos_sin=ops.rows(m, dim, dtype=F32), slots=ops.ints(np.arange(m) + 16), kv_cache=cache, num_layers=1,
        block_size=16, num_heads=heads, num_kv_heads=kv_heads, head_dim=dim)
    ops.device.call(
        "vt_cuda_linear", "VtCudaLinear", out=out, x=x, weight=weight, m=m, n=n, k=k, out_stride=columns,
        x_stride=k, weight_stride=k, dtype=dtype, out_dtype=F32 if f32 else dtype, flags=flags, tuning=tuning,
        norm_weight=ops.rows(k, dtype=dtype) if norm else None, norm_eps=1e-5, epilogue=epilogue, large=large,
        residual=ops.rows(m, n, dtype=dtype) if residual else None, residual_stride=n, **rope)
    ops.report(f"linear {dtype} {m} x {n} x {k}, norm {norm}, epilogue {epilogue}, large {large}, tuning "
               f"{tuning:#x}", out, *([cache] if cache else []))


def skinny(rows):
    """Stages of 64 columns at a k of 2,048 are more than a ring has."""
    def run(ops):
        narrow = 64 << 16
        for dtype in (BF16, F16):
            for m in rows:
                held = m <= 2
                linear(ops, m, 264, 2048, dtype, f32=True, tuning=narrow)
                linear(ops, m, 1064, 576, dtype)
                linear(ops, m, 528, 592, dtype, residual=True, tuning=1 << 8)
                linear(ops, m, 1072, 1024, dtype, epilogue=1, tuning=narrow)
                linear(ops, m, 512, 1024, dtype, epilogue=2)
                if m <= 16:
                    linear(ops, m, 512, 1024, dtype, norm=True, epilogue=2, tuning=narrow)
                    linear(ops, m, 528, 1024, dtype, norm=True, epilogue=1)
                    linear(ops, m, 264, 1024, dtype, norm=True, f32=True)
                if held:
                    linear(ops, m, 264, 576, dtype, tuning=1 << 31 | 2 << 8)
    return run


def large(ops):
    for dtype in (BF16, F16):
        linear(ops, 65, 264, 576, dtype, residual=True)
        linear(ops, 130, 77, 144, dtype, f32=True)


def wgmma(kernel):
    def run(ops):
        for dtype in (BF16, F16):
            linear(ops, 130, 520, 576, dtype, residual=True, large=kernel)
            linear(ops, 300, 264, 592, dtype, f32=True, large=kernel)
            for m in (250, 257):
                linear(ops, m, 528, 576, dtype, epilogue=1, large=kernel)
            for dim in (64, 128):
                linear(ops, 200, 8 * dim, 576, dtype, epilogue=2, dim=dim, large=kernel)
    return run


def decode_silu(ops):
    for dtype in (BF16, F16):
        for m in (65, 96, 130, 192):
            linear(ops, m, 1040, 1024, dtype, epilogue=1, large=2)


def attention(dim, way):
    def run(ops):
        attend(ops, dim, BF16, 6, 2, 0, way)
        attend(ops, dim, F16, 3, 1, 70, way)
    return run


def attend(ops, dim, dtype, heads, kv_heads, window, way):
    """Each row's last token by decode, works merged at once and later; or whole rows by prefill. Rings
    of tiles turn round."""
    lens, device = ([1, 65, 300, 610] if way == "decode" else [2, 65, 150]), ops.device
    blocks = [(n + 15) // 16 for n in lens]
    cache = ops.rows(sum(blocks) + 1, 2, 2, kv_heads, 16, dim, dtype=dtype)
    tables, at = np.zeros((len(lens), max(blocks)), np.int32), 1
    order = ops.random.permutation(sum(blocks)).astype(np.int32) + 1
    for row, count in enumerate(blocks):
        tables[row, :count] = order[at - 1:at - 1 + count]
        at += count
    columns = (heads + 2 * kv_heads) * dim
    ways = [(f"prefill {kernel}", kernel, 0, False) for kernel in range(3)
            if device.lib.vt_cuda_prefill_for(kernel, dim) == kernel]
    if way == "decode":
        ways = [("decode", 0, EARLY_READS, False), ("decode, much room", 0, 0, True)]
    for name, prefill, flags, much in ways:
        counts = [1 if way == "decode" else n for n in lens]
        start = np.cumsum([0, *counts])
        lists = dict(decode_work=ops.ints(np.zeros((512, 8))), prefill_work=ops.ints(np.zeros((512, 8))),
                     work_counts=ops.ints(np.zeros(4)))
        device.call("vt_cuda_plan_attention", "VtCudaPlanAttention", query_start=ops.ints(start),
                    seq_lens=ops.ints(lens), num_seqs=len(lens), max_work=512, num_heads=heads,
                    num_kv_heads=kv_heads, window=window,
                    prefill_rows=device.lib.vt_cuda_prefill_rows(prefill, dim), **lists)
        out = ops.full(int(start[-1]) + 1, heads * dim, dtype=dtype)
        counters = ops.ints(np.zeros(len(lens) * kv_heads))
        most = int(device.get(lists["work_counts"])[0])
        device.call("vt_cuda_attention", "VtCudaAttention", out=out,
                    qkv=ops.rows(int(start[-1]), columns, dtype=dtype), kv_cache=cache,
                    block_tables=ops.ints(tables), num_layers=2, layer=1, num_heads=heads,
                    num_kv_heads=kv_heads, head_dim=dim, block_size=16, max_num_blocks=tables.shape[1],
                    scratch=ops.full(max(most, 1) * kv_heads, 16, dim + 2, dtype=F32, value=NAN),
                    counters=counters, qkv_stride=columns, out_stride=heads * dim, window=window,
                    scale=dim**-0.5, dtype=dtype, max_decode_work=1 << 12 if much else max(most, 1),
                    max_prefill_work=512, prefill=prefill, flags=flags, **lists)
        ops.report(f"attention {dtype} {heads}/{kv_heads} x {dim}, window {window}: {name}", out, counters)


GROUPS = {"elementwise": elementwise, "skinny 1": skinny([1, 2]), "skinny 7": skinny([7]),
          "skinny 16": skinny([16]), "skinny 33": skinny([33]), "skinny 64": skinny([64]), "large": large,
          "wgmma": wgmma(1), "cluster2": wgmma(2), "decode silu": decode_silu,
          **{f"{way} {dim}": attention(dim, way) for way in ("decode", "prefill") for dim in (64, 80, 96, 128, 256)},
          "sample": sample(3000, 20), "sample long": sample(1500, 40), "sample many": sample(1500, 5, 2),
          "collectives": collectives, "sharded": sharded}


if __name__ == "__main__":
    GROUPS[sys.argv[2]](Ops(Device(sys.argv[1])))
    print("group ended", flush=True)
