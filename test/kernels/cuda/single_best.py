"""Of single_ops.py: the linear of logits that keeps best ids, and sample behind it."""

import ctypes

import numpy as np

from abi import DEPENDENT
from bare import BF16, F16, F32
from single_rows import EDITED, LOGPROBS, PLAIN, sample_all, sample_outputs, sample_rows

#: The last weights do not fill a block's columns.
VOCAB, COLUMNS = 1096, 576


def logits_for(ops, wishes, num_top, num_rows, dtype):
    """Every answer has the bits of linear and sample apart, and so has every row of logits that is written."""
    device, call = ops.device, ops.device.call
    fields = sample_rows(ops, VOCAB, wishes, num_top, num_rows)
    x, weight = ops.rows(num_rows, COLUMNS, dtype=dtype), ops.rows(VOCAB, COLUMNS, dtype=dtype, scale=COLUMNS**-0.5)
    args = dict(x=x, weight=weight, m=num_rows, n=VOCAB, k=COLUMNS, out_stride=VOCAB, x_stride=COLUMNS,
                weight_stride=COLUMNS, dtype=dtype, out_dtype=F32, flags=DEPENDENT, large=2)
    whole, written = (ops.full(num_rows + 1, VOCAB, dtype=F32, value=np.inf) for _ in range(2))
    call("vt_cuda_linear", "VtCudaLinear", out=whole, **args)
    wanted = sample_all(ops, whole, fields, VOCAB)

    linear = device.struct("VtCudaLinear", out=written, **args)
    num_best = device.lib.vt_cuda_linear_num_best(ctypes.byref(linear))
    if num_best <= 0:
        raise RuntimeError(f"a linear of {num_rows} x {VOCAB} keeps no best ids")
    best = device.put(np.full((num_rows + 1, num_best), 7, np.uint64))
    answers = sample_outputs(ops, num_rows, num_top)
    sample = device.struct("VtCudaSample", logits=written, logits_stride=VOCAB, best=best, num_best=num_best,
                           flags=DEPENDENT, **fields, **answers)
    device.queue("vt_cuda_linear_for_sample", linear, ctypes.byref(sample))
    device.queue("vt_cuda_sample", sample)
    name = f"linear for sample {dtype} {num_rows} x {VOCAB}, {num_top} logprobs"
    ops.report(name, written, *answers.values())
    for field, values in wanted.items():
        ops.same(f"{name}: {field}", [values, answers[field]])
    has, all_logits = device.get(written), device.get(whole)
    is_written = ~np.isinf(has).any(axis=1)
    if not (has[is_written] == all_logits[is_written]).all() or is_written.all() or not np.isinf(has[~is_written]).all():
        raise RuntimeError(f"{name}: other rows of logits are written")
    if not (device.get(best)[num_rows] == 7).all():
        raise RuntimeError(f"{name}: best ids behind the last row's")


def best_ids(ops):
    mixed = tuple(wish for one in (*PLAIN, *EDITED, *LOGPROBS) for wish in (one, {}))
    for dtype, num_rows in ((BF16, 70), (F16, 131), (BF16, 200)):
        logits_for(ops, [{}] * (num_rows - 3), -1, num_rows, dtype)
        logits_for(ops, mixed, 5, num_rows, dtype)
