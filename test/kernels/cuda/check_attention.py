"""attention against float64, NaN and sentinels, and bit for bit: alone or in a batch, in one prefill,
in chunks, or token by token."""

import torch

from vt_cuda import VtCuda


class Case:
    """A batch of rows with a shuffled paged cache; what no row owns is NaN."""

    def __init__(self, seq_lens, queries, num_heads, num_kv_heads, head_dim, dtype, block_size=16,
                 window=0, seed=0):
        g = torch.Generator(device="cuda").manual_seed(seed)
        rand = lambda *shape: torch.randn(*shape, device="cuda", generator=g)
        self.seq_lens, self.queries, self.window = seq_lens, queries, window
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.dtype, self.scale = dtype, head_dim**-0.5
        blocks = [(n + block_size - 1) // block_size for n in seq_lens]
        order = (torch.randperm(sum(blocks), device="cuda", generator=g) + 1).int()
        self.tables = torch.zeros(len(seq_lens), max(blocks) + 1, dtype=torch.int32, device="cuda")
        shape = (sum(blocks) + 1, 2, 2, num_kv_heads, block_size, head_dim)
        self.cache = torch.full(shape, float("nan"), device="cuda", dtype=dtype)
        self.keys, self.values = [], []
        at = 0
        for row, (n, b) in enumerate(zip(seq_lens, blocks)):
            ids = order[at:at + b]
            at += b
            self.tables[row, :b] = ids
            for kind, kept in ((0, self.keys), (1, self.values)):
                x = rand(num_kv_heads, n, head_dim).to(dtype)
                kept.append(x)
                padded = torch.full((num_kv_heads, b * block_size, head_dim), float("nan"),
                                    device="cuda", dtype=dtype)
                padded[:, :n] = x
                self.cache[ids.long(), 1, kind] = padded.view(
                    num_kv_heads, b, block_size, head_dim).transpose(0, 1)
        self.q = [(rand(n, num_heads, head_dim) * 1.5).to(dtype) for n in seq_lens]

    def run(self, vt: VtCuda, spans, early=False, prefill=0, room=1 << 20):
        """spans: (row, begin, end) of each row of one step; room: for so many works of decode, which
        tells how they are launched. The output rows, in order."""
        qkv = torch.full((sum(e - b for _, b, e in spans),
                          (self.num_heads + 2 * self.num_kv_heads) * self.head_dim), float("nan"),
                         device="cuda", dtype=self.dtype)
        start = [0]
        for row, b, e in spans:
            start.append(start[-1] + e - b)
            qkv[start[-2]:start[-1], :self.num_heads * self.head_dim] = self.q[row][b:e].flatten(1)
        out = torch.full((len(qkv) + 1, self.num_heads * self.head_dim), 7.0, device="cuda",
                         dtype=self.dtype)
        ints = lambda x: torch.tensor(x, dtype=torch.int32, device="cuda")
        lists = vt.plan_attention(ints(start), ints([e for _, _, e in spans]), self.num_heads,
                                  self.num_kv_heads, 4096, self.window,
                                  prefill_rows=vt.lib.vt_cuda_prefill_rows(prefill, self.head_dim),
                                  max_decode_work=room, head_dim=self.head_dim)
        self.by_clusters = int(lists["work_counts"][3]) == 1
        works = max(1, int(lists["work_counts"][0]))
        scratch = torch.full((works * self.num_kv_heads, 16, self.head_dim + 2), float("nan"),
                             device="cuda")
        counters = torch.zeros(len(spans) * self.num_kv_heads, dtype=torch.int32, device="cuda")
        vt.attention(out, qkv, self.cache, self.tables[[r for r, _, _ in spans]].contiguous(),
                     lists, scratch, counters, 1, self.num_heads, self.scale, self.window, early=early,
                     prefill=prefill, max_decode_work=room)
        torch.cuda.synchronize()
        assert (out[-1] == 7).all(), "wrote beyond the last token"
        assert (counters == 0).all(), "counters are not back at zero"
        assert lists["work_counts"][2] == 0, "works dealt out are not back at zero"
        return [out[start[i]:start[i + 1]] for i in range(len(spans))]

    def expected(self, row, begin, end):
        group = self.num_heads // self.num_kv_heads
        q = self.q[row][begin:end].double()
        k, v = (x[row].double().repeat_interleave(group, 0) for x in (self.keys, self.values))
        scores = torch.einsum("thd,hkd->htk", q, k) * self.scale
        key = torch.arange(k.shape[1], device="cuda")
        position = torch.arange(begin, end, device="cuda")[:, None]
        outside = key > position
        if self.window > 0:
            outside |= key <= position - self.window
        scores = scores.masked_fill(outside, float("-inf"))
        return torch.einsum("htk,hkd->thd", scores.softmax(-1), v).flatten(1)


def check_small(vt, case, lens, rows, last, fits):
    """Whether the last tokens of rows are `last` in launches with clusters, which are used if `fits`."""
    spans = [(r, lens[r] - 1, lens[r]) for r in rows]
    same = True
    for early in (False, True):
        # So much that launches have clusters for heads of any width; and of so much work that a block
        # merges when it is through.
        for room in (max(4 * len(rows), 200 // case.num_kv_heads), 1 << 16):
            got = case.run(vt, spans, early, room=room)
            same &= all(torch.equal(a, last[r]) for a, r in zip(got, rows))
            same &= fits is None or case.by_clusters == fits
    return same


def check(vt: VtCuda, report):
    for dtype, limit in ((torch.bfloat16, 6e-3), (torch.float16, 8e-4)):
        for heads, kv_heads, dim, block, window in ((32, 8, 128, 16, 0), (32, 8, 64, 16, 0),
                                                    (9, 3, 64, 32, 0), (4, 4, 128, 16, 0),
                                                    (16, 1, 128, 64, 0), (14, 2, 64, 16, 0),
                                                    (8, 2, 128, 16, 100), (8, 2, 80, 16, 0),
                                                    (12, 1, 96, 32, 0), (8, 4, 256, 16, 0),
                                                    (16, 1, 256, 64, 0), (6, 2, 80, 32, 100),
                                                    (9, 3, 96, 16, 77), (3, 1, 256, 16, 200)):
            lens = [1, 16, 63, 64, 65, 255, 256, 257, 511, 640, 1000]
            case = Case(lens, None, heads, kv_heads, dim, dtype, block, window)
            whole = case.run(vt, [(r, 0, n) for r, n in enumerate(lens)])
            worst = 0.0
            for row, n in enumerate(lens):
                want = case.expected(row, 0, n)
                error = ((whole[row].double() - want).norm() / want.norm()).item()
                worst = max(worst, error if error == error else float("inf"))
            last = case.run(vt, [(r, n - 1, n) for r, n in enumerate(lens)])
            alone = [case.run(vt, [(r, n - 1, n)])[0] for r, n in enumerate(lens)]
            early = case.run(vt, [(r, n - 1, n) for r, n in enumerate(lens)], early=True)
            same = all(torch.equal(a, b[-1:]) and torch.equal(a, c) and torch.equal(a, d)
                       for a, b, c, d in zip(last, whole, alone, early))
            # Launches that are small enough for clusters: rows alone, and four, with and without one
            # that is too long.
            for rows in [[r] for r in range(len(lens))] + [[6, 7, 5, 8], [2, 8], [7, 9, 3, 10]]:
                short = window > 0 or max(lens[r] for r in rows) <= 512
                fits = dim > 64 and short
                same &= check_small(vt, case, lens, rows, last, fits)
            # Chunks of 7 and of 100, mixed with decode rows.
            for size in (7, 100):
                r = lens.index(640)
                for b in range(0, 640, size):
                    e = min(b + size, 640)
                    got = case.run(vt, [(4, 64, 65), (r, b, e), (0, 0, 1)])
                    same &= torch.equal(got[1], whole[r][b:e]) and torch.equal(got[0], last[4])
                    if not same and size == 7:
                        break
            report(f"attention {dtype} {heads}/{kv_heads}x{dim} block {block} window {window}",
                   worst, limit, same)
    # Chunks of 2,048 positions beyond position 8,192.
    for dim in (64, 80, 96, 128, 256):
        case = Case([12345, 9000], None, 8, 2, dim, torch.bfloat16)
        spans = [(0, 12345 - 40, 12345), (1, 8900, 9000)]
        whole = case.run(vt, spans)
        wants = [case.expected(*s) for s in spans]
        worst = max(((g.double() - w).norm() / w.norm()).item() for g, w in zip(whole, wants))
        last = case.run(vt, [(0, 12344, 12345), (1, 8999, 9000)])
        report(f"attention long x{dim}", worst, 6e-3,
               all(torch.equal(a, b[-1:]) for a, b in zip(last, whole)))
    # Enough rows that most stay in one work, windows that begin inside a chunk, and long rows, which
    # are merged by blocks that are through with their works.
    for kv_heads, dim, window in ((8, 64, 0), (8, 128, 0), (8, 64, 700), (8, 80, 0), (8, 96, 700),
                                  (4, 256, 0)):
        lens = [(r * 37) % 1000 + 1 for r in range(200)] + [3000, 9000]
        case = Case(lens, None, 16, kv_heads, dim, torch.bfloat16, window=window)
        batch = case.run(vt, [(r, n - 1, n) for r, n in enumerate(lens)])
        some = list(range(0, 200, 9)) + [200, 201]
        alone = [case.run(vt, [(r, lens[r] - 1, lens[r])])[0] for r in some]
        wants = [case.expected(r, lens[r] - 1, lens[r]) for r in some]
        worst = max(((g.double() - w).norm() / w.norm()).item() for g, w in zip(alone, wants))
        report(f"attention of 202 rows x{dim} window {window}", worst, 6e-3,
               all(torch.equal(batch[r], a) for r, a in zip(some, alone)))
