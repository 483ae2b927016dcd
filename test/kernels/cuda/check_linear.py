"""linear against float64 and bit for bit: every class of m the same row, and the bits of cuBLAS
without split-K."""

import torch

from vt_cuda import VtCuda

SIZES = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 256, 257, 2048)


def check(vt: VtCuda, report):
    for dtype in (torch.bfloat16, torch.float16):
        for n, k in ((4096, 4096), (2048, 8192), (3072, 2048), (6144, 4096), (1000, 576),
                     (576, 1536), (77, 48), (49152, 64), (8, 16), (12296, 2048), (4096, 14336)):
            g = torch.Generator(device="cuda").manual_seed(n + k)
            w = (torch.randn(n, k, device="cuda", generator=g) * 0.05).to(dtype)
            x = torch.randn(2048, k, device="cuda", generator=g).to(dtype)
            sizes = SIZES if n * k < 1 << 25 else (1, 8, 16, 17, 64, 65, 256)
            top = max(sizes)
            exact = x[:64].double() @ w.double().t()

            def run(m, out_dtype=torch.float32, **more):
                # A column and a row of sentinels around the output.
                out = torch.full((m + 1, n + 2), 7.0, device="cuda", dtype=out_dtype)
                vt.linear(out[:m, :n], x[:m], w, **more)
                ok = (out[m] == 7).all() and (out[:, n:] == 7).all()
                assert ok, f"linear wrote outside its output at m {m}, n {n}, k {k}"
                return out[:m, :n]

            big = run(top)
            same = all(torch.equal(run(m), big[:m]) for m in sizes)
            # Narrow and wide units, x in stages (the sign) or held, all of shared memory.
            for tuning in (8 | 1 << 8 | 64 << 16, 3 | 2 << 8 | 64 << 16, 2 << 8, 1 << 8,
                           2 << 8 | 1 << 31, 1 << 8 | 1 << 31, 2 << 8 | 54 << 25):
                same &= all(torch.equal(run(m, tuning=tuning), big[:m]) for m in (1, 8, 9, 16, 32, 64))
            same &= torch.equal(run(16, dtype), big[:16].to(dtype))
            bias = torch.randn(n, device="cuda", generator=g).to(dtype)
            residual = torch.randn(top, n, device="cuda", generator=g).to(dtype)
            fused = [run(m, dtype, bias=bias, residual=residual[:m]) for m in (16, 64, 65)]
            want = ((big[:65] + bias.float()) + residual[:65].float()).to(dtype)
            same &= all(torch.equal(f, want[:len(f)]) for f in fused)
            error = ((big[:64].double() - exact).norm() / exact.norm()).item()
            # cuBLAS takes no split-K at these sizes, and other kernels for unaligned ones.
            note = ""
            if n % 8 == 0 and k >= 64:
                cublas = torch.mm(x[:256], w.t(), out_dtype=torch.float32)
                differ = (cublas != big[:256]).float().mean().item() if top >= 256 else float("nan")
                note = f"cuBLAS differs in {differ:.2%} of f32 results"
            report(f"linear {dtype} {n}x{k}", error, 3e-5, same, note)
