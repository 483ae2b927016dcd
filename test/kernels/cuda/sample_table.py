"""The row table as sample reads it, from rows as test/kernels/cuda/sampling.py has them."""

import ctypes

import numpy as np
import torch

DEFAULTS = {"seed": 0, "temperature": 0.0, "min_p": 0.0, "top_p": 1.0, "top_k": 0,
            "repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0,
            "num_prompt_tokens": 1, "min_tokens": 0, "num_logprobs": -1, "logprob_ids": [],
            "stop_ids": [], "bias_ids": [], "biases": [], "allowed_ids": [], "bad_words": []}


def row_of(**fields):
    unknown = set(fields) - set(DEFAULTS)
    if unknown:
        raise KeyError(f"no such parameters: {unknown}")
    return {**DEFAULTS, **fields}


class SampleTable:
    def __init__(self, vt, rows, histories, finished=None, mapped=False):
        """`mapped`: history and lists lie in pinned host memory."""
        self.rows = rows
        place = (lambda t: t.pin_memory()) if mapped else (lambda t: t.cuda())
        lists, starts, length = [], [], 0

        def put(values, dtype=np.int32):
            nonlocal length
            starts.append(length)
            lists.append(np.asarray(values, dtype=dtype).view(np.int32))
            length += len(values)

        names = ("stop_ids", "bias_ids", "biases", "allowed_ids", "bad_word_starts", "bad_word_ids",
                 "logprob_ids")
        for row in rows:
            put(row["stop_ids"])
            put(row["bias_ids"])
            put(row["biases"], np.float32)
            put(row["allowed_ids"])
            put(np.cumsum([0] + [len(word) for word in row["bad_words"]]))
            put([i for word in row["bad_words"] for i in word])
            put(row["logprob_ids"])
        self.lists = place(torch.from_numpy(np.concatenate(lists)))
        params = (vt.structs["VtCudaRowParams"] * len(rows))()
        for r, (row, p) in enumerate(zip(rows, params)):
            for name, value in row.items():
                if name in dict(p._fields_) and name not in names:
                    setattr(p, name, value)
            for i, name in enumerate(names):
                setattr(p, name, self.lists.data_ptr() + 4 * starts[len(names) * r + i])
            p.num_stop_ids, p.num_biases = len(row["stop_ids"]), len(row["bias_ids"])
            p.num_logprob_ids = len(row["logprob_ids"])
            p.num_allowed_ids, p.num_bad_words = len(row["allowed_ids"]), len(row["bad_words"])
        stride = max(map(len, histories))
        history = np.full((len(rows), stride), -1, np.int32)
        for r, ids in enumerate(histories):
            history[r, :len(ids)] = ids
        self.params = torch.frombuffer(bytearray(bytes(params)), dtype=torch.uint8).cuda()
        self.num_tokens = torch.tensor([len(ids) for ids in histories], dtype=torch.int32).cuda()
        self.history = place(torch.from_numpy(history))
        self.finished = None
        if finished is not None:
            self.finished = torch.tensor(finished, dtype=torch.int32).cuda()
        self.fields = {"params": self.params, "num_tokens": self.num_tokens,
                       "finished": self.finished, "history": self.history,
                       "history_stride": stride}
