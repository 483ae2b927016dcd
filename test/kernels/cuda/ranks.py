"""One rank of a group on its GPU: collectives of libvt_cuda.so over torch tensors in the arena."""

import ctypes
import os

import torch

from vt_cuda import DTYPES, VtCuda

BF16, F32 = torch.bfloat16, torch.float32
#: Collectives of meet_on_device: an even number.
MEETINGS = 2
#: VT_CUDA_SAMPLE_SCRATCH of vt_cuda_collective.h
SAMPLE_SCRATCH = 14
#: VT_CUDA_WAY_SENT
SENT = 3
#: VT_CUDA_CARRIED_CANDIDATES, VT_CUDA_SEARCH_STEPS
CARRIED_CANDIDATES, SEARCH_STEPS = 64, 4


class Ranks(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("rank", "num_ranks", "local_rank",
                                                    "num_local_ranks", "timeout_ms")]
    _fields_ += [("path", ctypes.c_char_p), ("collectives", ctypes.c_char_p)]
    _fields_ += [(name, ctypes.c_void_p) for name in ("addresses", "shown", "expected")]


class Rank:
    def __init__(self, library, rank, num_ranks, path, arena_bytes, timeout_ms=2000,
                 collectives="peer", fast_math=False):
        torch.cuda.set_device(rank % torch.cuda.device_count())
        torch.zeros(1, device="cuda")
        self.rank, self.num_ranks = rank, num_ranks
        self.is_nccl = collectives == "nccl"
        #: Over NCCL: all logits of all rows are gathered, as where GPUs are too old for what ranks tell.
        self.gathers = False
        self.vt = VtCuda(library)
        self.lib = self.vt.lib
        for name in ("", "_group", "_note"):
            getattr(self.lib, f"vt_cuda_test_ranks{name}").restype = ctypes.c_void_p
        ranks = Ranks(rank, num_ranks, rank, num_ranks, timeout_ms, path.encode(),
                      collectives.encode())
        libraries = os.environ.get("VLLM_TS_CUDA_LIBS", "").encode()
        handle = self.lib.vt_cuda_test_ranks(ctypes.byref(ranks), libraries,
                                             ctypes.c_int32(fast_math))
        if not handle:
            raise RuntimeError(self.lib.vt_cuda_error().decode())
        self.handle = ctypes.c_void_p(handle)
        self.group = self.lib.vt_cuda_test_ranks_group(self.handle)
        self.note = ctypes.string_at(self.lib.vt_cuda_test_ranks_note(self.handle)).decode()
        self.arena = torch.zeros(arena_bytes, dtype=torch.uint8, device="cuda")
        self.epoch, self.ordinal, self.taken = 1, 0, 0
        self.meeting = self.tensor(1, 16, F32), self.tensor(1, 16, BF16)
        self.reserved = self.taken
        self.set_epoch(1)

    def check(self, result):
        if result != 0:
            raise RuntimeError(self.lib.vt_cuda_error().decode())

    def set_epoch(self, epoch):
        """Of the next collective; those after it count on from there."""
        self.check(self.lib.vt_cuda_test_ranks_set_epoch(self.handle, ctypes.c_uint64(epoch)))
        self.epoch, self.ordinal = epoch, 0

    def next_step(self):
        """As the host does between two steps."""
        self.set_epoch(self.epoch + self.ordinal)

    def meet(self):
        torch.cuda.synchronize()
        self.check(self.lib.vt_cuda_test_ranks_meet(self.handle))

    def tensor(self, rows, columns, dtype):
        """Of the arena, which free() begins anew."""
        size = rows * columns * torch.empty(0, dtype=dtype).element_size()
        begin = self.taken
        self.taken += (size + 255) // 256 * 256
        assert self.taken <= self.arena.numel(), "the arena is too small"
        return self.arena[begin:begin + size].view(dtype).view(rows, columns)

    def free(self):
        self.taken = self.reserved

    def meet_on_device(self):
        """Two collectives, then a rest that is longer than what the host needs for a launch: what
        is queued next begins on all ranks within a microsecond."""
        self.ordinal = 0
        x, out = self.meeting
        for _ in range(MEETINGS):
            self.all_reduce(out, x, way=1)
        torch.cuda._sleep(300_000)

    def collective(self, name, struct, **fields):
        """By whoever carries the group's collectives."""
        args = self.vt.args(struct, fields)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self.check(getattr(self.lib, f"vt_cuda_test_ranks_{name}")(self.handle, ctypes.byref(args),
                                                                   stream))

    def all_reduce(self, out, x, bias=None, residual=None, norm_out=None, norm_weight=None,
                   eps=1e-5, way=0, op_index=0, split=0):
        ordinal = self.ordinal
        self.ordinal += self.lib.vt_cuda_all_reduce_epochs(ctypes.c_void_p(self.group), *x.shape, way)
        self.collective("all_reduce", "VtCudaAllReduce", group=self.group, out=out, x=x,
                     bias=bias, residual=residual, norm_out=norm_out, norm_weight=norm_weight,
                     num_rows=x.shape[0], columns=x.shape[1], out_stride=out.stride(0),
                     x_stride=x.stride(0),
                     residual_stride=0 if residual is None else residual.stride(0),
                     norm_stride=0 if norm_out is None else norm_out.stride(0), ordinal=ordinal,
                     op_index=op_index, way=way, split=split, eps=eps, dtype=DTYPES[out.dtype])

    def linear_sends(self, sums, x, weight):
        """Whether a linear that would write `sums` may send them."""
        args = self.vt.args("VtCudaLinear", self.vt.linear_fields(sums, x, weight))
        return self.lib.vt_cuda_linear_sends(ctypes.byref(args), ctypes.c_void_p(self.group)) == 1

    def send_linear(self, sums, x, weight):
        """Of the next collective, an all_reduce with way SENT; `sums` is not written."""
        args = self.vt.args("VtCudaLinear", self.vt.linear_fields(sums, x, weight, apart=True))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self.check(self.lib.vt_cuda_linear_send(ctypes.byref(args), ctypes.c_void_p(self.group),
                                                ctypes.c_int32(self.ordinal), stream))

    def all_gather(self, out, x, op_index=0):
        """NCCL's alone."""
        ordinal = self.ordinal
        self.ordinal += 1
        self.collective("all_gather", "VtCudaAllGather", group=self.group, out=out, x=x,
                     num_rows=x.shape[0], out_columns=out.shape[1], x_columns=x.shape[1],
                     out_stride=out.stride(0), x_stride=x.stride(0), ordinal=ordinal,
                     op_index=op_index)

    def sample(self, *args, **more):
        """The outputs of sampler(), called once."""
        call, outputs = self.sampler(*args, **more)
        call()
        torch.cuda.synchronize()
        return outputs

    def kinds(self, table):
        """Of rows over NCCL, as kernels/cuda/host/row_kinds.h: whether some are told by candidates, and
        rounds of the longest search for a threshold."""
        cut = [row for row in table.rows if row["temperature"] > 0
               and (row["min_p"] > 0 or row["top_k"] > 0 or row["top_p"] < 1)]
        searched = [row for row in cut if not 0 < row["top_k"] <= CARRIED_CANDIDATES]
        steps = [max(1, SEARCH_STEPS * ((row["top_k"] > 0) + (row["top_p"] < 1))) for row in searched]
        return int(len(searched) < len(cut)), max(steps, default=0)

    def sampler(self, part, room, table, row_of, tokens, num_top=-1, judged_ids=None, op_index=0,
                named=None, kinds=None, best=None):
        """Of this rank's columns `part` of logits; `room`: where all may be put together. What queues
        it, and its outputs; the rows of `rest` at 0 or above had all their logits gathered, or over NCCL their
        threshold searched for. `kinds`: as kinds(), of more than these rows; `best`: of linear_for_sample, whose rows
        may have no logits in `part`."""
        rows = len(row_of)
        outputs = self.vt.sample_outputs(rows, num_top)
        fields = {**self.vt.sample_fields(room, table, row_of, num_top, judged_ids, named), **outputs}
        if best is not None:
            fields.update(best=best, num_best=best.shape[1])
        sample = self.vt.args("VtCudaSample", fields)
        rest = self.rest = torch.full((SAMPLE_SCRATCH * rows,), -9, dtype=torch.int32, device="cuda")
        kinds = self.kinds(table) if kinds is None else kinds

        def gather_and_sample():
            self.all_gather(room, part, op_index)
            self.vt.call("vt_cuda_sample", "VtCudaSample", **fields)

        def call():
            if self.gathers:
                return gather_and_sample()
            ordinal = self.ordinal
            epochs = self.lib.vt_cuda_sample_sharded_epochs(ctypes.c_void_p(self.group), *part.shape)
            self.ordinal += 1 if self.is_nccl else epochs
            self.collective("sample_sharded", "VtCudaSampleSharded", group=self.group,
                            sample=ctypes.addressof(sample), x=part, all_logits=room, rest=rest,
                            tokens=tokens, num_tokens=len(tokens), x_columns=part.shape[1],
                            x_stride=part.stride(0), ordinal=ordinal, op_index=op_index,
                            has_candidates=kinds[0], search_steps=kinds[1],
                            by_best_ids=int(not self.is_nccl and not any(kinds)))

        return call, outputs

    def failure(self):
        """(missing rank, op index), or None."""
        missing, op = ctypes.c_int32(-1), ctypes.c_int32(-1)
        given_up = self.lib.vt_cuda_test_ranks_failure(self.handle, ctypes.byref(missing),
                                                       ctypes.byref(op))
        return (missing.value, op.value) if given_up else None

    def close(self):
        self.meet()
        self.lib.vt_cuda_test_ranks_close(self.handle)
