"""sample against docs/sampling.md written in numpy (sampling.py): every feature, row by row, alone
and in a batch, with the same bits; padding, ties and unfit rows; logprobs; the distribution."""

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
    return logits


def random_row(rng, logits, edits):
    """Parameters and history; ids in lists and histories are often among the best, so that what
    happens to them shows."""
    vocab = len(logits)
    best = np.argsort(-logits, kind="stable")[:8]
    ids = lambda n: np.where(rng.random(n) < 0.5, rng.choice(best, n),
                             rng.integers(0, vocab, n)).tolist()
    row = row_of(
        seed=int(rng.integers(0, 2**63)) * 2 + 1,
        temperature=float(rng.choice([0, 0.3, 0.6, 0.8, 1.0, 2.0])),
        min_p=float(rng.choice([0, 0, 0.04, 0.5, 1])),
        top_k=int(rng.choice([-1, 0, 1, 5, 50, vocab // 2 + 1, vocab, 10**6])),
        top_p=float(rng.choice([1, 1, 0.1, 0.9, 0.999])),
        num_prompt_tokens=int(rng.integers(1, 40)))
    history = ids(row["num_prompt_tokens"] + int(rng.choice([0, 1, 2, 30, 3000])))
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
        row["bias_ids"] = ids(int(rng.choice([20, 700]))) + history[:3] + [vocab, -1] + history[:3]
        row["biases"] = (rng.standard_normal(len(row["bias_ids"])) * 60).tolist()
    if some(0.4):
        row["stop_ids"] = ids(3) + [vocab + 5]
        row["min_tokens"] = len(generated) + int(rng.choice([0, 1, 5000]))
    if some(0.3):
        row["allowed_ids"] = ids(int(rng.choice([1, 7, max(1, vocab // 2)]))) + [vocab, -3]
    if some(0.5):
        tails = [generated[-n:] + ids(1) for n in (1, 2, 5)]
        row["bad_words"] = [*tails, ids(1), ids(3), ids(1), history[-2:] * 40]
    return row, history


def decides(margin):
    """Whether a backend's own logarithms cannot change which id is best."""
    return margin > 1e-4 or margin == 0


def compare(logits, rows, histories, got, count=None):
    """How many rows differ from docs/sampling.md."""
    wrong = 0
    for r in range(len(rows)):
        want, margin = sampling.sample(logits[r], rows[r], histories[r])
        token, flag = got["token_ids"][r].item(), got["row_flags"][r].item()
        if want != token and decides(margin) or flag != (want == -1):
            wrong += 1
            print(f"  row {r}: {token} flag {flag}, want {want} margin {margin}: "
                  f"{ {k: v if np.isscalar(v) else len(v) for k, v in rows[r].items()} }")
    return float(wrong)


def same(a, b):
    return all(torch.equal(a[k].view(torch.uint8), b[k].view(torch.uint8)) for k in a)


def check_tokens(vt, report, rng, vocab, edits):
    count = 44
    logits = random_logits(rng, count, vocab)
    rows, histories = zip(*(random_row(rng, row, edits) for row in logits))
    device = torch.from_numpy(logits).cuda()
    table = SampleTable(vt, rows, histories)
    got = vt.sample(device, table, i32(range(count)))
    exact = torch.equal(device.view(torch.int32), torch.from_numpy(logits).cuda().view(torch.int32))
    for r in range(count):
        alone = vt.sample(device[r:r + 1], table, i32([r]))
        exact &= same(alone, {k: v[r:r + 1] for k, v in got.items()})
    name = "with masks, bias and penalties" if edits else "plain"
    report(f"sample, {vocab} ids, {name}: rows that differ from docs/sampling.md",
           compare(logits, rows, histories, got), 0.5, exact)


def check_places(vt, report, rng, vocab):
    """Rows in any order among padding and finished ones, unaligned, in mapped memory, in a graph
    with dependent launch: the same bits."""
    count, places = 24, 300
    logits = random_logits(rng, count, vocab)
    rows, histories = zip(*(random_row(rng, row, True) for row in logits))
    plain = vt.sample(torch.from_numpy(logits).cuda(), SampleTable(vt, rows, histories),
                      i32(range(count)))
    order = np.full(places, -1)
    at = rng.permutation(places)[:2 * count]
    order[at[:count]] = range(count)
    order[at[count:]] = range(count, 2 * count)
    finished = [0] * count + [1] * count
    table = SampleTable(vt, rows + rows, histories + histories, finished, mapped=True)
    spread = torch.full((places, vocab + 3), np.nan, device="cuda")[:, :vocab]
    spread[torch.from_numpy(at[:count]).cuda()] = torch.from_numpy(logits).cuda()
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


def check_logprobs(vt, report, rng, vocab, num_top):
    count = 40
    logits = random_logits(rng, count, vocab)
    rows, histories = zip(*(random_row(rng, row, True) for row in logits))
    for r, row in enumerate(rows):
        row["num_logprobs"] = (num_top, num_top // 3, num_top, 0, -1)[r % 5]
    judged = np.where(np.arange(count) % 3 == 2, rng.integers(0, vocab, count), -1)
    device = torch.from_numpy(logits).cuda()
    table = SampleTable(vt, rows, histories)
    got = vt.sample(device, table, i32(range(count)), num_top, i32(judged))
    error, wrong, exact = 0.0, 0, True
    for r in range(count):
        alone = vt.sample(device[r:r + 1], table, i32([r]), num_top, i32(judged[r:r + 1]))
        exact &= same(alone, {k: v[r:r + 1] for k, v in got.items()})
        one = {k: v[r].cpu().numpy() for k, v in got.items()}
        token, flagged = int(one["token_ids"]), int(one["row_flags"])
        if judged[r] >= 0:
            wrong += token != (-1 if flagged else judged[r])
            wrong += flagged != (not sampling.is_fit(logits[r]))
        else:
            want, margin = sampling.sample(logits[r], rows[r], histories[r])
            wrong += flagged != (want == -1) or token != want and decides(margin)
        has = not flagged and (judged[r] >= 0 or rows[r]["num_logprobs"] >= 0)
        if not has or not (logits[r] > -np.inf).any():
            wrong += bool(has) != (one["ranks"] > 0)
            continue
        length = num_top if judged[r] >= 0 else rows[r]["num_logprobs"]
        logprob, rank, top_ids, top_logprobs = sampling.logprobs(logits[r], token, length)
        # Beyond its own list a row writes nothing.
        wanted_ids = top_ids + [-7] * (num_top - length)
        wrong += rank != one["ranks"] or wanted_ids != one["top_ids"].tolist()
        ours = np.array([one["logprobs"], *one["top_logprobs"][:length]], np.float64)
        theirs = np.array([logprob, *top_logprobs])
        fit = np.isfinite(theirs)
        wrong += not np.array_equal(np.isfinite(ours), fit)
        ours, theirs = ours[fit], theirs[fit]
        error = max(error, *(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))), 0.0)
    report(f"sample, {vocab} ids: logprobs, {num_top} of the best; {wrong} wrong ids or ranks",
           float(error), 3e-6, exact and int(wrong) == 0)


def check_named(vt, report, rng, vocab):
    """Ids that rows name, beside rows with top lists: the same bits alone, and in any batch; tokens
    and lists of the others as if nobody named any."""
    count, num_top, num_named = 30, 7, 128
    logits = random_logits(rng, count, vocab)
    rows, histories = zip(*(random_row(rng, row, True) for row in logits))
    for r, row in enumerate(rows):
        row["num_logprobs"] = -1 if r % 5 == 4 else num_top
        if r % 3 == 0 and row["num_logprobs"] >= 0:
            row["logprob_ids"] = rng.integers(0, vocab, (1, 5, 33, 128)[r % 4]).tolist()
    device, order = torch.from_numpy(logits).cuda(), i32(range(count))
    table = SampleTable(vt, rows, histories)
    empty = lambda: torch.full((count, num_named), 7, dtype=torch.float32, device="cuda")
    named = empty()
    got = vt.sample(device, table, order, num_top, None, None, named)
    plain = SampleTable(vt, [{**row, "logprob_ids": []} for row in rows], histories)
    without = vt.sample(device, plain, order, num_top)
    exact = all(torch.equal(got[k], without[k]) for k in ("token_ids", "row_flags", "ranks"))
    error, wrong = 0.0, 0
    for r, row in enumerate(rows):
        ids, flagged = row["logprob_ids"], bool(got["row_flags"][r])
        alone = empty()
        vt.sample(device[r:r + 1], table, i32([r]), num_top, None, None, alone)
        exact &= torch.equal(alone[r], named[r])
        if not ids:
            exact &= torch.equal(got["top_ids"][r], without["top_ids"][r])
        if not ids or flagged or not (logits[r] > -np.inf).any():
            exact &= bool((named[r] == 7).all()) or bool(ids)
            continue
        exact &= bool((named[r, len(ids):] == 7).all())
        theirs = np.array([sampling.logprobs(logits[r], i, 0)[0] for i in ids])
        ours = named[r, :len(ids)].cpu().numpy().astype(np.float64)
        fit = np.isfinite(theirs)
        wrong += not np.array_equal(np.isfinite(ours), fit)
        ours, theirs = ours[fit], theirs[fit]
        error = max(error, *(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))), 0.0)
    report(f"sample, {vocab} ids: logprobs of named ids; {wrong} wrong", float(error), 3e-6,
           exact and wrong == 0)


def check_distribution(vt, report, rng):
    """Draws follow softmax(z): chi-square over 50 ids, 100,000 draws, and over the ids that top-p
    leaves."""
    vocab, draws = 50, 100000
    logits = rng.standard_normal(vocab).astype(np.float32)
    device = torch.from_numpy(logits).cuda().expand(draws, vocab).contiguous()
    for top_p in (1.0, 0.6):
        rows = [row_of(temperature=0.7, top_p=top_p, seed=i) for i in range(draws)]
        table = SampleTable(vt, rows, [[0] * 9] * draws)
        tokens = vt.sample(device, table, i32(range(draws)))["token_ids"].cpu().numpy()
        total = np.bincount(tokens, minlength=vocab)
        z = (logits / np.float32(0.7)).astype(np.float32)
        left = sampling.left_after_truncation(z, rows[0])
        want = np.where(left, np.exp(z - z.max()), 0)
        want = want / want.sum() * draws
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
        check_tokens(vt, report, rng, vocab, edits=False)
        check_tokens(vt, report, rng, vocab, edits=True)
        check_places(vt, report, rng, vocab)
        for num_top in (0, 5, 20, 32, 33, 128):
            check_logprobs(vt, report, rng, vocab, num_top)
        check_named(vt, report, rng, vocab)
    if distribution:
        check_distribution(vt, report, rng)
