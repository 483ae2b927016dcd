"""Every kernel of the library by itself, in small shapes, for compute-sanitizer (sanitize_ops.py):

    python single_ops.py LIBRARY GROUP..

Each case prints a checksum of all that it wrote, which must be the same with and without a tool.
Where kernels or ways promise the same bits they are compared here; check.py says whether those are
right."""

import ctypes
import sys
import time
import zlib

import numpy as np

from abi import DEPENDENT
from bare import BF16, F16, F32, Device, as_dtype
from single_attention import attention, keys_ahead
from single_best import best_ids
from single_carried import searched
from single_ranks import Headed, collectives, sent, sharded, two_ranks
from single_rows import EDITED, LOGPROBS, PLAIN, sample, streamed


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

    def same(self, name, buffers):
        first, *others = [self.device.get(buffer).tobytes() for buffer in buffers]
        if any(other != first for other in others):
            raise RuntimeError(f"{name}: not the same bits")


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
        gather = dict(source=source, index=index, num_rows=5, columns=72, num_source_rows=100, out_stride=72,
                      source_stride=72, dtype=dtype, out_dtype=dtype)
        out, both = ops.full(6, 72, dtype=dtype), ops.full(6, 72, dtype=dtype)
        apart, angles = ops.full(6, 64, dtype=F32), ops.full(6, 64, dtype=F32)
        call("vt_cuda_gather_logit_rows", "VtCudaGather", out=out, **gather)
        ops.report(f"gatherLogitRows {dtype}", out)
        cos_sin = dict(inv_freq=ops.rows(32, dtype=F32), positions=ops.ints(range(5)), num_tokens=5, head_dim=64,
                       factor=1.0)
        call("vt_cuda_rope_cos_sin", "VtCudaRopeCosSin", out=apart, **cos_sin)
        with_angles = ops.device.struct("VtCudaRopeCosSin", out=angles, **cos_sin)
        ops.device.queue("vt_cuda_embedding_and_angles", ops.device.struct("VtCudaGather", out=both, **gather),
                         ctypes.byref(with_angles))
        ops.report(f"embedding and angles {dtype}", both, angles)
        ops.same(f"embedding and angles {dtype}", [out, both])
        ops.same(f"angles beside embedding {dtype}", [apart, angles])
        if dtype == BF16:
            gained, squares = ops.full(6, 72), ops.full(6, 512, dtype=F32)
            call("vt_cuda_embedding", "VtCudaGather", out=both, out_gain=ops.rows(72), gained=gained, gained_stride=72,
                 out_squares=squares, **gather)
            ops.report("embedding beside a norm with a late scale", both, gained, squares)
            ops.same("embedding beside a norm with a late scale", [out, both])
        for columns in (8, 576, 4104, 16384):
            x, weight = ops.rows(3, columns, dtype=dtype), ops.rows(columns, dtype=dtype)
            out = ops.full(4, columns, dtype=dtype)
            call("vt_cuda_rms_norm", "VtCudaRmsNorm", out=out, x=x, weight=weight, num_rows=3,
                 columns=columns, out_stride=columns, x_stride=columns, eps=1e-5, dtype=dtype)
            ops.report(f"rmsNorm {dtype} {columns}", out)
            scales = ops.full(4, dtype=F32)
            call("vt_cuda_rms_norm", "VtCudaRmsNorm", out=out, x=x, weight=weight, num_rows=3, scales=scales,
                 columns=columns, out_stride=columns, x_stride=columns, eps=1e-5, dtype=dtype)
            ops.report(f"rmsNorm {dtype} {columns}, late", out, scales)
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
            bare, late = {"q_weight": None, "k_weight": None}, {"row_scale": ops.rows(5, dtype=F32)}
            for more in ({}, bare, late, {**bare, **late}):
                cache = ops.full(3, 2, 2, kv_heads, 16, dim, dtype=dtype)
                call("vt_cuda_rope_and_cache", "VtCudaRopeAndCache", qkv=qkv, cos_sin=cos_sin,
                     slots=ops.ints([16, 17, -1, 40, 32]), kv_cache=cache, num_layers=2, layer=1,
                     block_size=16, **{**sizes, **more})
                asked = ", ".join(f"no {field}" if value is None else field for field, value in more.items())
                ops.report(f"ropeAndCache {dtype} {dim} {asked}", qkv, cache)
        for columns, interleave in ((104, 0), (1536, 8)):
            out, x = ops.full(4, columns, dtype=dtype), ops.rows(3, 2 * columns, dtype=dtype)
            call("vt_cuda_silu_and_mul", "VtCudaSiluAndMul", out=out, gate_up=x, num_rows=3, columns=columns,
                 out_stride=columns, gate_up_stride=2 * columns, interleave=interleave, dtype=dtype)
            ops.report(f"siluAndMul {dtype} {columns}", out)
            call("vt_cuda_silu_and_mul", "VtCudaSiluAndMul", out=out, gate_up=x, num_rows=3, columns=columns,
                 out_stride=columns, gate_up_stride=2 * columns, interleave=interleave, dtype=dtype,
                 row_scale=ops.rows(3, dtype=F32))
            ops.report(f"siluAndMul {dtype} {columns}, late", out)


