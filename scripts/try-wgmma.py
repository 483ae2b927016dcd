"""Checks and times the kernels that were written without a device, each alone and with a limit of
time, so that one that hangs or faults leaves the others their verdict:

    npm run build:cuda && python scripts/try-wgmma.py [--library PATH] [--limit SECONDS]

Those that pass every check are timed beside what serves today. Needs torch and an NVIDIA GPU."""

import argparse
import glob
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECKS = ROOT / "test/kernels/cuda"
# Part of bench-gpu.py, check, and the kernels in order of risk.
FAMILIES = (("prefill", "check_prefill.py", {1: "wgmma", 2: "overlap", 3: "turns"}),
            ("wgmma-linear", "check_large.py", {1: "wgmma", 2: "cluster2", 3: "cluster4"}))

TIME = """
import importlib.util, os, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
spec = importlib.util.spec_from_file_location("bench_gpu", sys.argv[1])
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)
kernels = tuple(int(kernel) for kernel in sys.argv[4:])
bench.PARTS[sys.argv[3]](bench.VtCuda(sys.argv[2]), 0, kernels)
"""


def run(args, limit):
    """The last lines of what failed, or None."""
    try:
        done = subprocess.run([sys.executable, *args], timeout=limit, capture_output=True,
                              text=True)
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode().splitlines()
        return f"not done after {limit} s; last: {said[-1] if said else 'nothing'}"
    if done.returncode == 0:
        return None
    said = [line for line in done.stdout.splitlines() if line.startswith("BAD")]
    return "\n    ".join((said or done.stderr.splitlines())[-6:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library",
                        default=next(iter(glob.glob(str(ROOT / "build/*/libvt_cuda.so"))), None))
    parser.add_argument("--limit", type=int, default=120, help="seconds for one kernel's checks")
    options = parser.parse_args()
    if options.library is None:
        sys.exit("no libvt_cuda.so under build/: run npm run build:cuda, or pass --library")
    failed = 0
    for part, check, kernels in FAMILIES:
        good = []
        for kernel, name in kernels.items():
            why = run([str(CHECKS / check), options.library, str(kernel)], options.limit)
            print(f"{'ok ' if why is None else 'BAD'} {part} {name}"
                  + ("" if why is None else f":\n    {why}"), flush=True)
            good += [kernel] if why is None else []
            failed += why is not None
        if good:
            timed = [0, *good] if part == "prefill" else good
            subprocess.run([sys.executable, "-c", TIME, str(ROOT / "scripts/bench-gpu.py"),
                            options.library, part, *map(str, timed)], timeout=300, check=False)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
