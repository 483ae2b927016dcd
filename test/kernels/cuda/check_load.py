"""The whole backend on the GPU without Node: loads programs that dump-program.ts wrote, with made-up
weights, and runs steps as an engine would.

    node dist/test/kernels/cuda/dump-program.js FOLDER
    python check_load.py LIBRARY FOLDER/llama-3.2-1b.json ...

Checks that a row's tokens are the same alone, in a full batch, and after a chunked prefill; prints
what the load did and how long steps took on the device."""

import ctypes
import json
import re
import statistics
import struct
import sys
import time
from array import array
from pathlib import Path

KERNELS = Path(__file__).parents[3] / "kernels"
FORMATS = {"i32": "i", "f32": "f", "u64": "Q", "u8": "B"}
BLOCK = 16
i32, i64, f64, ptr, u64 = (ctypes.c_int32, ctypes.c_int64, ctypes.c_double, ctypes.c_void_p,
                           ctypes.c_uint64)


class Part(ctypes.Structure):
    _fields_ = [("dtype", i32), ("num_rows", i64), ("num_columns", i64), ("row_bytes", i64),
                ("data", ptr), ("num_bytes", u64), ("tensor", ctypes.c_uint32), ("first_row", i64),
                ("first_column", i64), ("tensor_rows", i64), ("tensor_columns", i64)]


class Load(ctypes.Structure):
    _fields_ = [(n, ptr) for n in ("ops", "attrs", "buffers", "weights", "kv_groups")] + [
        (n, u64) for n in ("num_op_words", "num_attrs", "num_buffer_words", "num_weight_words",
                           "num_kv_group_words")] + [
        (n, f64) for n in ("vocab_size", "arena_bytes", "max_num_tokens", "max_num_logits")] + [
        ("parts", ptr), ("num_parts", ptr), ("dummy_seed", i64)] + [
        (n, i32) for n in ("block_size", "max_num_seqs", "max_model_len", "async_depth",
                           "max_logprobs", "fast_math", "debug_sync", "eager", "fit_model_len")] + [
        ("kv_cache_memory_bytes", i64), ("memory_utilization", f64),
        ("library_path", ctypes.c_char_p), ("ranks", ptr)]


class Owner(ctypes.Structure):
    _fields_ = [("owner", ctypes.c_char * 32), ("bytes", u64)]


class Loaded(ctypes.Structure):
    _fields_ = [("num_blocks", i32), ("num_owners", i32), ("memory", Owner * 16),
                ("device", ctypes.c_char * 96), ("notes", ctypes.c_char * 512)]


class Output(ctypes.Structure):
    _fields_ = [("step", f64), ("hash", ctypes.c_uint32), ("start_us", f64),
                ("end_us", f64), ("device_idle_us", f64), ("body", ptr), ("body_bytes", u64),
                ("table", ctypes.POINTER(i32))]


def fields_of(struct):
    """Names of a struct's fields in the header, so that the two cannot drift apart unseen."""
    text = re.sub(r"/\*.*?\*/", "", (KERNELS / "cuda/vt_cuda_backend.h").read_text(), flags=re.S)
    body = re.search(rf"typedef struct {{([^{{}}]*)}} {struct};", text)[1]
    return re.findall(r"\w+(?=\s*[,;])", body)


assert [name for name, _ in Load._fields_] == fields_of("VtCudaLoad"), "VtCudaLoad has changed"
assert [name for name, _ in Part._fields_] == fields_of("VtCudaWeightPart"), "VtCudaWeightPart has changed"


def columns(which):
    text = (KERNELS / "step.h").read_text()
    macro = re.search(rf"#define VT_STEP_{which}_COLUMNS\(X\)(.*?)\n\n", text, flags=re.S)[1]
    return re.findall(r"X\((\w+), (\w+)\)", macro)


INPUT, OUTPUT = columns("INPUT"), columns("OUTPUT")


class Refused(Exception):
    pass


