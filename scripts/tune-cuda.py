"""Measures which algorithm of cuBLASLt serves which linear best on this machine's GPU and writes
kernels/cuda/host/gemm_table.inc; rows of other devices and versions stay as they are:

    npm run build:cuda && npm run tune:cuda [-- --library PATH --models llama-3.2-1b,...]

Needs python3 alone. Without a row the library chooses at load, by a check of bits but untimed."""

import argparse
import ctypes
import glob
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "kernels/cuda/host/gemm_table.inc"
F32, BF16 = 0, 2
NONE, RESIDUAL = 0, 2
CLASSES = sorted([32 << i for i in range(10)] + [192])
MOST_LOGITS = 1024

# hidden, rows of qkv, heads * head_dim, intermediate, vocabulary
MODELS = {
    "llama-3.2-1b": (2048, 3072, 2048, 8192, 128256),
    "llama-3.1-8b": (4096, 6144, 4096, 14336, 128256),
    "qwen3-0.6b": (1024, 4096, 2048, 3072, 151936),
    "smollm2-135m": (576, 960, 576, 1536, 49152),
}


def linears(model):
    """(n, k, dtype of out, addend, classes) of a model's merged linears."""
    hidden, qkv, heads, intermediate, vocabulary = MODELS[model]
    return [
        (qkv, hidden, BF16, NONE, CLASSES),
        (hidden, heads, BF16, RESIDUAL, CLASSES),
        (2 * intermediate, hidden, BF16, NONE, CLASSES),
        (hidden, intermediate, BF16, RESIDUAL, CLASSES),
        (vocabulary, hidden, F32, NONE, [m for m in CLASSES if m <= MOST_LOGITS]),
    ]


def load(path):
    library = ctypes.CDLL(path)
    library.vt_cuda_error.restype = ctypes.c_char_p
    return library


def tune(library, search_path, n, k, out, addend, m):
    row = ctypes.create_string_buffer(1024)
    failed = library.vt_cuda_tune_linear(search_path.encode(), n, k, BF16, out, addend, m, row,
                                         ctypes.c_uint64(len(row)))
    if failed:
        sys.exit(f"tune:cuda: {n} x {k}, m {m}: {library.vt_cuda_error().decode()}")
    return row.value.decode()


def merge(old, rows):
    """The table's lines with `rows` in place of those with the same key."""
    key = lambda line: line.split("{{")[0]
    fresh = {key(row): row for row in rows}
    kept = [line for line in old if line.startswith("{") and key(line) not in fresh]
    return [line for line in old if line.startswith("//")] + kept + list(fresh.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    found = sorted(glob.glob(str(ROOT / "build/*/libvt_cuda.so")))
    parser.add_argument("--library", default=found[0] if found else None)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--output", default=TABLE, type=Path)
    options = parser.parse_args()
    if options.library is None:
        sys.exit("tune:cuda: build the library first: npm run build:cuda")
    unknown = [model for model in options.models.split(",") if model not in MODELS]
    if unknown:
        sys.exit(f"tune:cuda: unknown model {unknown[0]}; there are {', '.join(MODELS)}")
    library = load(options.library)
    search_path = os.environ.get("VLLM_TS_CUDA_LIBS", "")
    rows = []
    for model in options.models.split(","):
        begin = time.monotonic()
        for n, k, out, addend, classes in linears(model):
            for m in classes:
                rows.append(tune(library, search_path, n, k, out, addend, m))
                print(f"tune:cuda: {n} x {k}, m <= {m}: {rows[-1].split('// ')[1]}", flush=True)
        print(f"tune:cuda: {model} took {time.monotonic() - begin:.0f} s", flush=True)
        # After each model, so that what is cut short is not lost.
        lines = merge(TABLE.read_text().splitlines(), rows)
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
