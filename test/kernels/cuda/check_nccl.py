"""Collectives over NCCL on 2 to 8 GPUs of one host, a process each, against our own kernels':

    python check_nccl.py LIBRARY [--ranks 2] [--parts bits,graph,sample,sampling,..] [--limit 60]

The last part leaves the group in ruins. bits: every sum and norm has the bits that our own kernels
give; gathers have all columns. graph: a graph of dependent collectives, replayed, likewise. sample:
rows of every kind against the sampler with all logits on one. search: those whose threshold is searched
for, over our own kernels too. sampling: what they cost, beside all logits gathered, and beside one GPU.
fault: one rank stays away, and is named. times: us in a graph of each, with --fast-math too, and
what a launch outside of a graph costs the host."""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import check_sample  # noqa: E402
from best_collective import best_part  # noqa: E402
from check_collective import bits, part_of, rounded, sample_part  # noqa: E402
from check_sample import i32  # noqa: E402
from rank_processes import captured, run_part  # noqa: E402
from ranks import BF16, F32, Rank  # noqa: E402
from sample_table import SampleTable  # noqa: E402
from time_collective import SAMPLED, time_rows  # noqa: E402
from vt_cuda import DEPENDENT  # noqa: E402


def groups(r: Rank, name="n", **more):
    """The same ranks once more, over NCCL."""
    path = r.path + name
    n = Rank(r.options.library, r.rank, r.num_ranks, path, 1 << 20, collectives="nccl", **more)
    if r.rank == 0:
        print(n.note, flush=True)
    return n


def bits_part(r: Rank, n: Rank, report):
    for seed, (rows, columns) in enumerate((m, c) for c in (16, 576, 2048, 4096, 8192, 16384)
                                           for m in (1, 2, 3, 7, 64, 65, 257, 2049)
                                           if m * c <= 1 << 23):
        dtype = torch.float16 if seed % 5 == 4 else BF16
        r.free()
        x = r.tensor(rows, columns, F32)
        results = []
        for group in (r, n):
            out, norm = (torch.full((rows, columns), 7, device="cuda", dtype=dtype) for _ in range(2))
            residual = r.tensor(rows, columns, dtype)
            if group is r:  # our own kernels want them in the arena
                out, norm = r.tensor(rows, columns, dtype), r.tensor(rows, columns, dtype)
            x.copy_(part_of(r.rank, seed, rows, columns))
            residual.copy_(rounded(seed, rows, columns, dtype))
            bias = rounded(seed + 1, 1, columns, dtype)[0] if seed % 3 == 0 else None
            in_place = seed % 4 == 2
            if in_place:
                out.copy_(residual)
            group.all_reduce(out, x, bias=bias, residual=out if in_place else residual,
                             norm_out=norm if seed % 3 != 1 else None,
                             norm_weight=rounded(seed + 2, 1, columns, dtype)[0], op_index=seed)
            torch.cuda.synchronize()
            results.append((out.clone(), norm.clone() if seed % 3 != 1 else out))
            r.meet()
        (a, b), (c, d) = results
        wrong = (bits(a) != bits(c)).sum().item() + (bits(b) != bits(d)).sum().item()
        report(f"{rows} x {columns} {dtype}", wrong == 0, f"{wrong} differ" if wrong else "")
    for rows, columns, vocab in ((1, 64512, 128256), (3, 1024, 2000), (300, 16384, 32001), (5, 6, 11)):
        r.free()
        x = r.tensor(rows, columns, F32)
        x.copy_(part_of(r.rank, rows, rows, columns))
        vocab = min(vocab, columns * r.num_ranks)
        out = torch.full((rows, vocab), 7.0, device="cuda")
        n.all_gather(out, x)
        want = torch.cat([part_of(rank, rows, rows, columns) for rank in range(r.num_ranks)], 1)
        report(f"gather {rows} x {columns}", torch.equal(out, want[:, :vocab]))
    report("bits", n.failure() is None, f"{report.good} cases, {report.bad} wrong, {n.failure()}")


def chain(r, group, shapes, tensors, weights, state):
    last = state
    for (x, out, norm), (m, n) in zip(tensors, shapes):
        ramp = torch.arange(m * n, device="cuda", dtype=F32).view(m, n) % 977
        torch.mul(ramp + last.flatten()[0].float(), (r.rank + 1) / 8, out=x)
        group.all_reduce(out, x, norm_out=norm, norm_weight=weights[n])
        x.fill_(-1)
        last = norm
    return last


