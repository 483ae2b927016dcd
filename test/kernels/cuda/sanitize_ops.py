"""compute-sanitizer over every kernel by itself (single_ops.py), on a GPU:

    python sanitize_ops.py LIBRARY [--tools racecheck,..] [--groups GROUP,..] [--limit 60] [--at-once 8]
        [--within SECONDS]

`--groups "two GPUs"` is of ranks that have a GPU each; it wants two.

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

from sanitizer import ENDED_GOOD, FAULT, NOT_ENDED, TOOLS, conclude, findings, races, run_limited, under
from single_ops import GROUPS


class Part:
    """A group's part of a run's output."""

    def __init__(self, text):
        self.cases = sorted(re.findall(r"^case .*", text, flags=re.M))
        ended = re.search(r"^group ended after (.*)", text, flags=re.M)
        self.took = ended[1] if ended else None
        self.found, self.words = findings(text)
        self.has_races = bool(races(text))


def parts(output, groups):
    """By group; what a tool says at the end is in the last one's."""
    texts = re.split(r"^group (?!ended)(.*)", output, flags=re.M)
    found = dict(zip(texts[1::2], texts[2::2]))
    return {name: Part(found.get(name, "")) for name in groups}


def report(tool, group, part, wanted, code, seconds):
    """ENDED_GOOD, FAULT or NOT_ENDED."""
    others = set(part.cases) - set(wanted.cases)
    outputs = f"{len(others)} of {len(wanted.cases)} cases DIFFER" if others else f"{len(part.cases)} cases"
    if not others and part.cases != wanted.cases:
        outputs += f" of {len(wanted.cases)}"
    end = part.took or (f"not over after {seconds:.0f} s" if code is None else f"ended with {code}")
    if part.took is None and code is None and not part.found and not others:
        verdict = NOT_ENDED
    else:
        verdict = ENDED_GOOD if part.took and not part.found and part.cases == wanted.cases != [] else FAULT
    print(f"{verdict} {tool} {group}: {outputs}, {part.words}, {end}", flush=True)
    return verdict


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
        own = [sys.executable, str(Path(__file__).with_name("single_ops.py")), options.library, *names]
        code, output = run_limited(under(tool, options.sanitizer, own), min(options.limit, until - begin))
        return code, output, time.monotonic() - begin

    verdicts = Counter()
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
            verdicts[FAULT] += len(lost)
            print(f"{FAULT if lost else ENDED_GOOD} none, {len(plain[future])} groups: {seconds:.1f} s {','.join(lost)}",
                  flush=True)
            if lost:
                print("\n".join(re.findall(r"^wrong .*", output, flags=re.M) or output.splitlines()[-8:]), flush=True)
        for future in as_completed(runs):
            (tool, names), (code, output, seconds) = runs[future], future.result()
            found = parts(output, names)
            own = [report(tool, name, found[name], wanted[name], code, seconds) for name in names]
            explained = any(part.has_races for part in found.values())
            # A run whose groups are all good, but that the tool or the process itself says is not.
            if set(own) == {ENDED_GOOD} and code != 0 and not explained:
                own.append(FAULT)
                print(f"{FAULT} {tool} {', '.join(names)}: ended with {code}", flush=True)
            verdicts.update(own)
            if FAULT in own:
                shown = [line for line in output.splitlines() if not line.startswith(("case ", "group "))]
                print("\n".join(line[:200] for line in shown[:options.lines]), flush=True)
            print(f"    {tool}, {len(names)} groups: {seconds:.1f} s", flush=True)
    conclude(verdicts)


if __name__ == "__main__":
    main()
