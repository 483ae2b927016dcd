"""Collectives of 2 to 8 ranks on the GPUs of one host, a process each; more ranks than GPUs share them:

    python check_collective.py LIBRARY [--ranks 2] [--parts bits,sample,..] [--limit 60]

bits: sums of every way against the sum in rank order, bit for bit, and against float64; norms
against vt_cuda_rms_norm. sample: sharded rows against vt_cuda_sample. stress: a graph of dependent
collectives, replayed, each replay with other numbers. times: us alone in a graph, beside NCCL and
torch's symmetric memory. splits: the same by blocks a row. chain: what one costs between two
linears. sampling, logprobs: what rows of each kind cost, beside one GPU. fault: one rank stays away.
sent, sentfault: parts that the linear in front sends: bits, dependent pairs in replayed graphs, a rank
that stays away. best, head: rows whose best ids each rank's head finds: against one GPU, and what head and
sampler cost. A part that fails or hangs ends its processes, and the next one
is run; parts joined by + share processes."""

import argparse
import os
import sys
import time

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(__file__))
import check_sample  # noqa: E402
from best_collective import best_part, head_part  # noqa: E402
from check_sample import i32  # noqa: E402
from rank_processes import captured, run_part  # noqa: E402
from ranks import BF16, F32, Rank  # noqa: E402
from sample_table import SampleTable  # noqa: E402
from sent_collective import sent_fault_part, sent_part  # noqa: E402
from time_collective import (ONE_SHOT, TWO_SHOT, chain_part, logprobs_part, sampling_part,  # noqa: E402
                             splits_part, times_part)
from vt_cuda import DEPENDENT  # noqa: E402


def bits(tensor):
    return tensor.contiguous().view(torch.int32 if tensor.element_size() == 4 else torch.int16)


def part_of(rank, seed, rows, columns):
    g = torch.Generator(device="cuda").manual_seed(seed * 64 + rank)
    return torch.randn(rows, columns, device="cuda", generator=g)


