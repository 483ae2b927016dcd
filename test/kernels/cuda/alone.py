"""A check of kernels that take another's place, by itself: `python check_large.py LIBRARY 1 2`."""

import sys

from vt_cuda import VtCuda


def main(check, kernels):
    """Runs `check` for the kernels named on the command line, else for all; exits 1 if one is wrong."""
    bad = []

    def report(name, error, limit, same):
        good = error < limit and same
        bad.extend([] if good else [name])
        print(f"{'ok ' if good else 'BAD'} {name}: error {error:.1e}, "
              f"{'the same bits' if same else 'OTHER BITS'}", flush=True)

    check(VtCuda(sys.argv[1]), report, [int(kernel) for kernel in sys.argv[2:]] or tuple(kernels))
    sys.exit(1 if bad else 0)
