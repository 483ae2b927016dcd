"""sample against docs/sampling.md written in numpy, row by row; alone and in a batch; and its
distribution."""

import numpy as np
import torch

from vt_cuda import VtCuda

GREEDY = 0.0


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


def expected(logits, temperature, min_p, top_k, top_p, seed, position):
    """(id, margin): the margin to the second best, below which two backends may differ."""
    if np.isnan(logits).any() or (logits == np.inf).any() or (logits == -np.inf).all():
        return -1, 1.0
    if temperature < 1e-5:
        return int(logits.argmax()), 1.0
    z = (logits / np.float32(temperature)).astype(np.float32)
    left = z > -np.inf
    top = z.max()
    if min_p > 0:
        left &= z >= np.float32(top + np.float32(np.log(np.float32(min_p))))
    if 0 < top_k < left.sum():
        left &= z >= np.sort(z[left])[-top_k]
    if top_p < 1:
        values, counts = np.unique(z[left], return_counts=True)
        mass = np.cumsum((np.exp(values.astype(np.float64) - top) * counts)[::-1])
        at = int(np.argmax(mass >= np.float64(np.float32(top_p)) * mass[-1]))
        left &= z >= values[::-1][at]
    words = philox(position, seed, len(z))
    u = ((words >> np.uint64(9)).astype(np.float64) + 0.5) * 2.0**-23
    score = np.where(left, z.astype(np.float64) - np.log(-np.log(u)), -np.inf)
    order = np.argsort(-score, kind="stable")
    return int(order[0]), float(score[order[0]] - score[order[1]]) if len(order) > 1 else 1.0


def check(vt: VtCuda, report):
    rng = np.random.default_rng(5)
    cuda = lambda x, dtype: torch.tensor(np.asarray(x), dtype=dtype, device="cuda")

    def run(logits, p):
        return vt.sample(logits, cuda(p["temperature"], torch.float32),
                         cuda(p["min_p"], torch.float32), cuda(p["top_k"], torch.int32),
                         cuda(p["top_p"], torch.float32),
                         cuda(p["seed"].astype(np.int64), torch.int64),
                         cuda(p["position"], torch.int32))

    for vocab in (1, 3, 1000, 8192, 8193, 49152, 128256):
        rows = 48
        logits = (rng.standard_normal((rows, vocab)) * 3).astype(np.float32)
        logits[1::7] = np.round(logits[1::7])  # ties
        logits[5, vocab // 2] = np.nan
        logits[6, 0] = np.inf
        logits[7] = -np.inf
        logits[8, vocab // 3 + 1:] = -np.inf
        p = {
            "temperature": rng.choice([GREEDY, 0.3, 0.8, 1.0, 2.0], rows).astype(np.float32),
            "min_p": rng.choice([0, 0, 0.04, 0.5], rows).astype(np.float32),
            "top_k": rng.choice([0, 0, 1, 5, 50, 10**6], rows),
            "top_p": rng.choice([1, 1, 0.1, 0.9, 0.999], rows).astype(np.float32),
            "seed": rng.integers(0, 2**63, rows, dtype=np.uint64),
            "position": rng.integers(0, 100000, rows),
        }
        device = cuda(logits, torch.float32)
        tokens, flags = run(device, p)
        tokens, flags = tokens.cpu().numpy(), flags.cpu().numpy()
        wrong = 0
        for r in range(rows):
            want, margin = expected(logits[r], *(p[name][r].item() for name in (
                "temperature", "min_p", "top_k", "top_p", "seed", "position")))
            if want != tokens[r] and margin > 1e-4 or flags[r] != (want == -1):
                wrong += 1
        alone = [run(device[r:r + 1], {k: v[r:r + 1] for k, v in p.items()})[0].item()
                 for r in range(rows)]
        report(f"sample vocabulary {vocab}: rows that differ from docs/sampling.md", float(wrong), 0.5,
               alone == tokens.tolist())

    # Draws follow softmax(z): chi-square over 50 ids, 100,000 draws.
    vocab, draws = 50, 100000
    row = rng.standard_normal(vocab).astype(np.float32)
    total = np.zeros(vocab)
    for begin in range(0, draws, 50000):
        n = 50000
        p = {"temperature": np.full(n, 0.7, np.float32), "min_p": np.zeros(n, np.float32),
             "top_k": np.zeros(n, np.int64), "top_p": np.ones(n, np.float32),
             "seed": np.arange(begin, begin + n, dtype=np.uint64), "position": np.full(n, 9)}
        tokens, _ = run(cuda(np.tile(row, (n, 1)), torch.float32), p)
        total += np.bincount(tokens.cpu().numpy(), minlength=vocab)
    q = np.exp(row / 0.7 - (row / 0.7).max())
    want = q / q.sum() * draws
    report("sample chi-square / degrees of freedom", ((total - want) ** 2 / want).sum() / (vocab - 1),
           1.8, True)
