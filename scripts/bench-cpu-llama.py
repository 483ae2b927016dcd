"""llama.cpp beside bench-cpu.ts: reads `decode STREAMS` or `prefill TOKENS` from stdin, answers with
tokens per second, wall and per CPU second. Needs Python's llama_cpp.
usage: bench-cpu-llama.py MODEL.gguf THREADS"""
import random
import sys
import time

from needs import need

need("llama_cpp")

import llama_cpp as L  # noqa: E402

model = L.llama_model_load_from_file(sys.argv[1].encode(), L.llama_model_default_params())
threads = int(sys.argv[2])
rng = random.Random(0)


def context(streams, tokens):
    p = L.llama_context_default_params()
    p.n_ctx = streams * 256 if streams > 1 else tokens
    p.n_batch, p.n_ubatch, p.n_seq_max = 2048, 512, streams
    p.n_threads = p.n_threads_batch = threads
    p.kv_unified = False
    return L.llama_init_from_model(model, p)


def decode_batch(ctx, batch, rows):
    """rows: (position, stream, wants logits)"""
    batch.n_tokens = len(rows)
    for i, (position, stream, logits) in enumerate(rows):
        batch.token[i] = rng.randrange(100, 8000)
        batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = position, 1, stream
        batch.logits[i] = logits
    assert L.llama_decode(ctx, batch) == 0
    L.llama_get_logits(ctx)


def measure(kind, n):
    batch = L.llama_batch_init(2048, 0, 1)
    if kind == "prefill":
        ctx = context(1, 1024)
        run = lambda: decode_batch(ctx, batch, [(p, 0, p == n - 1) for p in range(n)])
        run()
        L.llama_memory_clear(L.llama_get_memory(ctx), True)
        steps, per_step = 1, n
        start, cpu = time.perf_counter(), time.process_time()
        run()
    else:
        ctx = context(n, 1024)
        for s in range(n):
            decode_batch(ctx, batch, [(p, s, p == 127) for p in range(128)])
        steps, per_step = 16, n
        start, cpu = time.perf_counter(), time.process_time()
        for k in range(steps):
            decode_batch(ctx, batch, [(128 + k, s, 1) for s in range(n)])
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    L.llama_free(ctx)
    L.llama_batch_free(batch)
    return steps * per_step / wall, steps * per_step / cpu


print("ready", flush=True)
for line in sys.stdin:
    kind, n = line.split()
    print(*measure(kind, int(n)), flush=True)
