"""embedding, gatherLogitRows, ropeCosSin, rmsNorm, headRmsNorm, ropeAndCache and siluAndMul against
float64, with sentinels around what they may write; rows alone have the bits of rows in a batch."""

import torch

from vt_cuda import VtCuda

DTYPES = ((torch.bfloat16, 4e-3), (torch.float16, 5e-4))


def error_of(got, want):
    e = ((got.double() - want).norm() / want.norm()).item()
    return e if e == e else float("inf")


def framed(rows, columns, dtype):
    """A view with a row and 8 columns of sentinels behind it."""
    whole = torch.full((rows + 1, columns + 8), 7.0, device="cuda", dtype=dtype)
    return whole, whole[:rows, :columns]


def intact(whole, rows, columns):
    return bool((whole[rows] == 7).all() and (whole[:, columns:] == 7).all())


def scaled(x, scale):
    """What row_scale makes of rounded rows."""
    return (x.float() * scale[:, None]).to(x.dtype)


def late_norm(vt, x, weight, eps):
    """The error of rmsNorm's scales, and whether they and what they stand beside are the parts of
    what rmsNorm gives without them, alone, in a batch and in place."""
    rows, columns = x.shape
    want = torch.empty_like(x)
    vt.rms_norm(want, x, weight, eps)
    scales = torch.full((rows + 1,), 7.0, device="cuda")
    whole, out = framed(rows, columns, x.dtype)
    vt.rms_norm(out, x, weight, eps, scales)
    same = intact(whole, rows, columns) and scales[rows].item() == 7
    same &= torch.equal(out, (x.float() * weight.float()).to(x.dtype))
    same &= torch.equal(want, (x.float() * scales[:rows, None] * weight.float()).to(x.dtype))
    one, one_scale = torch.empty_like(x[:1]), torch.full((1,), float("nan"), device="cuda")
    vt.rms_norm(one, x[rows - 1:], weight, eps, one_scale)
    in_place, again = x.clone(), torch.full_like(scales, float("nan"))
    vt.rms_norm(in_place, in_place, weight, eps, again)
    same &= torch.equal(one[0], out[rows - 1]) and torch.equal(one_scale[0], scales[rows - 1])
    same &= torch.equal(in_place, out) and torch.equal(again[:rows], scales[:rows])
    exact = 1 / (x.double().square().mean(-1) + eps).sqrt()
    return error_of(scales[:rows], exact), same


def late_rope(vt, qkv, cos_sin, slots, cache, heads, norms):
    """Whether ropeAndCache with row_scale gives all bytes that it gives of rows scaled before."""
    tokens, columns = qkv.shape
    scale = torch.rand(tokens, device="cuda") * 2 + 0.1
    made = []
    for rows, row_scale in ((scaled(qkv, scale), None), (qkv, scale)):
        whole, view = framed(tokens, columns, qkv.dtype)
        view.copy_(rows)
        cache.fill_(7.0)
        vt.rope_and_cache(view, cos_sin, slots, cache, 1, heads, *norms, row_scale=row_scale)
        made.append((view, cache.clone(), intact(whole, tokens, columns)))
    (want, want_cache, _), (got, got_cache, kept) = made
    q = heads * cos_sin.shape[1]
    return (kept and torch.equal(want[:, :q], got[:, :q]) and torch.equal(want_cache, got_cache)
            and torch.equal(got[:, q:], qkv[:, q:]))


