"""docs/sampling.md in numpy, for one row; section numbers are its. `row` has the fields of
VtCudaRowParams, with lists as lists; `history` is the prompt and what was generated."""

import numpy as np

f32 = np.float32


def philox(position, seed, count):
    """The first `count` words for ids 0.. of Philox4x32-10."""
    groups = np.arange((count + 3) // 4, dtype=np.uint64)
    c = [np.full_like(groups, position), groups, np.zeros_like(groups), np.zeros_like(groups)]
    k = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)]
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ k[0], b & low, (a >> np.uint64(32)) ^ c[3] ^ k[1], a & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return np.stack(c, 1).reshape(-1)[:count]


def is_fit(logits):
    """Section 2."""
    return bool((logits < np.inf).all())


def edit(logits, row, history):
    """Section 3."""
    z = logits.copy()
    generated = history[row["num_prompt_tokens"]:]
    inside = lambda ids: [i for i in ids if 0 <= i < len(z)]
    allowed = np.asarray(row["allowed_ids"], np.int64)
    if len(allowed):
        masked = np.ones(len(z), bool)
        masked[allowed[(allowed >= 0) & (allowed < len(z))]] = False
        z[masked] = -np.inf
    for word in row["bad_words"]:
        prefix = len(word) - 1
        if prefix <= len(generated) and generated[len(generated) - prefix:] == word[:-1]:
            z[inside(word[-1:])] = -np.inf
    if len(generated) < row["min_tokens"]:
        z[inside(row["stop_ids"])] = -np.inf
    for i, bias in zip(row["bias_ids"], row["biases"]):
        if 0 <= i < len(z):
            z[i] += f32(min(100, max(-100, bias)))
    repetition, frequency, presence = (f32(row[name + "_penalty"]) for name in
                                       ("repetition", "frequency", "presence"))
    if repetition != 1:
        for i in set(history):
            z[i] = z[i] / repetition if z[i] > 0 else z[i] * repetition
    for i, count in zip(*np.unique(generated, return_counts=True)) if generated else ():
        if frequency != 0:
            z[i] -= frequency * f32(count)
        if presence != 0:
            z[i] -= presence
    return z


def left_after_truncation(z, row):
    """Section 5, on z already divided by the temperature."""
    left = z > -np.inf
    top = z.max()
    if row["min_p"] > 0:
        left &= z >= f32(top + f32(np.log(f32(row["min_p"]))))
    if 0 < row["top_k"] < left.sum():
        left &= z >= np.sort(z[left])[-row["top_k"]]
    if row["top_p"] < 1:
        values, counts = np.unique(z[left], return_counts=True)
        mass = np.cumsum((np.exp(values.astype(np.float64) - top) * counts)[::-1])
        left &= z >= values[::-1][int(np.argmax(mass >= np.float64(f32(row["top_p"])) * mass[-1]))]
    return left


def sample(logits, row, history):
    """(id, margin): -1 = cannot be sampled; the margin to the second best. Below 1e-4, unless it is
    0, two backends may differ."""
    if not is_fit(logits):
        return -1, 1.0
    is_greedy = row["temperature"] < 1e-5
    with np.errstate(over="ignore"):
        z = edit(logits, row, history)
        if is_fit(z) and not is_greedy:
            z = (z / f32(row["temperature"])).astype(f32)
    if not is_fit(z) or (z == -np.inf).all():
        return -1, 1.0
    if is_greedy:
        return int(z.argmax()), 1.0
    left = left_after_truncation(z, row)
    words = philox(len(history), row["seed"], len(z))
    u = ((words >> np.uint64(9)).astype(np.float64) + 0.5) * 2.0**-23
    score = np.where(left, z - np.log(-np.log(u)).astype(f32), f32(-np.inf))
    best = int(score.argmax())
    margin = score[best] - np.delete(score, best).max() if len(score) > 1 else 1.0
    return best, float(margin)


class Logprobs:
    """Section 1 of a row: its best `most` ids are found once."""

    def __init__(self, logits, most):
        self.logits = logits
        x = logits.astype(np.float64)
        self.values = x - x.max()
        self.values -= np.log(np.exp(self.values).sum())
        self.best = np.argsort(-x, kind="stable")[:most]

    def rank(self, id):
        return 1 + int((self.logits > self.logits[id]).sum())

    def top(self, count):
        """(ids, logprobs) of the best, -1 and -inf where there are no more ids."""
        order = self.best[:count]
        missing = count - len(order)
        return (order.tolist() + [-1] * missing,
                self.values[order].tolist() + [-np.inf] * missing)
