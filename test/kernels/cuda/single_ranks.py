"""Of single_ops.py: what ranks exchange: two ranks one after the other on one device (Pair), and two that
are processes and wait for each other, on one device or on two:

    python single_ranks.py LIBRARY PATH DEVICE

is the second of those."""

import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from abi import DEPENDENT
from bare import BF16, F32, Device, as_dtype
from single_rows import EDITED, LOGPROBS, PLAIN, sample_all, sample_outputs, sample_rows

SENT = 3
#: A tool makes kernels slow, and two processes take the device by turns.
TIMEOUT_MS = 60_000
#: Numbers of a row between launches.
SAMPLE_SCRATCH = 14
#: By the number of devices that two ranks have.
CARRIERS = {1: "shared", 2: "peer"}


class Pair:
    """Two ranks in one process, one after the other: rank 1 finds all that it waits for in its inbox
    already, as zeros; rank 0 finds what rank 1 has sent."""

    def __init__(self, ops):
        device, slot = ops.device, 1 << 20
        size = device.lib.vt_cuda_board_bytes(2, ctypes.c_int64(slot))
        boards = []
        for rank in range(2):
            board = np.full(size, 255 if rank == 0 else 0, np.uint8)
            board[:256] = 0
            boards.append(device.put(board))
        self.groups = []
        for rank in range(2):
            group = device.struct("VtCudaGroup", first_epoch=device.put(np.ones(1, np.uint64)), rank=rank,
                                  report=device.put(np.zeros(32, np.uint8)), timeout_ns=2 * 10**9, slot_bytes=slot,
                                  num_ranks=2, max_blocks=132)
            for r in range(2):
                group.boards[r] = boards[r].address
            self.groups.append(group)

    def address(self, rank):
        return ctypes.addressof(self.groups[rank])


class Sum:
    """An allReduce of rows of bf16: this rank's part, and what all ranks get, bit for bit."""

    def __init__(self, ops, rows, columns):
        self.ops, self.rows, self.columns = ops, rows, columns
        self.residual, self.weight = ops.rows(rows, columns), ops.rows(columns)

    def run(self, group, x, way, split=1, ordinal=0, flags=0):
        """(out, norm of out)"""
        n = self.columns
        out, norm = (self.ops.full(self.rows, n) for _ in range(2))
        self.ops.device.call("vt_cuda_all_reduce", "VtCudaAllReduce", group=group, out=out, x=x,
                             residual=self.residual, norm_out=norm, norm_weight=self.weight, num_rows=self.rows,
                             columns=n, out_stride=n, x_stride=n, residual_stride=n, norm_stride=n, way=way,
                             split=split, ordinal=ordinal, eps=1e-5, dtype=BF16, flags=flags)
        return out, norm

    def check(self, name, parts, out, norm):
        """`parts`: x of all ranks."""
        device, n = self.ops.device, self.columns
        total = sum(device.get(part) for part in parts[1:]) + device.get(parts[0])
        residual = (device.get(self.residual).astype(np.uint32) << 16).view(np.float32)
        want, want_norm = device.put(as_dtype(total + residual, BF16)), self.ops.full(self.rows, n)
        device.call("vt_cuda_rms_norm", "VtCudaRmsNorm", out=want_norm, x=want, weight=self.weight, eps=1e-5,
                    num_rows=self.rows, columns=n, out_stride=n, x_stride=n, dtype=BF16)
        self.ops.same(name, [out, want])
        self.ops.same(f"{name}, norm", [norm, want_norm])


