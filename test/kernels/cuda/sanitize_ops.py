"""compute-sanitizer over every kernel by itself (single_ops.py), on a GPU:

    python sanitize_ops.py LIBRARY [--tools racecheck,..] [--groups GROUP,..] [--limit 60] [--at-once 8]

A run is a tool over a group, in a process of its own. It is good if it ended, the tool found nothing
but what EXPLAINED says, and all outputs have the bits that they have without a tool."""

import argparse
import re
import shutil
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sanitize import TOOLS, run_limited, under
from single_ops import GROUPS

# What racecheck says of kernels that order their accesses in a way that it does not follow.
EXPLAINED = {
    # With an arrival of each of the 32 lanes nothing is reported.
    "read in attention_decode and write in attention_decode":
        "one lane arrives at the tile's mbarrier for its warp, whose reads __syncwarp has ended",
}


def races(output):
    """How many reports name which kernels, as "write in A, read in B"."""
    found = Counter()
    for report in re.split(r"=+ (?=Error: Race|Warning: Race)", output)[1:]:
        kernels = re.findall(r"(Write|Read) access at (?:void )?(?:vt::)?(?:<unnamed>::|\(anonymous namespace\)::)?"
                             r"((?:\w+::)*\w+)", report)
        found[" and ".join(sorted({f"{kind.lower()} in {kernel}" for kind, kernel in kernels}))] += 1
    return found


def cases(output):
    return re.findall(r"^case .*", output, flags=re.M)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--limit", type=float, default=60, help="seconds a run")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--lines", type=int, default=12, help="of the output of a run that is not good")
    parser.add_argument("--sanitizer", default="compute-sanitizer")
    options = parser.parse_args()
    if shutil.which(options.sanitizer) is None:
        sys.exit(f"{options.sanitizer} is not on the PATH: it comes with the CUDA toolkit")
    groups, tools = options.groups.split(","), options.tools.split(",")

    def run(tool, group):
        own = [sys.executable, str(Path(__file__).with_name("single_ops.py")), options.library, group]
        return run_limited(under(tool, options.sanitizer, own), options.limit)

    with ThreadPoolExecutor(options.at_once) as pool:
        runs = [(tool, group, pool.submit(run, tool, group)) for tool in ["none", *tools] for group in groups]
        bad, wanted = 0, {}
        for tool, group, future in runs:
            code, output = future.result()
            seen, lines = races(output), cases(output)
            wanted.setdefault(group, lines)
            new = {what: count for what, count in seen.items() if what not in EXPLAINED}
            ended = "group ended" in output and (code == 0 or (seen and not new and "Internal" not in output))
            good = ended and not new and lines == wanted[group]
            bad += not good
            note = "; ".join(f"{count} reports, {EXPLAINED.get(what, 'not explained')}: {what}"
                             for what, count in seen.items())
            if code is None:
                note = f"not over after {options.limit:.0f} s"
            elif lines != wanted[group]:
                note += f" {sum(a != b for a, b in zip(lines, wanted[group]))} of {len(wanted[group])} cases differ"
            print(f"{'ok ' if good else 'BAD'} {tool} {group}: {len(lines)} cases {note}".rstrip(), flush=True)
            if not good:
                shown = [line for line in output.splitlines() if not line.startswith("case ")]
                print("\n".join(line[:200] for line in shown[:options.lines]), flush=True)
    print(f"{len(runs) - bad} of {len(runs)} runs without a fault", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
