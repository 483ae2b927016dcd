"""Checks of ranks, a process and a GPU each: parts that are run one after another, what they report,
and graphs of what they queue. Knows nothing of what is checked."""

import os
import tempfile
import time
import traceback

import torch
import torch.multiprocessing as mp

from ranks import Rank


class Report:
    def __init__(self, rank):
        self.rank, self.bad, self.good = rank, 0, 0

    def __call__(self, name, fine, note=""):
        self.good += bool(fine)
        self.bad += not fine
        if not fine or (self.rank == 0 and note):
            print(f"{'ok ' if fine else 'BAD'} rank {self.rank} {name} {note}".rstrip(), flush=True)


def captured(queue):
    """A graph of what `queue` queues; run once before, as kernels load lazily. Threads of others (NCCL's)
    may work beside the one that captures."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        queue()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="relaxed"):
        queue()
    return graph


def carrier(num_ranks):
    """Our own kernels; where there are fewer GPUs, ranks share them."""
    return "peer" if num_ranks <= torch.cuda.device_count() else "shared"


def run_rank(rank, options, part, parts, path, results):
    report = Report(rank)
    try:
        with torch.inference_mode():
            for name in part.split("+"):
                r = Rank(options.library, rank, options.ranks, f"{path}-{name}", 1 << 28,
                         collectives=carrier(options.ranks))
                r.options, r.path = options, f"{path}-{name}"
                parts[name](r, report)
                r.close()
    except Exception:  # noqa: BLE001
        report.bad += 1
        print(f"BAD rank {rank} {part}: {traceback.format_exc(limit=3)}", flush=True)
    results[rank] = report.bad + 1
    os._exit(0)  # what other libraries keep must not hold it up


def run_part(options, part, parts):
    """`part`: names of `parts`, + between, which share processes. The number of failures; processes
    that outlast the limit are killed."""
    context = mp.get_context("spawn")
    results = context.Array("i", options.ranks)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VT_RENDEZVOUS"] = f"file://{folder}/rendezvous"
        ranks = [context.Process(target=run_rank, args=(rank, options, part, parts, f"{folder}/ranks", results))
                 for rank in range(options.ranks)]
        begin = time.perf_counter()
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(max(0.1, options.limit - (time.perf_counter() - begin)))
        late = [process for process in ranks if process.is_alive()]
        for process in late:
            process.kill()
            process.join()
    bad = sum(result - 1 if result else 1 for result in results)
    print(f"== {part}: {'ok' if bad == 0 else f'{bad} failures'}"
          f"{', killed after the limit' if late else ''}, {time.perf_counter() - begin:.1f} s", flush=True)
    return bad
