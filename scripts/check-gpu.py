"""Logits and greedy tokens of the whole engine against transformers, on the same weights:

    python scripts/check-gpu.py [--shapes llama-1b,qwen3-0.6b] [--model FOLDER ...] [--node node]

Shapes get random weights, written here with torch; folders are Hugging Face folders. The engine
generates 128 tokens from prompts of several lengths in one batch, then each alone: both must be
equal to the bit. transformers then reads the same ids in float32. Every token must be its best one,
or within the rounding of the engine's dtype of it; logprobs likewise, the best 20 of every token, and
those of the whole vocabulary for some. That rounding is what transformers itself differs by between
the checkpoint's dtype and float32, in the same place."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from needs import need

need("numpy", "torch", "transformers")

import numpy  # noqa: E402
import torch  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

ROOT = Path(__file__).parents[1]
LENGTHS = (1, 5, 16, 17, 64, 100, 257, 700)
NUM_TOKENS = 128


def write_random(node, name, folder):
    """A folder of a shape with weights drawn by transformers' own initialisation."""
    subprocess.run([node, ROOT / "dist/scripts/bench-gpu/generate.js", "shape", name, folder], check=True)
    path = Path(folder) / name
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=torch.bfloat16)
    # Drawn wider than trained weights are, norms not all 1: a wrong place shows.
    for parameter_name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data.uniform_(0.5, 1.5)
    model.save_pretrained(path, safe_serialization=True)
    release(model)
    return path


def release(model):
    """The engine that comes next needs the card's memory."""
    model.to("meta")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def engine_rows(node, path, prompts, device):
    with tempfile.TemporaryDirectory() as folder:
        given, out = f"{folder}/prompts.json", f"{folder}/out"
        Path(given).write_text(json.dumps(prompts))
        subprocess.run([node, ROOT / "dist/scripts/bench-gpu/generate.js", "run", path, given, out,
                        str(NUM_TOKENS), device], check=True)
        found = json.loads(Path(f"{out}.json").read_text())
        full = torch.from_numpy(numpy.fromfile(f"{out}.f32", numpy.float32))
        found["full"] = full.view(found["numFullPrompts"], found["numFullTokens"], -1)
        return found


def normalised_error(rows, reference):
    """Of logits up to a constant a row: what they differ by, in standard deviations of the reference."""
    rows, reference = rows - rows.mean(-1, keepdim=True), reference - reference.mean(-1, keepdim=True)
    return ((rows - reference).norm(dim=-1) / reference.norm(dim=-1)).max().item()


@torch.inference_mode()
def reference_logits(path, dtype, prompts, rows, device):
    """float32 [NUM_TOKENS, vocabulary] a row: what each of the row's ids was chosen from."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).eval()
    found = []
    for prompt, row in zip(prompts, rows):
        ids = torch.tensor([prompt + row["ids"][:-1]], device=device)
        found.append(model(ids).logits[0, len(prompt) - 1:].float().cpu())
    release(model)
    return found


def check(node, path, device):
    """Number of faults, after a line for the model."""
    config = AutoConfig.from_pretrained(path)
    generator = torch.Generator().manual_seed(1)
    high = min(config.vocab_size, 30_000)
    limit = config.max_position_embeddings - NUM_TOKENS
    prompts = [torch.randint(3, high, (min(n, limit),), generator=generator).tolist() for n in LENGTHS]
    result = engine_rows(node, path, prompts, device)
    rows = result["batch"]
    faults = 0

    def fault(text):
        nonlocal faults
        faults += 1
        print(f"BAD {Path(path).name}: {text}", flush=True)

    for i, (together, alone) in enumerate(zip(rows, result["alone"])):
        if len(together["ids"]) != NUM_TOKENS:
            fault(f"prompt of {len(prompts[i])}: {len(together['ids'])} tokens came")
        if together != alone:
            at = next((k for k, pair in enumerate(zip(together["ids"], alone["ids"])) if pair[0] != pair[1]), None)
            fault(f"prompt of {len(prompts[i])} alone and in the batch differ, tokens from {at} on")

    where = "cuda" if torch.cuda.is_available() else "cpu"
    exact = reference_logits(path, torch.float32, prompts, rows, where)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    rounded = reference_logits(path, dtype, prompts, rows, where)
    noise = max((a - b).abs().max().item() for a, b in zip(exact, rounded))
    tolerance = 2 * noise + 1e-3
    worst_logprob = worst_gap = 0.0
    num_other = 0
    for row, logits in zip(rows, exact):
        logprobs = logits.log_softmax(-1)
        chosen = torch.tensor(row["ids"])
        gap = logits.max(-1).values - logits.gather(1, chosen[:, None])[:, 0]
        num_other += int((gap > 0).sum())
        worst_gap = max(worst_gap, gap.max().item())
        ids, values = torch.tensor(row["topIds"]), torch.tensor(row["topLogprobs"])
        worst_logprob = max(worst_logprob, (logprobs.gather(1, ids) - values).abs().max().item())
    full, num_full = result["full"], result["numFullTokens"]
    worst_row = full_error = full_noise = 0.0
    for rows_of_prompt, a, b in zip(full, exact, rounded):
        a, b = a[:num_full], b[:num_full]
        worst_row = max(worst_row, (rows_of_prompt - a.log_softmax(-1)).abs().nan_to_num(torch.inf).max().item())
        full_error = max(full_error, normalised_error(rows_of_prompt, a))
        full_noise = max(full_noise, normalised_error(b, a))
    full_limit = 1.5 * full_noise + 1e-5
    if not full_error <= full_limit:
        fault(f"whole rows of logits have an error of {full_error:.2e}; {full_limit:.2e} is allowed")
    if worst_row > tolerance:
        fault(f"a logprob of a whole row is {worst_row:.4f} off; {tolerance:.4f} is allowed")
    if worst_gap > tolerance:
        fault(f"a token is {worst_gap:.4f} below the best one; {tolerance:.4f} is allowed")
    if worst_logprob > tolerance:
        fault(f"a logprob is {worst_logprob:.4f} off; {tolerance:.4f} is allowed")
    total = len(rows) * NUM_TOKENS
    print(f"{'ok ' if faults == 0 else 'BAD'} {Path(path).name}: {total - num_other} of {total} tokens are "
          f"transformers' best in float32, the others at most {worst_gap:.4f} below it; top-20 logprobs at most "
          f"{worst_logprob:.4f} off; transformers in {str(dtype).split('.')[1]} differs by {noise:.4f}; "
          f"{full.shape[0] * num_full} whole rows of {full.shape[2]}: error {full_error:.2e} of at most "
          f"{full_limit:.2e}, at most {worst_row:.4f} off", flush=True)
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="llama-1b,qwen3-0.6b")
    parser.add_argument("--model", action="append", default=[], help="a folder with weights; may be repeated")
    parser.add_argument("--node", default="node")
    parser.add_argument("--device", default="cuda", help="of the engine")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in filter(None, options.shapes.split(",")):
            faults += check(options.node, write_random(options.node, name, folder), options.device)
    for path in options.model:
        faults += check(options.node, path, options.device)
    print(f"{faults} faults", flush=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
