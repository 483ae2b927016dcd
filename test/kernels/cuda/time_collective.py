"""Times of collectives on the GPUs of a host, as parts of check_collective.py: alone in a graph, beside
NCCL and torch's symmetric memory, by blocks a row, between two linears; and of sampling."""

import ctypes
import os
import statistics

import torch

from rank_processes import captured
from ranks import BF16, F32, MEETINGS, SENT, Rank
from sample_table import SampleTable, row_of
from vt_cuda import DEPENDENT

ONE_SHOT, TWO_SHOT = 1, 2


def us_of(graph, count, r, repeats=20):
    """Median over replays; those with collectives (`r` given) are begun by all ranks together, and
    their first has ordinal MEETINGS."""
    times = []
    for _ in range(repeats):
        if r is not None:
            flags, r.vt.flags = r.vt.flags, 0
            r.meet_on_device()
            r.vt.flags = flags
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if r is not None:
            r.set_epoch(r.epoch + MEETINGS + count)
        times.append(begin.elapsed_time(end) * 1e3 / count)
    return statistics.median(times)


def time_of(r, rows, way, split=0, columns=4096, count=64):
    """us of an all-reduce of so many dependent ones, or None where it cannot be."""
    r.free()
    x, out, norm = (r.tensor(rows, columns, t) for t in (F32, BF16, BF16))
    residual = r.tensor(rows, columns, BF16)
    weight = torch.ones(columns, device="cuda", dtype=BF16)

    def queue():
        r.ordinal = MEETINGS
        for _ in range(count):
            r.all_reduce(out, x, residual=residual, norm_out=norm, norm_weight=weight, way=way, split=split)

    try:
        graph = captured(queue)
    except RuntimeError:
        return None
    count = r.ordinal - MEETINGS
    r.set_epoch(r.epoch + MEETINGS + count)
    r.meet()
    return us_of(graph, count, r)


def times_part(r: Rank, report):
    r.vt.flags = DEPENDENT
    rows_of = (1, 2, 4, 8, 16, 32, 64, 128, 256, 2048)
    found = {(rows, way): time_of(r, rows, way)
             for rows in rows_of for way in (ONE_SHOT, TWO_SHOT)
             if rows <= 256 or way == TWO_SHOT}
    others = {}
    try:
        others = other_libraries(r, rows_of, 64)
    except Exception as error:  # noqa: BLE001
        report("NCCL", True, f"not measured: {error}")
    if r.rank == 0:
        print("| rows of 4096 | KB in bf16 | one-shot + norm | two-shot + norm | NCCL bf16 | symmetric |")
        print("| --- | --- | --- | --- | --- | --- |")
        for rows in rows_of:
            cells = [found.get((rows, 1)), found.get((rows, 2)), others.get(("nccl", rows)),
                     others.get(("symm", rows))]
            print(f"| {rows} | {rows * 8} | "
                  + " | ".join("" if c is None else f"{c:.1f} us" for c in cells) + " |", flush=True)
    r.vt.flags = 0
    report("times", r.failure() is None, str(r.failure() or ""))


def splits_part(r: Rank, report):
    """Few rows, each over 1 to 8 blocks."""
    r.vt.flags = DEPENDENT
    lines = []
    for way in (ONE_SHOT, TWO_SHOT):
        for rows in (1, 4, 8, 16, 32, 64, 128):
            if way == TWO_SHOT and rows < 16:
                continue
            cells = [time_of(r, rows, way, split) for split in (1, 2, 4, 8)]
            lines.append(f"| {way} | {rows} | " + " | ".join("" if c is None else f"{c:.2f}" for c in cells) + " |")
    if r.rank == 0:
        print("| way | rows of 4096 | us, 1 block a row | 2 | 4 | 8 |\n| --- | --- | --- | --- | --- | --- |")
        print("\n".join(lines), flush=True)
    r.vt.flags = 0
    report("splits", r.failure() is None, str(r.failure() or ""))


