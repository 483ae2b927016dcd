"""Of single_ops.py: sampling, with a row for each thing that a row may ask."""

import numpy as np

from bare import F32

PLAIN = ({}, dict(temperature=0.8), dict(temperature=0.8, top_k=20), dict(temperature=0.8, top_p=0.9),
         dict(temperature=0.8, min_p=0.05), dict(temperature=0.8, top_k=40, top_p=0.5, min_p=0.01))
LOGPROBS = (dict(num_logprobs=5, judged_id=17), dict(temperature=0.8, num_logprobs=1 << 10),
            dict(num_logprobs=1, names=4))
EDITED = (dict(repetition_penalty=1.2, frequency_penalty=0.3, presence_penalty=-0.2),
          dict(temperature=1.0, repetition_penalty=1.1, top_k=5, num_logprobs=3),
          dict(stops=4, min_tokens=100), dict(biases=6), dict(allowed=6, temperature=0.5), dict(bad_words=2))
#: Of a temperature alone: drawn as they stream by, where the vocabulary is a multiple of 4.
STREAMED = (dict(temperature=0.8), dict(temperature=1.5), dict(temperature=0.1))
#: Ids that a row names, and logits' columns beyond the vocabulary, are none of a row's own.
NUM_NAMED = 4


def sample_rows(ops, vocab, wishes, num_top, num_rows):
    """Fields of a call: a row of logits for each wish, and padding up to num_rows."""
    device = ops.device
    lists, starts = ops.ints([3, 5, 7, 11, 5, 3]), ops.ints([0, 1, 3])
    biases = device.put(np.linspace(-2, 2, 6, dtype=np.float32))

    def params(seed, wish):
        fields = dict(dict(seed=seed, top_p=1.0, repetition_penalty=1.0, num_prompt_tokens=2, num_logprobs=-1), **wish)
        count = lambda name: fields.pop(name, 0)
        fields.pop("judged_id", None)
        fields["num_logprobs"] = min(fields["num_logprobs"], num_top)
        fields |= dict(stop_ids=lists, num_stop_ids=count("stops"), bias_ids=lists, num_biases=count("biases"),
                       biases=biases, allowed_ids=lists, num_allowed_ids=count("allowed"), bad_word_starts=starts,
                       bad_word_ids=lists, num_bad_words=count("bad_words"), logprob_ids=lists,
                       num_logprob_ids=count("names"))
        return bytes(device.struct("VtCudaRowParams", **fields))

    count = len(wishes)
    padding = [-1] * (num_rows - count)
    table = b"".join(params(seed, wish) for seed, wish in enumerate(wishes))
    return dict(params=device.put(np.frombuffer(table, np.uint8)), num_rows=num_rows, vocab_size=vocab,
                judged_ids=ops.ints([wish.get("judged_id", -1) for wish in wishes] + padding),
                num_tokens=ops.ints([40] * count), history=ops.ints(ops.random.integers(0, vocab, (count, 40))),
                history_stride=40, row_of=ops.ints([*range(count), *padding]), num_top=num_top, num_named=NUM_NAMED)


def sample_outputs(ops, rows, num_top):
    return dict(token_ids=ops.ints([-7] * rows), row_flags=ops.device.put(np.full(rows, 7, np.uint8)),
                logprobs=ops.full(rows, dtype=F32), ranks=ops.ints([-7] * rows),
                top_ids=ops.ints(np.full((rows, max(num_top, 1)), -7)),
                top_logprobs=ops.full(rows, max(num_top, 1), dtype=F32),
                named_logprobs=ops.full(rows, NUM_NAMED, dtype=F32))


def sample_all(ops, logits, fields, stride):
    outputs = sample_outputs(ops, fields["num_rows"], fields["num_top"])
    ops.device.call("vt_cuda_sample", "VtCudaSample", logits=logits, logits_stride=stride, **fields, **outputs)
    return outputs


def streamed(ops):
    """Of more ids than threads take at once, by one block a row and by a cluster."""
    for vocab, num_rows in ((20_012, 17), (40_004, 4)):
        sample(vocab, STREAMED, -1, num_rows)(ops)


def sample(vocab, wishes, num_top, num_rows=None):
    """Up to 16 rows take a cluster each, more take a block: the rest is padding."""
    def run(ops):
        rows = num_rows or len(wishes) + 1
        fields = sample_rows(ops, vocab, wishes, num_top, rows)
        outputs = sample_all(ops, ops.rows(rows, vocab, dtype=F32, scale=3), fields, vocab)
        ops.report(f"sample of {rows} x {vocab}, {num_top} logprobs", *outputs.values())
    return run
