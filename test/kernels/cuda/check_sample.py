"""sample against docs/sampling.md written in numpy (sampling.py): every feature, row by row, alone
and in a batch, with the same bits; padding, ties and unfit rows; logprobs; the distribution."""

from functools import cached_property

import numpy as np
import torch

import sampling
from sample_table import SampleTable, row_of
from vt_cuda import DEPENDENT, VtCuda

VOCABULARIES = (1, 3, 1000, 1025, 8192, 8193, 49152, 128256, 151936, 262147)


def i32(values):
    return torch.tensor(np.asarray(values), dtype=torch.int32, device="cuda")


def random_logits(rng, rows, vocab):
    logits = (rng.standard_normal((rows, vocab)) * 3).astype(np.float32)
    logits[1::7] = np.round(logits[1::7])  # ties
    logits[2::11] = np.float32(0.25)  # nothing but ties
    logits[6::11] = np.float32(2**28)  # ties with noise, too
    logits[3::13] *= np.float32(30)
    logits[4::17] *= np.float32(0.0)  # zeros of both signs
    if rows < 40:
        return logits
    logits[35, vocab // 2] = np.nan
    logits[36, 0] = np.inf
    logits[37] = -np.inf
    logits[38, vocab // 3 + 1:] = -np.inf
    logits[39] += np.float32(1e6)
    # By most temperatures -Infinity.
    logits[40:42] = np.float32(-3e38) - np.float32(2e37) * rng.random((2, vocab), np.float32)
    return logits


def random_row(rng, logits, edits):
    """Parameters and history; ids in lists and histories are often among the best, so that what
    happens to them shows."""
    vocab = len(logits)
    best = np.argpartition(-logits, min(8, vocab - 1))[:8]
    ids = lambda n: np.where(rng.random(n) < 0.5, rng.choice(best, n), rng.integers(0, vocab, n))
    row = row_of(
        seed=int(rng.integers(0, 2**63)) * 2 + 1,
        temperature=float(rng.choice([0, 0.3, 0.6, 0.8, 1.0, 2.0])),
        min_p=float(rng.choice([0, 0, 0.04, 0.5, 1])),
        top_k=int(rng.choice([-1, 0, 1, 5, 50, vocab // 2 + 1, vocab, 10**6])),
        top_p=float(rng.choice([1, 1, 0.1, 0.9, 0.999])),
        num_prompt_tokens=int(rng.integers(1, 40)))
    history = ids(row["num_prompt_tokens"] + int(rng.choice([0, 1, 2, 30, 3000]))).tolist()
    if not edits:
        return row, history
    generated = history[row["num_prompt_tokens"]:]
    some = lambda choice: rng.random() < choice
    if some(0.4):
        row["repetition_penalty"] = float(rng.choice([0.5, 1.1, 2.0]))
    if some(0.4):
        row["frequency_penalty"] = float(rng.choice([-2, 0.3, 1.7]))
    if some(0.4):
        row["presence_penalty"] = float(rng.choice([-1.5, 0.7]))
    if some(0.4):
        biased = ids(int(rng.choice([20, 700]))).tolist()
        row["bias_ids"] = biased + history[:3] + [vocab, -1] + history[:3]
        row["biases"] = (rng.standard_normal(len(row["bias_ids"])) * 60).tolist()
    if some(0.4):
        row["stop_ids"] = ids(3).tolist() + [vocab + 5]
        row["min_tokens"] = len(generated) + int(rng.choice([0, 1, 5000]))
    if some(0.3):
        # An array: half of a vocabulary is much for a list.
        row["allowed_ids"] = np.append(ids(int(rng.choice([1, 7, max(1, vocab // 2)]))), [vocab, -3])
    if some(0.5):
        one = lambda: ids(1).tolist()
        tails = [generated[-n:] + one() for n in (1, 2, 5)]
        row["bad_words"] = [*tails, one(), ids(3).tolist(), one(), history[-2:] * 40]
    return row, history


class Rows:
    """Logits with parameters and histories, and what docs/sampling.md says of them, found once."""

    def __init__(self, rng, count, vocab, edits):
        self.logits = random_logits(rng, count, vocab)
        self.rows, self.histories = zip(*(random_row(rng, row, edits) for row in self.logits))
        self.device = torch.from_numpy(self.logits).cuda()
        self.count, self.vocab = count, vocab

    def __len__(self):
        return self.count

    @cached_property
    def wanted(self):
        """[(id, margin)]"""
        return [sampling.sample(*row) for row in zip(self.logits, self.rows, self.histories)]

    @cached_property
    def logprobs(self):
        return [sampling.Logprobs(logits, 128) for logits in self.logits]

    def has_no_id(self, r):
        return not (self.logits[r] > -np.inf).any()


def decides(margin):
    """Whether a backend's own logarithms cannot change which id is best."""
    return margin > 1e-4 or margin == 0


def compare(cases, got):
    """How many rows differ from docs/sampling.md."""
    wrong = 0
    got = {name: values.cpu().numpy() for name, values in got.items()}
    for r, (want, margin) in enumerate(cases.wanted):
        token, flag = got["token_ids"][r], got["row_flags"][r]
        if want != token and decides(margin) or flag != (want == -1):
            wrong += 1
            print(f"  row {r}: {token} flag {flag}, want {want} margin {margin}: "
                  f"{ {k: v if np.isscalar(v) else len(v) for k, v in cases.rows[r].items()} }")
    return float(wrong)


def same(a, b):
    return all(torch.equal(a[k].view(torch.uint8), b[k].view(torch.uint8)) for k in a)


def one_by_one(vt, cases, table, num_top=-1, judged=None, named=None):
    """Each row by a launch of its own; their outputs together."""
    outputs = vt.sample_outputs(len(cases), num_top)
    index = i32(range(len(cases)))
    for r in range(len(cases)):
        vt.sample(cases.device[r:r + 1], table, index[r:r + 1], num_top,
                  None if judged is None else judged[r:r + 1],
                  {name: values[r:r + 1] for name, values in outputs.items()}, named)
    return outputs


def check_tokens(vt, report, cases, name):
    table = SampleTable(vt, cases.rows, cases.histories)
    got = vt.sample(cases.device, table, i32(range(len(cases))))
    exact = torch.equal(cases.device.view(torch.int32),
                        torch.from_numpy(cases.logits).cuda().view(torch.int32))
    exact &= same(one_by_one(vt, cases, table), got)
    report(f"sample, {cases.vocab} ids, {name}: rows that differ from docs/sampling.md",
           compare(cases, got), 0.5, exact)


def check_places(vt, report, rng, cases):
    """Rows in any order among padding and finished ones, unaligned, in mapped memory, in a graph
    with dependent launch: the same bits."""
    count, places, vocab = 24, 300, cases.vocab
    device, rows, histories = cases.device[:count], cases.rows[:count], cases.histories[:count]
    plain = vt.sample(device, SampleTable(vt, rows, histories), i32(range(count)))
    order = np.full(places, -1)
    at = rng.permutation(places)[:2 * count]
    order[at[:count]] = range(count)
    order[at[count:]] = range(count, 2 * count)
    finished = [0] * count + [1] * count
    table = SampleTable(vt, rows + rows, histories + histories, finished, mapped=True)
    spread = torch.full((places, vocab + 3), np.nan, device="cuda")[:, :vocab]
    spread[torch.from_numpy(at[:count]).cuda()] = device
    got = vt.sample_outputs(places, 2)
    vt.sample(spread, table, i32(order), 2, None, got)
    exact = torch.equal(got["token_ids"][at[:count]], plain["token_ids"])
    exact &= torch.equal(got["row_flags"][at[:count]], plain["row_flags"])
    idle = np.setdiff1d(np.arange(places), at[:count])
    exact &= bool((got["token_ids"][idle] == -1).all() and (got["row_flags"][idle] == 0).all())
    exact &= bool((got["ranks"] == 0).all() and (got["logprobs"] == 7).all())
    exact &= bool((got["top_ids"] == -7).all())

    again = vt.sample_outputs(places, 2)
    row_index = i32(order)
    vt.flags = DEPENDENT
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(3):
            vt.sample(spread, table, row_index, 2, None, again)
    vt.flags = 0
    graph.replay()
    torch.cuda.synchronize()
    report(f"sample, {vocab} ids: padding, finished rows, mapped history, graph", 0.0, 0.5,
           exact and same(got, again))


def relative_error(ours, theirs):
    """(the largest, whether the same are finite)"""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs)
    fit = np.isfinite(theirs)
    difference = np.abs(ours[fit] - theirs[fit]) / np.maximum(1, np.abs(theirs[fit]))
    return float(difference.max(initial=0.0)), np.array_equal(np.isfinite(ours), fit)


def check_logprobs(vt, report, rng, cases, num_top):
    count = len(cases)
    lengths = [(num_top, num_top // 3, num_top, 0, -1)[r % 5] for r in range(count)]
    rows = [{**row, "num_logprobs": length} for row, length in zip(cases.rows, lengths)]
    judged = np.where(np.arange(count) % 3 == 2, rng.integers(0, cases.vocab, count), -1)
    table = SampleTable(vt, rows, cases.histories)
    got = vt.sample(cases.device, table, i32(range(count)), num_top, i32(judged))
    exact = same(one_by_one(vt, cases, table, num_top, i32(judged)), got)
    got = {name: values.cpu().numpy() for name, values in got.items()}
    error, wrong = 0.0, 0
    for r in range(count):
        one = {name: values[r] for name, values in got.items()}
        token, flagged = int(one["token_ids"]), int(one["row_flags"])
        if judged[r] >= 0:
            wrong += token != (-1 if flagged else judged[r])
            wrong += flagged != (not sampling.is_fit(cases.logits[r]))
        else:
            want, margin = cases.wanted[r]
            wrong += flagged != (want == -1) or token != want and decides(margin)
        has = not flagged and (judged[r] >= 0 or lengths[r] >= 0)
        if not has or cases.has_no_id(r):
            wrong += bool(has) != (one["ranks"] > 0)
            continue
        length = num_top if judged[r] >= 0 else lengths[r]
        of = cases.logprobs[r]
        top_ids, top_logprobs = of.top(length)
        # Beyond its own list a row writes nothing.
        wanted_ids = top_ids + [-7] * (num_top - length)
        wrong += of.rank(token) != one["ranks"] or wanted_ids != one["top_ids"].tolist()
        largest, fit = relative_error([one["logprobs"], *one["top_logprobs"][:length]],
                                      [of.values[token], *top_logprobs])
        error, wrong = max(error, largest), wrong + (not fit)
    report(f"sample, {cases.vocab} ids: logprobs, {num_top} of the best; {wrong} wrong ids or ranks",
           error, 3e-6, exact and int(wrong) == 0)


def check_named(vt, report, rng, cases):
    """Ids that rows name, beside rows with top lists: the same bits alone, and in any batch; tokens
    and lists of the others as if nobody named any."""
    count, num_top, num_named = len(cases), 7, 128
    rows = [{**row, "num_logprobs": -1 if r % 5 == 4 else num_top}
            for r, row in enumerate(cases.rows)]
    for r, row in enumerate(rows):
        if r % 3 == 0 and row["num_logprobs"] >= 0:
            row["logprob_ids"] = rng.integers(0, cases.vocab, (1, 5, 33, 128)[r % 4]).tolist()
    table = SampleTable(vt, rows, cases.histories)
    empty = lambda: torch.full((count, num_named), 7, dtype=torch.float32, device="cuda")
    named, alone = empty(), empty()
    order = i32(range(count))
    got = vt.sample(cases.device, table, order, num_top, None, None, named)
    exact = same(one_by_one(vt, cases, table, num_top, None, alone), got)
    exact &= torch.equal(alone.view(torch.int32), named.view(torch.int32))
    plain = SampleTable(vt, [{**row, "logprob_ids": []} for row in rows], cases.histories)
    without = vt.sample(cases.device, plain, order, num_top)
    exact &= all(torch.equal(got[k], without[k]) for k in ("token_ids", "row_flags", "ranks"))
    got, without, named = ({k: v.cpu().numpy() for k, v in each.items()}
                           for each in (got, without, {"named": named}))
    named = named["named"]
    error, wrong = 0.0, 0
    for r, row in enumerate(rows):
        ids = row["logprob_ids"]
        if not ids:
            exact &= np.array_equal(got["top_ids"][r], without["top_ids"][r])
        if not ids or got["row_flags"][r] or cases.has_no_id(r):
            exact &= bool((named[r] == 7).all()) or bool(ids)
            continue
        exact &= bool((named[r, len(ids):] == 7).all())
        largest, fit = relative_error(named[r, :len(ids)], cases.logprobs[r].values[ids])
        error, wrong = max(error, largest), wrong + (not fit)
    report(f"sample, {cases.vocab} ids: logprobs of named ids; {wrong} wrong", error, 3e-6,
           exact and wrong == 0)


def check_distribution(vt, report, rng):
    """Draws follow softmax(z): chi-square over 50 ids, 100,000 draws (seeds by positions), and over
    the ids that top-p leaves."""
    vocab, seeds, positions = 50, 2000, 50
    logits = rng.standard_normal(vocab).astype(np.float32)
    device = torch.from_numpy(logits).cuda().expand(seeds, vocab).contiguous()
    for top_p in (1.0, 0.6):
        rows = [row_of(temperature=0.7, top_p=top_p, seed=i) for i in range(seeds)]
        table = SampleTable(vt, rows, [[0] * (9 + positions)] * seeds)
        draws, index = [], i32(range(seeds))
        for position in range(positions):
            table.num_tokens.fill_(9 + position)
            draws.append(vt.sample(device, table, index)["token_ids"])
        total = np.bincount(torch.cat(draws).cpu().numpy(), minlength=vocab)
        z = (logits / np.float32(0.7)).astype(np.float32)
        left = sampling.left_after_truncation(z, rows[0])
        want = np.where(left, np.exp(z - z.max()), 0)
        want = want / want.sum() * seeds * positions
        chi_square = ((total[left] - want[left]) ** 2 / want[left]).sum()
        report(f"sample chi-square / degrees of freedom, top-p {top_p}",
               float(chi_square) / int(left.sum() - 1), 1.8, not bool(total[~left].any()))


def check_refusals(vt, report, rng):
    table = SampleTable(vt, [row_of()], [[0]])
    cases = (((1, 450561), -1, "450561 ids"), ((1, 8), 129, "num_top 129"), ((0, 8), 0, "0 rows"))
    good = True
    for shape, num_top, message in cases:
        try:
            vt.sample(torch.zeros(shape, device="cuda"), table, i32([0]), num_top)
            good = False
        except RuntimeError as error:
            good &= message in str(error)
    report("sample: what is out of range is refused by name", 0.0, 0.5, good)


def check(vt: VtCuda, report, vocabularies=VOCABULARIES, distribution=True):
    rng = np.random.default_rng(5)
    check_refusals(vt, report, rng)
    for vocab in vocabularies:
        check_tokens(vt, report, Rows(rng, 44, vocab, edits=False), "plain")
        cases = Rows(rng, 44, vocab, edits=True)
        check_tokens(vt, report, cases, "with masks, bias and penalties")
        check_places(vt, report, rng, cases)
        for num_top in (0, 5, 20, 32, 33, 128):
            check_logprobs(vt, report, rng, cases, num_top)
        check_named(vt, report, rng, cases)
    if distribution:
        check_distribution(vt, report, rng)
