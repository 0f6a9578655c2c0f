"""Runs that attacks on a model are tried on."""

from pathlib import Path

import pandas as pd
import pytest

from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.rows import bench_of
from synehrgy.training.loop import train
from tests.cohorts import SMALL_SCHEMA, build, small_cohort, write
from tests.conftest import train_overrides


@pytest.fixture(scope="session")
def halves_folder(tmp_path_factory) -> Path:
    """Equally many train and test patients; validation sees what training sees.

    So the epoch that is kept is the one that knows the training patients best.
    """
    cohort = small_cohort(80, seed=5)
    stays, codes, rows = (cohort.table(n) for n in ("stays", "codes", "measurements"))
    stays["split"] = stays["subject_id"].mod(2).map({0: "train", 1: "test"})
    seen = stays[stays["split"] == "train"].assign(split="val")
    ids = seen["stay_id"]
    far = 100_000
    copies = [
        seen.assign(subject_id=seen["subject_id"] + far, stay_id=ids + far),
        *(
            t[t["stay_id"].isin(ids)].assign(stay_id=lambda t: t["stay_id"] + far)
            for t in (codes, rows)
        ),
    ]
    tables = [
        pd.concat([mine, more]).to_numpy().tolist()
        for mine, more in zip((stays, codes, rows), copies, strict=True)
    ]
    path = tmp_path_factory.mktemp("halves") / "cohort"
    write(build(SMALL_SCHEMA, *tables), path)
    return path


def trained_on(folder: Path, runs: Path, name: str, *more: str) -> Path:
    """Train a small model without drawing its learning curve, which takes longer than it."""
    overrides = train_overrides(folder, runs, f"run_name={name}", "wandb.mode=disabled", *more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synehrgy.training.loop.draw_curves", lambda *_: None)
        return train(compose("train", overrides))


@pytest.fixture(scope="session")
def doses(halves_folder, tmp_path_factory) -> list[Path]:
    """Runs that have hardly begun, that have learnt, and that know their patients by heart."""
    runs = tmp_path_factory.mktemp("doses")
    more = [("train.epochs=1", "hparams.lr=1e-5"), ("train.epochs=4",), ("train.epochs=25",)]
    return [
        trained_on(halves_folder, runs, f"dose-{i}", "hparams.lr=1e-2", *settings)
        for i, settings in enumerate(more)
    ]


def bench(folder: Path, run: Path | None, **effort: int) -> Bench:
    """A comparison in which only the model matters."""
    real = read_cohort(folder)
    synthetic = real.select(split="test")
    return bench_of(real, synthetic, effort=Effort(n_resamples=50, **effort), run=run)
