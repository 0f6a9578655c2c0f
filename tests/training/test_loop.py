"""Training: what it learns, what it writes, what it refuses."""

import itertools
import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn import functional as F

from synehrgy.cli import compose
from synehrgy.cohort import Covariate, Schema
from synehrgy.errors import UserError
from synehrgy.generation.sampler import as_records, sample
from synehrgy.processes import World
from synehrgy.settings import HyperParameters, TokenSettings
from synehrgy.tokenizer import Tokenizer, as_preprocessed, find_faults, tokenise
from synehrgy.tokenizer.segments import Cutter, cut_records
from synehrgy.training.checkpoint import find_run, load_run, save_model, weights_of
from synehrgy.training.loop import as_trained, new_model, train
from synehrgy.training.optimiser import learning_rate
from synehrgy.training.trainer import Trainer
from tests.cohorts import build, small_cohort, write
from tests.conftest import train_overrides

CPU = World(torch.device("cpu"))


def test_a_run_is_read_without_touching_anybody_s_random_numbers(trained):
    before = torch.random.get_rng_state()
    model = load_run(trained, torch.device("cpu")).model
    assert torch.equal(torch.random.get_rng_state(), before)
    kept = load_file(trained / "model.safetensors")
    assert model.state_dict().keys() == kept.keys()
    for name, weights in model.state_dict().items():
        torch.testing.assert_close(weights, kept[name], rtol=0, atol=0)
    assert all(weights.requires_grad for weights in model.parameters())


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_run_folder_is_complete_in_itself(trained, cohort_folder):
    names = {path.name for path in trained.iterdir()}
    assert names == {
        *("config.yaml", "tokenizer.json", "model.json", "model.safetensors"),
        *("metrics.jsonl", "learning_curve.png", "run.json"),
    }
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["data"]["path"] == str(cohort_folder)
    assert config["hparams"]["n_ctx"] == 160
    run = json.loads((trained / "run.json").read_text())
    assert run["versions"]["torch"] == torch.__version__ or "torch" in run["versions"]
    assert run["seed"] == 0
    loaded = load_run(trained, torch.device("cpu"))
    assert loaded.model.config.vocab_size == len(loaded.tokenizer.vocabulary)
    assert not loaded.model.training


def test_it_learns_and_reports_perplexities(trained):
    metrics = metrics_of(trained)
    assert [m["epoch"] for m in metrics] == list(range(1, 7))
    assert metrics[-1]["val_loss"] < 0.7 * metrics[0]["val_loss"]
    for m in metrics:
        assert m["val_perplexity"] == pytest.approx(np.exp(m["val_loss"]))
        assert m["train_perplexity"] == pytest.approx(np.exp(m["train_loss"]))
        assert m["tokens_per_second"] > 0


def test_validation_loss_is_that_of_the_saved_model_over_all_tokens(trained, cohort_folder):
    run = load_run(trained, torch.device("cpu"))
    store = tokenise(cohort_folder, TokenSettings())
    total = n = 0
    for i in store.of_split("val"):
        record = torch.from_numpy(store.records[i].astype(np.int64))[None]
        logits = run.model(record[:, :-1])
        total += F.cross_entropy(logits[0], record[0, 1:], reduction="sum").item()
        n += record.shape[1] - 1
    reported = min(m["val_loss"] for m in metrics_of(trained))
    assert total / n == pytest.approx(reported, rel=1e-4)