class Linear:
    """m rows whose sums in f32 a linear sends, or writes."""

    def __init__(self, ops, m, n, k):
        self.ops, self.m, self.n, self.k = ops, m, n, k
        self.x, self.weight = ops.rows(m, k), ops.rows(n, k, scale=k**-0.5)

    def args(self, out, flags):
        return self.ops.device.struct("VtCudaLinear", out=out, x=self.x, weight=self.weight, m=self.m, n=self.n,
                                      k=self.k, out_stride=self.n, x_stride=self.k, weight_stride=self.k,
                                      dtype=BF16, out_dtype=F32, flags=flags)

    def write(self):
        out = self.ops.full(self.m, self.n, dtype=F32)
        self.ops.device.queue("vt_cuda_linear", self.args(out, 0))
        return out

    def send(self, group, ordinal=0, flags=0):
        """What it returns is not written."""
        device, out = self.ops.device, self.ops.full(self.m, self.n, dtype=F32)
        args, group = self.args(out, flags), ctypes.c_void_p(group)
        if device.lib.vt_cuda_linear_sends(ctypes.byref(args), group) != 1:
            raise RuntimeError(f"a linear of {self.m} x {self.n} x {self.k} does not send")
        device.queue("vt_cuda_linear_send", args, group, ctypes.c_int32(ordinal))
        return out


def collectives(ops):
    for way, rows, columns, split in ((1, 3, 1024, 1), (1, 2, 4096, 4), (2, 5, 2048, 1), (2, 4, 8192, 2)):
        pair, of = Pair(ops), Sum(ops, rows, columns)
        xs = [ops.rows(rows, columns, dtype=F32) for _ in range(2)]
        for rank in (1, 0):
            out, norm = of.run(pair.address(rank), xs[rank], way, split)
            ops.report(f"allReduce {rows} x {columns}, way {way}, rank {rank}", out, norm)
        if way == 1:
            of.check(f"allReduce {rows} x {columns}", xs, out, norm)
    for parts in (2, 3):
        rows, columns = 3, 1024
        out, norm = ops.full(rows, columns), ops.full(rows, columns)
        ops.device.call("vt_cuda_sum_parts", "VtCudaSumParts", out=out, parts=ops.rows(parts, rows, columns, dtype=F32),
                        residual=ops.rows(rows, columns), norm_out=norm, norm_weight=ops.rows(columns),
                        part_stride=rows * columns, num_parts=parts, own_part=-1, num_rows=rows, columns=columns,
                        out_stride=columns, residual_stride=columns, norm_stride=columns, eps=1e-5, dtype=BF16)
        ops.report(f"sum of {parts} parts", out, norm)
    out = ops.full(3, 1100, dtype=F32)
    ops.device.call("vt_cuda_join_parts", "VtCudaJoinParts", out=out, parts=ops.rows(2, 3, 1024, dtype=F32),
                    num_parts=2, num_rows=3, columns=1024, out_columns=1100, out_stride=1100)
    ops.report("join of 2 parts", out)


SENDERS = ((1, 1024, 512), (2, 2048, 256), (8, 1040, 512), (16, 512, 256))


def sent(ops):
    for m, n, k in SENDERS:
        pair, of, linears = Pair(ops), Sum(ops, m, n), [Linear(ops, m, n, k) for _ in range(2)]
        for rank in (1, 0):
            untouched = linears[rank].send(pair.address(rank))
            out, norm = of.run(pair.address(rank), untouched, SENT)
            ops.report(f"linear that sends {m} x {n} x {k}, rank {rank}", out, norm, untouched)
        of.check(f"linear that sends {m} x {n} x {k}", [linear.write() for linear in linears], out, norm)


COLUMNS, VOCAB = 1024, 1100


