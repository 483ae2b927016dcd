"""linear by wgmma against float64, and bit for bit against mma.sync's chain, cuBLAS, and the ops
that it takes in: `python check_large.py LIBRARY 1` checks one kernel alone."""

import torch

import alone
from check_fused import Layer, framed
from vt_cuda import VtCuda

KERNELS = {1: "wgmma", 2: "cluster2"}
SIZES = (65, 127, 128, 129, 255, 256, 257, 511, 1000, 2048)


def plain(vt, dtype, n, k, large):
    """The error, and whether all sizes, addends and output types have the bits of mma.sync."""
    g = torch.Generator(device="cuda").manual_seed(n + k)
    w = (torch.randn(n, k, device="cuda", generator=g) * 0.05).to(dtype)
    x = torch.randn(max(SIZES), k, device="cuda", generator=g).to(dtype)
    bias = torch.randn(n, device="cuda", generator=g).to(dtype)
    residual = torch.randn(len(x), n, device="cuda", generator=g).to(dtype)

    def run(m, out_dtype, **more):
        whole, out = framed(m, n, out_dtype)
        vt.linear(out, x[:m], w, **more)
        return whole

    same, error = True, 0.0
    for m in SIZES:
        wanted, got = (run(m, torch.float32, large=kernel) for kernel in (0, large))
        same &= torch.equal(wanted, got)
        more = dict(bias=bias, residual=residual[:m])
        wanted, rounded = (run(m, dtype, large=kernel, **more) for kernel in (0, large))
        same &= torch.equal(wanted, rounded)
        exact = x[:m].double() @ w.double().t()
        error = max(error, ((got[:m, :n].double() - exact).norm() / exact.norm()).item())
    if k >= 64:
        cublas = torch.mm(x[:256], w.t(), out_dtype=torch.float32)
        same &= torch.equal(run(256, torch.float32, large=large)[:256, :n], cublas)
    return error, same


