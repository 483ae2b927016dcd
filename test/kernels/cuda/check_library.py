"""What a load does before its first step: weights on the device against torch, made-up weights, the
KV cache's memory, and the linear library: cuBLASLt's bits against our own kernels', and its speed."""

import ctypes
import tempfile
import time

import numpy as np
import torch

from vt_cuda import DTYPES, VtCuda

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# n, k, residual, f32 output, bias
SHAPES = ((6144, 4096, False, False, False), (4096, 4096, True, False, False),
          (28672, 4096, False, False, False), (4096, 14336, True, False, False),
          (3072, 2048, False, False, True), (16384, 2048, False, False, False),
          (2048, 8192, True, False, False), (128256, 2048, False, True, False),
          (4096, 1024, False, False, False), (1024, 2048, True, False, False),
          (6144, 1024, False, False, False), (1024, 3072, True, False, False),
          (1000, 576, False, False, False))


class Part(ctypes.Structure):
    _fields_ = [("dtype", ctypes.c_int32), ("num_rows", ctypes.c_int64),
                ("num_columns", ctypes.c_int64), ("row_bytes", ctypes.c_int64),
                ("data", ctypes.c_void_p), ("num_bytes", ctypes.c_uint64),
                ("tensor", ctypes.c_uint32), ("first_row", ctypes.c_int64),
                ("first_column", ctypes.c_int64), ("tensor_rows", ctypes.c_int64),
                ("tensor_columns", ctypes.c_int64)]


