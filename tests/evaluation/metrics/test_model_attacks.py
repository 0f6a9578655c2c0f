"""Attacks that know the model: exact losses, the right patients, and what is learnt by heart."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, assume, given, settings
from torch.nn import functional as F

from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from synehrgy.evaluation import likelihood
from synehrgy.evaluation.likelihood import attacked, token_losses
from synehrgy.evaluation.metrics.model_attacks import (
    ModelAttacks,
    _least_likely,
    expected_losses,
)
from synehrgy.files import write_json
from synehrgy.processes import World
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, tokenise
from synehrgy.tokenizer.segments import Cutter, cut_records
from synehrgy.tokenizer.store import fingerprint_of
from synehrgy.training.checkpoint import load_run, save_config, save_model, weights_of
from synehrgy.training.loop import new_model
from synehrgy.training.trainer import Trainer
from tests.cohorts import cohorts, write
from tests.conftest import train_overrides
from tests.evaluation.metrics.conftest import bench, trained_on
from tests.generation.test_sampler import untrained

CPU = torch.device("cpu")
COMPOSED = compose("train", train_overrides(Path("cohort"), Path("runs")))
ATTACKS = ("loss", "min_k", "reference", "combined")


@pytest.fixture
def exact(monkeypatch):
    """Products in full precision, whatever the processor is fast at."""
    monkeypatch.setattr(likelihood, "compute_type", lambda _: torch.float32)


def one_by_one(run, records, rows):
    """Losses by position of each record, segment by segment, without packing."""
    cutter = Cutter(run.tokenizer, run.model.config.n_ctx)
    for row in rows:
        record = records[row].astype(np.int64)
        found = {}
        segments = cut_records(run.tokenizer, records, np.array([row]), run.model.config.n_ctx)
        for start, stop in zip(segments.start, segments.stop, strict=True):
            head = cutter.head(record, int(start)) if start else record[:1]
            body = record[max(start, 1) : stop]
            tokens = torch.from_numpy(np.concatenate([head, body]))[None]
            with torch.no_grad():
                logits = run.model(tokens[:, :-1])[0, len(head) - 1 :]
            losses = F.cross_entropy(logits, torch.from_numpy(body), reduction="none")
            found |= dict(zip(range(max(start, 1), stop), losses.tolist(), strict=True))
        yield found


def test_losses_are_those_of_each_record_by_itself(cohort_folder, tmp_path, exact):
    folder = trained_on(cohort_folder, tmp_path, "short", "hparams.n_ctx=64", "train.epochs=1")
    run, records = load_run(folder, CPU), tokenise(cohort_folder, TokenSettings()).records
    # The longest ones take several segments.
    rows = np.argsort(-records.lengths)[[3, 0, 40, 1, 100]]
    assert records.lengths[rows].max() > run.model.config.n_ctx
    losses = token_losses(run.model, run.tokenizer, records, rows)
    for i, expected in enumerate(one_by_one(run, records, rows)):
        mine = losses.record == i
        assert losses.position[mine].tolist() == list(expected)
        assert losses.token[mine].tolist() == records[rows[i]][1:].tolist()
        np.testing.assert_allclose(losses.loss[mine], list(expected.values()), rtol=1e-3, atol=1e-4)
        assert losses.mean()[i] == pytest.approx(np.mean(list(expected.values())), rel=1e-4)
    begun = token_losses(run.model, run.tokenizer, records, rows, 30)
    assert begun.position.max() == 29
    early = losses.position < 30
    np.testing.assert_allclose(begun.loss, losses.loss[early], rtol=1e-3, atol=1e-4)


def test_means_by_part_and_the_least_likely(trained, cohort_folder):
    run, records = load_run(trained, CPU), tokenise(cohort_folder, TokenSettings()).records
    losses = token_losses(run.model, run.tokenizer, records, np.arange(6))
    by_part = losses.by_part(run.tokenizer)
    for i in range(6):
        mine = losses.record == i
        part = run.tokenizer.part_of[losses.token[mine]]
        for j in range(by_part.shape[1]):
            own = losses.loss[mine][part == j]
            assert (
                np.isnan(by_part[i, j])
                if not len(own)
                else by_part[i, j] == pytest.approx(own.mean())
            )
        worst = sorted(losses.loss[mine], reverse=True)[: int(np.ceil(0.2 * mine.sum()))]
        assert _least_likely(losses)[i] == pytest.approx(np.mean(worst))


def test_expected_losses_are_means_drawn_to_how_rare_a_token_is(trained):
    tokenizer = load_run(trained, CPU).tokenizer
    first = tokenizer.token("code:icd9_diagnosis")
    token = np.array([first] * 10_000 + [first + 1])
    loss = np.array([2.0] * 10_000 + [9.0])
    found = expected_losses(token, loss, tokenizer)
    assert found[first] == pytest.approx(2.0, abs=0.01)
    assert found[first + 1] > 7
    # A code that never occurs is as hard as a rare one, though nobody has seen its loss.
    assert found[first + 2] > found[first] + 5
    size = tokenizer.size[tokenizer.kind_of[first]]
    counts = np.ones(size)
    counts[:2] += 10_000, 1
    surprisal = -np.log(counts / counts.sum())
    mean = (loss.sum() - 10_000 * surprisal[0] - surprisal[1]) / (10_001 + 5)
    expected = (9.0 + 5 * (surprisal[1] + mean)) / 6
    assert found[first + 1] == pytest.approx(expected)


def test_the_more_is_learnt_by_heart_the_more_patients_are_found(doses, halves_folder):
    found = [ModelAttacks().measure(bench(halves_folder, run), "synthetic") for run in doses]
    for attack in ATTACKS:
        areas = [f.scores[f"model_attacks/{attack}/auroc"] for f in found]
        # The first model knows nothing yet: what it gives away is within chance.
        assert areas[0].low < 0.5 < areas[0].high
        assert areas[0].value < areas[2].value
        assert areas[1].value < areas[2].value + 1e-9
        assert areas[2].value > 0.9
        assert areas[2].low > 0.8
    light = ModelAttacks.scales["model_attacks/loss/auroc"]
    assert light.light(found[2].scores["model_attacks/loss/auroc"].value, 0.5) == "poor"
    table = found[2].tables["model_attacks_parts"].set_index("part")
    assert (table["loss, members"] < table["loss, non-members"]).all()
    assert table.loc["codes", "auroc"] > 0.9
    assert set(found[2].scores) == set(ModelAttacks.scales)
    roc = found[2].tables["model_attacks_roc"]
    assert list(roc.columns) == ["attack", "fpr", "tpr"]
    patients = found[2].tables["model_attacks_patients"]
    assert patients["attacked"].tolist() == [40, 40]


def test_same_seed_same_result(doses, halves_folder):
    first, second = (
        ModelAttacks().measure(bench(halves_folder, doses[1]), "synthetic") for _ in range(2)
    )
    assert (
        first.scores["model_attacks/combined/auroc"]
        == (second.scores["model_attacks/combined/auroc"])
    )
    for name, table in first.tables.items():
        assert table.equals(second.tables[name])


def test_members_are_those_that_the_run_saw(halves_folder, tmp_path):
    more = ["train.ratio=0.5", "train.epochs=1", "seed=3"]
    run = trained_on(halves_folder, tmp_path, "half", *more)
    chosen = attacked(bench(halves_folder, run))
    config = compose("train", train_overrides(halves_folder, tmp_path, *more))
    store = tokenise(halves_folder, TokenSettings())
    trainer = Trainer(config, new_model(config, store.tokenizer), store, World(CPU))
    seen = store.records.subject_ids[np.unique(trainer.train_batches.plan.record)]
    assert len(seen) == 20
    assert sorted(chosen.members.subject_ids) == sorted(seen)
    assert len(chosen.member_rows) == len(chosen.non_member_rows) == 20
    stays = read_cohort(halves_folder).stays
    test = set(stays.loc[stays["split"] == "test", "subject_id"])
    assert set(chosen.non_members.subject_ids) == test


def test_of_a_large_model_the_beginnings_of_records_are_looked_at(
    doses, halves_folder, monkeypatch
):
    mine = bench(halves_folder, doses[2])
    whole = attacked(mine)
    assert whole.most_tokens is None
    n = whole.run.model.n_parameters
    monkeypatch.setitem(likelihood._WORK, "cpu", 80 * 20.0 * n)
    begun = attacked(mine)
    assert (begun.most_tokens, len(begun.member_rows)) == (20, 40)
    found = ModelAttacks().measure(mine, "synthetic").tables["model_attacks_patients"]
    assert found["tokens"].tolist() == [40 * 19, 40 * 19]
    # Where there are enough patients, there are fewer of them instead.
    monkeypatch.setattr(likelihood, "_LEAST_PATIENTS", 5)
    fewer = attacked(mine)
    assert fewer.most_tokens is None
    assert 5 <= len(fewer.member_rows) < 40


def test_why_it_cannot_be_measured(
    doses, trained, forecaster, halves_folder, cohort_folder, tmp_path
):
    attack = ModelAttacks()
    assert attack.lacks(bench(halves_folder, doses[0])) is None
    assert attack.lacks(bench(cohort_folder, trained)) is None
    assert "not known" in attack.lacks(bench(halves_folder, None))
    assert "forecasts" in attack.lacks(bench(cohort_folder, forecaster))
    assert "not the one" in attack.lacks(bench(halves_folder, trained))
    gone = tmp_path / "gone"
    gone.mkdir()
    for file in ("config.yaml", "tokenizer.json", "model.json", "model.safetensors"):
        (gone / file).write_bytes((trained / file).read_bytes())
    config = yaml.safe_load((gone / "config.yaml").read_text())
    config["data"]["path"] = str(tmp_path / "nowhere")
    (gone / "config.yaml").write_text(json.dumps(config))
    assert "nowhere" in attack.lacks(bench(cohort_folder, Path(gone)))


@given(cohort=cohorts())
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cohort_can_be_attacked(cohort, tmp_path_factory):
    """Whatever it has, and however few patients: what is not defined is NaN."""
    assume((cohort.stays["split"] == "test").any())
    folder = tmp_path_factory.mktemp("any")
    data, run = folder / "cohort", folder / "run"
    write(cohort, data)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=1))
    run.mkdir()
    tokenizer.save(run / "tokenizer.json")
    model = untrained(tokenizer, 300)
    save_model(run, model.config, weights_of(model))
    config = replace(COMPOSED, data=replace(COMPOSED.data, path=str(data)))
    save_config(run, config)
    fingerprint = fingerprint_of(data, tokenizer.settings)
    write_json(run / "run.json", {"tokens_fingerprint": fingerprint})
    mine = bench(data, run)
    assert ModelAttacks().lacks(mine) is None
    found = ModelAttacks().measure(mine, "synthetic")
    assert set(found.scores) == set(ModelAttacks.scales)
    areas = [found.scores[f"model_attacks/{attack}/auroc"].value for attack in ATTACKS[:3]]
    assert all(0 <= area <= 1 for area in areas)