def many_rows(ops):
    """Of as many rows as other kernels take; they have the bits of few rows."""
    device, call, few = ops.device, ops.device.call, 5

    def report(name, many, of_few):
        ops.report(name, *many)
        ops.same(name, [device.put(device.get(many[0])[:few]), of_few])

    for dtype in (BF16, F16):
        for columns in (1024, 2048, 4096):
            x, weight = ops.rows(2049, columns, dtype=dtype), ops.rows(columns, dtype=dtype)
            for late in (False, True):
                outs = [ops.full(rows, columns, dtype=dtype) for rows in (2049, few)]
                scales = [ops.full(out.shape[0], dtype=F32) if late else None for out in outs]
                for out, of_rows in zip(outs, scales):
                    call("vt_cuda_rms_norm", "VtCudaRmsNorm", out=out, x=x, weight=weight, num_rows=out.shape[0],
                         columns=columns, out_stride=columns, x_stride=columns, eps=1e-5, dtype=dtype, scales=of_rows)
                report(f"rmsNorm {dtype} 2049 x {columns}", outs[:1], outs[1])
                if late:
                    report(f"rmsNorm {dtype} 2049 x {columns}, scales", scales[:1], scales[1])
        for heads, kv_heads, dim in ((6, 2, 64), (3, 1, 80), (5, 2, 128), (2, 1, 256)):
            columns, norms = (heads + 2 * kv_heads) * dim, [ops.rows(dim, dtype=dtype) for _ in "qk"]
            cos_sin, row_scale = ops.rows(1025, dim, dtype=F32), ops.rows(1025, dtype=F32)
            for late in (False, True):
                qkvs, caches = [ops.rows(1025, columns, dtype=dtype)], []
                qkvs.append(device.put(device.get(qkvs[0])[:few]))
                for qkv in qkvs:
                    caches.append(ops.full(66, 1, 2, kv_heads, 16, dim, dtype=dtype))
                    call("vt_cuda_rope_and_cache", "VtCudaRopeAndCache", qkv=qkv, cos_sin=cos_sin,
                         kv_cache=caches[-1], slots=ops.ints(np.arange(1025) + 16), num_tokens=qkv.shape[0],
                         num_heads=heads, num_kv_heads=kv_heads, head_dim=dim, num_layers=1, block_size=16,
                         qkv_stride=columns, q_weight=norms[0], k_weight=norms[1], eps=1e-6, dtype=dtype,
                         row_scale=row_scale if late else None)
                report(f"ropeAndCache {dtype} of 1025 x {heads}/{kv_heads} x {dim}{', late' if late else ''}",
                       [qkvs[0], caches[0]], qkvs[1])


