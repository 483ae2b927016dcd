"""Collectives on 2 to 8 GPUs of one host, a process each:

    python check_collective.py LIBRARY [--ranks 2] [--parts bits,sample,..] [--limit 60]

bits: sums of every way against the sum in rank order, bit for bit, and against float64; norms
against vt_cuda_rms_norm. sample: sharded rows against vt_cuda_sample. stress: a graph of dependent
collectives, replayed, each replay with other numbers. times: us alone in a graph, beside NCCL and
torch's symmetric memory. splits: the same by blocks a row. chain: what one costs between two
linears. fault: one rank stays away. A part that fails or hangs ends its processes, and the next one
is run; parts joined by + share processes."""

import argparse
import os
import statistics
import sys
import tempfile
import time
import traceback

import numpy as np
import torch
import torch.multiprocessing as mp

sys.path.insert(0, os.path.dirname(__file__))
import check_sample  # noqa: E402
from check_sample import i32  # noqa: E402
from ranks import BF16, F32, MEETINGS, Rank  # noqa: E402
from sample_table import SampleTable  # noqa: E402
from vt_cuda import DEPENDENT  # noqa: E402

ONE_SHOT, TWO_SHOT = 1, 2


def bits(tensor):
    return tensor.contiguous().view(torch.int32 if tensor.element_size() == 4 else torch.int16)


def part_of(rank, seed, rows, columns):
    g = torch.Generator(device="cuda").manual_seed(seed * 64 + rank)
    return torch.randn(rows, columns, device="cuda", generator=g)


def rounded(seed, rows, columns, dtype):
    return part_of(63, seed, rows, columns).to(dtype)


class Report:
    def __init__(self, rank):
        self.rank, self.bad, self.good = rank, 0, 0

    def __call__(self, name, fine, note=""):
        self.good += bool(fine)
        self.bad += not fine
        if not fine or (self.rank == 0 and note):
            print(f"{'ok ' if fine else 'BAD'} rank {self.rank} {name} {note}".rstrip(), flush=True)


def bits_part(r: Rank, report):
    cases = [(rows, columns, way)
             for columns in (16, 576, 1024, 2048, 4096, 5120, 8192, 16384)
             for rows, ways in ((1, (1, 2, 0)), (2, (1, 2)), (7, (1, 2)), (16, (1, 2)), (33, (0, 2)),
                                (64, (0, 2)), (257, (0,)), (2048, (0,)))
             for way in ways if rows * columns <= 1 << 23]
    # The last one takes two launches.
    cases += [(100, 4096, 1), (3000, 4096, 0)]
    for start in (1, (1 << 32) - 5):
        r.meet()
        r.set_epoch(start)
        for seed, (rows, columns, way) in enumerate(cases if start == 1 else cases[::5]):
            dtype = torch.float16 if seed % 5 == 4 else BF16
            r.free()
            x, out = r.tensor(rows, columns, F32), r.tensor(rows, columns, dtype)
            norm, residual = r.tensor(rows, columns, dtype), r.tensor(rows, columns, dtype)
            parts = [part_of(rank, seed, rows, columns) for rank in range(r.num_ranks)]
            bias = rounded(seed + 1, 1, columns, dtype)[0] if seed % 3 == 0 else None
            weight = rounded(seed + 2, 1, columns, dtype)[0]
            x.copy_(parts[r.rank])
            out.fill_(7), norm.fill_(7)
            residual.copy_(rounded(seed, rows, columns, dtype))
            adds = seed % 4 != 1
            in_place = adds and seed % 4 == 2
            if in_place:
                out.copy_(residual)
            want, exact = parts[0].clone(), sum(p.double() for p in parts)
            for part in parts[1:]:
                want += part
            for more in ([bias] if bias is not None else []) + ([residual] if adds else []):
                want += more.float()
                exact = exact + more.double()
            want = want.to(dtype)
            has_norm = seed % 3 != 1
            r.all_reduce(out, x, bias=bias, residual=None if not adds else out if in_place else residual,
                         norm_out=norm if has_norm else None, norm_weight=weight if has_norm else None,
                         way=way, op_index=seed, split=(0, 1, 8, 2)[seed % 4])
            x.fill_(9)  # nobody may be reading it any more
            same = torch.equal(bits(out), bits(want))
            error = ((out.double() - exact).norm() / exact.norm()).item()
            name = f"{dtype} {rows} x {columns}, way {way}, from epoch {start}"
            if not same:
                report(f"sum {name}", False, f"{(bits(out) != bits(want)).sum().item()} differ")
            report(f"sum {name}", same and error < 4e-3)
            if has_norm:
                wanted = torch.empty_like(want)
                r.vt.rms_norm(wanted, want, weight, 1e-5)
                report(f"norm {name}", torch.equal(bits(norm), bits(wanted)))
    report("bits", True, f"{report.good} cases, {report.bad} wrong")


