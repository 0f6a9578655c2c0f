"""What is minimised: tokens further ahead, every precision, compiled or not, and its memory."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from synehrgy.cli import compose
from synehrgy.errors import UserError
from synehrgy.processes import World
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import tokenise
from synehrgy.training.loop import as_trained, new_model, train
from synehrgy.training.trainer import Objective, Trainer
from tests.conftest import train_overrides

CPU = World(torch.device("cpu"))


def trainer_of(cohort_folder, *more, ctx=64):
    overrides = train_overrides(
        cohort_folder, cohort_folder.parent, f"hparams.n_ctx={ctx}", "hparams.precision=fp32", *more
    )
    config = compose("train", overrides)
    store = as_trained(tokenise(cohort_folder, TokenSettings()), config.train)
    torch.manual_seed(0)
    return Trainer(config, new_model(config, store.tokenizer), store, CPU)


@pytest.mark.parametrize("n_next", [2, 4])
def test_the_losses_of_tokens_further_ahead_add_up(cohort_folder, n_next):
    trainer = trainer_of(cohort_folder, f"loss.n_next={n_next}")
    model = trainer.model
    (batch,) = trainer.train_batches.batches(np.arange(12), epoch=1)
    assert (batch.targets == -100).any()
    trainer.objective.train()
    loss = trainer.objective(batch)
    # Record by record, head by head, with dense logits.
    total = hard = 0.0
    records = zip(
        batch.inputs.split(batch.packing.lengths),
        batch.targets.split(batch.packing.lengths),
        strict=True,
    )
    for inputs, targets in records:
        hidden = model.hidden(inputs[None])[0]
        for head in range(n_next):
            states = hidden if head == 0 else model.ahead[head - 1](hidden)
            for at in range(len(inputs) - head):
                if targets[at] == -100:
                    continue
                logits = model.logits(states[at])
                one = F.cross_entropy(logits, targets[at + head]).item()
                total, hard = total + one, hard + one * (head == 0)
    assert loss.objective.item() == pytest.approx(total, rel=1e-4)
    assert loss.hard.sum().item() == pytest.approx(hard, rel=1e-4)
    # Validation asks for the next token only.
    trainer.objective.eval()
    assert trainer.objective(batch).objective.item() == pytest.approx(hard, rel=1e-4)
    loss.objective.backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in model.ahead)


def test_losses_of_the_parts_make_the_whole(cohort_folder, tmp_path):
    folder = train(compose("train", train_overrides(cohort_folder, tmp_path, "train.epochs=1")))
    (metrics,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    store = tokenise(cohort_folder, TokenSettings())
    for split in ("train", "val"):
        counts = np.zeros(6)
        for row in store.of_split(split):
            counts += np.bincount(store.tokenizer.part_of[store.records[row][1:]], minlength=6)
        parts = ("covariates", "labels", "codes", "series", "time", "structure")
        losses = np.array([metrics[f"{split}_loss_{part}"] for part in parts])
        assert (losses * counts).sum() / counts.sum() == pytest.approx(metrics[f"{split}_loss"])


@pytest.mark.parametrize("choices", [[], ["model.positions=rotary", "model.mlp=relu2"]])
def test_compiled_it_learns_the_same(cohort_folder, tmp_path, choices):
    def losses(name, *more):
        overrides = train_overrides(
            cohort_folder, tmp_path, f"run_name={name}", "train.epochs=2", *choices, *more
        )
        folder = train(compose("train", overrides))
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return [(line["train_loss"], line["val_loss"]) for line in lines]

    plain = losses("plain", "hparams.precision=fp32")
    compiled = losses("compiled", "hparams.precision=fp32", "hparams.compile=True")
    assert np.allclose(plain, compiled, rtol=1e-3)


def test_a_machine_that_cannot_compile(cohort_folder, monkeypatch, capsys):
    def no_compiler(*_, **__):
        def fails(*_):
            raise RuntimeError("no C++ compiler found\nand more")

        return fails

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(UserError, match=r"hparams.compile=True.*\(no C\+\+ compiler found\)"):
        trainer_of(cohort_folder, "hparams.compile=True")
    trainer = trainer_of(cohort_folder, "hparams.compile=auto")
    assert trainer.objective.hidden == trainer.model.packed_hidden
    # On a GPU, where auto compiles, it does without.
    monkeypatch.setattr(Trainer, "_compiles_by_itself", property(lambda self: True))
    trainer = trainer_of(cohort_folder, "hparams.compile=auto")
    assert trainer.objective.hidden == trainer.model.packed_hidden
    assert "Training without compiling: no C++ compiler found" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), RuntimeError("x: can't allocate memory: you tried")]
)
def test_a_batch_that_does_not_fit_names_the_next_size(cohort_folder, monkeypatch, error):
    trainer = trainer_of(cohort_folder)

    def full(self, batch):
        raise error

    monkeypatch.setattr(Objective, "forward", full)
    with pytest.raises(UserError) as caught:
        trainer.step(np.arange(8), epoch=1)
    (batch,) = trainer.train_batches.batches(np.arange(8), epoch=1)
    n = len(batch.inputs)
    assert f"A pass over {n:,} tokens does not fit into the memory of cpu" in str(caught.value)
    assert f"hparams.max_tokens={n // 2}" in str(caught.value)
    with pytest.raises(UserError, match=r"single record: try hparams.n_ctx="):
        trainer.step(np.arange(1), epoch=1)


def test_other_errors_are_not_taken_for_full_memory(cohort_folder, monkeypatch):
    trainer = trainer_of(cohort_folder)

    def broken(self, batch):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Objective, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        trainer.step(np.arange(8), epoch=1)


def test_a_share_of_the_patients(cohort_folder, tmp_path):
    whole = trainer_of(cohort_folder).train_batches.plan
    half = trainer_of(cohort_folder, "train.ratio=0.5").train_batches.plan
    again = trainer_of(cohort_folder, "train.ratio=0.5").train_batches.plan
    other = trainer_of(cohort_folder, "train.ratio=0.5", "seed=1").train_batches.plan
    n = len(np.unique(whole.record))
    assert len(np.unique(half.record)) == -(-n // 2)
    assert set(half.record) < set(whole.record)
    assert np.array_equal(half.record, again.record)
    assert not np.array_equal(half.record, other.record)


def test_a_diverging_training_stops_in_words(cohort_folder, tmp_path):
    more = ["hparams.lr=1e8", "hparams.warmup=0", "train.gclip=1e9"]
    with pytest.raises(UserError, match=r"training diverged. Try a lower .*hparams.lr"):
        train(compose("train", train_overrides(cohort_folder, tmp_path, *more)))


def test_forecasting_learns_and_asks_only_for_the_future(cohort_folder, tmp_path):
    overrides = train_overrides(cohort_folder, tmp_path, "mode=fcast", "train.epochs=4")
    folder = train(compose("train", overrides))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["val_loss"] < 0.75 * lines[0]["val_loss"]
    assert lines[-1]["train_loss_labels"] > 0
    trainer = trainer_of(cohort_folder, "mode=fcast", ctx=160)
    tokenizer = trainer.store.tokenizer
    (batch,) = trainer.train_batches.batches(np.arange(6), epoch=1)
    mark = tokenizer.token("</forecast>")
    for inputs, targets in zip(
        batch.inputs.split(batch.packing.lengths),
        batch.targets.split(batch.packing.lengths),
        strict=True,
    ):
        at = inputs.tolist().index(mark)
        assert (targets[:at] == -100).all()
        assert (targets[at:] != -100).all()
