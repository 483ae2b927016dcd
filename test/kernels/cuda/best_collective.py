"""Rows whose best ids each rank's head finds, whose logits it does not write, as parts of
check_collective.py: every answer against one GPU with all logits, bit for bit; and what head and
sampler cost apart, the head by cuBLASLt, and in one."""

import torch

from check_best import BATCHES, batch_of, rows_of_x
from check_library import Library
from rank_processes import captured
from ranks import BF16, F32, MEETINGS, Rank
from sample_table import SampleTable, row_of
from time_collective import us_of
from vt_cuda import DEPENDENT


def shard(r: Rank, weight):
    """This rank's rows of the vocabulary's, filled up with zeros, and how many are ids."""
    vocab, k = weight.shape
    columns = (vocab + 1024 * r.num_ranks - 1) // (1024 * r.num_ranks) * 1024
    own = torch.zeros(columns, k, device="cuda", dtype=weight.dtype)
    part = weight[r.rank * columns:(r.rank + 1) * columns]
    own[:len(part)] = part
    return own, len(part)


def best_of_head(r: Rank, part, x, own, ids, fields):
    """Queues the head; `fields`: as the sampler's; `part`: logits of rows that need them. What the sampler
    gets."""
    num_best = r.vt.linear_num_best(part, x, own, large=2)
    best = torch.full((len(x), max(1, num_best)), 7, dtype=torch.int64, device="cuda")
    queue = lambda: r.vt.linear_for_sample(part, x, own, {**fields, "vocab_size": ids, "best": best,
                                                          "num_best": num_best})
    return queue, best


def best_part(r: Rank, report):
    r.set_epoch(1)
    tokens = torch.arange(100, dtype=torch.int32, device="cuda")
    for dtype, vocab, k in ((BF16, 128256, 512), (BF16, 151936, 256), (torch.float16, 32008, 256), (BF16, 1016, 64)):
        generator = torch.Generator(device="cuda").manual_seed(vocab)
        weight = (torch.randn(vocab, k, device="cuda", generator=generator) * k**-0.5).to(dtype)
        for i in (13, vocab // 2, vocab - 5, 1037):
            weight[i % vocab] = weight[77]
        own, ids = shard(r, weight)
        for m in (65, 130, 256):
            x = rows_of_x(weight, m, dtype, generator)
            logits = torch.empty(m, vocab, device="cuda")
            r.vt.linear(logits, x, weight, large=2)
            for name, kinds in BATCHES.items():
                table, row_of_table, judged = batch_of(r.vt, m, vocab, kinds)
                for num_top in (-1, 3) if name == "mixed" else (-1,):
                    want = r.vt.sample(logits, table, row_of_table, num_top, judged)
                    part = torch.full((m, len(own)), float("nan"), device="cuda")
                    room = torch.full_like(logits, -5.0)
                    fields = r.vt.sample_fields(room, table, row_of_table, num_top, judged)
                    queue, best = best_of_head(r, part, x, own, ids, fields)
                    queue()
                    got = r.sample(part, room, table, row_of_table, tokens, num_top, judged, best=best)
                    differ = {field: (got[field].view(torch.uint8) != want[field].view(torch.uint8)).sum().item()
                              for field in want}
                    told = int((best[:, 0] != 1).sum())
                    report(f"best ids of the head, {dtype} {m} x {vocab}, {name}, top {num_top}",
                           not any(differ.values()) and (told > 0) == (name != "temperature"),
                           f"{told} rows told, bytes that differ: {differ}" if any(differ.values()) else "")
    report("best", r.failure() is None, f"{report.good} right, {report.bad} wrong, {r.failure()}")


SHARES = {"greedy": 4, "3/4": 3, "1/2": 2, "1/4": 1}


def head_part(r: Rank, report, vocab=128256, k=4096, count=4):
    """Of the 8B shape; rows that are not greedy have a temperature of 0.6."""
    generator = torch.Generator(device="cuda").manual_seed(5)
    weight = (torch.randn(vocab, k, device="cuda", generator=generator) * k**-0.5).to(BF16)
    own, ids = shard(r, weight)
    del weight
    x = torch.randn(256, k, device="cuda", generator=generator).to(BF16)
    part, room = torch.empty(256, len(own), device="cuda"), torch.empty(256, vocab, device="cuda")
    library = Library(r.vt)
    library.prepare(256, out=part, x=x, weight=own)
    index = torch.arange(256, dtype=torch.int32, device="cuda")
    r.vt.flags = DEPENDENT
    lines = []
    for m in (72, 96, 128, 144, 160, 192, 208, 256):
        cells = []
        for share in SHARES.values():
            params = [row_of(seed=i, temperature=0.0 if i % 4 < share else 0.6) for i in range(m)]
            table = SampleTable(r.vt, params, [[5]] * m)
            fields = r.vt.sample_fields(room[:m], table, index[:m])
            find, best = best_of_head(r, part[:m], x[:m], own, ids, fields)
            make = lambda: library.run(out=part[:m], x=x[:m], weight=own)
            sampler = lambda best: r.sampler(part[:m], room[:m], table, index[:m], index[:m], best=best)
            graphs, answers = [], []
            for head, (call, outputs) in ((make, sampler(None)), (find, sampler(best))):
                def queue():
                    r.ordinal = MEETINGS
                    for _ in range(count):
                        head(), call()

                graphs.append(captured(queue))
                r.set_epoch(r.epoch + MEETINGS + count)
                r.meet()
                answers.append(outputs)
            us = [[us_of(graph, count, r, 5) for graph in graphs] for _ in range(2)]
            cells.append(", ".join(f"{min(times):.1f}" for times in zip(*us)))
            report(f"head of {m} rows", torch.equal(answers[0]["token_ids"], answers[1]["token_ids"]))
        lines.append(f"| {m} | " + " | ".join(cells) + " |")
    r.vt.flags = 0
    if r.rank == 0:
        print(f"| us of head and sampler, {len(own)} of {vocab} x {k} a rank: apart, in one | " + " | ".join(SHARES)
              + " |\n| --- |" + " --- |" * len(SHARES) + "\n" + "\n".join(lines), flush=True)
    library.close()
    report("head", r.failure() is None, str(r.failure() or ""))
