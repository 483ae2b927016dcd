"""compute-sanitizer over whole steps of small models, on a GPU:

    node dist/test/kernels/cuda/dump-program.js FOLDER
    python sanitize.py LIBRARY FOLDER/tiny-llama.json FOLDER/tiny-qwen3.json [--tools memcheck,..]
        [--ways default,..] [--limit 60] [--together]

A way is which kernels serve large steps. Each tool runs each way in a process of its own; what does
not end within its limit is said so, and is no failure. A run is good if the tool found nothing and
rows had the same tokens alone, in a batch and in chunks: a tool makes kernels slow, and so finds
what depends on who is first. With --together all run at once, which is quicker on many cores.
Under racecheck our own kernels serve in cuBLASLt's place: with it, loads ended with the tool's own "failed
to handle a hardware exception". And it is slow: it gets a few rows of short prompts, as all get with
--small."""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import check_load

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
WAYS = {"default": {}, "mma": {"PREFILL": "mma", "LARGE": "mma"},
        "wgmma": {"PREFILL": "overlap", "LARGE": "wgmma"},
        "cluster2": {"PREFILL": "turns", "LARGE": "cluster2"}}


#: Of a process, --small or not: rows alone and together, tokens of their prompts and of a chunk; most of
#: a step, and bytes.
SIZES = {False: dict(rows=(1, 3, 20, 70), lengths=(5, 70, 300, 17), chunk=33, tokens=16_384, seqs=256,
                     kv=256 << 20),
         True: dict(rows=(1, 3, 5), lengths=(5, 70, 20), chunk=33, tokens=192, seqs=5, kv=32 << 20)}


def params_of(count):
    """Rows that ask for something of everything; what row r asks for does not depend on count."""
    every = lambda values: [values[r % len(values)] for r in range(count)]
    return {"newTemperature": every([0.0, 0.8, 0.8, 0.8, 0.8]), "newTopK": every([0, 20, 0, 0, 0]),
            "newTopP": every([1.0, 1.0, 0.9, 1.0, 1.0]), "newMinP": every([0.0, 0.0, 0.0, 0.05, 0.0]),
            "newRepetitionPenalty": every([1.0, 1.0, 1.0, 1.1]), "newSeed": list(range(count)),
            "newNumLogprobs": every([5, -1, 0, 20])}


def steps(library, programs, small):
    """Runs without a tool, or under one: how many rows had other tokens than alone."""
    wrong, sizes = 0, SIZES[small]
    alone, few, *many = sizes["rows"]
    for file in programs:
        program = json.loads(Path(file).read_text())
        program |= dict(maxNumTokens=min(program["maxNumTokens"], sizes["tokens"]),
                        maxNumSeqs=min(program["maxNumSeqs"], sizes["seqs"]),
                        maxNumLogits=min(program["maxNumLogits"], sizes["seqs"]))
        with without_cublaslt(library) if small else contextlib.nullcontext(b"") as library_path:
            backend = check_load.Backend(library, program, max_model_len=1024, max_logprobs=20,
                                         kv_cache_memory_bytes=sizes["kv"], library_path=library_path)
        print(f"{Path(file).stem} is loaded", flush=True)
        lengths = sizes["lengths"]
        prompts = [check_load.prompt(r, lengths[r % len(lengths)], program["vocabSize"])
                   for r in range(max(sizes["rows"]))]

        def tokens(count, num_decode, chunk=sizes["tokens"]):
            return check_load.generate(backend, prompts[:count], num_decode, chunk,
                                       params_of(count))[0]

        first, whole = tokens(alone, 5), tokens(few, 5)
        pairs = [(first, whole[:alone]), (tokens(few, 2, chunk=sizes["chunk"]), [row[:3] for row in whole])]
        pairs += [(tokens(count, 2)[:few], [row[:3] for row in whole]) for count in many]
        wrong += sum(a != b for one, other in pairs for a, b in zip(one, other))
        backend.close()
        print(f"{Path(file).stem}: {wrong} rows with other tokens", flush=True)
    return wrong


@contextlib.contextmanager
def without_cublaslt(library):
    """A folder of libraries, as bytes, in which one without its functions, ours, stands in its place."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "libcublasLt.so.13").symlink_to(Path(library).resolve())
        yield folder.encode()


def under(tool, sanitizer, command):
    if tool == "none":
        return command
    more = ["--racecheck-report", "analysis"] if tool == "racecheck" else []
    # Each that runs beside others takes ports of its own.
    more += ["--max-connections", "100"]
    return [sanitizer, "--tool", tool, *more, "--error-exitcode", "9", "--print-limit", "20", *command]


def run_limited(command, limit, env=os.environ):
    """(exit code, output); None where it did not end: then it was ended, with what it had started."""
    child = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, start_new_session=True)
    try:
        output, _ = child.communicate(timeout=limit)
        return child.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        return None, child.communicate()[0]


def run(options, tool, way):
    """Whether it is no failure."""
    names = {f"VLLM_TS_CUDA_{name}": value for name, value in WAYS[way].items()}
    steps_alone = [sys.executable, __file__, options.library, *options.programs, "--steps"]
    steps_alone += ["--small"] if options.small or tool == "racecheck" else []
    begin = time.monotonic()
    code, output = run_limited(under(tool, options.sanitizer, steps_alone), options.limit,
                               {**os.environ, **names})
    if code is None:
        print(f"    {tool} {way}: not over after {options.limit:.0f} s; {' '.join(output.split()[-30:])}", flush=True)
        return True
    good = code == 0
    seconds = f"{time.monotonic() - begin:.1f} s"
    summary = "; ".join(re.findall(r"(?:SUMMARY: .*|^tiny.*tokens$)", output, flags=re.M))
    print(f"{'ok ' if good else 'BAD'} {tool} {way}: {summary or output[-300:]}, {seconds}", flush=True)
    if not good:
        print("\n".join(output.splitlines()[:options.lines]), flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("programs", nargs="+")
    parser.add_argument("--tools", default=",".join(TOOLS), help="'none' runs without one")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--limit", type=float, default=60, help="seconds a run")
    parser.add_argument("--lines", type=int, default=30, help="of the output of a run that is not good")
    parser.add_argument("--small", action="store_true", help="as racecheck: few rows, without cuBLASLt")
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--sanitizer", default="compute-sanitizer")
    parser.add_argument("--steps", action="store_true", help="only the steps, as under a tool")
    options = parser.parse_args()
    if options.steps:
        sys.exit(1 if steps(options.library, options.programs, options.small) else 0)
    runs = [(tool, way) for tool in options.tools.split(",") for way in options.ways.split(",")]
    if set(options.tools.split(",")) != {"none"} and shutil.which(options.sanitizer) is None:
        sys.exit(f"{options.sanitizer} is not on the PATH: it comes with the CUDA toolkit")
    with ThreadPoolExecutor(len(runs) if options.together else 1) as pool:
        bad = sum(not good for good in pool.map(lambda each: run(options, *each), runs))
    print(f"{len(runs) - bad} of {len(runs)} runs without a fault", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