def other_libraries(r, rows_of, count):
    import torch.distributed as dist
    os.environ["NCCL_NVLS_ENABLE"] = "0"
    os.environ["TORCH_SYMM_MEM_DISABLE_MULTICAST"] = "1"
    dist.init_process_group("nccl", init_method=os.environ["VT_RENDEZVOUS"], rank=r.rank,
                            world_size=r.num_ranks, device_id=torch.device("cuda", r.rank))
    found = {}
    for rows in rows_of:
        t = torch.ones(rows, 4096, device="cuda", dtype=BF16)
        dist.all_reduce(t)
        graph = captured(lambda: [dist.all_reduce(t) for _ in range(count)])
        dist.barrier()
        found["nccl", rows] = us_of(graph, count, None)
    try:
        import torch.distributed._symmetric_memory as symm
        name = dist.group.WORLD.group_name
        for rows in rows_of[:9]:
            t = symm.empty(rows, 4096, device="cuda", dtype=BF16)
            symm.rendezvous(t, group=dist.group.WORLD)
            op = torch.ops.symm_mem.one_shot_all_reduce if rows <= 16 else torch.ops.symm_mem.two_shot_all_reduce_
            graph = captured(lambda: [op(t, "sum", name) for _ in range(count)])
            dist.barrier()
            found["symm", rows] = us_of(graph, count, None)
    except Exception as error:  # noqa: BLE001
        if r.rank == 0:
            print(f"symmetric memory: not measured: {error}", flush=True)
    return found


def chain_part(r: Rank, report):
    """gate and up, down, all-reduce + norm, as in a layer of the 8B shape over these ranks; against
    the same without all-reduce, the norm in front of the first linear. Linears are our own kernels',
    also for 256 rows, which the engine gives to cuBLASLt."""
    inner = 14336 // r.num_ranks
    layers = 16
    g = torch.Generator(device="cuda").manual_seed(1)
    make = lambda n, k: (torch.randn(n, k, device="cuda", generator=g) * k**-0.5).to(BF16)
    ups, downs = [make(2 * inner, 4096) for _ in range(layers)], [make(4096, inner) for _ in range(layers)]
    weight = torch.ones(4096, device="cuda", dtype=BF16)
    r.vt.flags = DEPENDENT
    lines = []
    for rows in (1, 2, 4, 8, 16, 32, 64, 256):
        r.free()
        x, out, norm, residual, other = (r.tensor(rows, 4096, t) for t in (F32, BF16, BF16, BF16, BF16))
        mid, gate_up = r.tensor(rows, inner, BF16), r.tensor(rows, 2 * inner, BF16)
        norm.fill_(0.5), residual.fill_(0.5)

        def up(x, layer, **fused):
            if not r.vt.linear_fuses(mid, x, ups[layer], silu=True, apart=True, **fused):
                if fused:
                    r.vt.rms_norm(norm, x, weight, 1e-5)
                    return up(norm, layer)
                r.vt.linear(gate_up, x, ups[layer], apart=True)
                return r.vt.silu_and_mul(mid, gate_up)
            r.vt.linear(mid, x, ups[layer], silu=True, apart=True, **fused)

        def with_ranks():
            r.ordinal = MEETINGS
            for layer in range(layers):
                up(norm, layer)
                r.vt.linear(x, mid, downs[layer], apart=True)
                r.all_reduce(out, x, residual=residual, norm_out=norm, norm_weight=weight)

        def without():
            for layer in range(layers):
                up(residual, layer, norm_weight=weight, norm_eps=1e-5)
                r.vt.linear(other, mid, downs[layer], residual=residual, apart=True)

        def bare():
            for layer in range(layers):
                up(norm, layer)
                r.vt.linear(x, mid, downs[layer], apart=True)

        def sending():
            r.ordinal = MEETINGS
            for layer in range(layers):
                up(norm, layer)
                r.send_linear(x, mid, downs[layer])
                r.all_reduce(out, x, residual=residual, norm_out=norm, norm_weight=weight, way=SENT)

        base, plain = us_of(captured(without), layers, None), us_of(captured(bare), layers, None)
        def time_of(queue):
            graph = captured(queue)
            r.set_epoch(r.epoch + MEETINGS + layers)
            r.meet()
            us = us_of(graph, layers, r)
            return f"{us:.1f} ({us - plain:+.1f}, {us - base:+.1f})"

        sent = time_of(sending) if r.linear_sends(x, mid, downs[0]) else ""
        lines.append(f"| {rows} | {plain:.1f} | {base:.1f} | {time_of(with_ranks)} | {sent} |")
    r.vt.flags = 0
    if r.rank == 0:
        print("us a pair of linears | (what the all-reduce adds to bare linears, to linears with norm)")
        print("| rows | bare | norm, residual | all-reduce | parts sent by the linear |")
        print("| --- | --- | --- | --- | --- |")
        print("\n".join(lines), flush=True)
    report("chain", r.failure() is None, str(r.failure() or ""))


