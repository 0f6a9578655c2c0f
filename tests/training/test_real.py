"""Training on real records: the open MIMIC-III demo, also from a model of another hospital."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from synehrgy.cli import compose
from synehrgy.errors import UserError
from synehrgy.generation.generate import generate
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import tokenise
from synehrgy.tokenizer.forecast import WINDOWS, Forecasts
from synehrgy.training.checkpoint import load_run
from synehrgy.training.loop import train


def losses(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def settings(cohort, saved_models, *more):
    return compose(
        "train",
        [
            *(f"data.path={cohort}", f"paths.saved_models={saved_models}", "model=gpt_tiny"),
            *("hparams.n_ctx=512", "hparams.mini_batch=8", "hparams.n_accum=1", "device=cpu"),
            *("train.epochs=2", *more),
        ],
    )


@pytest.fixture(scope="module")
def saved_models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def of_another_hospital(simulated_folder, saved_models):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setattr("synehrgy.training.tracking.wandb_key", lambda: None)
        return train(
            settings(simulated_folder, saved_models, "run_name=simulated", "train.epochs=1")
        )


def test_the_model_of_another_hospital_is_a_better_beginning(
    demo_cohort, saved_models, of_another_hospital, capsys
):
    fresh = losses(train(settings(demo_cohort, saved_models, "run_name=fresh")))
    capsys.readouterr()
    tuned = losses(
        train(settings(demo_cohort, saved_models, "run_name=tuned", "use_pretrained=simulated"))
    )
    assert "tokens it knows" in capsys.readouterr().out
    assert tuned[0]["val_loss"] < fresh[0]["val_loss"] - 0.1
    assert tuned[1]["val_loss"] < fresh[1]["val_loss"]
    # Whatever it began with, the run is complete in itself and speaks of its own hospital.
    run = load_run(saved_models / "tuned", torch.device("cpu"))
    assert len(run.tokenizer.vocabulary) == run.model.config.vocab_size
    assert run.config["use_pretrained"] == "simulated"


def test_real_stays_are_forecast(demo_cohort, saved_models):
    store = tokenise(demo_cohort, TokenSettings())
    forecasts = Forecasts.of(store.tokenizer, store.records, store.of_split("train"))
    stays = np.arange(len(forecasts))
    drawn = np.concatenate([forecasts.draw_windows(stays, 0, epoch) for epoch in range(5)])
    assert set(drawn) == set(WINDOWS)
    # Nearly all stays last longer than 12 hours, so nothing is asked of few.
    assert (drawn == 0).mean() < 0.4
    folder = train(settings(demo_cohort, saved_models, "run_name=fcast", "mode=fcast"))
    first, last = losses(folder)
    assert last["val_loss"] < first["val_loss"]
    assert last["val_loss_labels"] < first["val_loss_labels"]
    config = compose("generate", ["model=fcast", f"paths.saved_models={saved_models}"])
    with pytest.raises(UserError, match="'fcast' was trained to forecast"):
        generate(config)
