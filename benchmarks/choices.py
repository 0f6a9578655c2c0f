"""What each choice of ours brings: the same generator with one of them taken back.

    python -m benchmarks.choices             # everything that is not measured yet
    python -m benchmarks.choices --table     # only the table of docs/experiments.md

Every variant is fitted on the same simulated patients, samples as many as it learnt from, and is
judged by the quick evaluation; the oracle is fresh simulated patients. Variants that differ in
sampling only share a fit. One JSON line per variant is kept in benchmarks/results/choices.jsonl,
and a variant that is there is not repeated.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.machine import cpu_name
from synehrgy.baselines.synehrgy import Ours
from synehrgy.cohort import Cohort, is_cohort, read_cohort
from synehrgy.comparison.headlines import HEADLINES
from synehrgy.evaluation.api import evaluate
from synehrgy.evaluation.metric import ORACLE, SYNTHETIC, TEST
from synehrgy.model import Cache
from synehrgy.settings import ModelSettings, TokenSettings
from synehrgy.sources import simulated_cohort
from synehrgy.tokenizer import find_faults, segments
from synehrgy.tokenizer.changes import Changes
from synehrgy.tokenizer.encode import Records
from synehrgy.tokenizer.grammar import END, START
from synehrgy.training.checkpoint import load_run

RESULTS = Path(__file__).parent / "results" / "choices.jsonl"
CPU = torch.device("cpu")

# Columns of the table that move with some choice; benchmarks/results/choices.jsonl has all.
SHOWN = {
    "Codes": ("number per stay", "told apart"),
    "Series": ("distribution", "correlation", "memory", "told apart"),
    "Records": ("structure", "contradictions"),
    "Utility": ("phenotypes",),
    "Privacy": ("membership",),
}

UNIFORM_BINS = {"tokens": {"bin_type": "uniform", "n_bins": 10}}
PUBLISHED_MODEL = {
    "model": ModelSettings("gpt", n_layer=2, n_head=2, n_embd=128, dropout=0.1),
    "hparams": {"optimiser": "adamw", "lr": 2e-3},
}


@dataclass(frozen=True)
class Variant:
    """Ours with some choices taken back.

    Attributes:
        name: for people.
        fit: changes of the groups ``tokens``, ``model``, ``hparams`` and ``train``.
        sampling: arguments of ``SynEHRgy.generate``.
        carried: whether a further segment is told the last values.
        followed: whether ages of later stays follow those before.
        seed: of the fit and the samples.
    """

    name: str
    fit: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    carried: bool = True
    followed: bool = True
    seed: int = 0

    @property
    def fit_key(self) -> str:
        """The same for variants that are fitted alike."""
        return json.dumps([self.fit, self.carried, self.seed], default=str, sort_keys=True)


VARIANTS = [
    Variant("ours"),
    Variant("another seed", seed=1),
    Variant("numbers drawn evenly in a bin", sampling={"value_decoding": "uniform"}),
    Variant("... and ten bins of equal width", UNIFORM_BINS, {"value_decoding": "uniform"}),
    Variant("ages drawn inside their bins", followed=False),
    Variant("top_k=50", sampling={"top_k": 50}),
    Variant("values may contradict each other", sampling={"value_contradictions": "leave"}),
    Variant("labels may contradict codes", sampling={"label_contradictions": "count"}),
    Variant(
        "records cut at the context",
        {"tokens": {"long_records": "truncate"}},
        {"max_segments": 1},
    ),
    Variant("segments without last values", carried=False),
    Variant("tokens have nothing in common", {"model": {"shared": False}}),
    Variant("model=gpt", PUBLISHED_MODEL),
    Variant("the learning rate ends at a tenth", {"hparams": {"min_lr_ratio": 0.1}}),
    Variant("codes in their order", {"train": {"code_shuffle": False}}),
    Variant("2 epochs", {"train": {"epochs": 2}}),
    Variant("8 epochs", {"train": {"epochs": 8}}),
]


class Varied(Ours):
    """Ours with other settings than it can be given."""

    variant: Variant

    def tokens(self) -> TokenSettings:
        """Those of the variant."""
        return replace(super().tokens(), **self.variant.fit.get("tokens", {}))

    def config(self) -> dict[str, Any]:
        """That of the variant."""
        groups = super().config()
        for name, changes in self.variant.fit.items():
            if isinstance(changes, dict) and name in groups:
                groups[name] = replace(groups[name], **changes)
            elif name in groups:
                groups[name] = changes
        return groups

    def sampling(self) -> dict[str, Any]:
        """That of the variant."""
        return self.variant.sampling


@contextlib.contextmanager
def choices_of(variant: Variant) -> Iterator[None]:
    """What is no setting, for as long as it is needed."""
    share = segments.VALUES_SHARE if variant.carried else 2**60
    draw = Changes.draw if variant.followed else lambda self, before, *_: np.full_like(before, nan)
    with patch.object(segments, "VALUES_SHARE", share), patch.object(Changes, "draw", draw):
        yield


@torch.inference_mode()
def without_grammar(run: Path, n: int, seed: int = 0) -> dict[str, float]:
    """Shares of records that end within the context, and that are valid, if all tokens may come."""
    found = load_run(run, CPU)
    model, tokenizer = found.model, found.tokenizer
    cache = Cache(model.config, n, CPU, torch.float32)
    draws = torch.Generator().manual_seed(seed)
    tokens = torch.full((n,), tokenizer.token(START))
    written = [tokens]
    for _ in range(model.config.n_ctx - 1):
        chances = model.logits(model.step(tokens, cache)).softmax(-1)
        tokens = torch.multinomial(chances, 1, generator=draws)[:, 0]
        written.append(tokens)
    rows = torch.stack(written, 1).numpy()
    ends = rows == tokenizer.token(END)
    has_ended = ends.any(axis=1)
    stops = np.where(has_ended, ends.argmax(axis=1) + 1, 0)[has_ended]
    whole = [row[:stop] for row, stop in zip(rows[has_ended], stops, strict=True)]
    records = Records(
        np.concatenate([np.empty(0, np.int64), *whole]).astype(tokenizer.dtype),
        np.concatenate([[0], np.cumsum(stops)]),
        np.arange(len(whole)),
        np.full(len(whole), -1, dtype=np.int8),
    )
    n_valid = len(whole) - len(find_faults(tokenizer, records))
    return {"ended": float(has_ended.mean()), "valid": n_valid / n}


def measure(
    variant: Variant, fitted: dict[str, Varied], real: Cohort, oracle: Path, epochs: int
) -> dict[str, Any]:
    """Fit (unless that is done), sample and judge one variant."""
    train, val = real.select(split="train"), real.select(split="val")
    with choices_of(variant):
        began = time.perf_counter()
        if variant.fit_key not in fitted:
            model = Varied(epochs=epochs)
            model.variant = variant
            model.fit(train, val, seed=variant.seed, device=CPU, progress=True)
            fitted[variant.fit_key] = model
        model = fitted[variant.fit_key]
        model.variant = variant
        seconds = time.perf_counter() - began
        synthetic = model.sample(train.n_patients, seed=variant.seed, device=CPU, progress=True)
    # The reference rows once.
    rows = [TEST, ORACLE, SYNTHETIC] if variant.name == VARIANTS[0].name else [SYNTHETIC]
    scores = evaluate(real, synthetic, oracle=oracle, preset="quick", rows=rows).scores
    headlines = scores[scores["score"].isin([headline.score for headline in HEADLINES])]
    result: dict[str, Any] = {
        "name": variant.name,
        "epochs": epochs,
        "patients": train.n_patients,
        "seconds_to_fit": round(seconds, 1),
        "val_loss": json.loads((model.run / "run.json").read_text())["val_loss"],
        "cpu": cpu_name(),
        "scores": {
            row: mine.set_index("score")["value"].round(4).to_dict()
            for row, mine in headlines.groupby("row")
        },
    }
    if variant.name == VARIANTS[0].name:
        result["without_grammar"] = without_grammar(model.run, 200)
    return result


def known() -> list[dict[str, Any]]:
    """What has been measured before."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def table() -> str:
    """The figures as Markdown; a line per variant, then the ceiling and the oracle."""
    found = {result["name"]: result for result in known()}
    shown = [result for variant in VARIANTS if (result := found.get(variant.name))]
    lines = [(result["name"], result["scores"][SYNTHETIC]) for result in shown]
    if VARIANTS[0].name in found:
        references = found[VARIANTS[0].name]["scores"]
        lines += [("held-out real patients", references[TEST])]
        lines += [("oracle", references[ORACLE])]
    columns = [h for h in HEADLINES if h.title in SHOWN.get(h.group, ())]
    heads = [f"{h.group}: {h.title} {'↓' if h.goal == 'low' else '↑'}" for h in columns]
    text = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, scores in lines:
        numbers = (scores.get(h.score) for h in columns)
        cells = ["" if x is None or x != x else f"{x:.3f}" for x in numbers]
        text.append(f"| {name} | {' | '.join(cells)} |")
    for result in shown:
        if shares := result.get("without_grammar"):
            text.append(
                f"\nWithout the grammar {shares['ended']:.0%} of the records of {result['name']} "
                f"end within the context, and {shares['valid']:.0%} are valid."
            )
    return "\n".join(text)


def main() -> None:
    """Measure what has not been measured, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--patients", type=int, default=1600, help="to simulate")
    parser.add_argument("--epochs", type=int, default=4, help="of a fit")
    parser.add_argument("--only", nargs="*", help="names of the variants to measure")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--data", type=Path, help="folder for the patients; default a passing one")
    options = parser.parse_args()
    done = {result["name"] for result in known()}
    left = [v for v in VARIANTS if v.name not in done and v.name in (options.only or [v.name])]
    if left and not options.table:
        with tempfile.TemporaryDirectory() as passing:
            folder = options.data or Path(passing)
            for name, seed in (("real", 0), ("oracle", 1)):
                if not is_cohort(folder / name):
                    simulated_cohort(folder / name, options.patients, seed=seed)
            real, fitted = read_cohort(folder / "real"), dict[str, Varied]()
            for variant in left:
                print(variant.name, flush=True)
                result = measure(variant, fitted, real, folder / "oracle", options.epochs)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(result) + "\n")
    print(table())


if __name__ == "__main__":
    main()