SAMPLED = {"greedy": {}, "temperature 0.6": {"temperature": 0.6},
           "0.8, min-p 0.04": {"temperature": 0.8, "min_p": 0.04},
           "0.6, top-k 20, top-p 0.95": {"temperature": 0.6, "top_k": 20, "top_p": 0.95},
           "0.8, top-k 65": {"temperature": 0.8, "top_k": 65},
           "0.8, top-k 1024": {"temperature": 0.8, "top_k": 1024},
           "0.6, top-p 0.9": {"temperature": 0.6, "top_p": 0.9},
           "0.8, top-p 0.9": {"temperature": 0.8, "top_p": 0.9},
           "2, top-p 0.99": {"temperature": 2.0, "top_p": 0.99}}


def sampling_part(r: Rank, report):
    """Rows of each kind over these ranks, beside the sampler with all logits on each."""
    time_rows(r, report, "sampling", SAMPLED)


def logprobs_part(r: Rank, report):
    """The same of rows with 5 logprobs, with room for 32 as in graphs; and with 128."""
    kinds = [name for name in SAMPLED if "top-k" not in name or "top-p" in name]
    for num_logprobs, room in ((5, 32), (128, 128)):
        time_rows(r, report, "logprobs",
                  {f"{name}, {num_logprobs} logprobs": {**SAMPLED[name], "num_logprobs": num_logprobs}
                   for name in kinds}, room)


def time_rows(r: Rank, report, part_name, params_of, num_top=-1, vocab=128256, count=8, rows_of=(1, 16, 256),
              kinds=None):
    """`params_of`: by name, of all rows of a cell; `kinds`: as Rank.sampler's."""
    columns = (vocab + 1024 * r.num_ranks - 1) // (1024 * r.num_ranks) * 1024
    g = torch.Generator(device="cuda").manual_seed(1)
    logits = 4 * torch.randn(256, vocab, device="cuda", generator=g)
    epochs = r.lib.vt_cuda_sample_sharded_epochs(ctypes.c_void_p(r.group), 256, columns)
    report("256 rows in one epoch", epochs == 1 or r.is_nccl, "" if epochs == 1 else f"in {epochs}")
    begin = r.rank * columns
    part = torch.zeros(256, columns, device="cuda")
    part[:, :max(0, vocab - begin)] = logits[:, begin:begin + columns]
    room = torch.empty_like(logits)
    tokens = torch.arange(256, dtype=torch.int32, device="cuda")
    r.vt.flags = DEPENDENT
    lines = []
    for rows in rows_of:
        cells = []
        for params in params_of.values():
            table = SampleTable(r.vt, [row_of(seed=i, **params) for i in range(rows)], [[5]] * rows)
            index = tokens[:rows]
            one = r.vt.sample_outputs(rows, num_top)
            alone = lambda: [r.vt.sample(logits[:rows], table, index, num_top,
                                               outputs=one) for _ in range(count)]
            call, outputs = r.sampler(part[:rows], room[:rows], table, index, tokens[:rows], num_top,
                                      kinds=kinds)

            def with_ranks():
                r.ordinal = MEETINGS
                for _ in range(count):
                    call()

            base = us_of(captured(alone), count, None)
            graph = captured(with_ranks)
            r.set_epoch(r.epoch + MEETINGS + count)
            r.meet()
            cells.append(f"{us_of(graph, count, r):.1f} ({base:.1f})")
            gathered = int((r.rest[:rows] >= 0).sum())
            cells[-1] += f", {gathered} {'searched' if r.is_nccl else 'gathered'}" if gathered else ""
            report(f"{rows} rows {params}", all(torch.equal(outputs[name], one[name]) for name in one))
        lines.append(f"| {rows} | " + " | ".join(cells) + " |")
    r.vt.flags = 0
    if r.rank == 0:
        print(f"| us of rows of {vocab} (one GPU), {part_name} | " + " | ".join(params_of) + " |")
        print("| --- |" + " --- |" * len(params_of))
        print("\n".join(lines), flush=True)
    report(part_name, r.failure() is None, str(r.failure() or ""))