class Sharded:
    """Rows of logits of which two ranks have 1,024 columns each."""

    def __init__(self, ops, wishes, vocab=VOCAB):
        self.ops, self.rows = ops, len(wishes) + 1
        self.fields = sample_rows(ops, vocab, wishes, 5, self.rows)
        self.logits = ops.random.standard_normal((self.rows, 2 * COLUMNS), np.float32) * np.float32(3)
        self.logits[:, vocab:] = 1e30  # nobody's
        self.tokens = ops.ints(range(20))

    def part_of(self, rank, sampler):
        return self.ops.device.put(self.logits[:, rank * COLUMNS:(rank + 1) * COLUMNS])

    def run(self, group, rank, ordinal=0, **carried):
        ops, device = self.ops, self.ops.device
        outputs = sample_outputs(ops, self.rows, 5)
        room = ops.full(self.rows, 2 * COLUMNS, dtype=F32)
        inner = device.struct("VtCudaSample", logits=room, logits_stride=2 * COLUMNS, **self.fields, **outputs)
        part = self.part_of(rank, inner)
        device.call("vt_cuda_sample_sharded", "VtCudaSampleSharded", group=group, sample=ctypes.addressof(inner),
                    x=part, all_logits=room, rest=ops.ints([-9] * SAMPLE_SCRATCH * self.rows), tokens=self.tokens, num_tokens=20,
                    x_columns=COLUMNS, x_stride=COLUMNS, ordinal=ordinal, **carried)
        return outputs

    def check(self, name, outputs):
        want = sample_all(self.ops, self.ops.device.put(self.logits), self.fields, 2 * COLUMNS)
        for field, values in want.items():
            self.ops.same(f"{name}: {field}", [values, outputs[field]])


class Headed(Sharded):
    """Of which each rank's head leaves out those of rows that need their best id alone."""

    WISHES = [{}, {}, *PLAIN[:3], {}, EDITED[0], {}, LOGPROBS[1]] * 8
    IDS, K = 1104, 64

    def __init__(self, ops, wishes=WISHES):
        super().__init__(ops, wishes, self.IDS)
        self.x, self.weight = ops.rows(self.rows, self.K), ops.rows(2 * COLUMNS, self.K)
        out = ops.full(self.rows, 2 * COLUMNS, dtype=F32)
        ops.device.queue("vt_cuda_linear", self.linear(out, 0, 2 * COLUMNS))
        self.logits = ops.device.get(out)

    def linear(self, out, first, n):
        return self.ops.device.struct("VtCudaLinear", out=out, x=self.x, weight=self.weight.at(first * self.K),
                                      m=self.rows, n=n, k=self.K, out_stride=n, x_stride=self.K, large=2,
                                      weight_stride=self.K, dtype=BF16, out_dtype=F32)

    def part_of(self, rank, sampler):
        ops, lib = self.ops, self.ops.device.lib
        out = ops.full(self.rows, COLUMNS, dtype=F32)
        linear = self.linear(out, rank * COLUMNS, COLUMNS)
        sampler.num_best = lib.vt_cuda_linear_num_best(ctypes.byref(linear))
        sampler.best = ops.full(self.rows, max(1, 2 * sampler.num_best), dtype=F32).address
        sampler.vocab_size = min(COLUMNS, self.IDS - rank * COLUMNS)
        ops.device.queue("vt_cuda_linear_for_sample", linear, ctypes.byref(sampler))
        sampler.vocab_size = self.IDS
        return out


def sharded(wishes, kind=Sharded):
    def run(ops):
        pair, of = Pair(ops), kind(ops, wishes)
        for rank in (1, 0):
            ops.report(f"sampleSharded, rank {rank}", *of.run(pair.address(rank), rank).values())
    return run