def graph_part(r: Rank, n: Rank, report, replays=40):
    shapes = [(1, 4096), (4, 4096), (64, 4096), (3, 1024), (300, 2048), (1, 8192)] * 2
    weights = {c: rounded(5, 1, c, BF16)[0] for _, c in shapes}
    state = torch.zeros(1, device="cuda")
    r.free()
    tensors = [(r.tensor(m, c, F32), r.tensor(m, c, BF16), r.tensor(m, c, BF16)) for m, c in shapes]
    n.vt.flags = r.vt.flags = DEPENDENT

    def queue():
        n.ordinal = 0
        chain(n, n, shapes, tensors, weights, state)

    graph = captured(queue)
    wrong = 0
    for i in range(replays):
        state.fill_(float(i % 50))
        if (i * 7 + r.rank) % 5 == 0:
            torch.cuda._sleep(200_000 * (1 + i % 3))
        n.set_epoch(n.epoch + len(shapes))
        graph.replay()
        torch.cuda.synchronize()
        got = [tensor.clone() for _, out, norm in tensors for tensor in (out, norm)]
        r.next_step()
        chain(r, r, shapes, tensors, weights, state)
        torch.cuda.synchronize()
        r.meet()
        want = [tensor for _, out, norm in tensors for tensor in (out, norm)]
        wrong += sum((bits(a) != bits(b)).sum().item() for a, b in zip(got, want))
    n.vt.flags = r.vt.flags = 0
    report("graph", wrong == 0 and n.failure() is None,
           f"{replays} replays of {len(shapes)} collectives: {wrong} values differ, {n.failure()}")


def fault_part(r: Rank, n: Rank, report):
    x, out = r.tensor(4, 4096, F32), r.tensor(4, 4096, BF16)
    for op in range(3):
        n.all_reduce(out, x, op_index=op)
    torch.cuda.synchronize()
    n.meet()
    missing = r.num_ranks - 1
    if r.rank == missing:
        time.sleep(6)
        return
    begin = time.perf_counter()
    try:
        for op in range(3, 6):
            n.all_reduce(out, x, op_index=op)
    except RuntimeError as error:
        print(f"a call ended: {error}", flush=True)
    while n.failure() is None and time.perf_counter() - begin < 8:
        time.sleep(0.01)
    took = time.perf_counter() - begin
    report("one rank stays away", n.failure() == (missing, 3) and took < 5,
           f"given up after {took:.2f} s: {n.failure()}")
    try:
        torch.cuda.synchronize()
        print(f"the device ran out after {time.perf_counter() - begin:.2f} s", flush=True)
    except RuntimeError as error:
        print(f"the device: {str(error).splitlines()[0]}", flush=True)


def times_part(r: Rank, n: Rank, report):
    fast = groups(r, "f", fast_math=True)
    count = 32
    lines = []
    for rows in (1, 8, 64, 256, 2048):
        cells = []
        for group in (r, n, fast):
            group.vt.flags = DEPENDENT
            r.free()
            x, out, norm, residual = (r.tensor(rows, 4096, t) for t in (F32, BF16, BF16, BF16))
            weight = torch.ones(4096, device="cuda", dtype=BF16)

            def queue():
                group.ordinal = 0
                for _ in range(count):
                    group.all_reduce(out, x, residual=residual, norm_out=norm, norm_weight=weight)

            graph = captured(queue)
            times = []
            for _ in range(10):
                group.set_epoch(group.epoch + count)
                r.meet()
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                graph.replay()
                end.record()
                end.synchronize()
                times.append(begin.elapsed_time(end) * 1e3 / count)
            group.set_epoch(group.epoch + count)
            group.vt.flags = 0
            cells.append(statistics.median(times))
        n.set_epoch(n.epoch + 1)
        r.meet()
        begin = time.perf_counter()
        for _ in range(16):
            n.all_reduce(out, x, residual=residual, norm_out=norm, norm_weight=weight)
        host = (time.perf_counter() - begin) / 16 * 1e6
        n.set_epoch(n.epoch + 16)
        lines.append(f"| {rows} | " + " | ".join(f"{us:.1f}" for us in cells) + f" | {host:.0f} |")
    if r.rank == 0:
        print("us a sum + norm | rows of 4096 | ours | NCCL, our order | NCCL adds | host, no graph |")
        print("\n".join(lines), flush=True)
    report("times", n.failure() is None and fast.failure() is None, "")


def sample_part_over_nccl(r: Rank, n: Rank, report):
    sample_part(groups(r, "s"), report)


def best_part_over_nccl(r: Rank, n: Rank, report):
    best_part(groups(r, "b"), report)