def part_of(tensor, keep):
    """A part over bytes at an odd address, as in a file; `keep` holds them."""
    raw = tensor.contiguous().view(torch.uint8).reshape(-1)
    at = torch.empty(raw.numel() + 1, dtype=torch.uint8)[1:]
    at.copy_(raw)
    keep.append(at)
    rows, columns = tensor.shape if tensor.dim() == 2 else (tensor.numel(), 1)
    return Part(DTYPES[tensor.dtype], rows, columns, raw.numel() // rows, at.data_ptr(), raw.numel())


def column_part(tensor, first, columns, keep):
    """Some columns of a tensor, where they lie in it."""
    whole = part_of(tensor, keep)
    size = tensor.element_size()
    return Part(whole.dtype, whole.num_rows, columns, whole.row_bytes, whole.data + first * size,
                (whole.num_rows - 1) * whole.row_bytes + columns * size)


def upload(vt, dtype, rows, columns, interleave=0, parts=(), seed=-1, read=True):
    """(the weight as it lies on the device, [rows][stride], ms)"""
    array = (Part * max(len(parts), 1))(*parts)
    size = torch.empty(0, dtype=dtype).element_size()
    unit = 128 // size
    stride = (columns + unit - 1) // unit * unit if columns else 1
    host = torch.full((rows, stride), 7, dtype=dtype) if read else None
    got, ms = ctypes.c_int64(), ctypes.c_double()
    failed = vt.lib.vt_cuda_test_weight(
        DTYPES[dtype], ctypes.c_int64(rows), ctypes.c_int64(columns), interleave, array,
        len(parts), ctypes.c_int64(seed), ctypes.c_void_p(host.data_ptr() if read else None),
        ctypes.c_uint64(rows * stride * size if read else 0), ctypes.byref(got),
        ctypes.byref(ms))
    if failed:
        raise RuntimeError(vt.lib.vt_cuda_error().decode())
    assert got.value == (stride if columns else rows), "stride"
    return host, ms.value


def bits(tensor):
    return tensor.contiguous().view(torch.int32 if tensor.element_size() == 4 else torch.int16)


def interleaved(weight, group):
    gate, up = weight.chunk(2)
    halves = [half.reshape(-1, group, *half.shape[1:]) for half in (gate, up)]
    return torch.stack(halves, 1).reshape(weight.shape)


def check_weights(vt, report):
    generator = torch.Generator().manual_seed(5)
    for source in FLOATS:
        for dtype in FLOATS:
            same = True
            for rows, columns, group in (((5, 3, 8), 576, 0), ((1,), 100, 0), ((48, 48), 64, 8),
                                         ((6000, 3000), 2048, 0), ((4096, 4096), 1024, 16),
                                         ((7,), 16, 0), ((1000,), 0, 0), ((16, 16), 0, 8)):
                shape = lambda r: (r, columns) if columns else (r,)
                keep = []
                tensors = [(torch.randn(shape(r), generator=generator) * 3).to(source)
                           for r in rows]
                got, _ = upload(vt, dtype, sum(rows), columns, group,
                                [part_of(t, keep) for t in tensors])
                want = torch.cat(tensors).to(dtype)
                if group:
                    want = interleaved(want, group)
                want = want.reshape(sum(rows), -1)
                same &= torch.equal(bits(got[:, :want.shape[1]]), bits(want))
                same &= (got[:, want.shape[1]:] == 0).all().item()
            report(f"weights {source} to {dtype}", 0.0, 1e-9, same)
    for rows, whole, first, columns in ((40, 1024, 512, 512), (3, 100, 1, 7), (6000, 4096, 0, 2048)):
        keep = []
        tensor = torch.randn(rows, whole, generator=generator).bfloat16()
        got, _ = upload(vt, torch.bfloat16, rows, columns, 0,
                        [column_part(tensor, first, columns, keep)])
        report(f"weights from columns {first}..{first + columns} of {whole}", 0.0, 1e-9,
               torch.equal(bits(got[:, :columns]), bits(tensor[:, first:first + columns])))
    try:
        keep = []
        upload(vt, torch.bfloat16, 9, 64, 0, [part_of(torch.zeros(8, 64), keep)])
        refused = False
    except RuntimeError as error:
        refused = "its parts have 8 rows, expected 9" in str(error)
    report("weights with a row too few are refused", 0.0, 1e-9, refused)


def mix(x):
    x = (x ^ (x >> 16)) * np.uint32(0x7feb352d)
    x = (x ^ (x >> 15)) * np.uint32(0x846ca68b)
    return x ^ (x >> 16)


def check_dummy(vt, report):
    seed, rows, columns = 12345678901, 64, 576
    with np.errstate(over="ignore"):
        key = mix(mix(mix(np.uint32(seed >> 32)) ^ np.uint32(seed & 0xffffffff)))
        row_key = mix(key + np.arange(rows, dtype=np.uint32))[:, None]
        words = mix(row_key + np.arange(columns, dtype=np.uint32) * np.uint32(0x9e3779b9))
        unit = (words >> 8).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
        want = torch.from_numpy(unit * np.sqrt(np.float32(3) / np.float32(columns)))
    for dtype in FLOATS:
        got = upload(vt, dtype, rows, columns, seed=seed)[0][:, :columns]
        same = torch.equal(bits(got), bits(want.to(dtype)))
        again = upload(vt, dtype, rows, columns, 8, seed=seed)[0][:, :columns]
        same &= torch.equal(bits(again), bits(interleaved(got, 8)))
        same &= not torch.equal(got, upload(vt, dtype, rows, columns, seed=1)[0][:, :columns])
        same &= (upload(vt, dtype, 100, 0, seed=seed)[0] == 1).all().item()
        parts = [Part(0, 20, 288, 0, None, 0, 0, 30, 288, rows, columns),
                 Part(0, 5, 288, 0, None, 0, 0, rows - 3, 0, rows, columns)]
        pieces = upload(vt, dtype, 25, 288, seed=seed, parts=parts)[0][:, :288]
        whole = want.to(dtype)
        same &= torch.equal(bits(pieces[:20]), bits(whole[30:50, 288:]))
        same &= torch.equal(bits(pieces[20:23]), bits(whole[rows - 3:, :288]))
        same &= (pieces[23:] == 0).all().item()
        report(f"made-up weights {dtype}, whole and in parts", 0.0, 1e-9, same)
    _, ms = upload(vt, torch.bfloat16, 1 << 20, 4096, seed=3, read=False)
    report("made-up weights of 8.6 GB", 0.0, 1e-9, True, f"{ms:.0f} ms")


def check_speed(vt, report):
    """4 GiB from a mapped file in the page cache, merged and interleaved as gate and up are."""
    rows, columns = 1 << 19, 4096
    with tempfile.NamedTemporaryFile() as file:
        block = np.random.default_rng(1).integers(0, 1 << 14, (1 << 16, columns), np.uint16)
        for _ in range(rows // len(block)):
            file.write(block)
        file.flush()
        for group in (0, 8):
            times = []
            for _ in range(2):
                mapped = np.memmap(file.name, np.uint16, "r", shape=(rows, columns))
                half = rows // 2
                parts = [Part(DTYPES[torch.bfloat16], half, columns, columns * 2, mapped.ctypes.data + i,
                              half * columns * 2) for i in (0, half * columns * 2)]
                times.append(upload(vt, torch.bfloat16, rows, columns, group, parts,
                                    read=False)[1])
            report(f"upload of 4 GiB, interleave {group}", 0.0, 1e-9, True,
                   ", ".join(f"{ms:.0f} ms ({rows * columns * 2 / ms / 1e6:.1f} GB/s)"
                             for ms in times))


class Library:
    def __init__(self, vt, fast_math=0, search_path=""):
        self.vt, lib = vt, vt.lib
        lib.vt_cuda_linear_library.restype = ctypes.c_void_p
        self.handle = ctypes.c_void_p(lib.vt_cuda_linear_library(search_path.encode(), fast_math))
        if not self.handle.value:
            raise RuntimeError(lib.vt_cuda_error().decode())

    def args(self, out, x, weight, bias=None, residual=None):
        fields = dict(out=out, x=x, weight=weight, bias=bias, residual=residual)
        (m, k), n = x.shape, weight.shape[0]
        args = self.vt.structs["VtCudaLinear"]()
        for name, tensor in fields.items():
            setattr(args, name, None if tensor is None else tensor.data_ptr())
        args.m, args.n, args.k = m, n, k
        args.out_stride, args.x_stride = out.stride(0), x.stride(0)
        args.weight_stride = weight.stride(0)
        args.residual_stride = 0 if residual is None else residual.stride(0)
        args.dtype, args.out_dtype = DTYPES[x.dtype], DTYPES[out.dtype]
        return args

    def prepare(self, max_m, **tensors):
        args = self.args(**tensors)
        if self.vt.lib.vt_cuda_linear_library_prepare(self.handle, ctypes.byref(args), max_m):
            raise RuntimeError(self.vt.lib.vt_cuda_error().decode())

    def run(self, **tensors):
        args = self.args(**tensors)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        if self.vt.lib.vt_cuda_linear_library_run(self.handle, ctypes.byref(args), stream):
            raise RuntimeError(self.vt.lib.vt_cuda_error().decode())

    def notes(self):
        text = ctypes.create_string_buffer(512)
        self.vt.lib.vt_cuda_linear_library_notes(self.handle, text, ctypes.c_uint64(512))
        return text.value.decode()

    def close(self):
        self.vt.lib.vt_cuda_linear_library_close(self.handle)


def graph_us(calls, repeats):
    calls[0]()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            for call in calls:
                call()
    times = []
    for _ in range(4):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / repeats / len(calls))
    return min(times)


def check_linear(vt, report):
    library = Library(vt)
    for dtype in (torch.bfloat16, torch.float16):
        for n, k, adds, wide, biased in SHAPES:
            if dtype is torch.float16 and n * k > 1 << 23:
                continue
            g = torch.Generator(device="cuda").manual_seed(n + k)
            random = lambda *shape: torch.randn(*shape, device="cuda", generator=g).to(dtype)
            most = 256 if wide else 2048
            x, weight = random(most, k), random(n, k) * 0.05
            bias = random(n) if biased else None
            residual = random(most, n) if adds else None
            out_dtype = torch.float32 if wide else dtype
            out = torch.empty(most, n, device="cuda", dtype=out_dtype)
            begin = time.perf_counter()
            library.prepare(most, out=out, x=x, weight=weight, bias=bias, residual=residual)
            ms = (time.perf_counter() - begin) * 1e3
            wrong = []
            for m in (1, 33, 64, 65, 127, 128, 129, 255, 256, 257, 1000, 2048):
                if m > most:
                    continue
                got = torch.full((m + 1, n), 7.0, device="cuda", dtype=out_dtype)
                want = torch.empty_like(got)
                tensors = dict(x=x[:m], weight=weight, bias=bias)
                vt.linear(want[:m], residual=residual[:m] if adds else None, **tensors)
                for in_place in (False, True) if adds else (False,):
                    if in_place:  # which cuBLASLt is not given: it rounds twice then
                        got[:m] = residual[:m]
                    added = got[:m] if in_place else residual[:m] if adds else None
                    library.run(out=got[:m], residual=added, **tensors)
                    differ = (bits(got[:m]) != bits(want[:m])).sum().item()
                    if differ or not (got[m] == 7).all().item():
                        wrong.append(f"m {m}{' in place' if in_place else ''}: {differ} differ")
            times = []
            weights = [weight] + [weight.clone() for _ in range((160 << 20) // (n * k * 2))]
            for m in (64, 128, 256, most):
                tensors = dict(x=x[:m], bias=bias, residual=residual[:m] if adds else None)
                repeats = max(1, 40 // len(weights)) if m < 2048 else 1
                library_us = graph_us([lambda w=w: library.run(out=out[:m], weight=w, **tensors)
                                       for w in weights[:40]], repeats)
                own_us = graph_us([lambda w=w: vt.linear(out[:m], weight=w, **tensors)
                                   for w in weights[:40]], repeats)
                times.append(f"m {m}: {library_us:.1f} us, ours {own_us:.1f}")
            note = f"prepared in {ms:.0f} ms; " + "; ".join(wrong + times)
            report(f"linear library {dtype} {n}x{k}", 0.0, 1e-9, not wrong, note)
            del weights
    print(library.notes(), flush=True)
    library.close()
    for search_path, fast_math in (("", 1),):
        other = Library(vt, fast_math, search_path)
        print(other.notes(), flush=True)
        other.close()


def check(vt: VtCuda, report):
    wrong = ctypes.c_uint64(1)
    failed = vt.lib.vt_cuda_test_kv_cache(ctypes.c_uint64(64 << 30), ctypes.c_uint64(2500000000),
                                          ctypes.byref(wrong))
    report("KV cache: reserved, then mapped", 0.0, 1e-9, failed == 0 and wrong.value == 0,
           vt.lib.vt_cuda_error().decode() if failed else "")
    check_weights(vt, report)
    check_dummy(vt, report)
    check_speed(vt, report)
    check_linear(vt, report)
