"""Collectives whose parts the linear in front sends, as parts of check_collective.py: bits against the
two apart, dependent pairs in replayed graphs, and a rank that stays away."""

import time

import torch

from rank_processes import captured
from ranks import BF16, F32, SENT, Rank
from vt_cuda import DEPENDENT


def random(seed, rows, columns, dtype, scale=1.0):
    g = torch.Generator(device="cuda").manual_seed(seed)
    return (torch.randn(rows, columns, device="cuda", generator=g) * scale).to(dtype)


def same(a, b):
    return torch.equal(a.contiguous().view(torch.int16), b.contiguous().view(torch.int16))


def sent_part(r: Rank, report):
    """Each shape alone; then a chain."""
    shapes = [(rows, n, k) for n, k in ((4096, 2048), (4096, 7168), (2048, 512), (16, 64), (1040, 4096), (8192, 1024))
              for rows in (1, 2, 3, 4, 5, 8, 9, 13, 16)]
    r.meet()
    sending = 0
    for seed, (rows, n, k) in enumerate(shapes):
        dtype = torch.float16 if seed % 5 == 4 else BF16
        r.free()
        weight = random(100 * seed + r.rank, n, k, dtype, k**-0.5)
        x = random(7 * seed + r.rank, rows, k, dtype)
        sums = r.tensor(rows, n, F32)
        bias = random(seed, 1, n, dtype)[0] if seed % 3 == 0 else None
        residual = random(seed + 1, rows, n, dtype) if seed % 4 != 1 else None
        norm_weight = random(seed + 2, 1, n, dtype)[0] if seed % 7 != 3 else None
        results = []
        r.vt.flags = DEPENDENT if seed % 2 else 0
        may = r.linear_sends(sums, x, weight)
        sending += may
        for way in (0, SENT) if may else (0,):
            out, norm = r.tensor(rows, n, dtype), r.tensor(rows, n, dtype)
            out.fill_(7), norm.fill_(7), sums.fill_(-3)
            if way == SENT:
                r.send_linear(sums, x, weight)
            else:
                r.vt.linear(sums, x, weight, apart=True)
            r.all_reduce(out, sums, bias=bias, residual=residual, way=way, op_index=seed, norm_weight=norm_weight,
                         norm_out=None if norm_weight is None else norm)
            results.append((out, norm))
        torch.cuda.synchronize()
        for out, norm in results[1:]:
            report(f"{dtype} {rows} x {n} x {k}", same(out, results[0][0]) and same(norm, results[0][1]))
    r.vt.flags = 0
    report("sent", r.failure() is None and sending > 0, f"{sending} of {len(shapes)} shapes sent, {report.bad} wrong")
    for rows in (1, 2, 8, 16):
        chain(r, report, rows)


def chain(r: Rank, report, rows, layers=12, replays=60):
    """up, down, all-reduce + norm, up, ..: each replay's result against that of the same without sending."""
    inner = 14336 // r.num_ranks // 4
    r.meet()
    r.free()
    ups = [random(9 * layer + r.rank, inner, 4096, BF16, 4096**-0.5) for layer in range(3)]
    downs = [random(11 * layer + r.rank + 50, 4096, inner, BF16, inner**-0.5) for layer in range(3)]
    weight = random(5, 1, 4096, BF16)[0]
    start = torch.zeros(rows, 4096, device="cuda", dtype=BF16)
    sums, norm, residual = (r.tensor(rows, 4096, t) for t in (F32, BF16, BF16))
    mid = r.tensor(rows, inner, BF16)
    r.vt.flags = DEPENDENT

    def queue(way):
        r.ordinal = 0
        norm.copy_(start), residual.copy_(start)
        for layer in range(layers):
            r.vt.linear(mid, norm, ups[layer % 3], apart=True)
            if way == SENT:
                r.send_linear(sums, mid, downs[layer % 3])
            else:
                r.vt.linear(sums, mid, downs[layer % 3], apart=True)
            r.all_reduce(residual, sums, residual=residual, norm_out=norm, norm_weight=weight, way=way, op_index=layer)

    graphs = []
    for way in (0, SENT):
        r.meet()
        graphs.append(captured(lambda: queue(way)))
        r.set_epoch(r.epoch + layers)
    wrong = 0
    for i in range(replays):
        start.copy_(random(1000 + i, rows, 4096, BF16))
        results = []
        for graph in graphs:
            # Ranks do not come at the same time.
            if (i * 7 + r.rank) % 5 == 0:
                torch.cuda._sleep(100_000 * (1 + i % 3))
            graph.replay()
            r.set_epoch(r.epoch + layers)
            results.append((norm.clone(), residual.clone()))
        wrong += sum(not same(a, b) for a, b in zip(results[0], results[-1]))
    r.vt.flags = 0
    report(f"chain of {rows}", wrong == 0 and r.failure() is None,
           f"{replays} replays of {layers} pairs: {wrong} differ, {r.failure()}")


def sent_fault_part(r: Rank, report):
    missing = r.num_ranks - 1
    r.free()
    rows, k = 2, 1024
    weight, x = random(r.rank, 4096, k, BF16, k**-0.5), random(r.rank, rows, k, BF16)
    sums, out = r.tensor(rows, 4096, F32), r.tensor(rows, 4096, BF16)
    r.vt.flags = DEPENDENT

    def pair(op):
        r.send_linear(sums, x, weight)
        r.all_reduce(out, sums, way=SENT, op_index=op)

    for op in range(3):
        pair(op)
    r.meet()
    begin = time.perf_counter()
    if r.rank != missing:
        for op in range(3, 60):
            pair(op)
        torch.cuda.synchronize()
        took = time.perf_counter() - begin
        report("one rank stays away, sent", r.failure() == (missing, 3) and took < 6,
               f"given up and run out after {took:.2f} s: {r.failure()}")
    time.sleep(0.1)
