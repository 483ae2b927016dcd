"""The wgmma kernels of prefill attention against float64, and bit for bit against mma.sync's and
against decode: `python check_prefill.py LIBRARY 1` checks one kernel alone."""

import torch

import alone
from check_attention import Case
from vt_cuda import VtCuda

KERNELS = {1: "overlap", 2: "turns"}


def compare(vt: VtCuda, case, spans, prefill):
    """The worst error, and whether the bits are those of mma.sync."""
    wanted = case.run(vt, spans)
    got = case.run(vt, spans, prefill=prefill)
    again = case.run(vt, spans, prefill=prefill)
    error = 0.0
    for rows, span in zip(got, spans):
        exact = case.expected(*span)
        relative = ((rows.double() - exact).norm() / exact.norm()).item()
        error = max(error, relative if relative == relative else float("inf"))
    return error, all(torch.equal(a, b) and torch.equal(b, c)
                      for a, b, c in zip(wanted, got, again))


def refuses(vt, prefill):
    case = Case([70], None, 8, 2, 64, torch.bfloat16)
    try:
        case.run(vt, [(0, 0, 70)], prefill=prefill)
    except RuntimeError as error:
        return "prefill" in str(error)
    return False


def check(vt: VtCuda, report, kernels=tuple(KERNELS)):
    if not vt.has_wgmma:
        report("prefill by wgmma: refused by name on this target", 0.0, 1.0,
               all(refuses(vt, prefill) for prefill in kernels))
        return
    for prefill in kernels:
        name = f"prefill {KERNELS[prefill]}"
        for dtype, limit in ((torch.bfloat16, 6e-3), (torch.float16, 8e-4)):
            for heads, kv_heads, dim, block, window in ((32, 8, 128, 16, 0), (32, 8, 64, 16, 0),
                                                        (9, 3, 64, 32, 0), (4, 4, 128, 16, 0),
                                                        (16, 1, 128, 64, 0), (14, 2, 64, 16, 0),
                                                        (8, 2, 128, 16, 100), (8, 2, 64, 16, 1)):
                lens = [1, 16, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 640, 1000]
                case = Case(lens, None, heads, kv_heads, dim, dtype, block, window)
                error, same = compare(vt, case, [(r, 0, n) for r, n in enumerate(lens)], prefill)
                # Later chunks, some of a row beside its own decode.
                spans = [(r, n // 3, n) for r, n in enumerate(lens)]
                late_error, late_same = compare(vt, case, spans, prefill)
                report(f"{name} {dtype} {heads}/{kv_heads}x{dim} block {block} window {window}",
                       max(error, late_error), limit, same and late_same)
        for dim in (64, 128):
            case = Case([12345, 9000, 8192], None, 8, 2, dim, torch.bfloat16)
            spans = [(0, 12345 - 400, 12345), (1, 8000, 9000), (2, 8000, 8192)]
            report(f"{name} long x{dim}", *order(compare(vt, case, spans, prefill), 6e-3))
        # More items than multiprocessors, many times over: barriers turn round and round.
        case = Case([1500 + 7 * r for r in range(12)], None, 32, 8, 128, torch.bfloat16)
        spans = [(r, 0, 1500 + 7 * r) for r in range(12)]
        wanted = case.run(vt, spans)
        same = all(torch.equal(a, b) for _ in range(20)
                   for a, b in zip(wanted, case.run(vt, spans, prefill=prefill)))
        report(f"{name} again and again", 0.0, 1.0, same)


def order(result, limit):
    error, same = result
    return error, limit, same


if __name__ == "__main__":
    alone.main(check, KERNELS)
