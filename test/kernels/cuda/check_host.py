"""What of a load needs no GPU: the answer where there is no driver, programs and options that are
refused, the size of the KV cache, and what is read before there is a device. `python check_host.py LIBRARY PROGRAM.json`"""

import ctypes
import json
import mmap
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from check_load import Backend, Load, Part, Refused

GIB = 1 << 30
MIB = 1 << 20


def kv_blocks(lib, total=80, before=79, now=60, heads=8, **options):
    load = Load(block_size=16, max_num_seqs=1024, max_model_len=4096, memory_utilization=0.9)
    for name, value in options.items():
        setattr(load, name, value)
    blocks = ctypes.c_int32()
    sizes = [ctypes.c_uint64(int(gib * GIB)) for gib in (total, before, now)]
    failed = lib.vt_cuda_test_kv_blocks(ctypes.byref(load), 16, heads, 64, *sizes,
                                        ctypes.byref(blocks))
    return lib.vt_cuda_error().decode() if failed else blocks.value


def read_ahead(lib):
    """Whether all pages of a part come into memory, though nobody touches one; of a file that is on a
    disk alone at first, where the file system can forget it."""
    with tempfile.TemporaryFile() as file:
        file.write(os.urandom(32 * MIB))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        view = (ctypes.c_char * len(mapped)).from_buffer(mapped)
        begin, size = 3 * MIB, 20 * MIB
        pages = (ctypes.c_ubyte * (size // mmap.PAGESIZE))()

        def resident():
            address = ctypes.c_void_p(ctypes.addressof(view) + begin)
            assert ctypes.CDLL(None).mincore(address, ctypes.c_size_t(size), pages) == 0
            return sum(page & 1 for page in pages)

        before, deadline = resident(), time.monotonic() + 60
        part = Part(data=ctypes.addressof(view) + begin + 5, num_bytes=size - 5)
        lib.vt_cuda_test_readahead((Part * 2)(Part(), part), 2)
        while resident() < len(pages) and time.monotonic() < deadline:
            time.sleep(0.01)
        after = resident()
        print(f"    pages in memory before {before}, after {after} of {len(pages)}")
        del view
        return after == len(pages)


def main():
    path, file = sys.argv[1:]
    lib = ctypes.CDLL(path)
    lib.vt_cuda_error.restype = ctypes.c_char_p
    wrong = 0

    def expect(what, got, wanted):
        nonlocal wrong
        good = wanted in got if isinstance(wanted, str) and isinstance(got, str) else got == wanted
        wrong += not good
        print(f"{'ok ' if good else 'BAD'} {what}: {got}" + ("" if good else f", not {wanted}"))

    # A block of 16 layers and 8 heads of 64 is half a MiB.
    expect("a share of the card", kv_blocks(lib), 53 * 2048)
    expect("never more than the rows can fill", kv_blocks(lib, max_num_seqs=16), 16 * 256 + 1)
    expect("bytes asked for", kv_blocks(lib, kv_cache_memory_bytes=GIB + 1), 2048)
    expect("others came since", kv_blocks(lib, before=79, now=10), 3 * 2048)
    expect("slots are 32-bit", kv_blocks(lib, total=1 << 20, before=1 << 20, now=1 << 20, heads=1,
                                         max_num_seqs=1 << 20), (1 << 31) // 16 - 1)
    expect("a card in use", kv_blocks(lib, before=50), "--gpu-memory-utilization 0.9 asks for 72.00 "
           "of 80.00 GiB, 50.00 GiB are free")
    expect("more than there is", kv_blocks(lib, kv_cache_memory_bytes=61 * GIB),
           "--kv-cache-memory-bytes asks for 61.00 GiB, 60.00 GiB of 80.00 are free")
    expect("one request does not fit", kv_blocks(lib, kv_cache_memory_bytes=GIB // 10),
           "--max-model-len 4096 needs 0.13 GiB of KV cache, there are 0.10: the largest that fits "
           "is 3248; lower --max-model-len, or raise --gpu-memory-utilization")
    expect("nothing left", kv_blocks(lib, now=1), "the largest that fits is 0;")
    fitted = {"fit_model_len": 1, "max_model_len": 1 << 20}
    expect("as many as there are", kv_blocks(lib, kv_cache_memory_bytes=GIB // 10, **fitted), 204)
    expect("nor more than rows can fill", kv_blocks(lib, fit_model_len=1, max_num_seqs=16),
           16 * 256 + 1)
    expect("one that is nobody's and one", kv_blocks(lib, kv_cache_memory_bytes=MIB, **fitted), 2)
    expect("not even these", kv_blocks(lib, kv_cache_memory_bytes=MIB - 1, **fitted),
           "not enough for a block of 16 tokens: raise --gpu-memory-utilization or "
           "--kv-cache-memory-bytes")

    expect("what weights lie in is asked for", read_ahead(lib), True)

    def cublaslt(search_path=""):
        text = ctypes.create_string_buffer(4096)
        lib.vt_cuda_test_find_cublaslt(search_path.encode(), text, ctypes.c_uint64(len(text)))
        return text.value.decode()

    # A library of that name that is another: it is found, and refused by what it lacks.
    with tempfile.TemporaryDirectory() as folder:
        named, environment = Path(folder) / "named", Path(folder) / "venv"
        packages = environment / "lib/python3.9/site-packages/nvidia/cu13/lib"
        for place in (named, packages):
            place.mkdir(parents=True)
            shutil.copy(path, place / "libcublasLt.so.13")
        expect("cuBLASLt in a named folder", cublaslt(f"/nonexistent:{named}"),
               f"{named}/libcublasLt.so.13: cublasLtCreate is missing")
        os.environ["VIRTUAL_ENV"] = str(environment)
        found = cublaslt()
        # The loader's and a toolkit's come before them.
        if "packages" in found:
            expect("cuBLASLt among pip's packages", found,
                   f"{packages}/libcublasLt.so.13: cublasLtCreate is missing")

    def refused(program, **options):
        try:
            Backend(path, program, **options)
            return "loaded"
        except Refused as error:
            return str(error)

    def changed(key, index, value):
        program = json.loads(open(file).read())
        program[key][index] = value
        return program

    good = json.loads(open(file).read())
    expect("block size", refused(good, block_size=48), "--block-size 48 is not supported on cuda")
    # [dtype, symbol, columns, offset, rows at once] of each buffer; dtypes are f32, f16, bf16.
    expect("activations in f32", refused(changed("buffers", 5, 0)),
           "the cuda backend does not compute in f32")
    expect("two dtypes", refused(changed("buffers", 10, 1)), "the op computes in")
    expect("KV cache in f32", refused(changed("kvGroups", 3, 0)),
           "a KV cache in f32 is not supported on cuda")
    expect("arena", refused(changed("buffers", 8, 1 << 40)), "ends outside the arena")
    # Not reached where there is a GPU.
    probe = ctypes.create_string_buffer(256)
    if lib.vt_cuda_device(probe) != 0:
        reason = lib.vt_cuda_error().decode()
        expect("without a device", refused(good), reason)
        expect("one line", reason.count("\n"), 0)
    print(f"{wrong} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
