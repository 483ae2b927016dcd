"""The linear of logits that leaves out those of rows that need one id alone, and sample behind it,
against the two apart: every answer bit for bit, whatever else is in the batch, and which logits are
written."""

import torch

from sample_table import SampleTable, row_of
from vt_cuda import VtCuda

KINDS = ({}, {"temperature": 0.6}, {"temperature": 0.8, "min_p": 0.04},
         {"temperature": 0.6, "top_k": 20, "top_p": 0.95}, {"repetition_penalty": 1.2},
         {"num_logprobs": 3}, {"temperature": 1e-6, "top_p": 0.5},
         {"stop_ids": [1, 2], "min_tokens": 9}, {"stop_ids": [1, 2], "min_tokens": 2},
         {"temperature": 1.0}, {"temperature": 0.05})
BATCHES = {"greedy": (0,), "temperature": (1, 9, 10), "both": (0, 1), "mixed": range(len(KINDS))}


def is_told(kind, num_top) -> bool:
    """Whether such a row needs the greatest logit alone."""
    return kind in (0, 6, 8) or (kind == 5 and num_top < 0)


def rows_of_x(weight, m, dtype, generator):
    """Some whose best ids are equal (made so below), or whose logits are all zero or not fit."""
    k = weight.shape[1]
    x = torch.randn(m, k, device="cuda", generator=generator).to(dtype)
    for row in (3, 16):
        x[row] = weight[77] * 30
    for row in (4, 17, 40):
        x[row] = 0
    x[5, k // 2] = x[18, 3] = float("nan")
    x[6, 9] = x[41] = float("inf")
    return x


def batch_of(vt, m, vocab, kinds):
    """m rows of these kinds by turns, some of them padding, finished, or judged: (table, row_of, judged)"""
    params = [row_of(seed=r * 77 + 5, **KINDS[kinds[r % len(kinds)]]) for r in range(m)]
    histories = [[(7 * r + i) % vocab for i in range(5)] for r in range(m)]
    table = SampleTable(vt, params, histories, finished=[int(r % 29 == 28) for r in range(m)])
    rows = torch.arange(m, dtype=torch.int32, device="cuda")
    rows[7::13] = -1
    judged = torch.full((m,), -1, dtype=torch.int32, device="cuda")
    judged[11::31] = 5
    return table, rows, judged


def same_answers(vt, x, weight, kinds, num_top):
    m, vocab = len(x), len(weight)
    table, rows, judged = batch_of(vt, m, vocab, kinds)
    logits = torch.empty(m, vocab, device="cuda")
    vt.linear(logits, x, weight, large=2)
    wanted = vt.sample(logits, table, rows, num_top, judged)

    left = float("-inf")
    out, answers = torch.full_like(logits, left), vt.sample_outputs(m, num_top)
    num_best = vt.linear_num_best(out, x, weight, large=2)
    best = torch.full((m + 1, max(1, num_best)), 7, dtype=torch.int64, device="cuda")
    sampler = {**vt.sample_fields(out, table, rows, num_top, judged), **answers, "best": best,
               "num_best": num_best}
    vt.linear_for_sample(out, x, weight, sampler)
    vt.call("vt_cuda_sample", "VtCudaSample", **sampler)
    same = all(torch.equal(wanted[name].view(torch.uint8), answers[name].view(torch.uint8))
               for name in wanted)
    same &= num_best > 0 and bool((best[m] == 7).all())
    for r in range(m):
        idle = rows[r] < 0 or r % 29 == 28
        told = is_told(kinds[r % len(kinds)], num_top) and judged[r] < 0
        kept = out[r].view(torch.int32)
        expected = torch.full_like(out[r], left) if idle or told else logits[r]
        same &= torch.equal(kept, expected.view(torch.int32))
    return same


def check(vt: VtCuda, report):
    if not vt.has_wgmma:
        return
    for dtype, vocab, k in ((torch.bfloat16, 151936, 1024), (torch.bfloat16, 128256, 2048),
                            (torch.float16, 49152, 576), (torch.bfloat16, 32008, 256)):
        generator = torch.Generator(device="cuda").manual_seed(vocab)
        weight = (torch.randn(vocab, k, device="cuda", generator=generator) * k**-0.5).to(dtype)
        for i in (13, vocab // 2, vocab - 5, 1037):
            weight[i] = weight[77]
        for m in (65, 128, 129, 256):
            x = rows_of_x(weight, m, dtype, generator)
            for name, kinds in BATCHES.items():
                same = all(same_answers(vt, x, weight, kinds, num_top)
                           for num_top in ((-1, 3) if name == "mixed" else (-1,)))
                report(f"best ids {dtype} {m} x {vocab}, {name}", 0.0, 1.0, same)
