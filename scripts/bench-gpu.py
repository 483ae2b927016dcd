"""Checks and times the CUDA kernels on the GPU of this machine, and prints the tables of
docs/benchmarks.md:

    npm run build:cuda && python scripts/bench-gpu.py [--library PATH] [--no-check] [--parts linear,attention]

Needs torch. Times are medians of replayed CUDA graphs with dependent launch, weights and caches
rotated or larger than L2; bandwidth is measured in the same run."""

import argparse
import glob
import math
import sys
from pathlib import Path

from needs import need

need("torch")

import torch  # noqa: E402

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "test/kernels/cuda"))
import check  # noqa: E402
from bench_layers import kernel_times, layer_times  # noqa: E402
from sample_table import SampleTable, row_of  # noqa: E402
from vt_cuda import DEPENDENT, VtCuda  # noqa: E402

SHAPES = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (3072, 2048), (16384, 2048),
          (2048, 8192), (128256, 2048))


# VtCudaPrefill of kernels/cuda/vt_cuda.h.
PREFILL_KERNELS = {0: "mma", 1: "overlap", 2: "turns"}
# VtCudaLarge.
LARGE_KERNELS = {1: "wgmma", 2: "cluster2"}


def median_ms(run, count, repeats=9):
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / count)
    return sorted(times)[len(times) // 2]


def graph_us(vt, calls, repeats):
    """Microseconds of one call, in a graph of all calls, `repeats` times over."""
    vt.flags = DEPENDENT
    calls[0]()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            for call in calls:
                call()
    vt.flags = 0
    return median_ms(graph.replay, repeats * len(calls)) * 1e3


def read_bandwidth():
    """GB/s of the faster of two reductions over 2 GiB."""
    data = torch.randn(1 << 29, device="cuda")
    return max(data.numel() * 4 / median_ms(run, 1) / 1e6 for run in (data.sum, data.max))


def linear_times(vt, bandwidth):
    print("\n| linear, bf16 | bytes at the read bandwidth | M = 1 | 8 | 16 | 32 | 64 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    sizes = (1, 8, 16, 32, 64)
    totals = dict.fromkeys(sizes, 0.0)
    limits = 0.0
    for n, k in SHAPES:
        count = max(4, math.ceil(210e6 / (2 * n * k)))
        weights = [torch.empty(n, k, device="cuda", dtype=torch.bfloat16).normal_()
                   for _ in range(count)]
        limit = 2 * n * k / bandwidth / 1e3
        limits += limit
        cells = []
        for m in sizes:
            x = torch.randn(m, k, device="cuda").bfloat16()
            out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
            calls = [lambda w=w: vt.linear(out, x, w) for w in weights]
            graph_us(vt, calls, 1)
            us = graph_us(vt, calls, max(1, 24 // count))
            totals[m] += us
            cells.append(f"{us:.2f} us ({limit / us:.0%})")
        print(f"| {n} x {k} | {limit:.2f} us | " + " | ".join(cells) + " |", flush=True)
        del weights
    share = " | ".join(f"{limits / totals[m]:.1%}" for m in sizes)
    print(f"| all, byte-weighted | {limits:.1f} us | {share} |")


def large_linear_times(vt, _bandwidth):
    print("\n| linear, bf16 | M = 256 | cuBLAS | M = 2048 | cuBLAS |")
    print("| --- | --- | --- | --- | --- |")
    for n, k in ((6144, 4096), (28672, 4096), (4096, 14336)):
        cells = []
        for m in (256, 2048):
            x = torch.randn(m, k, device="cuda").bfloat16()
            w = torch.randn(n, k, device="cuda").bfloat16()
            out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
            for run in (lambda: vt.linear(out, x, w), lambda: torch.mm(x, w.t(), out=out)):
                ms = median_ms(lambda: [run() for _ in range(10)], 10)
                cells.append(f"{2 * m * n * k / ms / 1e9:.0f} TFLOP/s")
        print(f"| {n} x {k} | " + " | ".join(cells) + " |", flush=True)


def wgmma_linear_times(vt, _bandwidth, kernels=tuple(LARGE_KERNELS)):
    """Plain, and with siluAndMul behind it, beside cuBLAS and the op alone."""
    names = " | ".join(LARGE_KERNELS[kernel] for kernel in kernels)
    print(f"\n| linear by wgmma, bf16, TFLOP/s | cuBLAS | {names} | cuBLAS, then silu | "
          + " | ".join(f"{LARGE_KERNELS[kernel]}, silu in it" for kernel in kernels) + " |")
    print("| --- " * (2 * len(kernels) + 3) + "|")
    for m, n, k in ((256, 6144, 4096), (256, 28672, 4096), (256, 16384, 2048), (2048, 28672, 4096),
                    (16384, 28672, 4096), (16384, 16384, 2048), (16384, 3072, 2048)):
        x = torch.randn(m, k, device="cuda").bfloat16()
        w = torch.randn(n, k, device="cuda").bfloat16()
        out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
        half = torch.empty(m, n // 2, device="cuda", dtype=torch.bfloat16)

        def then_silu():
            torch.mm(x, w.t(), out=out)
            vt.silu_and_mul(half, out, 8)

        runs = [lambda: torch.mm(x, w.t(), out=out)]
        runs += [lambda large=large: vt.linear(out, x, w, large=large) for large in kernels]
        runs += [then_silu]
        runs += [lambda large=large: vt.linear(half, x, w, silu=True, large=large)
                 for large in kernels]
        cells = []
        for run in runs:
            ms = median_ms(lambda: [run() for _ in range(5)], 5)
            cells.append(f"{2 * m * n * k / ms / 1e9:.0f}")
        print(f"| {m} x {n} x {k} | " + " | ".join(cells) + " |", flush=True)


def attention_us(vt, batch, context, heads, kv_heads, dim, queries=1, layers=2, prefill=0):
    blocks = batch * context // 16
    cache = torch.empty(blocks + 1, layers, 2, kv_heads, 16, dim, device="cuda",
                        dtype=torch.bfloat16).normal_()
    tables = (torch.randperm(blocks, device="cuda") + 1).int().view(batch, -1).contiguous()
    ints = lambda *a, **k: torch.arange(*a, dtype=torch.int32, device="cuda", **k)
    qkv = torch.randn(batch * queries, (heads + 2 * kv_heads) * dim, device="cuda").bfloat16()
    out = torch.empty(batch * queries, heads * dim, device="cuda", dtype=torch.bfloat16)
    rows = vt.lib.vt_cuda_prefill_rows(prefill, dim)
    tile = rows // (heads // kv_heads)
    works = batch * (math.ceil(context / 256) if queries == 1 else math.ceil(queries / tile))
    lists = vt.plan_attention(ints(0, batch * queries + 1, queries),
                              torch.full((batch,), context, dtype=torch.int32, device="cuda"),
                              heads, kv_heads, works, prefill_rows=rows, head_dim=dim)
    scratch = torch.empty(works * kv_heads, 16, dim + 2, device="cuda")
    counters = torch.zeros(batch * kv_heads, dtype=torch.int32, device="cuda")
    bounds = {"max_decode_work": works if queries == 1 else 0,
              "max_prefill_work": 0 if queries == 1 else works}
    calls = [lambda layer=layer: vt.attention(out, qkv, cache, tables, lists, scratch, counters,
                                              layer, heads, dim**-0.5, prefill=prefill, **bounds)
             for layer in range(layers)]
    return graph_us(vt, calls, 4 if queries == 1 else 1)


def attention_times(vt, bandwidth):
    print("\n| attention, bf16, shuffled blocks of 16 | bytes at the read bandwidth | time |")
    print("| --- | --- | --- |")
    for batch, context, heads, kv_heads, dim in (
            (64, 4096, 32, 8, 128), (64, 4096, 32, 8, 64), (256, 512, 32, 8, 128),
            (256, 512, 32, 8, 64), (256, 512, 16, 8, 128), (16, 8192, 32, 8, 128),
            (8, 1024, 32, 8, 128), (1, 4096, 32, 8, 128), (1, 256, 32, 8, 128), (1, 256, 32, 8, 64)):
        us = attention_us(vt, batch, context, heads, kv_heads, dim)
        limit = batch * context * kv_heads * dim * 4 / bandwidth / 1e3
        print(f"| decode, batch {batch}, context {context}, {heads}/{kv_heads} x {dim} | "
              f"{limit:.1f} us | {us:.1f} us ({limit / us:.0%}) |", flush=True)


def prefill_times(vt, _bandwidth, kernels=tuple(PREFILL_KERNELS)):
    print("\n| prefill attention, bf16, shuffled blocks of 16 | "
          + " | ".join(PREFILL_KERNELS[kernel] for kernel in kernels) + " |")
    print("| --- " * (len(kernels) + 1) + "|")
    for batch, context, heads, kv_heads, dim in (
            (8, 2048, 32, 8, 128), (8, 2048, 32, 8, 64), (8, 2048, 16, 8, 128),
            (1, 8192, 32, 8, 128), (16, 512, 16, 8, 128)):
        cells = []
        for kernel in kernels:
            us = attention_us(vt, batch, context, heads, kv_heads, dim, queries=context,
                              prefill=kernel)
            flops = 2 * batch * heads * dim * context * context
            cells.append(f"{us:.0f} us ({flops / us / 1e6:.0f} TFLOP/s)")
        print(f"| {batch} x {context}, {heads}/{kv_heads} x {dim} | " + " | ".join(cells) + " |",
              flush=True)


def sample_times(vt, bandwidth):
    kinds = {"greedy": {}, "temperature 0.6": {"temperature": 0.6},
             "0.8, min-p 0.04": {"temperature": 0.8, "min_p": 0.04},
             "0.6, top-k 20, top-p 0.95": {"temperature": 0.6, "top_k": 20, "top_p": 0.95},
             "0.8, top-p 0.9": {"temperature": 0.8, "top_p": 0.9},
             "0.8, penalties, 1,000 tokens": {"temperature": 0.8, "repetition_penalty": 1.1,
                                              "frequency_penalty": 0.2},
             "greedy, 5 logprobs": {"num_logprobs": 5}}
    print("\n| sample, us | logits once at the read bandwidth | " + " | ".join(kinds) + " |")
    print("| --- " * (len(kinds) + 2) + "|")
    for rows, vocab in ((1, 128256), (16, 128256), (256, 128256), (256, 151936), (256, 49152),
                        (1024, 49152)):
        sets = [torch.randn(rows, vocab, device="cuda") * 3 for _ in range(max(2, 200 // rows))]
        row_index = torch.arange(rows, dtype=torch.int32, device="cuda")
        cells = []
        for kind in kinds.values():
            table = SampleTable(vt, [row_of(seed=r, **kind) for r in range(rows)],
                                [[(7 * r + i) % vocab for i in range(1000)] for r in range(rows)])
            num_top = kind.get("num_logprobs", -1)
            outputs = vt.sample_outputs(rows, num_top)
            calls = [lambda x=x: vt.sample(x, table, row_index, num_top, None, outputs)
                     for x in sets]
            cells.append(f"{graph_us(vt, calls, 1):.1f}")
        print(f"| {rows} x {vocab} | {rows * vocab * 4 / bandwidth / 1e3:.1f} | "
              + " | ".join(cells) + " |", flush=True)


PARTS = {
    "linear": linear_times,
    "large-linear": large_linear_times,
    "wgmma-linear": wgmma_linear_times,
    "layer": lambda vt, bandwidth: layer_times(vt, bandwidth, graph_us),
    "launches": lambda vt, bandwidth: kernel_times(vt, bandwidth, graph_us),
    "attention": attention_times,
    "prefill": prefill_times,
    "sample": sample_times,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", default=next(iter(glob.glob(str(ROOT / "build/*/libvt_cuda.so"))), None))
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--parts", default=",".join(PARTS), help="what is timed, in this order")
    options = parser.parse_args()
    if options.library is None:
        sys.exit("no libvt_cuda.so under build/: run npm run build:cuda, or pass --library")
    if not torch.cuda.is_available():
        sys.exit("bench-gpu.py needs an NVIDIA GPU")
    vt = VtCuda(options.library)
    if not options.no_check and check.run(vt, check.GROUPS, show_good=False) != 0:
        sys.exit(1)
    a = torch.randn(8192, 8192, device="cuda").bfloat16()
    for _ in range(50):
        a @ a  # out of the idle clocks
    bandwidth = read_bandwidth()
    print(f"\n{torch.cuda.get_device_name()}, read bandwidth {bandwidth:.0f} GB/s")
    for part in options.parts.split(","):
        PARTS[part](vt, bandwidth)
    print(f"\nread bandwidth again: {read_bandwidth():.0f} GB/s")


if __name__ == "__main__":
    main()
