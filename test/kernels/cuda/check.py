"""Checks libvt_cuda.so on the GPU: `python check.py LIBRARY [linear] [fused] [attention] ..`.
One line a case, then a summary; exit code 1 if anything is wrong."""

import importlib
import sys

import torch

from vt_cuda import VtCuda

GROUPS = ("elementwise", "linear", "fused", "attention", "sample", "library", "prefill", "large",
          "best")


def run(vt: VtCuda, groups, show_good=True) -> int:
    """The number of failed cases."""
    counts = [0, 0]

    def report(name, error, limit, same, note=""):
        good = error < limit and same
        counts[good] += 1
        if show_good or not good:
            print(f"{'ok ' if good else 'BAD'} {name}: error {error:.1e} of at most {limit:.0e}, "
                  f"{'exact where it must be' if same else 'NOT EXACT'} {note}".rstrip(), flush=True)

    for group in groups:
        importlib.import_module(f"check_{group}").check(vt, report)
    print(f"{counts[1]} passed, {counts[0]} failed", flush=True)
    return counts[0]


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("check.py needs an NVIDIA GPU")
    sys.exit(1 if run(VtCuda(sys.argv[1]), sys.argv[2:] or GROUPS) else 0)