class Backend:
    def __init__(self, path, program, max_model_len=4096, **options):
        self.lib = ctypes.CDLL(path)
        self.lib.vt_cuda_error.restype = ctypes.c_char_p
        self.lib.vt_cuda_backend_load.restype = ptr
        load = Load(dummy_seed=7, block_size=BLOCK, max_num_seqs=program["maxNumSeqs"],
                    max_model_len=max_model_len, async_depth=2, memory_utilization=0.9,
                    library_path=b"", vocab_size=program["vocabSize"],
                    arena_bytes=program["arenaBytes"], max_num_tokens=program["maxNumTokens"],
                    max_num_logits=program["maxNumLogits"])
        keep = []
        for name, key, kind, count in (("ops", "ops", "i", "num_op_words"),
                                       ("attrs", "attrs", "d", "num_attrs"),
                                       ("buffers", "buffers", "d", "num_buffer_words"),
                                       ("weights", "weights", "d", "num_weight_words"),
                                       ("kv_groups", "kvGroups", "d", "num_kv_group_words")):
            keep.append(array(kind, program[key]))
            setattr(load, name, keep[-1].buffer_info()[0])
            setattr(load, count, len(keep[-1]))
        parts, counts = [], []
        for constant in program["constants"]:
            counts.append(1 if constant else 0)
            if constant:
                keep.append(array("f", constant))
                parts.append(Part(0, 1, len(constant), 4 * len(constant),
                                  keep[-1].buffer_info()[0], 4 * len(constant)))
        parts, counts = (Part * len(parts))(*parts), array("i", counts)
        load.parts = ctypes.cast(parts, ptr)
        load.num_parts = counts.buffer_info()[0]
        for name, value in options.items():
            setattr(load, name, value)
        self.loaded = Loaded()
        begin = time.perf_counter()
        handle = self.lib.vt_cuda_backend_load(ctypes.byref(load), ctypes.byref(self.loaded))
        self.load_ms = (time.perf_counter() - begin) * 1e3
        if not handle:
            raise Refused(self.lib.vt_cuda_error().decode())
        self.handle, self.num_steps = ptr(handle), 0

    def submit(self, num_tokens, lists):
        body, table = bytearray(), []
        for name, kind in INPUT:
            values = lists.get(name, ())
            body += bytes(-len(body) % 8)
            table += [len(body), len(values)]
            body += struct.pack(f"<{len(values)}{FORMATS[kind]}", *values)
        self.num_steps += 1
        table = array("i", table)
        if self.lib.vt_cuda_backend_submit(
                self.handle, f64(self.num_steps), i64(num_tokens), bytes(body), u64(len(body)),
                ptr(table.buffer_info()[0]), u64(len(table))):
            raise RuntimeError(self.lib.vt_cuda_error().decode())

    def wait(self):
        """(token ids, row flags, start us, end us, idle us)"""
        output, step, op, rank = Output(), f64(), ctypes.c_char_p(), i32(-1)
        result = self.lib.vt_cuda_backend_wait(self.handle, ctypes.byref(output),
                                               ctypes.byref(step), ctypes.byref(op),
                                               ctypes.byref(rank))
        if result != 0:
            raise RuntimeError(f"wait: {result}, step {step.value}, op {op.value}, rank {rank.value}: "
                               f"{self.lib.vt_cuda_error().decode()}")
        body = ctypes.string_at(output.body, output.body_bytes)
        found = {}
        for i, (name, kind) in enumerate(OUTPUT):
            offset, count = output.table[2 * i], output.table[2 * i + 1]
            found[name] = struct.unpack_from(f"<{count}{FORMATS[kind]}", body, offset)
        return (found["tokenId"], found["rowFlags"], output.start_us, output.end_us,
                output.device_idle_us)

    def close(self):
        self.lib.vt_cuda_backend_stop(self.handle)
        output, step, op, rank = Output(), f64(), ctypes.c_char_p(), i32(-1)
        while self.lib.vt_cuda_backend_wait(self.handle, ctypes.byref(output), ctypes.byref(step),
                                            ctypes.byref(op), ctypes.byref(rank)) == 0:
            pass
        self.lib.vt_cuda_backend_close(self.handle)


def prompt(number, length, vocab):
    return [(number * 7919 + i * 104729 + i * i) % vocab for i in range(length)]


def new_rows(prompts, num_decode, first_block=1):
    """Columns that fill rows 0.. with prompts and hand each all its blocks."""
    n = len(prompts)
    lists = {name: [0] * n for name in (
        "newTopK", "newMinTokens", "newNumLogprobIds", "newNumStopIds", "newNumLogitBias", "newNumAllowedIds",
        "newNumBadWords", "newSeed")}
    lists |= {name: [0.0] * n for name in ("newTemperature", "newMinP", "newPresencePenalty",
                                           "newFrequencyPenalty")}
    lists |= {"newTopP": [1.0] * n, "newRepetitionPenalty": [1.0] * n,
              "newNumLogprobs": [-1] * n, "newNumPromptLogprobs": [-1] * n,
              "newMaxNumTokens": [1 << 30] * n, "newRow": list(range(n)),
              "newNumTokens": [len(p) for p in prompts],
              "newNumPromptTokens": [len(p) for p in prompts],
              "newTokenIds": [token for p in prompts for token in p],
              "blockRow": [], "blockIndex": [], "blockId": []}
    for row, tokens in enumerate(prompts):
        blocks = (len(tokens) + num_decode + BLOCK) // BLOCK
        lists["blockRow"] += [row] * blocks
        lists["blockIndex"] += range(blocks)
        lists["blockId"] += range(first_block, first_block + blocks)
        first_block += blocks
    return lists