def check(vt: VtCuda, report):
    g = torch.Generator(device="cuda").manual_seed(3)
    rand = lambda *shape: torch.randn(*shape, device="cuda", generator=g)
    ints = lambda x: torch.tensor(x, dtype=torch.int32, device="cuda")

    for dtype, limit in DTYPES:
        source = rand(1000, 72).to(dtype)
        index = ints([0, 999, 5, 5, -1, 1000, 17])
        for function in ("vt_cuda_embedding", "vt_cuda_gather_logit_rows"):
            whole, out = framed(7, 72, dtype)
            vt.gather(function, out, source, index)
            want = source[index.clamp(0, 999).long()]
            want[4:6] = 0
            report(f"{function[8:]} {dtype}", 0.0, 1e-9, torch.equal(out, want) and intact(whole, 7, 72))
        # A rank's part of the vocabulary, widened: ids from 400 on.
        whole, out = framed(7, 72, torch.float32)
        vt.gather("vt_cuda_embedding", out, source[:500], ints([0, 399, 400, 899, -1, 900, 417]), 400)
        want = source[[0, 0, 0, 499, 0, 0, 17]].float()
        want[[0, 1, 4, 5]] = 0
        report(f"embedding of a part {dtype}", 0.0, 1e-9, torch.equal(out, want) and intact(whole, 7, 72))

        widths = (8, 64, 576, 1024, 2048, 4096, 5120, 8192, 16384)
        for rows, columns in [(33, width) for width in widths] + [(2051, 1024), (2051, 2048), (2051, 4096)]:
            x = (rand(rows, columns) * 3).to(dtype)
            weight = (1 + 0.1 * rand(columns)).to(dtype)
            whole, out = framed(rows, columns, dtype)
            vt.rms_norm(out, x, weight, 1e-5)
            d = x.double()
            want = d / (d.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
            one = torch.empty(1, columns, device="cuda", dtype=dtype)
            vt.rms_norm(one, x[rows - 1:], weight, 1e-5)
            inplace = x.clone()
            vt.rms_norm(inplace, inplace, weight, 1e-5)
            report(f"rmsNorm {dtype} {rows}x{columns}", error_of(out, want), limit,
                   torch.equal(one[0], out[rows - 1]) and torch.equal(inplace, out)
                   and intact(whole, rows, columns))
            error, same = late_norm(vt, x, weight, 1e-5)
            report(f"rmsNorm with scales {dtype} {rows}x{columns}", error, 3e-7, same)

        for heads, kv_heads, dim, tokens in ((32, 8, 128, 37), (9, 3, 64, 37), (16, 8, 128, 37), (4, 1, 256, 37),
                                             (2, 2, 80, 37), (6, 2, 96, 37), (16, 8, 128, 1027), (5, 3, 64, 1027)):
            columns = (heads + 2 * kv_heads) * dim
            qkv = (rand(tokens, columns) * 2).to(dtype)
            qw, kw = ((1 + 0.1 * rand(dim)).to(dtype) for _ in range(2))
            whole, view = framed(tokens, columns, dtype)
            view.copy_(qkv)
            vt.head_rms_norm(view, qw, kw, heads, kv_heads, 1e-6)
            d = qkv.double().view(tokens, -1, dim)
            want = d / (d.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            want[:, :heads] *= qw.double()
            want[:, heads:heads + kv_heads] *= kw.double()
            want[:, heads + kv_heads:] = d[:, heads + kv_heads:]
            v = (heads + kv_heads) * dim
            report(f"headRmsNorm {dtype} {tokens} of {heads}/{kv_heads}x{dim}", error_of(view, want.flatten(1)),
                   limit, torch.equal(view[:, v:], qkv[:, v:]) and intact(whole, tokens, columns))

            half = dim // 2
            inv_freq = 500000.0 ** (-torch.arange(half, device="cuda", dtype=torch.float32) / half)
            positions = ints([0, 1, 2, 100, 8191, 131071, 524288] + list(range(tokens - 7)))
            cos_sin = torch.full((tokens, dim), float("nan"), device="cuda")
            vt.rope_cos_sin(cos_sin, inv_freq, positions, 1.5)
            angle = (positions.float()[:, None] * inv_freq).double()
            report(f"ropeCosSin {dim}", error_of(cos_sin, torch.cat((angle.cos(), angle.sin()), 1) * 1.5),
                   1e-6, True)

            block = 16
            num_blocks = tokens // block + 3
            cache = torch.full((num_blocks, 3, 2, kv_heads, block, dim), 7.0, device="cuda", dtype=dtype)
            slots = torch.randperm((num_blocks - 1) * block, device="cuda", generator=g)[:tokens].int() + block
            slots[3] = slots[20] = -1
            whole, view = framed(tokens, columns, dtype)
            view.copy_(qkv)
            vt.rope_and_cache(view, cos_sin, slots, cache, 1, heads)
            x = qkv.double().view(tokens, -1, dim)
            c, s = cos_sin.double()[:, None, :half], cos_sin.double()[:, None, half:]
            a, b = x[..., :half], x[..., half:]
            turned = torch.cat((a * c - b * s, b * c + a * s), -1)
            q_error = error_of(view[:, :heads * dim], turned[:, :heads].flatten(1))
            live = slots >= 0
            at = slots[live].long()
            k = cache[at // block, 1, 0, :, at % block]
            values = cache[at // block, 1, 1, :, at % block]
            k_error = error_of(k, turned[live, heads:heads + kv_heads])
            exact = torch.equal(values, qkv.view(tokens, -1, dim)[live, heads + kv_heads:])
            exact &= torch.equal(view[:, heads * dim:], qkv[:, heads * dim:])
            touched = torch.zeros(num_blocks, 3, 2, kv_heads, block, dim, dtype=torch.bool, device="cuda")
            touched[at // block, 1, :, :, at % block] = True
            exact &= bool((cache[~touched] == 7).all()) and intact(whole, tokens, columns)
            report(f"ropeAndCache {dtype} {tokens} of {heads}/{kv_heads}x{dim}", max(q_error, k_error), limit, exact)

            # With norms: the bits of headRmsNorm, then ropeAndCache.
            two_whole, two = framed(tokens, columns, dtype)
            two.copy_(qkv)
            two_cache = torch.full_like(cache, 7.0)
            vt.head_rms_norm(two, qw, kw, heads, kv_heads, 1e-6)
            vt.rope_and_cache(two, cos_sin, slots, two_cache, 1, heads)
            whole, view = framed(tokens, columns, dtype)
            view.copy_(qkv)
            cache.fill_(7.0)
            vt.rope_and_cache(view, cos_sin, slots, cache, 1, heads, qw, kw, 1e-6)
            same = torch.equal(view[:, :heads * dim], two[:, :heads * dim])
            same &= torch.equal(cache, two_cache) and intact(whole, tokens, columns)
            same &= torch.equal(view[:, heads * dim:], qkv[:, heads * dim:])
            report(f"ropeAndCache with norms {dtype} {tokens} of {heads}/{kv_heads}x{dim}", 0.0, 1e-9, same)
            for norms in ((None, None), (qw, kw, 1e-6)):
                report(f"ropeAndCache with row_scale {dtype} {tokens} of {heads}/{kv_heads}x{dim}", 0.0, 1e-9,
                       late_rope(vt, qkv, cos_sin, slots, cache, heads, norms))

        for rows, columns, interleave in ((1, 8, 0), (5, 1536, 0), (33, 8192, 8), (300, 14336, 8), (3, 48, 16)):
            x = (rand(rows, 2 * columns) * 3).to(dtype)
            if interleave:
                parts = x.double().view(rows, -1, 2, interleave)
                gate, up = parts[:, :, 0].flatten(1), parts[:, :, 1].flatten(1)
            else:
                gate, up = x.double().chunk(2, 1)
            whole, out = framed(rows, columns, dtype)
            vt.silu_and_mul(out, x, interleave)
            report(f"siluAndMul {dtype} {rows}x{columns} interleave {interleave}",
                   error_of(out, torch.nn.functional.silu(gate) * up), limit, intact(whole, rows, columns))
            scale = torch.rand(rows, device="cuda", generator=g) * 2 + 0.1
            (got, late), (want, before) = (framed(rows, columns, dtype) for _ in range(2))
            vt.silu_and_mul(before, scaled(x, scale), interleave)
            vt.silu_and_mul(late, x, interleave, scale)
            report(f"siluAndMul with row_scale {dtype} {rows}x{columns} interleave {interleave}", 0.0, 1e-9,
                   torch.equal(got, want))