def late_silu(vt, made, x, weight, large):
    """Whether siluAndMul behind `made`, x times the weight, is the same with row_scale in one."""
    m, n = made.shape
    scale = torch.full((m + 1,), float("nan"), device="cuda")
    scale[:m] = torch.rand(m, device="cuda") * 2 + 0.1
    (wanted, by_ops), (got, out) = framed(m, n // 2, x.dtype), framed(m, n // 2, x.dtype)
    vt.silu_and_mul(by_ops, made, 8, scale)
    vt.linear(out, x, weight, silu=True, large=large, row_scale=scale)
    return torch.equal(wanted, got)


def fused(vt, dtype, shape, large):
    """Whether siluAndMul and ropeAndCache behind it give all bytes that the ops give."""
    layer = Layer(shape, dtype, sum(shape))
    same = True
    for m in (65, 129, 640):
        x = (layer.x.repeat(-(-m // 64), 1)[:m] * 1.0).contiguous()
        angles = layer.cos_sin.repeat(-(-m // 64), 1)[:m].contiguous()
        blocks = -(-m // 16) + 1
        slots = (torch.randperm(blocks * 16, device="cuda")[:m]).int()
        slots[3] = slots[m - 2] = -1
        for biased in (False, True):
            for weight in (layer.gate_up, layer.qkv):
                n = len(weight)
                bias = layer.bias[n] if biased else None
                made = torch.empty(m, n, device="cuda", dtype=dtype)
                vt.linear(made, x, weight, bias=bias)
                if weight is layer.gate_up:
                    wanted, out = framed(m, n // 2, dtype)
                    vt.silu_and_mul(out, made, 8)
                    got, out = framed(m, n // 2, dtype)
                    vt.linear(out, x, weight, bias=bias, silu=True, large=large)
                    same &= torch.equal(wanted, got)
                    same &= biased or late_silu(vt, made, x, weight, large)
                    continue
                q = layer.heads * layer.dim
                caches = [torch.full((blocks, 3, 2, layer.kv_heads, 16, layer.dim), 7.0,
                                     device="cuda", dtype=dtype) for _ in range(2)]
                vt.rope_and_cache(made, angles, slots, caches[0], 1, layer.heads)
                got, out = framed(m, n, dtype)
                vt.linear(out, x, weight, bias=bias, large=large,
                          rope=(angles, slots, caches[1], 1, layer.heads))
                same &= torch.equal(out[:, :q], made[:, :q]) and torch.equal(*caches)
                same &= bool((got[:, q:] == 7).all() and (got[m] == 7).all())
    return same


DECODE_SIZES = (65, 72, 96, 97, 128, 129, 144, 160, 191, 192, 193, 208, 224, 256, 257)


def decode_silu(vt, dtype, n, k):
    """Whether siluAndMul behind linear_decode, or linear_wgmma for about a tile of rows, gives all
    bytes that the ops give, wherever it would be taken; and how often that was."""
    g = torch.Generator(device="cuda").manual_seed(n * k)
    w = (torch.randn(n, k, device="cuda", generator=g) * 0.05).to(dtype)
    same, served = True, 0
    for m in DECODE_SIZES:
        x = torch.randn(m, k, device="cuda", generator=g).to(dtype)
        (wanted, by_ops), (got, out) = framed(m, n // 2, dtype), framed(m, n // 2, dtype)
        if not vt.linear_fuses(out, x, w, silu=True, large=2):
            continue
        served += 1
        made = torch.empty(m, n, device="cuda", dtype=dtype)
        vt.linear(made, x, w)
        vt.silu_and_mul(by_ops, made, 8)
        vt.linear(out, x, w, silu=True, large=2)
        same &= torch.equal(wanted, got) and late_silu(vt, made, x, w, 2)
        same &= vt.linear_fuses(out, x, w, silu=True, large=2, row_scale=torch.ones(m, device="cuda"))
    return same, served


def decode_plain(vt, dtype, n, k):
    """The same of linear_decode with no op behind it: bare, with a residual, with one in place, or
    its f32 sums."""
    g = torch.Generator(device="cuda").manual_seed(n * k)
    w = (torch.randn(n, k, device="cuda", generator=g) * 0.05).to(dtype)
    same, served = True, 0
    for m in DECODE_SIZES:
        x = torch.randn(m, k, device="cuda", generator=g).to(dtype)
        residual = torch.randn(m, n, device="cuda", generator=g).to(dtype)
        for added, kind in ((None, dtype), (residual, dtype), ("out", dtype), (None, torch.float32)):
            (wanted, want), (got, out) = framed(m, n, kind), framed(m, n, kind)
            more = dict(residual=out if added == "out" else added, large=2)
            if not vt.linear_is_ahead(out, x, w, **more):
                continue
            served += 1
            if added == "out":
                out.copy_(residual)
            vt.linear(want, x, w, residual=None if added is None else residual)
            vt.linear(out, x, w, **more)
            same &= torch.equal(wanted, got)
    return same, served


def decode_forms(vt, dtype, n, k):
    """Whether each form for large weights has all bytes of mma.sync."""
    g = torch.Generator(device="cuda").manual_seed(n * k)
    w = (torch.randn(n, k, device="cuda", generator=g) * 0.05).to(dtype)
    same = True
    for m in (65, 97, 128, 133, 192):
        x = torch.randn(m, k, device="cuda", generator=g).to(dtype)
        residual = torch.randn(m, n, device="cuda", generator=g).to(dtype)
        (wanted, want), (sums, to) = framed(m, n, dtype), framed(m, n, torch.float32)
        vt.linear(want, x, w, residual=residual)
        vt.linear(to, x, w)
        for form in (1, 2, 3, 4, 5):
            (got, out), (got_sums, out_sums) = framed(m, n, dtype), framed(m, n, torch.float32)
            vt.linear(out, x, w, residual=residual, large=2, tuning=form)
            vt.linear(out_sums, x, w, large=2, tuning=form)
            same &= torch.equal(wanted, got) and torch.equal(sums, got_sums)
    return same


def check(vt: VtCuda, report, kernels=tuple(KERNELS)):
    if 2 in kernels and vt.has_wgmma:
        for dtype in (torch.bfloat16, torch.float16):
            for n, k in ((6144, 1024), (3072, 576), (1040, 592), (16, 16)):
                same, served = decode_silu(vt, dtype, n, k)
                report(f"linear decode silu {dtype} {n}x{k}", 0.0, 1.0, same and served == 14)
            for n, k in ((4096, 1024), (1024, 2048), (1024, 3072), (960, 576), (24, 80)):
                same, served = decode_plain(vt, dtype, n, k)
                report(f"linear decode {dtype} {n}x{k}", 0.0, 1.0, same and served == 3 * 13)
            for n, k in ((4096, 4096), (3072, 4096), (4096, 7168)):
                same, served = decode_plain(vt, dtype, n, k)
                report(f"linear decode {dtype} {n}x{k}", 0.0, 1.0, same and served == 4 * 10)
            for n, k in ((6144, 4096), (1000, 1104)):
                report(f"linear decode forms {dtype} {n}x{k}", 0.0, 1.0, decode_forms(vt, dtype, n, k))
            for n, k, most in ((28672, 4096, 14), (14336, 4096, 14), (16384, 2048, 4)):
                same, served = decode_silu(vt, dtype, n, k)
                report(f"linear tile {dtype} {n}x{k}", 0.0, 1.0, same and served == most)
    for large in kernels:
        for dtype in (torch.bfloat16, torch.float16):
            for n, k in ((4096, 4096), (3072, 2048), (1000, 576), (576, 1536), (8, 16), (264, 48),
                         (12296, 2048), (4096, 14336)):
                error, same = plain(vt, dtype, n, k, large)
                report(f"linear {KERNELS[large]} {dtype} {n}x{k}", error, 3e-5, same)
            if not vt.has_wgmma:  # mma.sync has served, which has no epilogues
                continue
            for shape in ((2048, 32, 8, 64, 8192), (4096, 32, 8, 128, 1024), (576, 9, 3, 64, 1536)):
                report(f"linear {KERNELS[large]} {dtype} fused {shape}", 0.0, 1.0,
                       fused(vt, dtype, shape, large))


if __name__ == "__main__":
    alone.main(check, KERNELS)