def generate(backend, prompts, num_decode, chunk=1 << 30, params=None):
    """(token ids of each row, us of the decode steps, us of the prefill, idle us); params: columns
    of all rows in place of new_rows' own."""
    n, tokens, idle = len(prompts), [[] for _ in prompts], []
    lists = {**new_rows(prompts, num_decode), **(params or {})}
    begin, last, longest = None, None, max(map(len, prompts))
    for start in range(0, longest, chunk):
        rows = [r for r in range(n) if len(prompts[r]) > start]
        counts = [min(chunk, len(prompts[r]) - start) for r in rows]
        ends = [start + c == len(prompts[r]) for r, c in zip(rows, counts)]
        lists |= {"row": rows, "start": [start] * len(rows), "count": counts,
                  "flags": [int(end) for end in ends]}
        backend.submit(sum(counts), lists)
        ids, flags, first, last, _ = backend.wait()
        begin = first if begin is None else begin
        assert not any(flags), "unfit logits"
        for r, token, end in zip(rows, ids, ends):
            assert (token >= 0) == end
            if end:
                tokens[r].append(token)
        lists = {}
    prefill, ends, in_flight = last - begin, [last], 0
    for step in range(num_decode + 2):
        if step < num_decode:
            starts = [len(p) + step for p in prompts]
            backend.submit(n, {"row": list(range(n)), "start": starts, "count": [1] * n,
                               "flags": [1] * n})
            in_flight += 1
        if in_flight == 3 or step >= num_decode and in_flight > 0:
            ids, flags, _, end, wait = backend.wait()
            in_flight -= 1
            assert not any(flags), "unfit logits"
            ends.append(end)
            idle.append(wait)
            for r, token in enumerate(ids):
                tokens[r].append(token)
    steps = [b - a for a, b in zip(ends[2:], ends[3:])]
    return tokens, steps, prefill, idle[2:]


def main():
    path, failed = sys.argv[1], 0

    def report(name, good, note=""):
        nonlocal failed
        failed += not good
        print(f"{'ok ' if good else 'BAD'} {name} {note}".rstrip(), flush=True)

    for file in sys.argv[2:]:
        program, name = json.loads(Path(file).read_text()), Path(file).stem
        vocab = program["vocabSize"]
        try:
            Backend(path, program, max_model_len=1 << 24, kv_cache_memory_bytes=1 << 30).close()
            report(f"{name}: too long", False)
        except Refused as error:
            report(f"{name}: too long", "the largest that fits is" in str(error), str(error))
        prompts = [prompt(i, 128, vocab) for i in range(256)]
        fitted = Backend(path, program, max_model_len=1 << 19, max_num_seqs=8, fit_model_len=1,
                         kv_cache_memory_bytes=1 << 30)
        few, *_ = generate(fitted, prompts[:1], 96)
        fitted.close()
        backend = Backend(path, program)
        loaded = backend.loaded
        print(f"{name}: {loaded.device.decode()}, {loaded.num_blocks} blocks, loaded in "
              f"{backend.load_ms:.0f} ms\n{loaded.notes.decode()}", flush=True)
        print(", ".join(f"{o.owner.decode()} {o.bytes / 2**20:.0f} MiB"
                        for o in loaded.memory[:loaded.num_owners]), flush=True)
        alone, steps, _, idle = generate(backend, prompts[:1], 96)
        report(f"{name}: batch 1", True, f"{statistics.median(steps) / 1e3:.3f} ms a step, idle "
               f"{statistics.median(idle):.1f} us; tokens {alone[0][:8]}")
        report(f"{name}: a cache of less than the longest row", few == alone)
        chunked, *_ = generate(backend, prompts[:3], 32, chunk=50)
        report(f"{name}: prompts in chunks of 50", chunked[0] == alone[0][:33])
        full, steps, prefill, idle = generate(backend, prompts, 96, chunk=64)
        report(f"{name}: batch 256", full[0] == alone[0] and full[1][:33] == chunked[1],
               f"{statistics.median(steps) / 1e3:.3f} ms a step, idle "
               f"{statistics.median(idle):.1f} us; prefill of 256 x 128 {prefill / 1e3:.1f} ms")
        for rows in (33, 100, 128, 180):
            again, steps, *_ = generate(backend, prompts[7:7 + rows], 48, chunk=64)
            report(f"{name}: batch {rows}", again == [tokens[:49] for tokens in full[7:7 + rows]],
                   f"{statistics.median(steps) / 1e3:.3f} ms a step")
        for _ in range(2):
            _, _, prefill, _ = generate(backend, [prompt(i, 2048, vocab) for i in range(8)], 2)
        report(f"{name}: prefill of 8 x 2048", True,
               f"{prefill / 1e3:.1f} ms, {8 * 2048 / prefill * 1e3:.0f} k tok/s")
        backend.close()
        eager = Backend(path, program, eager=1)
        tokens, steps, _, _ = generate(eager, prompts[:33], 96)
        report(f"{name}: eager, batch 33", tokens == full[:33],
               f"{statistics.median(steps) / 1e3:.3f} ms a step")
        eager.close()
    print(f"{failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
