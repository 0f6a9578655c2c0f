"""How fast a model of the paper's shape is trained, beside the usual way with transformers.

    pip install transformers        # the usual way needs it
    python -m benchmarks.training data/processed/simulated --reference

Both train on the same records, cut at the context as published, in steps of as many records, each
way in a process of its own. The usual way: ``GPT2LMHeadModel`` in float32, records padded to the
context, AdamW. Tokens are real ones, padding not counted. One JSON line is printed and kept in
benchmarks/results/training.json, with the share of the device's best speed that the model's own
operations reach (model FLOPs utilisation). ``--profile`` prints where our time goes, to stderr.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import cpu_name, peak_memory_mib
from synehrgy.cli import compose
from synehrgy.files import REPOSITORY, write_json
from synehrgy.provenance import versions
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import tokenise

if TYPE_CHECKING:
    from synehrgy.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results" / "training.json"
CONTEXT = 1024


def records_of(cohort: Path, n: int) -> list[np.ndarray]:
    """The first n train records, in an order of their own, cut at the context."""
    store = tokenise(cohort, TokenSettings(long_records="truncate"))
    rows = np.random.default_rng(0).permutation(store.of_split("train"))[:n]
    return [store.records[row][:CONTEXT].astype(np.int64) for row in rows]


def ours(cohort: Path, n_steps: int, batch: int, model: str, profile: bool) -> dict[str, Any]:
    """Steps of our training: the first warms up, the others are timed."""
    from synehrgy.processes import World
    from synehrgy.training.loop import as_trained, new_model
    from synehrgy.training.trainer import Trainer

    overrides = [
        *(
            "run_name=benchmark",
            f"model={model}",
            f"data.path={cohort}",
            f"hparams.n_ctx={CONTEXT}",
        ),
        *(f"hparams.mini_batch={batch}", "hparams.n_accum=1"),
    ]
    config = compose("train", overrides)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    store = as_trained(tokenise(cohort, TokenSettings(long_records="truncate")), config.train)
    torch.manual_seed(0)
    trainer = Trainer(config, new_model(config, store.tokenizer).to(device), store, World(device))
    # The same records as the usual way's.
    trained = np.random.default_rng(0).permutation(np.arange(len(trainer.train_batches.plan)))
    steps = trained[: batch * n_steps].reshape(n_steps, batch)
    trainer.objective.train()
    trainer.step(steps[0], epoch=1)
    began = time.perf_counter()
    for step in steps[1:]:
        trainer.step(step, epoch=1)
    if device.type == "cuda":
        torch.cuda.synchronize()
    n_tokens = sum(trainer.train_batches.n_targets(step) for step in steps[1:])
    seconds = time.perf_counter() - began
    if profile:
        with torch.profiler.profile() as recorded:
            trainer.step(steps[0], epoch=1)
        table = recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=15)
        print(table, file=sys.stderr)
    n_operations = sum(_operations(trainer, step) for step in steps[1:])
    result = _measured(n_tokens, seconds) | {
        "precision": str(trainer.precision).removeprefix("torch."),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "gflops_per_second": round(n_operations / seconds / 1e9),
    }
    peak = _peak_operations(device)
    return result | {"utilisation": round(n_operations / seconds / peak, 3)}


def _operations(trainer: "Trainer", step: NDArray[np.int64]) -> float:
    """Floating point operations that the model needs for a step, forward and backward."""
    config = trainer.model.config
    weights = trainer.model.n_parameters
    if config.positions == "learned":
        # Looked up, not multiplied.
        weights -= config.n_ctx * config.n_embd
    total = 0.0
    for batch in trainer.train_batches.batches(step):
        lengths = np.array(batch.packing.lengths, dtype=np.float64)
        # A token attends to half of its record, with two products as wide as the model.
        attention = config.n_layer * config.n_embd * float((lengths**2).sum()) * 2
        total += 6 * weights * lengths.sum() + 3 * attention
    return total


def _peak_operations(device: torch.device) -> float:
    """Operations per second of the device at its best: a large matrix product in bf16."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        product = a @ b
        float(product[0, 0])
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def usual(cohort: Path, n_steps: int, batch: int) -> dict[str, Any]:
    """The same with transformers, in float32 on padded records."""
    from transformers import GPT2Config, GPT2LMHeadModel

    vocabulary = len(tokenise(cohort, TokenSettings(long_records="truncate")).tokenizer.vocabulary)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = GPT2Config(vocab_size=vocabulary, n_positions=CONTEXT, n_embd=384, n_layer=4, n_head=4)
    model = GPT2LMHeadModel(shape).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4)
    records = records_of(cohort, n_steps * batch)
    began, n_tokens, n_padding = 0.0, 0, 0
    for step in range(n_steps):
        if step == 1:
            began, n_tokens, n_padding = time.perf_counter(), 0, 0
        inputs = torch.zeros(batch, CONTEXT, dtype=torch.int64)
        labels = torch.full((batch, CONTEXT), -100)
        for i, record in enumerate(records[step * batch : (step + 1) * batch]):
            inputs[i, : len(record)] = labels[i, : len(record)] = torch.from_numpy(record)
            n_tokens += len(record) - 1
            n_padding += CONTEXT - len(record)
        optimiser.zero_grad()
        model(
            inputs.to(device),
            attention_mask=(labels != -100).long().to(device),
            labels=labels.to(device),
        ).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    seconds = time.perf_counter() - began
    share = n_padding / ((n_steps - 1) * batch * CONTEXT)
    return _measured(n_tokens, seconds) | {"share_of_padding": round(share, 3)}


def _measured(n_tokens: int, seconds: float) -> dict[str, Any]:
    return {
        "tokens": n_tokens,
        "seconds": round(seconds, 2),
        "tokens_per_second": round(n_tokens / seconds),
        "peak_memory_mib": peak_memory_mib(),
    }


def main() -> None:
    """Measure each way in a process of its own, print and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cohort", type=Path, help="folder of a cohort")
    parser.add_argument("--steps", type=int, default=8, help="optimiser steps, one to warm up")
    parser.add_argument("--batch", type=int, default=16, help="records in a step")
    parser.add_argument("--model", default="gpt", help="shape, as in configs/model")
    parser.add_argument("--reference", action="store_true", help="also time the usual way")
    parser.add_argument("--profile", action="store_true", help="also profile a step of ours")
    parser.add_argument("--only", choices=("ours", "usual"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    cohort = options.cohort.resolve()
    if options.only == "ours":
        print(
            json.dumps(ours(cohort, options.steps, options.batch, options.model, options.profile))
        )
        return
    if options.only == "usual":
        print(json.dumps(usual(cohort, options.steps, options.batch)))
        return
    result: dict[str, Any] = {
        "stage": "training",
        "model": options.model,
        "n_ctx": CONTEXT,
        "records_per_step": options.batch,
    }
    for way in ("ours", "usual") if options.reference else ("ours",):
        command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], "--only", way]
        done = subprocess.run(
            command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True
        )
        result[way] = json.loads(done.stdout.splitlines()[-1])
    if options.reference:
        ratio = result["ours"]["tokens_per_second"] / result["usual"]["tokens_per_second"]
        result["times_faster"] = round(ratio, 1)
    result |= {"cpu": cpu_name(), "cores": os.cpu_count(), "versions": versions()}
    write_json(RESULTS, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
