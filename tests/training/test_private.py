"""Training with differential privacy: the bound, the noise, and what is left outside."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.stats import kstest, norm

from synehrgy.cli import compose
from synehrgy.errors import UserError
from synehrgy.export.architectures import OWN
from synehrgy.export.card import card_of
from synehrgy.export.facts import Facts
from synehrgy.files import REPOSITORY
from synehrgy.generation.generate import generate
from synehrgy.processes import World
from synehrgy.settings import GuaranteeSettings
from synehrgy.tokenizer import Tokenizer, tokenise
from synehrgy.training import guarantee as guarantees
from synehrgy.training.checkpoint import load_run
from synehrgy.training.guarantee import Guarantee, spent
from synehrgy.training.loop import as_trained, new_model, train
from synehrgy.training.private import PrivateSteps
from synehrgy.training.trainer import Trainer
from tests.cohorts import small_cohort, write
from tests.conftest import train_overrides

CPU = World(torch.device("cpu"))


def promise(noise=0.0, clip=1e9, rate=1.0, steps=1):
    """A training with these steps, whatever it costs."""
    return Guarantee(math.inf, 1e-5, noise, clip, rate, steps)


def exact_epsilon(noise, delta):
    """Of one step on all patients: that of Balle and Wang, ICML 2018, Theorem 8."""

    def chance(epsilon):
        near, far = 1 / (2 * noise) - epsilon * noise, -1 / (2 * noise) - epsilon * noise
        return norm.cdf(near) - math.exp(epsilon) * norm.cdf(far)

    low, high = 0.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) > delta else (low, middle)
    return high


@pytest.mark.parametrize("noise", [0.7, 1.0, 3.0])
def test_a_step_on_everybody_costs_what_theory_says(noise):
    exact = exact_epsilon(noise, 1e-5)
    assert exact <= spent(noise, 1.0, 1, 1e-5) <= 1.01 * exact


def test_it_costs_more_with_less_noise_and_more_steps_and_more_patients():
    base = spent(1.0, 0.05, 100, 1e-5)
    assert spent(0.9, 0.05, 100, 1e-5) > base
    assert spent(1.0, 0.05, 200, 1e-5) > base
    assert spent(1.0, 0.1, 100, 1e-5) > base
    assert spent(1.0, 0.05, 100, 1e-6) > base


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_no_more_noise_than_it_takes(epsilon):
    found = Guarantee.of(GuaranteeSettings(epsilon=epsilon), 500, 50, 60)
    assert found.delta == pytest.approx(1 / 5000)
    assert (found.rate, found.steps, found.clip) == (0.1, 60, 1.0)
    assert 0.98 * epsilon < found.epsilon <= epsilon
    assert spent(found.noise - 0.01, 0.1, 60, found.delta) > epsilon


def test_a_step_of_more_patients_than_there_are_takes_all():
    assert Guarantee.of(GuaranteeSettings(epsilon=5.0), 30, 64, 2).rate == 1.0


@given(
    st.lists(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), max_size=6),
    st.floats(0.01, 5),
)
def test_no_patient_moves_the_sum_further_than_the_bound(gradients, clip):
    steps = PrivateSteps(promise(clip=clip), np.arange(8), CPU, noise_seed=0)
    parameter = torch.nn.Parameter(torch.zeros(3))
    sums = [torch.zeros(3)]
    for _ in steps.begin(0):
        pass
    for gradient in [*gradients, [math.nan, 1.0, 1.0], [math.inf, 0.0, 0.0]]:
        parameter.grad = torch.tensor(gradient)
        steps.add([parameter])
        assert parameter.grad is None
        sums.append(torch.zeros(3) if steps.sum is None else steps.sum.clone())
    assert torch.isfinite(sums[-1]).all()
    for gradient, before, after in zip(gradients, sums, sums[1:], strict=False):
        moved, vector = after - before, torch.tensor(gradient)
        assert moved.norm() <= clip * (1 + 1e-4) + 1e-5
        # And in its own direction, whole if it is short enough.
        expected = vector * min(1.0, clip / max(float(vector.norm()), 1e-30))
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-5)


def test_the_noise_is_as_large_as_promised_whoever_is_drawn():
    steps = PrivateSteps(promise(noise=2.0, clip=0.5, rate=0.25), np.arange(40), CPU)
    parameters = [torch.nn.Parameter(torch.zeros(50, 100)), torch.nn.Parameter(torch.zeros(7))]
    seen = []
    for step in range(2):
        for _ in steps.begin(step):
            steps.add(parameters)
        steps.finish(parameters)
        assert [p.grad.shape for p in parameters] == [p.shape for p in parameters]
        seen.append(torch.cat([p.grad.flatten() for p in parameters]).numpy())
    # Divided by the patients of a step on average, 10, and not by those that were drawn.
    assert kstest(np.concatenate(seen), "norm", args=(0, 2.0 * 0.5 / 10)).pvalue > 1e-3
    assert not np.array_equal(*seen)


def test_the_processes_together_add_the_noise_once():
    parts = []
    for rank in range(4):
        steps = PrivateSteps(promise(noise=3.0, clip=1.0), np.arange(40), World(CPU.device, rank))
        steps.world = World(CPU.device, rank, 4)
        parameter = torch.nn.Parameter(torch.zeros(20_000))
        for _ in steps.begin(0):
            pass
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(World, "total", lambda self, tensor: tensor)
            steps.finish([parameter])
        parts.append(parameter.grad.numpy())
    assert kstest(np.sum(parts, axis=0), "norm", args=(0, 3.0 / 40)).pvalue > 1e-3


def test_patients_are_drawn_each_by_chance_and_whole():
    patient_of = np.repeat(np.arange(300), np.arange(300) % 3 + 1)
    steps = PrivateSteps(promise(rate=0.2), patient_of, CPU, noise_seed=1)
    times, sizes = np.zeros(300), []
    for step in range(200):
        drawn = list(steps.begin(step))
        sizes.append(len(drawn))
        for rows in drawn:
            (patient,) = set(patient_of[rows])
            assert len(rows) == patient % 3 + 1
            times[patient] += 1
    assert abs(times.mean() - 40) < 2
    # Independently: as many as a binomial distribution has it, not always as many.
    assert 0.7 < np.var(sizes) / (300 * 0.2 * 0.8) < 1.4
    assert 0.7 < np.var(times) / (200 * 0.2 * 0.8) < 1.4


def trainer_of(folder, *more):
    config = compose("train", train_overrides(folder, folder, "privacy.epsilon=50", *more))
    store = as_trained(tokenise(folder, compose("preprocess").preprocess), config.train)
    torch.manual_seed(0)
    return Trainer(config, new_model(config, store.tokenizer), store, CPU)


def test_a_patient_with_many_segments_is_one_patient(cohort_folder):
    trainer = trainer_of(cohort_folder, "hparams.n_ctx=64")
    plan = trainer.train_batches.plan
    assert len(plan) > len(np.unique(plan.record)) == trainer.private.n_patients
    assert sum(map(len, trainer.private.mine)) == len(plan)
    assert trainer.private.guarantee.steps == trainer.total_steps


def test_without_bound_and_noise_it_is_the_mean_gradient(cohort_folder):
    trainer = trainer_of(cohort_folder, "hparams.n_ctx=64", "hparams.precision=fp32")
    trainer.objective.train()
    private = PrivateSteps(promise(), trainer.train_batches.plan.record, CPU, noise_seed=0)
    moved = []
    trainer._move = lambda: moved.extend(p.grad.clone() for p in trainer.model.parameters())
    trainer.private_step(private, 1)
    # The same, of all patients one after the other.
    total = [torch.zeros_like(p) for p in trainer.model.parameters()]
    for record in np.unique(trainer.train_batches.plan.record):
        rows = np.flatnonzero(trainer.train_batches.plan.record == record)
        trainer.model.zero_grad()
        batches = list(trainer.train_batches.batches(rows, 1))
        n = sum(len(batch.asked) for batch in batches)
        sum(trainer.objective(batch).objective for batch in batches).div(n).backward()
        for mean, parameter in zip(total, trainer.model.parameters(), strict=True):
            mean += parameter.grad / private.n_patients
    for mine, theirs in zip(moved, total, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


PRIVATE = ["run_name=private", "privacy.epsilon=8", "hparams.mini_batch=40", "train.epochs=2"]


def run(folder, saved, *more):
    return train(compose("train", train_overrides(folder, saved, *PRIVATE, *more)))


def test_the_run_says_what_holds(cohort_folder, tmp_path, capsys):
    folder = run(cohort_folder, tmp_path)
    said = capsys.readouterr().out
    about = json.loads((folder / "run.json").read_text())
    found = about["privacy"]
    assert found["unit"] == "patient"
    assert 7.5 < found["epsilon"] <= 8
    assert not found["covers_tokenizer"]
    assert found["spoilt_by"] is None
    assert f"privacy: epsilon {found['epsilon']:.3g}" in said
    assert "outside of it: the tokenizer" in said
    assert "(best)" not in said
    # The last epoch is kept, whichever is the best.
    assert about["best_epoch"] == about["epochs"] == 2
    # It is told further: with the patients that are sampled, and in the card of a shared model.
    places = [f"paths.saved_models={tmp_path}", f"data.path={cohort_folder}"]
    ask = ["model=private", "n_samples=3", "device=cpu", *places]
    for name, more, told in (("all", [], found), ("some", ["fix_covars=True"], None)):
        where = [f"paths.synthetic={tmp_path / name}", *more]
        made = generate(compose("generate", [*ask, *where])) / "generation.json"
        assert json.loads(made.read_text())["privacy"] == told
    text = card_of(Facts.of(load_run(folder, CPU.device), OWN, None, values=True))
    assert f"({found['epsilon']:.3g}, {found['delta']:.2g})-differentially private" in text
    assert "is outside of the guarantee" in text
    weights = load_file(folder / "model.safetensors")
    shutil.rmtree(folder)
    again = load_file(run(cohort_folder, tmp_path) / "model.safetensors")
    # Whoever knows the seed of the run does not know the noise.
    assert not any(torch.equal(weights[name], again[name]) for name in weights)


def test_with_a_seed_it_is_repeated_and_says_that_nothing_holds(cohort_folder, tmp_path, capsys):
    weights = []
    for name in ("one", "two"):
        folder = run(cohort_folder, tmp_path / name, "privacy.noise_seed=3")
        weights.append(load_file(folder / "model.safetensors"))
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    assert "with privacy.noise_seed nothing is guaranteed" in capsys.readouterr().out
    about = json.loads((folder / "run.json").read_text())["privacy"]
    assert about["spoilt_by"] == "privacy.noise_seed"
    text = card_of(Facts.of(load_run(folder, CPU.device), OWN, None, values=True))
    assert "**nothing is guaranteed**, because of `privacy.noise_seed`" in text


def test_canaries_have_the_form_of_real_patients(cohort_folder, tmp_path, capsys):
    folder = run(cohort_folder, tmp_path, "train.canaries=3", "train.epochs=1")
    assert "with train.canaries nothing is guaranteed" in capsys.readouterr().out
    about = json.loads((folder / "run.json").read_text())["privacy"]
    assert about["spoilt_by"] == "train.canaries"


def test_an_ordinary_run_promises_nothing(trained):
    assert json.loads((trained / "run.json").read_text())["privacy"] is None
    text = card_of(Facts.of(load_run(trained, CPU.device), OWN, None, values=True))
    assert "Training was not differentially private." in text


def test_with_the_tokenizer_of_others_nothing_else_of_the_patients_is_in_it(trained, tmp_path):
    """Two cohorts of which one has a patient more, with values and codes that nobody else has."""
    cohort = small_cohort(90)
    stays = cohort.stays
    last = stays["subject_id"][stays["split"] == "train"].iloc[-1]
    odd = cohort.measurements["stay_id"].isin(stays["stay_id"][stays["subject_id"] == last])
    values = cohort.measurements["value"].where(~odd, cohort.measurements["value"] * 1.7)
    cohort = dataclasses.replace(cohort, measurements=cohort.measurements.assign(value=values))
    without = cohort.select(subjects=set(stays["subject_id"]) - {last})
    found = []
    for name, one in (("with", cohort), ("without", without)):
        write(one, tmp_path / name)
        shutil.copytree(trained, tmp_path / "saved" / "tiny", dirs_exist_ok=True)
        folder = run(
            *(tmp_path / name, tmp_path / "saved", f"run_name={name}"),
            *("use_tokenizer=tiny", "use_pretrained=tiny"),
        )
        assert json.loads((folder / "run.json").read_text())["privacy"]["covers_tokenizer"]
        found.append((folder / "tokenizer.json").read_text())
    public = (trained / "tokenizer.json").read_text()
    assert found == [public, public]
    # Fitted to each they would differ.
    fitted = [Tokenizer.fit(one).to_json() for one in (cohort, without)]
    assert fitted[0] != fitted[1]


@pytest.mark.parametrize("key", ["use_pretrained", "use_tokenizer"])
def test_a_run_of_the_same_patients_is_no_way_in(cohort_folder, trained, tmp_path, key):
    shutil.copytree(trained, tmp_path / "tiny")
    with pytest.raises(UserError, match=f"{key}=tiny: this run was trained on the cohort in"):
        run(cohort_folder, tmp_path, f"{key}=tiny")
    assert not (tmp_path / "private").exists()


def test_the_settings_of_a_given_tokenizer_stay(cohort_folder, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "tiny")
    overrides = train_overrides(cohort_folder, tmp_path, "run_name=other", "use_tokenizer=tiny")
    with pytest.raises(UserError, match=r"use_tokenizer=tiny: .*preprocess\.n_bins=10, not 7"):
        train(compose("train", [*overrides, "preprocess.n_bins=7"]))
    # What it has anyhow may be said, and without privacy the patients may be the same.
    folder = train(compose("train", [*overrides, "preprocess.n_bins=10", "train.epochs=1"]))
    mine, theirs = ((f / "tokenizer.json").read_text() for f in (folder, trained))
    assert mine == theirs


def test_it_goes_on_where_it_was_stopped(cohort_folder, tmp_path):
    more = ["privacy.noise_seed=3", "train.save_minutes=0"]
    whole = run(cohort_folder, tmp_path / "whole", *more)
    with pytest.MonkeyPatch.context() as patch:
        finish, calls = PrivateSteps.finish, []

        def stop(self, parameters):
            calls.append(0)
            if len(calls) == 4:
                raise KeyboardInterrupt
            finish(self, parameters)

        patch.setattr(PrivateSteps, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            run(cohort_folder, tmp_path / "parts", *more)
    parts = run(cohort_folder, tmp_path / "parts", *more, "resume=True")
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_forecasters_too(cohort_folder, tmp_path):
    folder = run(cohort_folder, tmp_path, "mode=fcast", "hparams.n_ctx=256", "train.epochs=1")
    assert json.loads((folder / "run.json").read_text())["privacy"]["epsilon"] <= 8


def test_two_processes_train_one_private_model(cohort_folder, tmp_path):
    overrides = train_overrides(cohort_folder, tmp_path, *PRIVATE, "wandb.mode=disabled")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, str(REPOSITORY / "train.py"), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / "private" / "run.json").read_text())
    assert about["privacy"]["epsilon"] <= 8
    refused = subprocess.run(
        [*command, "overwrite=True", "hparams.parallel=fsdp"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert refused.returncode
    assert "privacy.epsilon needs all weights in each process" in refused.stderr


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(guarantees.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install dp-accounting"):
        Guarantee.of(GuaranteeSettings(epsilon=1.0), 100, 10, 10)


def test_it_remembers_less(tmp_path):
    """Few patients for many epochs: the model knows them by heart, the private one does not."""
    write(small_cohort(60), tmp_path / "cohort")
    gaps = {}
    for name, more in (("open", []), ("private", ["privacy.epsilon=2"])):
        folder = train(
            compose(
                "train",
                train_overrides(
                    *(tmp_path / "cohort", tmp_path, f"run_name={name}", *more),
                    *("train.epochs=20", "train.patience=20", "hparams.lr=1e-2"),
                ),
            )
        )
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        gaps[name] = last["val_loss"] - last["train_loss"]
    assert gaps["open"] > 0.5
    assert abs(gaps["private"]) < 0.5 * gaps["open"]