class Rank:
    """One of two processes, as a load makes it; `path` is the same for both. carrier: shared, or peer
    where each has a device to itself."""

    def __init__(self, ops, rank, path, carrier):
        class Ranks(ctypes.Structure):
            _fields_ = [(name, ctypes.c_int32) for name in ("rank", "num_ranks", "local_rank", "num_local_ranks",
                                                            "timeout_ms")]
            _fields_ += [(name, ctypes.c_char_p) for name in ("path", "collectives")]
            _fields_ += [(name, ctypes.c_void_p) for name in ("addresses", "shown", "expected")]

        self.ops, self.lib, self.rank, self.ordinal = ops, ops.device.lib, rank, 0
        for name in ("", "_group"):
            getattr(self.lib, f"vt_cuda_test_ranks{name}").restype = ctypes.c_void_p
        ranks = Ranks(rank, 2, rank, 2, TIMEOUT_MS, path.encode(), carrier.encode())
        self.handle = ctypes.c_void_p(self.lib.vt_cuda_test_ranks(ctypes.byref(ranks), b"", ctypes.c_int32(0)))
        if not self.handle:
            raise RuntimeError(self.lib.vt_cuda_error().decode())
        self.group = self.lib.vt_cuda_test_ranks_group(self.handle)
        self.lib.vt_cuda_test_ranks_set_epoch(self.handle, ctypes.c_uint64(1))

    def next_ordinal(self, epochs=1):
        self.ordinal += epochs
        return self.ordinal - epochs

    def run(self):
        ops, group = self.ops, ctypes.c_void_p(self.group)
        for way, rows, columns, split in ((1, 3, 1024, 1), (1, 2, 4096, 4), (2, 5, 2048, 1), (2, 4, 8192, 2)):
            of, xs = Sum(ops, rows, columns), [ops.rows(rows, columns, dtype=F32) for _ in range(2)]
            epochs = self.lib.vt_cuda_all_reduce_epochs(group, rows, columns, way)
            sums = of.run(self.group, xs[self.rank], way, split, self.next_ordinal(epochs), DEPENDENT)
            ops.report(f"rank {self.rank}: allReduce {rows} x {columns}, way {way}", *sums)
            of.check(f"allReduce {rows} x {columns}, way {way}", xs, *sums)
        for m, n, k in SENDERS:
            of, linears = Sum(ops, m, n), [Linear(ops, m, n, k) for _ in range(2)]
            ordinal = self.next_ordinal()
            untouched = linears[self.rank].send(self.group, ordinal, DEPENDENT)
            sums = of.run(self.group, untouched, SENT, 0, ordinal, DEPENDENT)
            ops.report(f"rank {self.rank}: linear that sends {m} x {n} x {k}", *sums, untouched)
            of.check(f"linear that sends {m} x {n} x {k}", [linear.write() for linear in linears], *sums)
        for name, of in (("plain", Sharded(ops, PLAIN[:5])), ("edited", Sharded(ops, EDITED)),
                         ("logprobs", Sharded(ops, LOGPROBS)), ("best ids of the head", Headed(ops))):
            epochs = self.lib.vt_cuda_sample_sharded_epochs(group, of.rows, COLUMNS)
            outputs = of.run(self.group, self.rank, self.next_ordinal(epochs))
            ops.report(f"rank {self.rank}: sampleSharded, {name}", *outputs.values())
            of.check(f"sampleSharded, {name}", outputs)
        missing, op = ctypes.c_int32(-1), ctypes.c_int32(-1)
        if self.lib.vt_cuda_test_ranks_failure(self.handle, ctypes.byref(missing), ctypes.byref(op)) != 0:
            raise RuntimeError(f"rank {self.rank} gave up waiting for rank {missing.value} in op {op.value}")
        self.lib.vt_cuda_test_ranks_meet(self.handle)
        self.lib.vt_cuda_test_ranks_close(self.handle)


def two_ranks(num_devices):
    """This process is rank 0."""
    def run(ops):
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "ranks")
            command = [sys.executable, __file__, ops.device.path, path, str(num_devices - 1)]
            other = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
            try:
                Rank(ops, 0, path, CARRIERS[num_devices]).run()
                output, _ = other.communicate()
            finally:
                other.kill()
        print(output, end="", flush=True)
        if other.returncode != 0:
            raise RuntimeError(f"rank 1 ended with {other.returncode}")
    return run


if __name__ == "__main__":
    from single_ops import Ops

    library, path, ordinal = sys.argv[1], sys.argv[2], int(sys.argv[3])
    Rank(Ops(Device(library, ordinal)), 1, path, CARRIERS[ordinal + 1]).run()
