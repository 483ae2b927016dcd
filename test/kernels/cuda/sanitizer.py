"""What compute-sanitizer is asked, and what it has said: of sanitize.py and sanitize_ops.py."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
#: Of a run, or a part of it. What has not ended has shown nothing, neither a fault nor that there is none.
ENDED_GOOD, FAULT, NOT_ENDED = "ok ", "BAD", "not ended"

# What racecheck says of kernels that order their accesses in a way that it does not follow.
EXPLAINED = {
    # With an arrival of each of the 32 lanes nothing is reported.
    "read in attention_decode and write in attention_decode":
        "one lane arrives at the tile's mbarrier for its warp, whose reads __syncwarp has ended",
}


def under(tool, sanitizer, command):
    if tool == "none":
        return command
    more = ["--racecheck-report", "analysis"] if tool == "racecheck" else []
    # Each that runs beside others takes ports of its own. What is explained must not use up the room.
    more += ["--max-connections", "100", "--print-limit", "2000", "--target-processes", "all"]
    return [sanitizer, "--tool", tool, *more, "--error-exitcode", "9", *command]


def run_limited(command, limit, env=os.environ):
    """(exit code, output); None where it did not end: then it was ended, with what it had started. No
    time left: it is not started."""
    if limit <= 0:
        return None, ""
    child = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, start_new_session=True)
    try:
        output, _ = child.communicate(timeout=limit)
        return child.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        return None, child.communicate()[0]


def races(output):
    """How many reports name which kernels, as "read in A and write in B"."""
    found = Counter()
    for report in re.split(r"=+ (?=Error: Race|Warning: Race)", output)[1:]:
        kernels = re.findall(r"(Write|Read) access at (?:void )?(?:vt::)?"
                             r"(?:<unnamed>::|\(anonymous namespace\)::)?((?:\w+::)*\w+)", report)
        found[" and ".join(sorted({f"{kind.lower()} in {kernel}" for kind, kernel in kernels}))] += 1
    return found


def findings(output):
    """(what nothing explains, all in words)"""
    found = races(output)
    errors = re.findall(r"^wrong .*", output, flags=re.M)
    errors += [line for line in re.findall(r"^=+ \S.*", output, flags=re.M)
               if re.search(r"Error|Invalid|Uninitialized|Barrier|exception", line)
               and not re.search(r"Race|SUMMARY", line)]
    new = [what for what in found if what not in EXPLAINED]
    words = [f"{count} reports, {EXPLAINED.get(what, 'not explained')}: {what}"
             for what, count in found.items()]
    return new + errors, "; ".join(words + errors[:2]) or "nothing found"


def conclude(verdicts):
    """The last line, and the process's end: 0 only if all ended and are good."""
    print(f"{verdicts[ENDED_GOOD]} without a fault, {verdicts[FAULT]} with one, "
          f"{verdicts[NOT_ENDED]} not ended", flush=True)
    sys.exit(0 if set(+verdicts) == {ENDED_GOOD} else 1)
