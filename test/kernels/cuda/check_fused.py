"""Fused linears bit for bit against the ops launched one by one: norm in front, siluAndMul or
ropeAndCache behind, the late scale of a norm from one linear to the next, with NaN where nothing may
be read and sentinels where nothing may be written."""

import itertools

import torch

from vt_cuda import VtCuda

SIZES = (1, 2, 7, 8, 9, 15, 16, 17, 33, 64)
# hidden, heads, KV heads, head_dim, columns of gate
SHAPES = ((2048, 32, 8, 64, 8192), (4096, 32, 8, 128, 1024), (1024, 16, 8, 128, 3072),
          (576, 9, 3, 64, 1536), (192, 3, 1, 80, 104), (48, 1, 1, 16, 8), (1040, 5, 1, 96, 2056),
          (512, 3, 2, 256, 64))


def nan_padded(x):
    """x as a view, with NaN behind every row and below."""
    whole = torch.full((x.shape[0] + 1, x.shape[1] + 8), float("nan"), device="cuda", dtype=x.dtype)
    whole[:-1, :-8] = x
    return whole[:-1, :-8]


class Layer:
    def __init__(self, shape, dtype, seed):
        self.hidden, self.heads, self.kv_heads, self.dim, self.gate = shape
        g = torch.Generator(device="cuda").manual_seed(seed)
        rand = lambda *s: torch.randn(*s, device="cuda", generator=g)
        columns = (self.heads + 2 * self.kv_heads) * self.dim
        weight = lambda n: (rand(n, self.hidden) * self.hidden**-0.5).to(dtype)
        self.x = nan_padded((rand(64, self.hidden) * 3).to(dtype))
        self.norm = (1 + 0.1 * rand(self.hidden)).to(dtype)
        self.qkv, self.gate_up, self.plain = weight(columns), weight(2 * self.gate), weight(1000)
        self.bias = {len(w): rand(len(w)).to(dtype) for w in (self.qkv, self.gate_up, self.plain)}
        self.residual = rand(64, 1000).to(dtype)
        angle = rand(64, self.dim // 2) * 100
        self.cos_sin = torch.cat((angle.cos(), angle.sin()), 1).contiguous()
        self.slots = (torch.randperm(5 * 16, device="cuda", generator=g)[:64] + 16).int()
        self.slots[3] = self.slots[12] = -1
        self.dtype = dtype

    def cache(self):
        return torch.full((6, 3, 2, self.kv_heads, 16, self.dim), 7.0, device="cuda",
                          dtype=self.dtype)


def framed(rows, columns, dtype):
    whole = torch.full((rows + 1, columns + 8), 7.0, device="cuda", dtype=dtype)
    return whole, whole[:rows, :columns]


def check_case(vt, layer, m, normed, biased, epilogue, tuning):
    """Whether the fused call gives all bytes that the ops give; None where it is not built."""
    weight = {"silu": layer.gate_up, "rope": layer.qkv}.get(epilogue, layer.plain)
    n = len(weight)
    norm = dict(norm_weight=layer.norm, norm_eps=1e-5) if normed else {}
    bias = layer.bias[n] if biased else None
    x = layer.x[:m]
    if normed:
        x = torch.empty(m, layer.hidden, device="cuda", dtype=layer.dtype)
        vt.rms_norm(x, layer.x[:m], layer.norm, 1e-5)
    caches = [layer.cache(), layer.cache()]
    if epilogue == "rope":
        whole, out = framed(m, n, layer.dtype)
        want_whole, want = framed(m, n, layer.dtype)
        q = layer.heads * layer.dim
        made = torch.empty(m, n, device="cuda", dtype=layer.dtype)
        vt.linear(made, x, weight, bias=bias)
        vt.rope_and_cache(made, layer.cos_sin, layer.slots, caches[1], 1, layer.heads)
        want[:, :q] = made[:, :q]
        more = dict(rope=(layer.cos_sin, layer.slots, caches[0], 1, layer.heads))
    elif epilogue == "silu":
        whole, out = framed(m, n // 2, layer.dtype)
        want_whole, want = framed(m, n // 2, layer.dtype)
        made = torch.empty(m, n, device="cuda", dtype=layer.dtype)
        vt.linear(made, x, weight, bias=bias)
        vt.silu_and_mul(want, made, 8)
        more = dict(silu=True)
    else:
        dtype = torch.float32 if epilogue == "f32" else layer.dtype
        whole, out = framed(m, n, dtype)
        want_whole, want = framed(m, n, dtype)
        more = {} if epilogue == "f32" else dict(residual=layer.residual[:m])
        vt.linear(want, x, weight, bias=bias, **more)
    args = dict(bias=bias, tuning=tuning, **norm, **more)
    worth_it = vt.linear_fuses(out, layer.x[:m], weight, **args)
    try:
        vt.linear(out, layer.x[:m], weight, **args)
    except RuntimeError:
        return False if worth_it else None
    same = torch.equal(whole, want_whole) and torch.equal(caches[0], caches[1])
    return same and worth_it


def check(vt: VtCuda, report):
    for dtype, shape in itertools.product((torch.bfloat16, torch.float16), SHAPES):
        layer = Layer(shape, dtype, sum(shape))
        for epilogue in ("rope", "silu", "residual", "f32"):
            built = []
            same = True
            for m, normed, biased in itertools.product(SIZES, (True, False), (True, False)):
                for tuning in (0,) if m > 16 or normed else (0, 1 << 31):
                    result = check_case(vt, layer, m, normed, biased, epilogue, tuning)
                    same &= result is not False
                    if result is not None:
                        built.append((m, normed))
            # What a layer needs at small m is built; beyond, what is not is refused.
            must = [(m, False) for m in SIZES] + [(1, True), (2, True)]
            same &= all(case in built for case in must)
            most = max(m for m, normed in built if normed)
            report(f"fused {epilogue} {dtype} {shape}", 0.0, 1e-9, same, f"norm up to m {most}")
    check_late(vt, report)


# columns in, hidden, heads, KV heads, head_dim, columns of gate
LATE_SHAPES = ((2048, 2048, 32, 8, 64, 1024), (3072, 1024, 16, 8, 128, 3072),
               (4096, 4096, 4, 2, 128, 512), (576, 576, 9, 3, 64, 1536), (96, 80, 1, 1, 16, 48))
SQUARES = 512
NARROW, WIDE, STAGED = 1 << 8, 2 << 8, 1 << 31


class Late:
    """Two linears with a norm between them whose scale comes late, and what it is to give."""

    def __init__(self, vt, shape, m):
        self.vt, self.m = vt, m
        k, self.hidden, self.heads, self.kv_heads, self.dim, gate = shape
        g = torch.Generator(device="cuda").manual_seed(sum(shape) + m)
        rand = lambda *s: torch.randn(*s, device="cuda", generator=g)
        some = lambda *s: rand(*s).to(torch.bfloat16)
        weight = lambda n, k: (rand(n, k) * k**-0.5).to(torch.bfloat16)
        self.empty = lambda n: torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
        self.x, self.residual, self.front = some(m, k), some(m, self.hidden) * 5, weight(self.hidden, k)
        self.gain = (1 + 0.3 * rand(self.hidden)).to(torch.bfloat16)
        self.gate_up = weight(2 * gate, self.hidden)
        self.qkv = weight((self.heads + 2 * self.kv_heads) * self.dim, self.hidden)
        self.rope = (rand(m, self.dim),
                     torch.randperm(80, device="cuda", generator=g)[:m].int() - 1)
        self.out, self.z, self.scales = self.empty(self.hidden), self.empty(self.hidden), rand(m)
        vt.linear(self.out, self.x, self.front, residual=self.residual)
        vt.rms_norm(self.z, self.out, self.gain, 1e-5, self.scales)

    def gives(self, tuning):
        """The squares that the linear in front gives, or None where something else differs;
        "embedding": those of one that has its rows."""
        whole, z = framed(self.m, self.hidden, torch.bfloat16)
        squares = torch.full((self.m + 1, SQUARES), float("nan"), device="cuda")
        out, late = self.residual.clone(), (self.gain, z, squares)
        if tuning == "embedding":
            rows = torch.arange(self.m, dtype=torch.int32, device="cuda")
            self.vt.gather("vt_cuda_embedding", out, self.out, rows, late=late)
        else:
            self.vt.linear(out, self.x, self.front, residual=out, late=late, tuning=tuning)
        pieces = self.hidden // 8
        same = torch.equal(out, self.out) and torch.equal(z, self.z)
        same &= bool((whole[-1] == 7).all() and (whole[:, self.hidden:] == 7).all())
        same &= bool(squares[-1].isnan().all() and squares[:, pieces:].isnan().all())
        return squares if same else None

    def takes(self, tuning, **scale):
        """Whether the linear behind it gives what its op, the scale and the op behind it give."""
        vt = self.vt
        made, want = self.empty(len(self.gate_up)), self.empty(len(self.gate_up) // 2)
        vt.linear(made, self.z, self.gate_up)
        vt.silu_and_mul(want, (made.float() * self.scales[:, None]).to(made.dtype), 8)
        gated = torch.empty_like(want)
        vt.linear(gated, self.z, self.gate_up, silu=True, tuning=tuning, **scale)
        same = torch.equal(gated, want)
        made = self.empty(len(self.qkv))
        vt.linear(made, self.z, self.qkv)
        want = (made.float() * self.scales[:, None]).to(made.dtype)
        vt.linear(made, self.z, self.qkv, tuning=tuning, **scale)
        same &= torch.equal(made, want)
        caches = [torch.full((6, 3, 2, self.kv_heads, 16, self.dim), 7.0, device="cuda",
                             dtype=made.dtype) for _ in range(2)]
        cos_sin, slots = self.rope
        vt.rope_and_cache(want, cos_sin, slots, caches[0], 1, self.heads)
        vt.linear(made, self.z, self.qkv, tuning=tuning,
                  rope=(cos_sin, slots, caches[1], 1, self.heads), **scale)
        queries = self.heads * self.dim
        return same and torch.equal(made[:, :queries], want[:, :queries]) and torch.equal(*caches)


def check_late(vt: VtCuda, report):
    for shape in LATE_SHAPES:
        same = True
        for m in SIZES:
            layer = Late(vt, shape, m)
            same &= layer.takes(0, row_scale=layer.scales)
            if m > 32:
                continue
            for tuning in ("embedding", 0, NARROW, STAGED) + ((WIDE,) if m <= 8 else ()):
                squares = layer.gives(tuning)
                same &= squares is not None
                for behind in (0, STAGED) if squares is not None else ():
                    same &= layer.takes(behind, x_squares=squares, norm_eps=1e-5)
        report(f"late scale {shape}", 0.0, 1e-9, same)
