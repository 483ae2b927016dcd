"""compute-sanitizer over every kernel by itself (single_ops.py), on a GPU:

    python sanitize_ops.py LIBRARY [--tools racecheck,..] [--groups GROUP,..] [--limit 60] [--at-once 8]
        [--within SECONDS]

A run is a tool over a group (racecheck: the slowest) or several, in a process of its own; each group of
it is a line, in the order in which runs end. It is good if it ended, the tool found nothing but what
EXPLAINED says, and all outputs have the bits that they have without a tool."""

import argparse
import re
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
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
    """How many reports name which kernels, as "read in A and write in B"."""
    found = Counter()
    for report in re.split(r"=+ (?=Error: Race|Warning: Race)", output)[1:]:
        kernels = re.findall(r"(Write|Read) access at (?:void )?(?:vt::)?(?:<unnamed>::|\(anonymous namespace\)::)?"
                             r"((?:\w+::)*\w+)", report)
        found[" and ".join(sorted({f"{kind.lower()} in {kernel}" for kind, kernel in kernels}))] += 1
    return found


class Part:
    """A group's part of a run's output."""

    def __init__(self, text):
        self.cases = sorted(re.findall(r"^case .*", text, flags=re.M))
        ended = re.search(r"^group ended after (.*)", text, flags=re.M)
        self.took = ended[1] if ended else None
        self.races = races(text)
        others = [line for line in text.splitlines() if re.match(r"=+ \S", line)]
        self.errors = re.findall(r"^wrong .*", text, flags=re.M)
        self.errors += [line for line in others if re.search(r"Error|Invalid|Uninitialized|Barrier|exception", line)
                        and not re.search(r"Race|SUMMARY", line)]
        self.lines = [line for line in text.splitlines()[1:] if not line.startswith(("case ", "group "))]

    def found(self):
        """(what nothing explains, all in words)"""
        new = {what: count for what, count in self.races.items() if what not in EXPLAINED}
        words = [f"{count} reports, {EXPLAINED.get(what, 'not explained')}: {what}"
                 for what, count in self.races.items()] + self.errors[:2]
        return bool(new or self.errors), "; ".join(words) or "nothing found"


def parts(output, groups):
    """By group; what a tool says at the end is in the last one's."""
    texts = re.split(r"^group (?!ended)(.*)", output, flags=re.M)
    found = dict(zip(texts[1::2], texts[2::2]))
    return {name: Part(found.get(name, "")) for name in groups}


def report(tool, group, part, wanted, note):
    """Whether it is good."""
    found, words = part.found()
    others = set(part.cases) - set(wanted.cases)
    outputs = f"{len(others)} of {len(wanted.cases)} cases DIFFER" if others else f"{len(part.cases)} cases"
    if not others and part.cases != wanted.cases:
        outputs += f" of {len(wanted.cases)}"
    good = part.took is not None and not found and part.cases == wanted.cases and wanted.cases
    end = f"{part.took}" if part.took is not None else note
    print(f"{'ok ' if good else 'BAD'} {tool} {group}: {outputs}, {words}, {end}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--limit", type=float, default=60, help="seconds a run")
    parser.add_argument("--within", type=float, default=3600, help="seconds, all runs")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--runs", type=int, default=4, help="that share the groups, of a tool that is not racecheck")
    parser.add_argument("--lines", type=int, default=12, help="of the output of a run that is not good")
    parser.add_argument("--sanitizer", default="compute-sanitizer")
    options = parser.parse_args()
    if shutil.which(options.sanitizer) is None:
        sys.exit(f"{options.sanitizer} is not on the PATH: it comes with the CUDA toolkit")
    groups, until = options.groups.split(","), time.monotonic() + options.within

    def run(tool, names):
        begin = time.monotonic()
        limit = min(options.limit, until - begin)
        if limit <= 0:
            return None, "", 0
        own = [sys.executable, str(Path(__file__).with_name("single_ops.py")), options.library, *names]
        code, output = run_limited(under(tool, options.sanitizer, own), limit)
        return code, output, time.monotonic() - begin

    bad = 0
    with ThreadPoolExecutor(options.at_once) as pool:
        begun = {}
        for tool in ["none", *options.tools.split(",")]:
            count = len(groups) if tool == "racecheck" else min(options.runs, len(groups))
            begun |= {pool.submit(run, tool, groups[i::count]): (tool, groups[i::count]) for i in range(count)}
        plain = {future: names for future, (tool, names) in begun.items() if tool == "none"}
        runs = {future: of for future, of in begun.items() if future not in plain}
        wanted = {}
        for future in as_completed(plain):
            _, output, seconds = future.result()
            wanted |= parts(output, plain[future])
            lost = [name for name in plain[future] if wanted[name].took is None]
            bad += len(lost)
            print(f"{'BAD' if lost else 'ok '} none, {len(plain[future])} groups: {seconds:.1f} s {','.join(lost)}",
                  flush=True)
            if lost:
                print("\n".join(re.findall(r"^wrong .*", output, flags=re.M) or output.splitlines()[-8:]), flush=True)
        for future in as_completed(runs):
            (tool, names), (code, output, seconds) = runs[future], future.result()
            found = parts(output, names)
            note = f"not over after {seconds:.0f} s" if code is None else f"ended with {code}"
            good = [report(tool, name, found[name], wanted[name], note) for name in names]
            explained = any(part.races for part in found.values())
            # A run whose groups are all good, but that the tool or the process itself says is not.
            if all(good) and code != 0 and not explained:
                good.append(False)
                print(f"BAD {tool} {', '.join(names)}: {note}", flush=True)
            bad += good.count(False)
            if not all(good):
                shown = [line for line in output.splitlines() if not line.startswith(("case ", "group "))]
                print("\n".join(line[:200] for line in shown[:options.lines]), flush=True)
            print(f"    {tool}, {len(names)} groups: {seconds:.1f} s", flush=True)
    print(f"{bad} faults" if bad else "no faults", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
