"""Of single_ops.py: sampleSharded where something else carries: two ranks on one device, a thread each,
and copies between their boards in a library's place."""

import ctypes
import threading

import numpy as np

from single_ranks import TIMEOUT_MS, Headed, Sharded
from single_rows import EDITED, LOGPROBS, PLAIN

RANKS, SLOT = 2, 1 << 20
INBOX_OFFSET = 256
#: Steps of a top-k behind which a top-p comes.
LONGEST_SEARCH = 8
CARRY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


class Carried:
    """Ranks whose threads meet wherever the C ABI asks to carry."""

    def __init__(self, ops):
        self.device, self.meeting = ops.device, threading.Barrier(RANKS, timeout=TIMEOUT_MS / 1000)
        size = self.device.lib.vt_cuda_board_bytes(RANKS, ctypes.c_int64(SLOT))
        self.boards = [self.device.put(np.repeat([0, 255], [INBOX_OFFSET, size - INBOX_OFFSET]).astype(np.uint8))
                       for _ in range(RANKS)]
        self.carriers = [CARRY(lambda _, *slots, rank=rank: self.carry(rank, *slots)) for rank in range(RANKS)]

    def group(self, rank):
        """All of its boards are its own."""
        device = self.device
        group = device.struct("VtCudaGroup", first_epoch=device.put(np.ones(1, np.uint64)), rank=rank,
                              report=device.put(np.zeros(32, np.uint8)), timeout_ns=2 * 10**9, slot_bytes=SLOT,
                              num_ranks=RANKS, max_blocks=132)
        for r in range(RANKS):
            group.boards[r] = self.boards[rank].address
        return group

    def carry(self, rank, offset, slot_bytes, _stream):
        try:
            self.device.synchronize()
            self.meeting.wait()
            for other in set(range(RANKS)) - {rank}:
                at = INBOX_OFFSET + offset + other * slot_bytes
                self.device.copy(self.boards[rank].address + at, self.boards[other].address + at, slot_bytes)
            self.device.synchronize()
            self.meeting.wait()
            return 0
        except (RuntimeError, threading.BrokenBarrierError):
            self.meeting.abort()
            return -1

    def run(self, work):
        """work(rank, group, carry) by a thread each: what they return, by rank."""
        results = [None] * RANKS

        def one(rank):
            try:
                self.device.make_current()
                group = self.group(rank)
                results[rank] = work(rank, ctypes.addressof(group), self.carriers[rank])
            except RuntimeError as error:
                results[rank] = error
                self.meeting.abort()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(RANKS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            if isinstance(result, RuntimeError):
                raise result
        return results


#: Rows of every course of a search: 1, 4 and 8 steps, and none.
SEARCHED = (*PLAIN, dict(temperature=0.8, top_k=100), dict(temperature=2.0, top_k=500, top_p=0.95),
            dict(temperature=0.8, top_k=0, top_p=0.9, repetition_penalty=1.3),
            dict(temperature=0.8, top_p=0.9, num_logprobs=5))


def searched(ops):
    for name, of in (("searched", Sharded(ops, SEARCHED)), ("edited", Sharded(ops, EDITED)),
                     ("logprobs", Sharded(ops, LOGPROBS)), ("best ids of the head", Headed(ops))):
        carried = Carried(ops)
        outputs = carried.run(lambda rank, group, carry: of.run(
            group, rank, carry=ctypes.cast(carry, ctypes.c_void_p).value, has_candidates=1, search_steps=LONGEST_SEARCH))
        for rank in range(RANKS):
            ops.report(f"sampleSharded over copies, {name}, rank {rank}", *outputs[rank].values())
            of.check(f"sampleSharded over copies, {name}, rank {rank}", outputs[rank])