def search_part(r: Rank, n: Rank, report, vocab=128256):
    """Rows of every kind that a search answers, over NCCL and over our own kernels, against one GPU."""
    columns = (vocab + 1024 * r.num_ranks - 1) // (1024 * r.num_ranks) * 1024
    begin, width = r.rank * columns, max(0, min(columns, vocab - r.rank * columns))
    rng = np.random.default_rng(7)
    kinds = [{"min_p": 0.04}, {"min_p": 0.3, "top_p": 0.9}, {"top_p": 0.9}, {"top_p": 0.9999}, {"top_p": 1e-9},
             {"top_k": 65}, {"top_k": 1000}, {"top_k": 65, "top_p": 0.5}, {"top_k": 5000, "top_p": 0.95},
             {"top_k": 20, "top_p": 0.95}, {}, {"top_k": vocab, "top_p": 0.99}, {"min_p": 0.001, "top_k": 300}]
    for rows in (1, 7, 64, 256):
        logits = rng.standard_normal((rows, vocab)).astype(np.float32)
        logits *= np.float32([4, 1, 0.01, 8, 2])[np.arange(rows) % 5, None]
        logits[3::7] = np.round(logits[3::7] * 4) / 4
        logits[4::7] *= np.float32(1e-30)  # floats are dense there
        if rows > 7:
            logits[20, 100], logits[21, vocab - 1], logits[22] = np.nan, np.inf, -np.inf
            logits[24, [7, 90000]] = 1e34  # over its temperature there is no end of it
        params, histories = [], []
        for i in range(rows):
            row, history = check_sample.random_row(rng, logits[i], edits=i % 4 == 1)
            row.update({"min_p": 0.0, "top_k": 0, "top_p": 1.0, **kinds[(i + rows) % len(kinds)]})
            row.update(temperature=2e-5 if i == 24 else (0.3, 0.6, 0.8, 1.0, 2.0)[i % 5],
                       num_logprobs=5 if i % 3 == 0 else -1)
            params.append(row), histories.append(history)
        device, table, row_of = torch.from_numpy(logits).cuda(), SampleTable(r.vt, params, histories), i32(range(rows))
        want = r.vt.sample(device, table, row_of, 5)
        part = torch.full((rows, columns), 1e30, device="cuda")
        part[:, :width] = device[:, begin:begin + width]
        room = torch.full((rows, vocab), -5.0, device="cuda")
        for group, name in ((n, "NCCL"), (r, "our own kernels")):
            got = group.sample(part, room, table, row_of, row_of, 5)
            differ = {key: (got[key].view(torch.uint8) != want[key].view(torch.uint8)).sum().item() for key in want}
            wrong = any(differ.values())
            report(f"{rows} rows searched, {name}", not wrong, f"bytes that differ: {differ}" if wrong else "")
    report("search", n.failure() is None, f"{report.good} right, {report.bad} wrong")


SAMPLED_TOO = {"0.8, top-k 64": {"temperature": 0.8, "top_k": 64}}
KINDS = {**{name: SAMPLED[name] for name in ("greedy", "temperature 0.6", "0.8, min-p 0.04",
                                             "0.6, top-k 20, top-p 0.95", "0.6, top-p 0.9",
                                             "2, top-p 0.99", "0.8, top-k 1024")}, **SAMPLED_TOO,
         "0.6, top-k 100, top-p 0.9": {"temperature": 0.6, "top_k": 100, "top_p": 0.9}}


def sampling_part(r: Rank, n: Rank, report):
    """Of rows of one kind; with logprobs in the graph that has room for 32, as the engine's."""
    rows = (1, 7, 64, 256)
    time_rows(n, report, "sampling", KINDS, rows_of=rows)
    logprobs = {f"{name}, 5 logprobs": {**params, "num_logprobs": 5}
                for name, params in KINDS.items() if "top-k" in name or "top-p" not in name}
    time_rows(n, report, "logprobs", logprobs, 32, rows_of=rows)
    n.gathers = True
    time_rows(n, report, "all logits of all rows gathered", KINDS, rows_of=rows)
    n.gathers = False


PARTS = {"bits": bits_part, "graph": graph_part, "search": search_part, "sample": sample_part_over_nccl,
         "best": best_part_over_nccl,
         "sampling": sampling_part, "times": times_part, "fault": fault_part}


def run_parts(r: Rank, report):
    n = groups(r)
    for name in r.options.parts.split(","):
        begin = time.perf_counter()
        PARTS[name](r, n, report)
        if r.rank == 0:
            print(f"-- {name}: {time.perf_counter() - begin:.1f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--limit", type=float, default=60, help="seconds for all")
    options = parser.parse_args()
    sys.exit(1 if run_part(options, "nccl", {"nccl": run_parts}) else 0)


if __name__ == "__main__":
    main()
