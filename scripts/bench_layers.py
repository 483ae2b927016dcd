"""Decode steps of whole models as chains of kernels, fused and op by op: what bench-gpu.py predicts
the batch-1 rows from. Random weights; the sampler and the host are not in it."""

import torch

# hidden, layers, heads, KV heads, head_dim, intermediate, vocabulary, q/k norms
MODELS = {"Llama-3.2-1B": (2048, 16, 32, 8, 64, 8192, 128256, False),
          "Llama-3.1-8B": (4096, 32, 32, 8, 128, 14336, 128256, False),
          "Qwen3-0.6B": (1024, 28, 16, 8, 128, 3072, 151936, True)}
BLOCK = 16
SQUARES = 512


class Chain:
    """One decode step of `rows` rows with `context` keys each."""

    def __init__(self, vt, name, rows, context, max_context=4096):
        (self.hidden, self.layers, self.heads, self.kv_heads, self.dim, self.gate, vocab,
         self.qk_norm) = MODELS[name]
        self.vt, self.rows = vt, rows
        dtype = dict(device="cuda", dtype=torch.bfloat16)
        columns = (self.heads + 2 * self.kv_heads) * self.dim
        weight = lambda n, k: torch.empty(n, k, **dtype).normal_(std=k**-0.5)
        ones = lambda n: torch.ones(n, **dtype)
        self.weights = [dict(norm1=ones(self.hidden), qkv=weight(columns, self.hidden),
                             q=ones(self.dim), k=ones(self.dim),
                             o=weight(self.hidden, self.heads * self.dim), norm2=ones(self.hidden),
                             gate_up=weight(2 * self.gate, self.hidden),
                             down=weight(self.hidden, self.gate)) for _ in range(self.layers)]
        self.norm, self.head = ones(self.hidden), weight(vocab, self.hidden)
        self.table = weight(1000, self.hidden)
        self.bytes = sum(w.numel() * 2 for layer in self.weights for w in layer.values())
        self.bytes += self.head.numel() * 2
        self.bytes += rows * context * self.kv_heads * self.dim * 4 * self.layers

        blocks = rows * ((context + BLOCK - 1) // BLOCK)
        self.cache = torch.empty(blocks + 1, self.layers, 2, self.kv_heads, BLOCK, self.dim,
                                 **dtype).normal_()
        ints = lambda *a: torch.arange(*a, dtype=torch.int32, device="cuda")
        order = (torch.randperm(blocks, device="cuda") + 1).int().view(rows, -1)
        self.tables = torch.zeros(rows, max_context // BLOCK, dtype=torch.int32, device="cuda")
        self.tables[:, :order.shape[1]] = order
        self.slots = order[:, (context - 1) // BLOCK] * BLOCK + (context - 1) % BLOCK
        self.positions = torch.full((rows,), context - 1, dtype=torch.int32, device="cuda")
        self.query_start, self.tokens = ints(rows + 1), ints(rows)
        self.seq_lens = self.positions + 1
        # What a graph must allow for: the chunks of the longest context.
        self.max_work = rows * (max_context // 256)
        self.lists = vt.plan_attention(self.query_start, self.seq_lens, self.heads, self.kv_heads,
                                       self.max_work, head_dim=self.dim)
        empty = lambda n, kind=torch.bfloat16: torch.empty(rows, n, device="cuda", dtype=kind)
        self.x, self.normed, self.made = empty(self.hidden), empty(self.hidden), empty(columns)
        self.gained, self.scales = empty(self.hidden), empty(1, torch.float32)
        self.squares = empty(SQUARES, torch.float32)
        self.attended, self.gated = empty(self.heads * self.dim), empty(self.gate)
        self.gate_up, self.logits = empty(2 * self.gate), empty(vocab, torch.float32)
        self.cos_sin = empty(self.dim, torch.float32)
        self.inv_freq = 5e5 ** (-torch.arange(self.dim // 2, device="cuda") / (self.dim / 2))
        self.scratch = torch.empty(self.max_work * self.kv_heads, 16, self.dim + 2, device="cuda")
        self.counters = torch.zeros(rows * self.kv_heads, dtype=torch.int32, device="cuda")

    def linear(self, out, x, weight, norm=None, silu=False, rope=None, residual=None, fused=True,
               tuning=0, **late):
        """One launch where that is built and wanted, else op by op; "epilogue": the norm apart.
        late: as in vt.linear_fields."""
        args = dict(norm_weight=norm, norm_eps=1e-5, silu=silu, rope=rope, residual=residual,
                    apart=True, **late)
        if norm is not None and not (fused is True and self.vt.linear_fuses(out, x, weight, **args)):
            self.vt.rms_norm(self.normed, x, norm, 1e-5)
            x, args["norm_weight"] = self.normed, None
        if fused and self.vt.linear_fuses(out, x, weight, **args):
            self.vt.linear(out, x, weight, tuning=tuning, **args)
            return
        scale = late.get("row_scale") if silu or rope is not None else None
        self.vt.linear(self.gate_up if silu else out, x, weight, residual=residual, tuning=tuning,
                       apart=True, row_scale=late.get("row_scale") if scale is None else None)
        if silu:
            self.vt.silu_and_mul(out, self.gate_up, 8, row_scale=scale)
        if rope is not None:
            self.vt.rope_and_cache(out, *rope, row_scale=scale)

    def has_squares(self, fused=True):
        """Whether what is in front of a norm with a late scale gives what the linear behind needs."""
        return fused is True and self.rows <= 32

    def behind(self, out, x, weight, norm, fused, **more):
        """A linear behind a norm with a late scale."""
        if not self.has_squares(fused):
            self.vt.rms_norm(self.gained, x, norm, 1e-5, self.scales)
            late = dict(row_scale=self.scales)
        else:
            late = dict(x_squares=self.squares)
        self.linear(out, self.gained, weight, fused=fused, **late, **more)

    def in_front(self, out, x, weight, norm, fused, tuning):
        """A linear with residual, in front of such a norm, or of the head where norm is None."""
        late = dict(late=(norm, self.gained, self.squares))
        self.linear(out, x, weight, residual=out, tuning=tuning,
                    **(late if norm is not None and self.has_squares(fused) else {}))

    def qkv(self, i, fused=True, tuning=0):
        w = self.weights[i]
        rope = (self.cos_sin, self.slots, self.cache, i, self.heads)
        more = dict(norm=w["norm1"], fused=fused, tuning=tuning)
        if not self.qk_norm:
            self.behind(self.made, self.x, w["qkv"], rope=rope, **more)
            return
        self.behind(self.made, self.x, w["qkv"], **more)
        if fused:
            self.vt.rope_and_cache(self.made, *rope, w["q"], w["k"], 1e-6)
        else:
            self.vt.head_rms_norm(self.made, w["q"], w["k"], self.heads, self.kv_heads, 1e-6)
            self.vt.rope_and_cache(self.made, *rope)

    def norm_alone(self, i):
        self.vt.rms_norm(self.normed, self.x, self.weights[i]["norm1"], 1e-5)

    def attend(self, i, early=True):
        self.vt.attention(self.attended, self.made, self.cache, self.tables, self.lists,
                          self.scratch, self.counters, i, self.heads, self.dim**-0.5,
                          max_decode_work=self.max_work, max_prefill_work=0, early=early)

    def o(self, i, fused=True, tuning=0):
        w = self.weights[i]
        self.in_front(self.x, self.attended, w["o"], w["norm2"], fused, tuning)

    def up(self, i, fused=True, tuning=0):
        w = self.weights[i]
        self.behind(self.gated, self.x, w["gate_up"], w["norm2"], silu=True, fused=fused,
                    tuning=tuning)

    def down(self, i, fused=True, tuning=0):
        norm = self.weights[i + 1]["norm1"] if i + 1 < self.layers else None
        self.in_front(self.x, self.gated, self.weights[i]["down"], norm, fused, tuning)

    def project(self, fused=True, tuning=0):
        self.linear(self.logits, self.x, self.head, norm=self.norm, fused=fused, tuning=tuning)

    def step(self, fused=True, tuning={}, early=True):
        """Queues the step. tuning: by name of the linear."""
        vt = self.vt
        tune = lambda name: tuning.get(name, 0)
        vt.rope_cos_sin(self.cos_sin, self.inv_freq, self.positions, 1.0)
        vt.plan_attention(self.query_start, self.seq_lens, self.heads, self.kv_heads,
                          self.max_work, lists=self.lists, head_dim=self.dim)
        late = (self.weights[0]["norm1"], self.gained, self.squares)
        vt.gather("vt_cuda_embedding", self.x, self.table, self.tokens,
                  late=late if self.has_squares(fused) else None)
        for i in range(self.layers):
            self.qkv(i, fused, tune("qkv"))
            self.attend(i, bool(fused) and early)
            self.o(i, fused, tune("o"))
            self.up(i, fused, tune("gate_up"))
            self.down(i, fused, tune("down"))
        self.project(fused, tune("head"))


def kernel_times(vt, bandwidth, graph_us):
    """What each kernel of a layer takes, in a chain of those of all layers; where a norm is a launch
    of its own, it is in the time of the linear behind it. Residuals grow: infinite values take the
    same time. Keys of few rows lie in L2."""
    print("\n| bf16, context 288 | bytes | at the read bandwidth | 1 row | 8 | 16 |")
    print("| --- " * 6 + "|")
    for name in ("Llama-3.2-1B", "Llama-3.1-8B"):
        table = {}
        for rows in (1, 8, 16):
            chain = Chain(vt, name, rows, 288)
            layers, size = range(chain.layers), lambda key: chain.weights[0][key].numel() * 2
            per_layer = lambda run: [lambda i=i: run(i) for i in layers]
            keys = rows * 288 * chain.kv_heads * chain.dim * 4
            for kernel, num_bytes, calls in (
                    ("norm alone, each row", chain.hidden * 4, per_layer(chain.norm_alone)),
                    ("norm, qkv, rope, cache", size("qkv"), per_layer(chain.qkv)),
                    ("attention, each row", keys // rows, per_layer(chain.attend)),
                    ("o, residual", size("o"), per_layer(chain.o)),
                    ("norm, gate and up, silu", size("gate_up"), per_layer(chain.up)),
                    ("down, residual", size("down"), per_layer(chain.down)),
                    ("norm, head", chain.head.numel() * 2, [chain.project])):
                us = graph_us(vt, calls, 4)
                limit = num_bytes / bandwidth / 1e3 * (rows if "row" in kernel else 1)
                table.setdefault((kernel, num_bytes), []).append((us, limit / us))
            del chain
        for (kernel, num_bytes), cells in table.items():
            print(f"| {name}: {kernel} | {num_bytes / 1e6:.2f} MB | {num_bytes / bandwidth / 1e3:.2f} us | "
                  + " | ".join(f"{us:.1f} us ({share:.0%})" for us, share in cells) + " |", flush=True)


def layer_times(vt, bandwidth, graph_us):
    print("\n| decode step, bf16, context 288, no sampler | bytes at the read bandwidth | fused | op by op |")
    print("| --- | --- | --- | --- |")
    for name in MODELS:
        for rows in (1, 8, 16):
            chain = Chain(vt, name, rows, 288)
            fused = graph_us(vt, [lambda: chain.step(True)], 1) / 1e3
            logits = chain.logits.clone()
            single = graph_us(vt, [lambda: chain.step(False)], 1) / 1e3
            assert torch.equal(logits, chain.logits), "fused and op by op differ"
            limit = chain.bytes / bandwidth / 1e6
            print(f"| {name}, batch {rows} | {limit:.3f} ms | {fused:.3f} ms ({limit / fused:.0%}) | "
                  f"{single:.3f} ms ({limit / single:.0%}) |", flush=True)
            del chain