def linear(ops, m, n, k, dtype=BF16, norm=False, epilogue=0, dim=64, residual=False, f32=False, tuning=0,
           large=0, flags=DEPENDENT, bias=False, late=False):
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
        residual=ops.rows(m, n, dtype=dtype) if residual else None, residual_stride=n,
        bias=ops.rows(n, dtype=dtype) if bias else None, row_scale=ops.rows(m, dtype=F32) if late else None, **rope)
    ops.report(f"linear {dtype} {m} x {n} x {k}, norm {norm}, epilogue {epilogue}{', late' if late else ''}, "
               f"large {large}, tuning {tuning:#x}", out, *([cache] if cache else []))


def late_norm(ops, m, dtype):
    """Two linears with a norm between them whose scale comes late, and the norm as an op."""
    call, (hidden, k, n) = ops.device.call, (592, 576, 528)
    sizes = dict(m=m, weight_stride=k, x_stride=k, dtype=dtype, out_dtype=dtype, flags=DEPENDENT, norm_eps=1e-5)
    gain, gained = ops.rows(hidden, dtype=dtype), [ops.full(m + 1, hidden, dtype=dtype) for _ in range(2)]
    out, scales = ops.rows(m + 1, hidden, dtype=dtype), ops.full(m + 1, dtype=F32)
    squares = ops.full(m + 1, 512, dtype=F32, value=np.nan)
    few = {} if m > 32 else dict(out_gain=gain, gained=gained[0], gained_stride=hidden, out_squares=squares)
    call("vt_cuda_linear", "VtCudaLinear", out=out, residual=out, x=ops.rows(m, k, dtype=dtype), n=hidden, k=k,
         weight=ops.rows(hidden, k, dtype=dtype, scale=k**-0.5), out_stride=hidden, residual_stride=hidden,
         **few, **sizes)
    call("vt_cuda_rms_norm", "VtCudaRmsNorm", out=gained[1], x=out, weight=gain, scales=scales, num_rows=m,
         columns=hidden, out_stride=hidden, x_stride=hidden, eps=1e-5, dtype=dtype, flags=DEPENDENT)
    weight, gated = ops.rows(n, hidden, dtype=dtype, scale=hidden**-0.5), []
    for scale in [dict(row_scale=scales), dict(x_squares=squares)][:2 if few else 1]:
        gated.append(ops.full(m + 1, n // 2, dtype=dtype))
        call("vt_cuda_linear", "VtCudaLinear", out=gated[-1], x=gained[1], weight=weight, n=n, k=hidden, epilogue=1,
             out_stride=n // 2, **scale, **{**sizes, "x_stride": hidden, "weight_stride": hidden})
    ops.report(f"late scale {dtype} {m} rows", out, gained[1], scales, *gated)
    if few:
        ops.same(f"late scale {dtype} {m} rows", gained)
        ops.same(f"late scale {dtype} {m} rows, from squares", gated)


def skinny(rows):
    """Stages of 64 columns at a k of 2,048 are more than a ring has."""
    def run(ops):
        narrow = 64 << 16
        for dtype in (BF16, F16):
            for m in rows:
                held = m <= 2
                linear(ops, m, 264, 2048, dtype, f32=True, tuning=narrow)
                linear(ops, m, 1064, 576, dtype)
                linear(ops, m, 528, 592, dtype, residual=True, bias=True, tuning=1 << 8)
                linear(ops, m, 1072, 1024, dtype, epilogue=1, tuning=narrow)
                linear(ops, m, 512, 1024, dtype, epilogue=2)
                if held:
                    linear(ops, m, 512, 1024, dtype, norm=True, epilogue=2, tuning=narrow)
                    linear(ops, m, 528, 1024, dtype, norm=True, epilogue=1)
                    linear(ops, m, 264, 1024, dtype, norm=True, f32=True)
                    linear(ops, m, 264, 576, dtype, tuning=1 << 31 | 2 << 8)
                if dtype == BF16:
                    late_norm(ops, m, dtype)
    return run


def large(ops):
    for dtype in (BF16, F16):
        linear(ops, 65, 264, 576, dtype, residual=True, bias=True)
        linear(ops, 130, 77, 144, dtype, f32=True)


def wgmma(kernel):
    def run(ops):
        for dtype in (BF16, F16):
            linear(ops, 130, 520, 576, dtype, residual=True, bias=True, large=kernel)
            linear(ops, 300, 264, 592, dtype, f32=True, large=kernel)
            for m in (250, 257):
                for late in (False, True):
                    linear(ops, m, 528, 576, dtype, epilogue=1, large=kernel, late=late)
            for dim in (64, 128):
                linear(ops, 200, 8 * dim, 576, dtype, epilogue=2, dim=dim, large=kernel)
    return run


def decode_batches(ops):
    for dtype in (BF16, F16):
        for m in (65, 96, 130, 192):
            for late in (False, True):
                linear(ops, m, 1040, 1024, dtype, epilogue=1, large=2, late=late)
            linear(ops, m, 1024, 512, dtype, residual=m % 2 == 0, large=2)


def decode_forms(ops):
    """Every form of a block of linear_decode, in weights that do not fill their last blocks."""
    for dtype in (BF16, F16):
        for m in (96, 128, 144, 160, 192, 208, 224):
            linear(ops, m, 1104, 192, dtype, epilogue=m // 16 % 2, residual=m // 16 % 2 == 0, large=2)
        for m in (128, 145, 193, 224):
            linear(ops, m, 72, 1104, dtype, residual=m % 2 == 0, large=2)
        for form, m in ((1, 97), (2, 128), (3, 71), (4, 133), (5, 191)):
            linear(ops, m, 536, 1040, dtype, residual=True, large=2, tuning=form)
            linear(ops, m, 152, 1040, dtype, f32=True, large=2, tuning=form)
        for form, m in ((3, 97), (5, 179)):
            for late in (False, True):
                linear(ops, m, 304, 1040, dtype, epilogue=1, large=2, late=late, tuning=form)


GROUPS = {"elementwise": elementwise, "many rows": many_rows, "skinny 1": skinny([1, 2]), "skinny 7": skinny([7]),
          "skinny 16": skinny([16]), "skinny 33": skinny([33]), "skinny 64": skinny([64]), "large": large,
          "wgmma": wgmma(1), "cluster2": wgmma(2), "decode batches": decode_batches, "decode forms": decode_forms,
          **{f"{way} {dim}": attention(dim, way)
             for way in ("decode", "later", "prefill") for dim in (64, 80, 96, 128, 256)},
          "keys ahead": keys_ahead, "sample streamed": streamed,
          "sample": sample(3000, PLAIN + EDITED + LOGPROBS, 20), "sample 40": sample(1100, LOGPROBS, 40),
          "sample 128": sample(1100, LOGPROBS[:2], 128), "sample in blocks": sample(1100, PLAIN, -1, 17),
          "edited in blocks": sample(1100, EDITED, 3, 17), "logprobs in blocks": sample(1100, LOGPROBS, 5, 17),
          "40 in blocks": sample(1100, LOGPROBS, 40, 17), "collectives": collectives, "sent": sent,
          "sharded": sharded(PLAIN[:5]), "sharded edited": sharded(EDITED), "sharded logprobs": sharded(LOGPROBS),
          "sharded head": sharded(Headed.WISHES, Headed),
          "two ranks": two_ranks(1), "best ids": best_ids, "searched": searched}
#: Run where they are named.
ON_TWO_GPUS = {"two GPUs": two_ranks(2)}


def main():
    device, bad = Device(sys.argv[1]), 0
    for name in sys.argv[2:]:
        begin = time.monotonic()
        print(f"group {name}", flush=True)
        try:
            (GROUPS | ON_TWO_GPUS)[name](Ops(device))
            print(f"group ended after {time.monotonic() - begin:.1f} s", flush=True)
        except RuntimeError as error:
            bad += 1
            print(f"wrong {error}", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
