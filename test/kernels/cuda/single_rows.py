"""Of single_ops.py: sampling, with a row for each thing that a row may ask, and what ranks exchange."""

import ctypes

import numpy as np

from bare import BF16, F32


def sample_rows(ops, vocab, repeats=1):
    """(fields of a call, number of rows): a row for each thing that a row may ask, and padding."""
    device = ops.device
    wishes = [{}, dict(temperature=0.8), dict(temperature=0.8, top_k=20), dict(temperature=0.8, top_p=0.9),
              dict(temperature=0.8, min_p=0.05), dict(temperature=0.8, top_k=40, top_p=0.5, min_p=0.01),
              dict(num_logprobs=5), dict(temperature=0.8, num_logprobs=20),
              dict(repetition_penalty=1.2, frequency_penalty=0.3, presence_penalty=-0.2),
              dict(temperature=1.0, repetition_penalty=1.1, top_k=5, num_logprobs=3)]
    lists = ops.ints([3, 5, 7, 11, 5, 3])
    biases = device.put(np.linspace(-2, 2, 6, dtype=np.float32))
    starts = ops.ints([0, 1, 3])
    wishes += [dict(stop_ids=lists, num_stop_ids=4, min_tokens=100), dict(bias_ids=lists, biases=biases, num_biases=6),
               dict(allowed_ids=lists, num_allowed_ids=6, temperature=0.5),
               dict(bad_word_starts=starts, bad_word_ids=lists, num_bad_words=2),
               dict(num_logprobs=1, logprob_ids=lists, num_logprob_ids=4)]
    rows = [device.struct("VtCudaRowParams", **{**dict(seed=r, top_p=1.0, repetition_penalty=1.0,
                                                      num_prompt_tokens=2, num_logprobs=-1), **wish})
            for r, wish in enumerate(wishes)]
    params = device.put(np.frombuffer(b"".join(bytes(row) for row in rows), np.uint8))
    count = len(rows)
    history = ops.ints(ops.random.integers(0, vocab, (count, 40)))
    judged = [-1] * (count + 1)
    judged[6] = 17
    return dict(params=params, judged_ids=ops.ints(judged * repeats), num_tokens=ops.ints([40] * count),
                history=history, history_stride=40, row_of=ops.ints([*range(count), -1] * repeats),
                num_rows=(count + 1) * repeats, vocab_size=vocab), (count + 1) * repeats


def sample_outputs(ops, rows, num_top):
    return dict(token_ids=ops.ints([-7] * rows), row_flags=ops.device.put(np.full(rows, 7, np.uint8)),
                logprobs=ops.full(rows, dtype=F32), ranks=ops.ints([-7] * rows),
                top_ids=ops.ints(np.full((rows, max(num_top, 1)), -7)),
                top_logprobs=ops.full(rows, max(num_top, 1), dtype=F32),
                named_logprobs=ops.full(rows, 4, dtype=F32))


def sample(vocab, num_top, repeats=1):
    """Up to 16 rows take a cluster each, more take a block."""
    def run(ops):
        fields, rows = sample_rows(ops, vocab, repeats)
        logits, outputs = ops.rows(rows, vocab, dtype=F32, scale=3), sample_outputs(ops, rows, num_top)
        ops.device.call("vt_cuda_sample", "VtCudaSample", logits=logits, logits_stride=vocab, num_top=num_top,
                        num_named=4, **fields, **outputs)
        ops.report(f"sample of {rows} x {vocab}, {num_top} logprobs", *outputs.values())
    return run


class Pair:
    """Two ranks on one device, one after the other: rank 1 finds all that it waits for in its inbox
    already, as zeros; rank 0 finds what rank 1 has sent."""

    def __init__(self, ops):
        device, slot = ops.device, 1 << 20
        size = device.lib.vt_cuda_board_bytes(2, ctypes.c_int64(slot))
        self.boards = []
        for rank in range(2):
            board = np.full(size, 255 if rank == 0 else 0, np.uint8)
            board[:256] = 0
            self.boards.append(device.put(board))
        self.groups = []
        for rank in range(2):
            group = device.struct("VtCudaGroup", first_epoch=device.put(np.ones(1, np.uint64)), rank=rank,
                                  report=device.put(np.zeros(32, np.uint8)), timeout_ns=2 * 10**9, slot_bytes=slot,
                                  num_ranks=2, max_blocks=132)
            for r in range(2):
                group.boards[r] = self.boards[r].address
            self.groups.append(group)

    def address(self, rank):
        return ctypes.addressof(self.groups[rank])


def collectives(ops):
    for way, rows, columns, split in ((1, 3, 1024, 1), (1, 2, 4096, 4), (2, 5, 2048, 1), (2, 4, 8192, 2)):
        pair = Pair(ops)
        for rank in (1, 0):
            out, norm = ops.full(rows, columns), ops.full(rows, columns)
            ops.device.call("vt_cuda_all_reduce", "VtCudaAllReduce", group=pair.address(rank), out=out,
                            x=ops.rows(rows, columns, dtype=F32), residual=ops.rows(rows, columns), norm_out=norm,
                            norm_weight=ops.rows(columns), num_rows=rows, columns=columns, out_stride=columns,
                            x_stride=columns, residual_stride=columns, norm_stride=columns, way=way, split=split,
                            eps=1e-5, dtype=BF16)
            ops.report(f"allReduce {rows} x {columns}, way {way}, rank {rank}", out, norm)
    for parts in (2, 3):
        rows, columns = 3, 1024
        out, norm = ops.full(rows, columns), ops.full(rows, columns)
        ops.device.call("vt_cuda_sum_parts", "VtCudaSumParts", out=out, parts=ops.rows(parts, rows, columns, dtype=F32),
                        residual=ops.rows(rows, columns), norm_out=norm, norm_weight=ops.rows(columns),
                        part_stride=rows * columns, num_parts=parts, own_part=-1, num_rows=rows, columns=columns,
                        out_stride=columns, residual_stride=columns, norm_stride=columns, eps=1e-5, dtype=BF16)
        ops.report(f"sum of {parts} parts", out, norm)


def sharded(ops):
    pair, columns, vocab = Pair(ops), 1024, 1800
    for rank in (1, 0):
        fields, rows = sample_rows(ops, vocab)
        outputs = sample_outputs(ops, rows, 5)
        room = ops.full(rows, 2 * columns, dtype=F32)
        inner = ops.device.struct("VtCudaSample", logits=room, logits_stride=2 * columns, num_top=5, num_named=4,
                                  **fields, **outputs)
        ops.device.call("vt_cuda_sample_sharded", "VtCudaSampleSharded", group=pair.address(rank),
                        sample=ctypes.addressof(inner), x=ops.rows(rows, columns, dtype=F32, scale=3), all_logits=room,
                        rest=ops.ints([-9] * 4 * rows), tokens=ops.ints(range(20)), num_tokens=20, x_columns=columns,
                        x_stride=columns)
        ops.report(f"sampleSharded, rank {rank}", *outputs.values())