def rounded(seed, rows, columns, dtype):
    return part_of(63, seed, rows, columns).to(dtype)


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
                                  (128256, True, 32), (128256, False, 40), (3, False, 0)):
        columns = (vocab + 1024 * r.num_ranks - 1) // (1024 * r.num_ranks) * 1024
        count = 44
        logits = check_sample.random_logits(rng, count, vocab)
        rows, histories = zip(*(check_sample.random_row(rng, row, edits) for row in logits))
        for i, row in enumerate(rows):
            if i % 2:  # told by one candidate
                row.update(min_p=0.0, top_k=0, top_p=1.0)
            if num_top >= 0 and i % 3 != 1:
                row["num_logprobs"] = num_top if i % 3 == 0 else i % (num_top + 1)
                if i % 5 == 0:
                    row["logprob_ids"] = rng.integers(-3, vocab + 3, (1, 33, 128)[i % 3]).tolist()
        judged = i32([i % vocab if num_top >= 0 and i % 11 == 5 else -1 for i in range(count)])
        device = torch.from_numpy(logits).cuda()
        table = SampleTable(r.vt, rows, histories, [int(i % 13 == 7) for i in range(count)])
        row_of = i32([-1 if i % 17 == 3 else i for i in range(count)])
        named, wanted_named = (torch.full((count, 128), 7.0, device="cuda") for _ in range(2))
        want = r.vt.sample(device, table, row_of, num_top, judged, None, wanted_named)
        begin = r.rank * columns
        part = torch.full((count, columns), 1e30, device="cuda")
        width = max(0, min(columns, vocab - begin))
        part[:, :width] = device[:, begin:begin + width]
        room = torch.full((count, (vocab + 3) // 4 * 4), -5.0, device="cuda")[:, :vocab]
        got = r.sample(part, room, table, row_of, tokens, num_top, judged, named=named)
        for name in [*want, "named"]:
            mine, wanted = (named, wanted_named) if name == "named" else (got[name], want[name])
            differ = (mine.view(torch.uint8) != wanted.view(torch.uint8)).sum().item()
            report(f"sample {vocab} ids, edits {edits}, top {num_top}: {name}", differ == 0,
                   f"{differ} bytes differ" if differ else "")
        alone = [r.sample(part[i:i + 1], room[i:i + 1], table, row_of[i:i + 1], tokens)["token_ids"].item()
                 for i in range(count)]
        report(f"sample {vocab} ids: alone", num_top >= 0 or alone == want["token_ids"].tolist())
    nuclei_of_ranks(r, report, rng)
    equals_of_ranks(r, report, rng)
    report("sample", r.failure() is None, f"{report.good} right, {report.bad} wrong")
    if r.rank == r.num_ranks - 1:
        tokens[3] += 1
    r.sample(part, room, table, row_of, tokens, op_index=17)
    report("another token on one rank", r.failure() == (r.num_ranks - 1, 17), f"named: {r.failure()}")


def nuclei_of_ranks(r: Rank, report, rng, vocab=128256):
    """Rows with top-p alone, from peaked to flat, with ties, masks and penalties: some told by the
    likeliest ids of each rank, some by all logits."""
    columns = (vocab + 1024 * r.num_ranks - 1) // (1024 * r.num_ranks) * 1024
    begin, tokens = r.rank * columns, i32(range(9))
    width = max(0, min(columns, vocab - begin))
    for num_top in (-1, 7, 128):
        count = 60
        logits = rng.standard_normal((count, vocab)).astype(np.float32)
        # Flat, as a model's, and with all of the mass on few ids, which may lie on one rank.
        logits *= np.float32([0.01, 1, 2.5, 4, 8, 30])[np.arange(count) % 6, None]
        logits[1::6, :900] += np.float32(12)
        logits[2::6] = np.round(logits[2::6] * 2) / 2
        logits[3::12, vocab - 50:] += np.float32(20)
        rows, histories = [], []
        for i, row in enumerate(logits):
            params, history = check_sample.random_row(rng, row, edits=i % 4 == 1)
            params.update(min_p=0.0, top_k=(0, vocab, 0)[i % 3], temperature=(0.3, 0.6, 0.8, 1.0, 2.0)[i % 5],
                          top_p=(0.1, 0.5, 0.9, 0.95, 0.999, 0.9999, 1e-9)[i % 7],
                          num_logprobs=num_top if i % 2 else -1)
            rows.append(params), histories.append(history)
        device = torch.from_numpy(logits).cuda()
        table, row_of = SampleTable(r.vt, rows, histories), i32(range(count))
        want = r.vt.sample(device, table, row_of, num_top)
        part = torch.full((count, columns), 1e30, device="cuda")
        part[:, :width] = device[:, begin:begin + width]
        room = torch.full((count, vocab), -5.0, device="cuda")
        got = r.sample(part, room, table, row_of, tokens, num_top)
        differ = {name: (got[name].view(torch.uint8) != want[name].view(torch.uint8)).sum().item() for name in want}
        gathered = int((r.rest[:count] >= 0).sum())  # over NCCL searched; a row may have no id left
        as_told = gathered > count - 5 if r.is_nccl else 5 < gathered < count - 20
        report(f"sample, top-p alone, top {num_top}", not any(differ.values()) and as_told,
               f"{gathered} of {count} rows by all logits; bytes that differ: {differ}")


def equals_of_ranks(r: Rank, report, rng, vocab=128256):
    """Rows with a top-k whose k-th greatest logit many ids have, on one rank or on all: no logits are
    gathered."""
    columns = (vocab + 1024 * r.num_ranks - 1) // (1024 * r.num_ranks) * 1024
    begin, tokens, count = r.rank * columns, i32(range(9)), 60
    width = max(0, min(columns, vocab - begin))
    logits = np.round(rng.standard_normal((count, vocab)) * (np.arange(count) % 4)[:, None]).astype(np.float32)
    logits[1::5, :vocab // 2] = 3
    rows, histories = [], []
    for i, row in enumerate(logits):
        params, history = check_sample.random_row(rng, row, edits=i % 4 == 1)
        params.update(min_p=(0.0, 0.0, 0.3)[i % 3], top_k=(1, 2, 20, 50, 64)[i % 5], temperature=(0.3, 0.8, 2.0)[i % 3],
                      top_p=(1.0, 0.1, 0.5, 0.9, 0.9999)[i // 5 % 5], num_logprobs=3 if i % 2 else -1)
        rows.append(params), histories.append(history)
    device = torch.from_numpy(logits).cuda()
    table, row_of = SampleTable(r.vt, rows, histories), i32(range(count))
    want = r.vt.sample(device, table, row_of, 3)
    part = torch.full((count, columns), 1e30, device="cuda")
    part[:, :width] = device[:, begin:begin + width]
    got = r.sample(part, torch.full((count, vocab), -5.0, device="cuda"), table, row_of, tokens, 3)
    differ = {name: (got[name].view(torch.uint8) != want[name].view(torch.uint8)).sum().item() for name in want}
    gathered = int((r.rest[:count] >= 0).sum())
    report("sample, equals at the end of a top-k", not any(differ.values()) and gathered == 0,
           f"{gathered} of {count} rows by all logits; bytes that differ: {differ}")


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


PARTS = {"bits": bits_part, "sample": sample_part, "stress": stress_part, "fault": fault_part,
         "sent": sent_part, "sentfault": sent_fault_part, "best": best_part, "head": head_part,
         "times": times_part, "splits": splits_part, "chain": chain_part, "sampling": sampling_part,
         "logprobs": logprobs_part}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--limit", type=float, default=60, help="seconds a part")
    options = parser.parse_args()
    bad = sum(run_part(options, part, PARTS) for part in options.parts.split(","))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