def test_same_seed_gives_the_same_weights(cohort_folder, tmp_path, trained):
    again = train(compose("train", train_overrides(cohort_folder, tmp_path)))
    first, second = (load_file(f / "model.safetensors") for f in (trained, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = train(
        compose("train", train_overrides(cohort_folder, tmp_path, "run_name=b", "seed=1"))
    )
    third = load_file(other / "model.safetensors")
    assert not torch.equal(first["norm.weight"], third["norm.weight"])


def gradients(cohort_folder, *overrides):
    config = compose("train", train_overrides(cohort_folder, cohort_folder.parent, *overrides))
    store = as_trained(tokenise(cohort_folder, TokenSettings()), config.train)
    torch.manual_seed(0)
    model = new_model(config, store.tokenizer)
    trainer = Trainer(config, model, store, CPU)
    found = {}

    def keep(rate):
        found.update({name: p.grad.clone() for name, p in model.named_parameters()})

    trainer.optimiser.step = keep
    trainer.step(np.arange(16), epoch=1)
    return found


SHUFFLES = ["label_shuffle=True", "ts_shuffle=True", "code_shuffle=True", "mask_prob=0.2"]


@pytest.mark.parametrize("augmentation", [[], SHUFFLES])
def test_splitting_a_step_changes_nothing(cohort_folder, augmentation):
    """Accumulation is weighted by tokens, so any split equals one large batch."""
    more = ["train.gclip=1e9", "hparams.precision=fp32", *augmentation]
    whole = gradients(cohort_folder, "hparams.mini_batch=16", *more)
    parts = gradients(cohort_folder, "hparams.mini_batch=4", "hparams.n_accum=4", *more)
    small = gradients(cohort_folder, "hparams.mini_batch=16", "hparams.max_tokens=100", *more)
    for name, expected in whole.items():
        torch.testing.assert_close(parts[name], expected, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(small[name], expected, rtol=1e-3, atol=1e-6)


def test_gradients_are_clipped(cohort_folder):
    found = gradients(cohort_folder, "train.gclip=0.01").values()
    norm = torch.cat([g.flatten() for g in found]).norm()
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_learning_rate_rises_then_falls():
    hparams = HyperParameters(lr=1.0, warmup=0.1, min_lr_ratio=0.2)
    rates = [learning_rate(step, 100, hparams) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0
    assert np.argmax(rates) in (9, 10)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.2, abs=0.01)


def test_soft_labels_act_in_training_only(cohort_folder, tmp_path):
    hard = train(compose("train", train_overrides(cohort_folder, tmp_path, "train.epochs=2")))
    soft = train(
        compose(
            "train",
            train_overrides(
                cohort_folder, tmp_path, "train.epochs=2", "run_name=soft", "soft_labels=True"
            ),
        )
    )
    assert yaml.safe_load((soft / "config.yaml").read_text())["loss"]["soft_labels"] is True
    first, second = (load_file(f / "model.safetensors") for f in (hard, soft))
    assert not torch.equal(first["norm.weight"], second["norm.weight"])
    config = compose("train", train_overrides(cohort_folder, tmp_path, "soft_labels=True"))
    store = tokenise(cohort_folder, TokenSettings())
    run = load_run(soft, torch.device("cpu"))
    trainer = Trainer(config, run.model, store, CPU)
    (batch,) = trainer.val_batches.batches(np.arange(4))
    trainer.objective.eval()
    loss = trainer.objective(batch)
    assert loss.objective.item() == pytest.approx(loss.hard.sum().item())
    trainer.objective.train()
    loss = trainer.objective(batch)
    assert loss.objective > loss.hard.sum()


def test_early_stopping_keeps_the_best(cohort_folder, tmp_path):
    """A rate far too high soon stops improving."""
    more = ["train.epochs=50", "train.patience=2", "hparams.lr=0.05", "hparams.warmup=0"]
    folder = train(compose("train", train_overrides(cohort_folder, tmp_path, *more)))
    metrics = metrics_of(folder)
    losses = [m["val_loss"] for m in metrics]
    best = int(np.argmin(losses)) + 1
    run = json.loads((folder / "run.json").read_text())
    assert len(metrics) < 50
    assert len(metrics) == best + 2
    assert run["best_epoch"] == best
    assert run["epochs"] == len(metrics)


def test_other_token_settings_are_tokenised_again(cohort_folder, tmp_path):
    config = compose(
        "train",
        train_overrides(
            cohort_folder,
            tmp_path,
            "train.epochs=1",
            "preprocess.bin_type=quantile",
            "preprocess.n_bins=4",
        ),
    )
    tokenizer = Tokenizer.load(train(config) / "tokenizer.json")
    assert tokenizer.settings.bin_type == "quantile"
    assert all(len(numbers.edges) <= 5 for numbers in tokenizer.variable_numbers.values())
    store = tokenise(cohort_folder, TokenSettings())
    assert store.tokenizer.settings.bin_type == "uniform"


def test_a_finished_run_is_not_overwritten(cohort_folder, tmp_path):
    overrides = train_overrides(cohort_folder, tmp_path, "train.epochs=1")
    folder = train(compose("train", overrides))
    before = (folder / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"already a run 'tiny'.*overwrite=True"):
        train(compose("train", overrides))
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    train(compose("train", [*overrides, "overwrite=True"]))
    assert (folder / "model.safetensors").stat().st_mtime_ns != before


def test_an_interrupted_run_restarts_cleanly(cohort_folder, tmp_path, monkeypatch, capsys):
    overrides = train_overrides(cohort_folder, tmp_path, "train.epochs=3")
    original = Trainer.epoch

    def interrupted(self, after_step=None):
        if self.progress.epoch == 2:
            raise KeyboardInterrupt
        return original(self, after_step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(compose("train", overrides))
    folder = tmp_path / "tiny"
    assert f"Stopped; {folder} keeps what is done" in capsys.readouterr().out
    assert json.loads((folder / "run.json").read_text())["finished"] is None
    assert load_run(folder, torch.device("cpu")).model.n_parameters > 0
    with pytest.raises(UserError, match=r"run 'tiny'.*which has not finished.*overwrite=True"):
        train(compose("train", overrides))
    train(compose("train", [*overrides, "overwrite=True"]))
    assert len(metrics_of(folder)) == 3
    assert json.loads((folder / "run.json").read_text())["finished"]


def test_a_foreign_folder_is_left_alone(cohort_folder, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.txt").write_text("years of work")
    (tmp_path / "tiny" / "config.yaml").write_text("of something else")
    with pytest.raises(UserError, match="not the folder of a run"):
        train(compose("train", train_overrides(cohort_folder, tmp_path, "overwrite=True")))
    assert (tmp_path / "tiny" / "thesis.txt").read_text() == "years of work"


def test_data_not_preprocessed(tmp_path):
    with pytest.raises(UserError, match=r"nothing is not a cohort.*Run preprocess"):
        train(compose("train", train_overrides(tmp_path / "nothing", tmp_path)))


def test_an_empty_split_is_named(tmp_path):
    cohort = small_cohort(20)
    stays = cohort.stays.assign(split="train")
    rows = [
        frame.astype(object).where(frame.notna(), None).values.tolist()
        for frame in (stays, cohort.codes, cohort.measurements)
    ]
    write(build(cohort.schema, *rows), tmp_path / "all_train")
    with pytest.raises(UserError, match="no patient in split 'val'"):
        train(compose("train", train_overrides(tmp_path / "all_train", tmp_path / "models")))


def test_a_shape_that_does_not_fit(cohort_folder, tmp_path):
    with pytest.raises(UserError, match="n_embd=64 is not a multiple of n_head=3"):
        train(compose("train", train_overrides(cohort_folder, tmp_path, "model.n_head=3")))


def test_a_context_too_short_for_any_record(tmp_path):
    schema = Schema(
        "wide", "test", [Covariate(f"c{i}", "categorical", levels=["x"]) for i in range(20)]
    )
    stays = [(i, i, None, 0, ("train", "val")[i % 2], *["x"] * 20, None) for i in range(4)]
    write(build(schema, stays, [], []), tmp_path / "wide")
    overrides = train_overrides(tmp_path / "wide", tmp_path / "models", "hparams.n_ctx=20")
    with pytest.raises(UserError, match=r"n_ctx=20 has no room for any record: .* 27 tokens"):
        train(compose("train", overrides))
    assert not (tmp_path / "models").exists()


def test_missing_and_damaged_runs_are_named(trained, tmp_path):
    with pytest.raises(UserError, match="Did you mean 'tiny'"):
        find_run(trained.parent, "tinny")
    with pytest.raises(UserError, match=r"train one with train.py"):
        find_run(tmp_path, "tiny")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in trained.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    shape = json.loads((damaged / "model.json").read_text())
    del shape["version"]
    (damaged / "model.json").write_text(json.dumps(shape))
    with pytest.raises(UserError, match=r"has version 1 of its format.*Train it again"):
        load_run(damaged, torch.device("cpu"))
    (damaged / "model.json").write_bytes((trained / "model.json").read_bytes())
    (damaged / "config.yaml").write_text("[")
    with pytest.raises(UserError, match=r"config.yaml is damaged"):
        load_run(damaged, torch.device("cpu"))
    (damaged / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"config.yaml does not exist"):
        load_run(damaged, torch.device("cpu"))
    weights = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match="is damaged"):
        load_run(damaged, torch.device("cpu"))


def test_a_failed_save_leaves_the_last_model(trained, tmp_path, monkeypatch):
    run = load_run(trained, torch.device("cpu"))
    save_model(tmp_path, run.model.config, weights_of(run.model))
    before = (tmp_path / "model.safetensors").read_bytes()

    def disk_full(weights, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("synehrgy.training.checkpoint.save_file", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_model(tmp_path, run.model.config, weights_of(run.model))
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_every_token_of_long_records_is_trained_on_once(cohort_folder, tmp_path, capsys):
    """Segments go on to the end of each record; published truncation loses what is beyond."""
    store = tokenise(cohort_folder, TokenSettings())
    total = int(store.records.lengths[store.of_split("train")].sum())
    n_records = len(store.of_split("train"))

    def targets(*more):
        overrides = train_overrides(cohort_folder, tmp_path, "hparams.n_ctx=64", *more)
        config = compose("train", overrides)
        chosen = tokenise(cohort_folder, as_preprocessed(cohort_folder, config.preprocess))
        trainer = Trainer(config, new_model(config, chosen.tokenizer), chosen, CPU)
        everything = np.arange(len(trainer.train_batches.plan))
        found = sum(len(batch.asked) for batch in trainer.train_batches.batches(everything, 1))
        assert found == trainer.train_batches.n_targets(everything)
        return found, trainer.describe()

    # All but <s>, which nothing precedes.
    found, text = targets()
    assert found == total - n_records
    assert "hold 100.0% of them" in text
    cut, text = targets("preprocess.long_records=truncate")
    assert cut < 0.8 * total
    assert "hold 100.0%" not in text.splitlines()[0]


def test_validation_loss_of_long_records_is_that_of_their_segments(cohort_folder, tmp_path):
    overrides = train_overrides(cohort_folder, tmp_path, "hparams.n_ctx=64", "train.epochs=1")
    folder = train(compose("train", overrides))
    run = load_run(folder, torch.device("cpu"))
    store = tokenise(cohort_folder, TokenSettings())
    cutter = Cutter(store.tokenizer, 64)
    total = n = 0
    for row in store.of_split("val"):
        record = store.records[row].astype(np.int64)
        segments = cut_records(store.tokenizer, store.records, np.array([row]), 64)
        for start, stop in zip(segments.start, segments.stop, strict=True):
            head = cutter.head(record, int(start)) if start else record[:1]
            body = record[max(start, 1) : stop]
            tokens = torch.from_numpy(np.concatenate([head, body]))[None]
            logits = run.model(tokens[:, :-1])[0, len(head) - 1 :]
            total += F.cross_entropy(logits, torch.from_numpy(body), reduction="sum").item()
            n += len(body)
    assert n == store.records.lengths[store.of_split("val")].sum() - len(store.of_split("val"))
    assert total / n == pytest.approx(metrics_of(folder)[0]["val_loss"], rel=1e-4)


def test_training_without_series_and_in_any_order(cohort_folder, tmp_path):
    """What was free in training is free in the tokenizer of the run, and stays so on disk."""
    more = ["train.epochs=1", "ignore_ts=True", *SHUFFLES]
    folder = train(compose("train", train_overrides(cohort_folder, tmp_path, *more)))
    run = load_run(folder, torch.device("cpu"))
    assert run.tokenizer.free_order == ["labels", "series"]
    assert run.config["train"]["mask_prob"] == 0.2
    drawn = list(sample(run.model, run.tokenizer, range(8), batch_size=8))
    assert find_faults(run.tokenizer, as_records(run.tokenizer, drawn)) == []


def test_half_precision_learns_as_well(cohort_folder, tmp_path):
    """The loss curves agree within noise: that of another order of the records."""

    def losses(name, *more):
        overrides = train_overrides(cohort_folder, tmp_path, f"run_name={name}", *more)
        return np.array([m["val_loss"] for m in metrics_of(train(compose("train", overrides)))])

    full = losses("full", "hparams.precision=fp32")
    half = losses("half", "hparams.precision=bf16")
    assert not np.array_equal(full, half)
    noise = np.abs(losses("other", "hparams.precision=fp32", "seed=1") - full).max()
    assert np.abs(half - full).max() < max(noise, 0.02)
