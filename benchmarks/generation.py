"""How fast records are sampled, beside the usual way with transformers.

    pip install transformers        # the usual way needs it
    python train.py run_name=paper model=gpt train.epochs=1 ...
    python -m benchmarks.generation saved_models/paper --reference

Both sample from the same weights, each way in a process of its own. Ours: records under the grammar
until each is complete, beyond the context where need be. The usual way: ``generate`` of
``GPT2LMHeadModel`` in float32 with a key-value cache and no constraint, one batch up to the
context. Its tokens are counted twice: ``usual`` stops records at ``</s>`` and counts no padding,
``usual_filled`` keeps every row busy to the end of the context and counts all. The ratio is that to
the better of the two. One JSON line is printed and kept in benchmarks/results/generation.json, with
the bound: weights and filled cache read once per token, at the measured bandwidth of the memory.
``--profile`` prints where our time goes, to stderr.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.machine import device_name, peak_memory_mib
from synehrgy.device import compute_type, pick_device
from synehrgy.export.architectures import GPT2, architecture_of
from synehrgy.export.hf import export_hf
from synehrgy.files import REPOSITORY, write_json
from synehrgy.generation.sampler import Drawn, sample
from synehrgy.model import Cache
from synehrgy.provenance import versions
from synehrgy.tokenizer.grammar import END, PAD, START
from synehrgy.training.checkpoint import Run, load_run

RESULTS = Path(__file__).parent / "results" / "generation.json"


def ours(run: Run, n: int, batch: int, profile: bool) -> dict[str, Any]:
    """Records of n patients, after some to warm up."""
    device = run.model.token_embedding.weight.device
    run.model.to(compute_type(device))

    def records(n: int) -> list[Drawn]:
        found = sample(
            *(run.model, run.tokenizer, range(n)), batch_size=batch, rule_out_contradictions=True
        )
        return list(found)

    records(4)
    began = time.perf_counter()
    drawn = records(n)
    seconds = time.perf_counter() - began
    if profile:
        with torch.profiler.profile() as recorded:
            records(batch)
        table = recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=15)
        print(table, file=sys.stderr)
    n_tokens = sum(len(one.tokens) for one in drawn)
    bound = _bound(run, drawn, batch)
    return _measured(n_tokens, n, seconds) | {
        "precision": str(run.model.token_embedding.weight.dtype).removeprefix("torch."),
        "segments": sum(one.n_segments for one in drawn),
        **bound,
        "share_of_bound": round(n_tokens / seconds / bound["bound_tokens_per_second"], 3),
    }


def _bound(run: Run, drawn: list[Drawn], batch: int) -> dict[str, Any]:
    """Tokens per second if nothing but memory took time."""
    config, weight = run.model.config, run.model.token_embedding.weight
    of_weights = run.model.n_parameters * weight.dtype.itemsize
    # A token looks at all of its context so far: of n tokens, on average at (n + 1) / 2.
    n_tokens = sum(len(one.tokens) for one in drawn)
    seen = sum(
        length * (length + 1) / 2
        for one in drawn
        for length in [len(one.tokens) / one.n_segments] * one.n_segments
    )
    of_cache = Cache.bytes_per_row(config, weight.dtype, 1) * seen / n_tokens
    bandwidth = _bandwidth(weight.device)
    return {
        "mib_of_weights": round(of_weights / 2**20, 1),
        "mib_of_cache_per_step": round(batch * of_cache / 2**20, 1),
        "gb_per_second": round(bandwidth / 1e9, 1),
        "bound_tokens_per_second": round(bandwidth / (of_weights / batch + of_cache)),
    }


def _bandwidth(device: torch.device) -> float:
    """Bytes per second that the device reads from memory, at its best of some tries."""
    data = torch.ones(2**28, device=device)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        float(data.sum())
        best = max(best, data.nbytes / (time.perf_counter() - began))
    return best


def usual(run: Run, batch: int, fill: bool) -> dict[str, Any]:
    """One batch with transformers."""
    model, tokenizer = _as_gpt2(run), run.tokenizer
    n_ctx = run.model.config.n_ctx
    start = torch.full((batch, 1), tokenizer.token(START), device=model.device)
    end = tokenizer.token(END)
    options = {
        "do_sample": True,
        "top_k": 0,
        "use_cache": True,
        "eos_token_id": end,
        "pad_token_id": tokenizer.token(PAD),
    }
    model.generate(start, max_length=16, **options)
    began = time.perf_counter()
    found = model.generate(start, max_length=n_ctx, min_length=n_ctx if fill else 0, **options)
    seconds = time.perf_counter() - began
    ended = (found == end).int()
    n_tokens = int((ended.cumsum(dim=1) - ended == 0).sum())
    return _measured(n_tokens, batch, seconds)


def _as_gpt2(run: Run) -> Any:
    """The same weights in GPT-2 of transformers."""
    from transformers import GPT2LMHeadModel

    if architecture_of(run.model.config) is not GPT2:
        sys.exit("The usual way needs a run of model=gpt, which has the shape of GPT-2.")
    with TemporaryDirectory() as place:
        export_hf(run.path, Path(place) / "model", checked=True)
        model = GPT2LMHeadModel.from_pretrained(Path(place) / "model").eval()
    return model.to(run.model.token_embedding.weight.device)


def _measured(n_tokens: int, n_patients: int, seconds: float) -> dict[str, Any]:
    return {
        "patients": n_patients,
        "tokens": n_tokens,
        "seconds": round(seconds, 2),
        "tokens_per_second": round(n_tokens / seconds),
        "patients_per_second": round(n_patients / seconds, 2),
        "peak_memory_mib": peak_memory_mib(),
    }


def main() -> None:
    """Measure each way in a process of its own, print and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("--batch", type=int, default=64, help="records side by side")
    parser.add_argument("--patients", type=int, default=192, help="patients that ours samples")
    parser.add_argument("--reference", action="store_true", help="also time the usual way")
    parser.add_argument("--profile", action="store_true", help="also profile ours")
    ways = ("ours", "usual", "usual_filled")
    parser.add_argument("--only", choices=ways, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.run.resolve()
    device = pick_device("auto")
    if options.only:
        run = load_run(folder, device)
        if options.only == "ours":
            found = ours(run, options.patients, options.batch, options.profile)
        else:
            found = usual(run, options.batch, fill=options.only == "usual_filled")
        print(json.dumps(found))
        return
    run = load_run(folder, device)
    result: dict[str, Any] = {
        "stage": "generation",
        "model": run.config["model"]["name"],
        "n_ctx": run.model.config.n_ctx,
        "vocabulary": run.model.config.vocab_size,
        "batch": options.batch,
    }
    for way in ways if options.reference else ("ours",):
        command = [sys.executable, "-m", "benchmarks.generation", *sys.argv[1:], "--only", way]
        command[3] = str(folder)
        done = subprocess.run(
            command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True
        )
        result[way] = json.loads(done.stdout.splitlines()[-1])
    if options.reference:
        best = max(result[way]["tokens_per_second"] for way in ways[1:])
        result["ratio"] = round(result["ours"]["tokens_per_second"] / best, 1)
    result |= {
        "threads": torch.get_num_threads(),
        "device": device_name(device),
        "versions": versions(),
    }
    print(json.dumps(result))
    write_json(RESULTS, result)


if __name__ == "__main__":
    main()