def sample_part(r: Rank, report):
    """Rows sampled by all ranks, each with some columns, against all columns on one."""
    rng = np.random.default_rng(3)
    r.set_epoch(1)
    tokens = i32(range(500, 600))
    for vocab, edits, num_top in ((128256, False, -1), (128256, True, -1), (1025, True, 3), (49152, True, 5),
                                  (3, False, 0)):
        columns = (vocab + 1024 * r.num_ranks - 1) // (1024 * r.num_ranks) * 1024
        count = 44
        logits = check_sample.random_logits(rng, count, vocab)
        rows, histories = zip(*(check_sample.random_row(rng, row, edits) for row in logits))
        for i, row in enumerate(rows):
            if i % 2:  # told by one candidate
                row.update(min_p=0.0, top_k=0, top_p=1.0)
            if num_top >= 0 and i % 3 == 0:
                row["num_logprobs"] = num_top
        judged = i32([i % vocab if num_top >= 0 and i % 11 == 5 else -1 for i in range(count)])
        device = torch.from_numpy(logits).cuda()
        table = SampleTable(r.vt, rows, histories, [int(i % 13 == 7) for i in range(count)])
        row_of = i32([-1 if i % 17 == 3 else i for i in range(count)])
        want = r.vt.sample(device, table, row_of, num_top, judged)
        begin = r.rank * columns
        part = torch.full((count, columns), 1e30, device="cuda")
        width = max(0, min(columns, vocab - begin))
        part[:, :width] = device[:, begin:begin + width]
        room = torch.full((count, (vocab + 3) // 4 * 4), -5.0, device="cuda")[:, :vocab]
        got = r.sample(part, room, table, row_of, tokens, num_top, judged)
        for name in want:
            differ = (got[name].view(torch.uint8) != want[name].view(torch.uint8)).sum().item()
            report(f"sample {vocab} ids, edits {edits}, top {num_top}: {name}", differ == 0,
                   f"{differ} bytes differ" if differ else "")
        alone = [r.sample(part[i:i + 1], room[i:i + 1], table, row_of[i:i + 1], tokens)["token_ids"].item()
                 for i in range(1, count, 2)]
        report(f"sample {vocab} ids: alone", num_top >= 0 or alone == want["token_ids"][1::2].tolist())
    report("sample", r.failure() is None, f"{report.good} right, {report.bad} wrong")
    if r.rank == r.num_ranks - 1:
        tokens[3] += 1
    r.sample(part, room, table, row_of, tokens, op_index=17)
    report("another token on one rank", r.failure() == (r.num_ranks - 1, 17), f"named: {r.failure()}")


def captured(queue, before=None):
    """A graph of what `queue` queues; run once before, as kernels load lazily."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        (before or queue)()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        queue()
    return graph


def stress_part(r: Rank, report, replays=300):
    """x of each collective is made of the sum before, scaled by what each rank makes of it."""
    shapes = [(1, 4096, 0), (1, 4096, 2), (4, 4096, 1), (64, 4096, 0), (3, 1024, 1), (3, 1024, 2),
              (300, 2048, 2), (1, 8192, 1)] * 3
    scale = [(rank + 1) / 8 for rank in range(r.num_ranks)]
    r.free()
    tensors = [(r.tensor(m, n, F32), r.tensor(m, n, BF16), r.tensor(m, n, BF16)) for m, n, _ in shapes]
    state = torch.zeros(1, device="cuda")
    weights = {n: rounded(5, 1, n, BF16)[0] for _, n, _ in shapes}
    r.vt.flags = DEPENDENT

    def queue():
        r.ordinal = 0
        last = state
        for (x, out, norm), (m, n, way) in zip(tensors, shapes):
            ramp = torch.arange(m * n, device="cuda", dtype=F32).view(m, n) % 977
            torch.mul(ramp + last.flatten()[0].float(), scale[r.rank], out=x)
            r.all_reduce(out, x, norm_out=norm, norm_weight=weights[n], way=way)
            x.fill_(-1)
            last = norm

    graph = captured(queue)
    r.set_epoch(r.epoch + 2 * len(shapes))
    wrong = 0
    for i in range(replays):
        state.fill_(float(i % 50))
        # Ranks do not come at the same time.
        if (i * 7 + r.rank) % 5 == 0:
            torch.cuda._sleep(200_000 * (1 + i % 3))
        graph.replay()
        r.set_epoch(r.epoch + len(shapes))
        last = state
        for (_, out, norm), (m, n, _) in zip(tensors, shapes) if i % 10 == 0 else ():
            ramp = torch.arange(m * n, device="cuda", dtype=F32).view(m, n) % 977
            x = ramp + last.flatten()[0].float()
            want = x * scale[0]
            for factor in scale[1:]:
                want += x * factor
            wrong += (bits(out) != bits(want.to(BF16))).sum().item()
            last = norm
    r.vt.flags = 0
    report("stress", wrong == 0 and r.failure() is None,
           f"{replays} replays of {len(shapes)} collectives: {wrong} values differ, {r.failure()}")


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
    the same without all-reduce, the norm in front of the first linear."""
    inner = 14336 // r.num_ranks
    layers = 16
    g = torch.Generator(device="cuda").manual_seed(1)
    make = lambda n, k: (torch.randn(n, k, device="cuda", generator=g) * k**-0.5).to(BF16)
    ups, downs = [make(2 * inner, 4096) for _ in range(layers)], [make(4096, inner) for _ in range(layers)]
    weight = torch.ones(4096, device="cuda", dtype=BF16)
    r.vt.flags = DEPENDENT
    rows_of = (1, 2, 4, 8, 32, 64)
    lines = []
    for rows in rows_of:
        r.free()
        x, out, norm, residual, other = (r.tensor(rows, 4096, t) for t in (F32, BF16, BF16, BF16, BF16))
        mid = r.tensor(rows, inner, BF16)
        norm.fill_(0.5), residual.fill_(0.5)

        def with_ranks():
            r.ordinal = MEETINGS
            for layer in range(layers):
                r.vt.linear(mid, norm, ups[layer], silu=True)
                r.vt.linear(x, mid, downs[layer])
                r.all_reduce(out, x, residual=residual, norm_out=norm, norm_weight=weight)

        def without():
            for layer in range(layers):
                fuses = r.vt.linear_fuses(mid, residual, ups[layer], norm_weight=weight, norm_eps=1e-5, silu=True)
                if fuses:
                    r.vt.linear(mid, residual, ups[layer], norm_weight=weight, norm_eps=1e-5, silu=True)
                else:
                    r.vt.rms_norm(norm, residual, weight, 1e-5)
                    r.vt.linear(mid, norm, ups[layer], silu=True)
                r.vt.linear(other, mid, downs[layer], residual=residual)

        def bare():
            for layer in range(layers):
                r.vt.linear(mid, norm, ups[layer], silu=True)
                r.vt.linear(x, mid, downs[layer])

        base, plain = us_of(captured(without), layers, None), us_of(captured(bare), layers, None)
        graph = captured(with_ranks)
        r.set_epoch(r.epoch + MEETINGS + layers)
        r.meet()
        us = us_of(graph, layers, r)
        lines.append(f"| {rows} | {plain:.1f} | {base:.1f} | {us:.1f} ({us - plain:+.1f}, {us - base:+.1f}) |")
    r.vt.flags = 0
    if r.rank == 0:
        print("us a pair of linears | (what the all-reduce adds to bare linears, to linears with norm)")
        print("| rows | bare | norm, residual | all-reduce |")
        print("| --- | --- | --- | --- |")
        print("\n".join(lines), flush=True)
    report("chain", r.failure() is None, str(r.failure() or ""))


def fault_part(r: Rank, report):
    missing = r.num_ranks - 1
    r.free()
    for way in (ONE_SHOT, TWO_SHOT):
        x, out = r.tensor(4, 4096, F32), r.tensor(4, 4096, BF16)
        if way == ONE_SHOT:
            for op in range(3):
                r.all_reduce(out, x, way=way, op_index=op)
            r.meet()
        if r.rank == missing:
            break
        begin = time.perf_counter()
        for op in range(3, 60):
            r.all_reduce(out, x, way=way, op_index=op)
        torch.cuda.synchronize()
        took = time.perf_counter() - begin
        report(f"one rank stays away, way {way}", r.failure() == (missing, 3) and took < 6,
               f"given up and run out after {took:.2f} s: {r.failure()}")
    time.sleep(0.1)


PARTS = {"bits": bits_part, "sample": sample_part, "stress": stress_part, "times": times_part, "splits": splits_part,
         "chain": chain_part, "fault": fault_part}


def run_rank(rank, options, part, path, results):
    report = Report(rank)
    try:
        with torch.inference_mode():
            for name in part.split("+"):
                r = Rank(options.library, rank, options.ranks, f"{path}-{name}", 1 << 28)
                PARTS[name](r, report)
                r.close()
    except Exception:  # noqa: BLE001
        report.bad += 1
        print(f"BAD rank {rank} {part}: {traceback.format_exc(limit=3)}", flush=True)
    results[rank] = report.bad + 1
    os._exit(0)  # what other libraries keep must not hold it up


def run_part(options, part, run_rank=run_rank):
    """The number of failures; processes that outlast the limit are killed."""
    context = mp.get_context("spawn")
    results = context.Array("i", options.ranks)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VT_RENDEZVOUS"] = f"file://{folder}/rendezvous"
        ranks = [context.Process(target=run_rank, args=(rank, options, part, f"{folder}/ranks", results))
                 for rank in range(options.ranks)]
        begin = time.perf_counter()
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(max(0.1, options.limit - (time.perf_counter() - begin)))
        late = [process for process in ranks if process.is_alive()]
        for process in late:
            process.kill()
            process.join()
    bad = sum(result - 1 if result else 1 for result in results)
    print(f"== {part}: {'ok' if bad == 0 else f'{bad} failures'}"
          f"{', killed after the limit' if late else ''}, {time.perf_counter() - begin:.1f} s", flush=True)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--limit", type=float, default=60, help="seconds a part")
    options = parser.parse_args()
    bad = sum(run_part(options, part) for part in options.parts.split(","))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
