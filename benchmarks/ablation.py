"""Which choices of later decoders make a better model of records than the paper's.

    python preprocess.py data=simulated data.simulation.n_patients=15000 data.path=<cohort>
    python -m benchmarks.ablation <cohort>            # everything that is not measured yet
    python -m benchmarks.ablation <cohort> --table    # only the table of docs/experiments.md

Every variant is ``model=gpt`` with some settings changed. All are trained on the same patients in
the same order, for one epoch of a share of the train split, and judged by their loss on all tokens
of all validation patients. The shape is the paper's at a third of its width, so that dozens of
variants can be tried; ``--width 384`` is its own. A variant is better if its loss is lower by more
than twice the spread over the seeds. One JSON line per run is kept in
benchmarks/results/ablation.jsonl, and a run that is there is not repeated.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.machine import cpu_name
from synehrgy.cli import compose
from synehrgy.files import REPOSITORY, read_json

RESULTS = Path(__file__).parent / "results" / "ablation.jsonl"

LOW, RATE, HIGH = "hparams.lr=2e-3", "hparams.lr=4e-3", "hparams.lr=8e-3"
NO_DROPOUT, ROTARY = "model.dropout=0", "model.positions=rotary"
MUON = "hparams.optimiser=muon"
PLAIN = (LOW, NO_DROPOUT)
BETTER = (RATE, NO_DROPOUT, ROTARY, MUON)

# Name, settings, seeds: first one change at a time, then what has proved itself together.
VARIANTS: list[tuple[str, tuple[str, ...], int]] = [
    ("the paper's, rate 2e-3", (LOW,), 1),
    ("the paper's, rate 4e-3", (RATE,), 3),
    ("no dropout, rate 2e-3", PLAIN, 1),
    ("... with rotary positions", (*PLAIN, ROTARY), 1),
    ("... with Muon", (*PLAIN, MUON), 1),
    ("... with QK norm", (*PLAIN, "model.qk_norm=True"), 1),
    ("... with squared ReLU", (*PLAIN, "model.mlp=relu2"), 1),
    ("... with SwiGLU", (*PLAIN, "model.mlp=swiglu"), 1),
    ("... with RMS norm", (*PLAIN, "model.norm=rms"), 1),
    ("... without biases", (*PLAIN, "model.bias=False"), 1),
    ("... with an output layer of its own", (*PLAIN, "model.tied=False"), 1),
    ("no dropout, rate 4e-3", (RATE, NO_DROPOUT), 1),
    ("no dropout, Muon, rate 4e-3", (RATE, NO_DROPOUT, MUON), 1),
    ("no dropout, Muon, rotary, rate 4e-3", BETTER, 1),
    ("... at rate 8e-3", (HIGH, *BETTER[1:]), 1),
    ("... and with QK norm", (*BETTER, "model.qk_norm=True"), 1),
    ("... and with squared ReLU", (*BETTER, "model.mlp=relu2"), 1),
    ("model=gpt_modern, rate 4e-3", ("model=gpt_modern", RATE), 1),
    ("model=gpt_modern, rate 8e-3", ("model=gpt_modern", HIGH), 3),
]


def measure(cohort: Path, settings: list[str]) -> dict[str, Any]:
    """Train one variant."""
    from synehrgy.training.loop import train

    with tempfile.TemporaryDirectory() as folder:
        paths = [f"data.path={cohort}", f"paths.saved_models={folder}", "run_name=variant"]
        run = train(compose("train", [*paths, "wandb.mode=disabled", *settings]))
        about = read_json(run / "run.json")
        (line,) = (run / "metrics.jsonl").read_text().splitlines()
    metrics = json.loads(line)
    return {
        "val_loss": about["val_loss"],
        "by_part": {k[9:]: v for k, v in metrics.items() if k.startswith("val_loss_")},
        "tokens_per_second": round(metrics["tokens_per_second"]),
        "n_parameters": about["n_parameters"],
    }


def runs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What is to be run, the most telling first."""
    found = []
    for seed in range(3):
        for name, settings, seeds in VARIANTS:
            if options.only and name not in options.only:
                continue
            if seed < seeds:
                shape = {"width": options.width, "n_ctx": options.n_ctx, "ratio": options.ratio}
                found.append({"name": name, "seed": seed, **shape, "settings": [*settings]})
    return found


def known() -> list[dict[str, Any]]:
    """What has been run before."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def run_aside(cohort: Path, run: dict[str, Any]) -> None:
    """Train a variant in a process of one thread, and keep its figures."""
    settings = [
        "model=gpt",
        *(f"hparams.n_ctx={run['n_ctx']}", "hparams.mini_batch=16", "hparams.n_accum=1"),
        *("train.epochs=1", f"train.ratio={run['ratio']}", f"seed={run['seed']}"),
        *run["settings"],
        f"model.n_embd={run['width']}",
    ]
    if any(text.startswith("model=gpt_") for text in settings):
        settings.remove("model=gpt")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ablation", str(cohort), "--one", *settings],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    result = run | json.loads(done.stdout.splitlines()[-1]) | {"cpu": cpu_name()}
    with RESULTS.open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(f"{run['name']}, seed {run['seed']}: {result['val_loss']:.4f}", flush=True)


def table(width: int) -> str:
    """The figures of one width as Markdown."""
    rows = [run for run in known() if run["width"] == width]
    lines = [
        "| variant | validation loss | codes | labels | series | time | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, *_ in VARIANTS:
        own = [run for run in rows if run["name"] == name]
        if not own:
            continue
        losses = [run["val_loss"] for run in own]
        spread = f" ± {stdev(losses):.3f} ({len(own)} seeds)" if len(own) > 1 else ""
        parts = [
            f"{mean(run['by_part'][part] for run in own):.3f}" if own[0]["by_part"] else ""
            for part in ("codes", "labels", "series", "time")
        ]
        cells = [f"{mean(losses):.3f}{spread}", *parts]
        lines.append(f"| {name} | {' | '.join(cells)} | {own[0]['n_parameters'] / 1e6:.2f} M |")
    return "\n".join(lines)


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cohort", type=Path, help="folder of a cohort")
    parser.add_argument("--width", type=int, default=128, help="of the residual stream")
    parser.add_argument("--n_ctx", type=int, default=512, help="context")
    parser.add_argument("--ratio", type=float, default=0.3, help="share of the train split")
    parser.add_argument("--only", nargs="*", help="names of the variants to run")
    parser.add_argument("--processes", type=int, default=1, help="variants side by side")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--one", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.cohort.resolve(), options.one)))
        return
    if not options.table:
        keys = ("name", "seed", "width", "n_ctx", "ratio", "settings")
        done = [[run[key] for key in keys] for run in known()]
        left = [run for run in runs(options) if [run[key] for key in keys] not in done]
        with ThreadPoolExecutor(options.processes) as pool:
            list(pool.map(lambda run: run_aside(options.cohort.resolve(), run), left))
    print(table(options.width))


if __name__ == "__main__":
    main()
