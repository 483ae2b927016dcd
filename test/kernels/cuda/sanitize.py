"""compute-sanitizer over whole steps of small models, on a GPU:

    node dist/test/kernels/cuda/dump-program.js FOLDER
    python sanitize.py LIBRARY FOLDER/tiny-llama.json FOLDER/tiny-qwen3.json [--tools memcheck,..]
        [--ways default,..] [--sizes full] [--limit 60] [--at-once 1] [--within SECONDS]
    python sanitize.py LIBRARY FOLDER/race-llama.json FOLDER/race-qwen3.json --tools racecheck --at-once 8

A way is which kernels serve large steps. Each tool runs each way of each program in a process of its
own. A run is good if it ended, the tool found nothing but what EXPLAINED says, and rows had the same
tokens alone, in a batch and in chunks: a tool makes kernels slow, and so finds what depends on who is
first. What has not ended within its limit is counted by itself.

Racecheck makes a kernel a thousand times slower, and takes the least sizes. It looks at all kernels:
told to look at some by name, it ends with its own "failed to handle a hardware exception" while others
run. Where sizes are not full, our own kernels serve in cuBLASLt's place."""

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import check_load
from sanitizer import ENDED_GOOD, FAULT, NOT_ENDED, TOOLS, conclude, findings, races, run_limited, under

WAYS = {"default": {}, "mma": {"PREFILL": "mma", "LARGE": "mma"},
        "wgmma": {"PREFILL": "overlap", "LARGE": "wgmma"},
        "cluster2": {"PREFILL": "turns", "LARGE": "cluster2"}}

#: Rows alone and together, tokens of their prompts and of a chunk, steps of decode; most of a step, and
#: bytes.
SIZES = {"full": dict(rows=(1, 3, 20, 70), lengths=(5, 70, 300, 17), chunk=33, decodes=(5, 2), tokens=16_384,
                      seqs=256, kv=256 << 20),
         "small": dict(rows=(1, 3, 5), lengths=(5, 70, 20), chunk=33, decodes=(5, 2), tokens=192, seqs=5,
                       kv=32 << 20),
         "least": dict(rows=(1, 2), lengths=(70, 5), chunk=40, decodes=(2, 1), tokens=80, seqs=2, kv=8 << 20)}


def params_of(count):
    """Rows that ask for something of everything; what row r asks for does not depend on count."""
    every = lambda values: [values[r % len(values)] for r in range(count)]
    return {"newTemperature": every([0.0, 0.8, 0.8, 0.8, 0.8]), "newTopK": every([0, 20, 0, 0, 0]),
            "newTopP": every([1.0, 1.0, 0.9, 1.0, 1.0]), "newMinP": every([0.0, 0.0, 0.0, 0.05, 0.0]),
            "newRepetitionPenalty": every([1.0, 1.0, 1.0, 1.1]), "newSeed": list(range(count)),
            "newNumLogprobs": every([5, -1, 0, 20])}


def steps(library, file, size):
    """Runs without a tool, or under one: how many rows had other tokens than alone."""
    sizes, program = SIZES[size], json.loads(Path(file).read_text())
    alone, few, *many = sizes["rows"]
    most, least = sizes["decodes"]
    program |= dict(maxNumTokens=min(program["maxNumTokens"], sizes["tokens"]),
                    maxNumSeqs=min(program["maxNumSeqs"], sizes["seqs"]),
                    maxNumLogits=min(program["maxNumLogits"], sizes["seqs"]))
    with contextlib.nullcontext(b"") if size == "full" else without_cublaslt(library) as library_path:
        backend = check_load.Backend(library, program, max_model_len=1024, max_logprobs=20,
                                     kv_cache_memory_bytes=sizes["kv"], library_path=library_path)
    print(f"loaded after {backend.load_ms / 1e3:.1f} s", flush=True)
    lengths = sizes["lengths"]
    prompts = [check_load.prompt(r, lengths[r % len(lengths)], program["vocabSize"])
               for r in range(max(sizes["rows"]))]

    def tokens(count, num_decode, chunk=sizes["tokens"]):
        return check_load.generate(backend, prompts[:count], num_decode, chunk, params_of(count))[0]

    first, whole = tokens(alone, most), tokens(few, most)
    start = [row[:least + 1] for row in whole]
    pairs = [(first, whole[:alone]), (tokens(few, least, sizes["chunk"]), start)]
    pairs += [(tokens(count, least)[:few], start) for count in many]
    backend.close()
    wrong = sum(a != b for one, other in pairs for a, b in zip(one, other))
    print(f"{wrong} rows with other tokens", flush=True)
    return wrong


@contextlib.contextmanager
def without_cublaslt(library):
    """A folder of libraries, as bytes, in which one without its functions, ours, stands in its place."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "libcublasLt.so.13").symlink_to(Path(library).resolve())
        yield folder.encode()


def run(options, tool, way, program):
    """ENDED_GOOD, FAULT or NOT_ENDED."""
    names = {f"VLLM_TS_CUDA_{name}": value for name, value in WAYS[way].items()}
    command = [sys.executable, __file__, options.library, program, "--steps", "--sizes",
               "least" if tool == "racecheck" else options.sizes]
    begin = time.monotonic()
    code, output = run_limited(under(tool, options.sanitizer, command),
                               min(options.limit, options.until - begin), {**os.environ, **names})
    seconds = time.monotonic() - begin
    found, words = findings(output)
    said = re.findall(r"^(?:loaded after .*|.* other tokens)$", output, flags=re.M)
    if code is None and not found:
        verdict = NOT_ENDED
    else:
        good = "0 rows with other tokens" in said and not found and (code == 0 or races(output))
        verdict = ENDED_GOOD if good else FAULT
    print(f"{verdict} {tool} {way}, {Path(program).stem}: {', '.join([*said, words])}; "
          f"{'not over' if code is None else f'ended with {code}'} after {seconds:.1f} s", flush=True)
    if verdict == FAULT:
        print("\n".join(line[:200] for line in output.splitlines()[:options.lines]), flush=True)
    return verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("programs", nargs="+")
    parser.add_argument("--tools", default=",".join(TOOLS), help="'none' runs without one")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--sizes", default="full", choices=SIZES, help="all but full are without cuBLASLt")
    parser.add_argument("--limit", type=float, default=60, help="seconds a run")
    parser.add_argument("--within", type=float, default=3600, help="seconds, all runs")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--lines", type=int, default=30, help="of the output of a run with a fault")
    parser.add_argument("--sanitizer", default="compute-sanitizer")
    parser.add_argument("--steps", action="store_true", help="only the steps, as under a tool")
    options = parser.parse_args()
    if options.steps:
        sys.exit(1 if steps(options.library, options.programs[0], options.sizes) else 0)
    tools = options.tools.split(",")
    if set(tools) != {"none"} and shutil.which(options.sanitizer) is None:
        sys.exit(f"{options.sanitizer} is not on the PATH: it comes with the CUDA toolkit")
    options.until = time.monotonic() + options.within
    runs = [(tool, way, program) for tool in tools for way in options.ways.split(",")
            for program in options.programs]
    with ThreadPoolExecutor(options.at_once) as pool:
        conclude(Counter(pool.map(lambda each: run(options, *each), runs)))


if __name__ == "__main__":
    main()
