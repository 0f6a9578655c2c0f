"""Fixtures that several rooms share."""

import os
from pathlib import Path

# Models this small gain nothing from threads, and threads wait for each other on a busy machine.
# OpenMP reads it when it is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from synehrgy.cli import compose
from tests.cohorts import small_cohort, write

torch.set_num_threads(1)

# A busy machine is no fault of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _no_tracking(monkeypatch):
    """No test talks to a server, whatever keys the machine has."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr("synehrgy.training.tracking.wandb_key", lambda: None)


@pytest.fixture(scope="session")
def cohort_folder(tmp_path_factory) -> Path:
    """A small cohort on disk; read it, do not write to it."""
    path = tmp_path_factory.mktemp("cohort") / "small"
    write(small_cohort(120), path)
    return path


def train_overrides(data: Path, saved_models: Path, *more: str) -> list[str]:
    """Settings of a training that takes a second."""
    return [
        f"data.path={data}",
        f"paths.saved_models={saved_models}",
        "run_name=tiny",
        "model=gpt_tiny",
        "device=cpu",
        "hparams.n_ctx=160",
        "hparams.mini_batch=16",
        "hparams.n_accum=1",
        "hparams.lr=3e-3",
        "train.epochs=6",
        *more,
    ]


def _train(cohort_folder, saved_models, *more) -> Path:
    from synehrgy.training.loop import train

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setattr("synehrgy.training.tracking.wandb_key", lambda: None)
        return train(compose("train", train_overrides(cohort_folder, saved_models, *more)))


@pytest.fixture(scope="session")
def trained(cohort_folder, tmp_path_factory) -> Path:
    """The folder of a small trained run; read it, do not write to it."""
    return _train(cohort_folder, tmp_path_factory.mktemp("saved_models"))


@pytest.fixture(scope="session")
def forecaster(cohort_folder, tmp_path_factory) -> Path:
    """The folder of a small run that was trained to forecast; read it, do not write to it."""
    folder = tmp_path_factory.mktemp("forecasters")
    return _train(cohort_folder, folder, "mode=fcast", "run_name=forecaster")


@pytest.fixture(scope="session")
def demo_cohort(tmp_path_factory) -> Path:
    """The open MIMIC-III demo as a cohort on disk; read it, do not write to it."""
    from synehrgy.sources.mimic3 import extract

    raw, lists = SHARED / "data" / "mimic3-demo", SHARED / "data" / "benchmark-splits"
    if not (raw.is_dir() and lists.is_dir()):
        pytest.skip("the open demo and the benchmark's split lists are not beside the repository")
    path = tmp_path_factory.mktemp("demo") / "cohort"
    extract(raw, path, name="mimic3_demo", split_dir=lists, progress=False)
    return path


@pytest.fixture(scope="session")
def simulated_folder(tmp_path_factory) -> Path:
    """A simulated cohort with more than 1,000 train stays; read it, do not write to it."""
    from synehrgy.sources import simulated_cohort

    path = tmp_path_factory.mktemp("simulated") / "cohort"
    return simulated_cohort(path, n_patients=2200, seed=3, progress=False)
