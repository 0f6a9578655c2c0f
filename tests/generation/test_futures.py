"""Forecasts: what is known is put back, and what is new belongs to the right real stay."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from synehrgy.cohort.futures import (
    PREDICTIONS_FILE,
    QUESTIONS_FILE,
    going_on,
    in_window,
    label_predictions,
    read_questions,
)
from synehrgy.errors import UserError
from synehrgy.evaluation.evaluate import evaluate_run
from synehrgy.generation import jobs
from synehrgy.generation.futures import Futures
from synehrgy.generation.generate import generate
from synehrgy.generation.jobs import FIRST_ID, Options, futures_job
from synehrgy.generation.sampler import sample
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, decode, encode, find_faults
from synehrgy.tokenizer.clock import to_minutes
from synehrgy.tokenizer.grammar import END_COVARIATES, FORECAST, HISTORY, START
from synehrgy.training.checkpoint import load_run
from synehrgy.training.loop import train
from tests.cohorts import small_cohort, write
from tests.conftest import train_overrides
from tests.generation.runs import noisy_run
from tests.generation.test_sampler import untrained
from tests.tokens import records_of, words

CPU = torch.device("cpu")
FACTS = ["gender", "in_hospital_mortality", "septicemia", "shock"]


@pytest.fixture(scope="module")
def real():
    return small_cohort(24, seed=4)


def futures_of(cohort, hours, n_each=2, n_ctx=160, forecaster=True, **how):
    how = TokenSettings(min_code_count=1, **how)
    tokenizer = Tokenizer.fit(small_cohort(), how)
    records = encode(tokenizer, cohort)
    return Futures(tokenizer, records, hours, n_each, n_ctx, forecaster), records


def drawn_futures(futures, n_ctx=160, seed=0, **how):
    model = untrained(futures.tokenizer, n_ctx, seed, 3.0)
    found = sample(
        model, futures.tokenizer, range(len(futures)), requests=futures, seed=seed, **how
    )
    return sorted(found, key=lambda one: one.patient)


def source_of(real, futures, patient):
    """The real stay of a future, and its earlier stays, by counting."""
    source, nth = futures.source[patient // futures.n_each], futures.nth[patient // futures.n_each]
    subject = real.stays["subject_id"].unique()[source]
    return real.stays[real.stays["subject_id"] == subject].iloc[: nth + 1]


@pytest.mark.parametrize("hours", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("n_ctx", [160, 48])
def test_futures_put_back_are_records_that_hold_what_was_known(real, hours, n_ctx):
    futures, _ = futures_of(real, hours, n_ctx=n_ctx)
    drawn = drawn_futures(futures, n_ctx)
    assert max(one.n_segments for one in drawn) > (1 if n_ctx == 48 else 0)
    found = records_of(futures.tokenizer, *(one.tokens for one in drawn))
    assert find_faults(futures.tokenizer, found) == []
    back = decode(futures.tokenizer, found)
    for one in drawn:
        stays = back.stays[back.stays["subject_id"] == one.patient]
        known = source_of(real, futures, one.patient)
        n = len(known)
        assert len(stays) >= n
        earlier, its_own = stays.iloc[: n - 1], stays.iloc[n - 1]
        assert earlier[FACTS].to_numpy().tolist() == known.iloc[:-1][FACTS].to_numpy().tolist()
        assert its_own["gender"] == known.iloc[-1]["gender"]
        for mine, theirs in zip(stays["stay_id"], known["stay_id"], strict=False):
            got = back.measurements[back.measurements["stay_id"] == mine]
            expected = real.measurements[real.measurements["stay_id"] == theirs]
            if theirs == known.iloc[-1]["stay_id"]:
                expected = expected[in_window(expected["hours"], hours)]
                got = got.iloc[: len(expected)]
            assert to_minutes(got["hours"].to_numpy()).tolist() == (
                to_minutes(expected["hours"].to_numpy()).tolist()
            )
            assert got["variable"].tolist() == expected["variable"].tolist()
            assert got["level"].astype(object).fillna("").tolist() == (
                expected["level"].astype(object).fillna("").tolist()
            )


def test_models_are_asked_as_they_were_trained(real):
    futures, records = futures_of(real, 2.0, n_ctx=400)
    tokenizer = futures.tokenizer
    for i, asked in enumerate(futures.asked):
        record = records[int(futures.source[i])].astype(np.int64)
        prompt = asked.prompt.tolist()
        at = prompt.index(tokenizer.token(FORECAST))
        assert prompt[:at] == record[:at].tolist() == asked.before.tolist()
        assert prompt[at - 1] == tokenizer.token(END_COVARIATES)
        assert prompt[at + 1 : -1] == asked.window.tolist()
        assert prompt.count(tokenizer.token(END_COVARIATES)) == asked.n_before + 1


def test_only_stays_that_go_on_are_asked_about(real):
    for hours in (0.0, 2.0, 4.0):
        futures, _ = futures_of(real, hours)
        expected = going_on(real, hours)["stay_id"].tolist()
        got = [
            source_of(real, futures, 2 * i).iloc[-1]["stay_id"] for i in range(len(futures) // 2)
        ]
        assert got == expected
        assert hours < 4 or len(expected) < len(real.stays)
    with pytest.raises(UserError, match="No stay has a measurement after 48 hours"):
        futures_of(real, 48.0)


def test_questions_name_the_stays_that_they_continue(real):
    futures, _ = futures_of(real, 2.0, n_each=3)
    patients = np.array([0, 1, 2, 7, 30, len(futures) - 1])
    table = futures.questions(real, patients)
    assert table["subject_id"].tolist() == patients.tolist()
    assert table["sample"].tolist() == (patients % 3).tolist()
    assert (table["hours"] == 2.0).all()
    for patient, row in zip(patients, table.itertuples(), strict=True):
        source = source_of(real, futures, patient).iloc[-1]
        assert row.source_stay_id == source["stay_id"]
        assert row.source_subject_id == source["subject_id"]


def test_fewer_stays_are_spread_over_all(real):
    futures, records = futures_of(real, 2.0)
    every = [*zip(futures.source, futures.nth, strict=True)]
    few = Futures(futures.tokenizer, records, 2.0, 2, 160, n_stays=5)
    chosen = [*zip(few.source, few.nth, strict=True)]
    assert chosen == [every[i * len(every) // 5] for i in range(5)]
    more = Futures(futures.tokenizer, records, 2.0, 2, 160, n_stays=10_000)
    assert len(more) == len(futures)


@pytest.mark.parametrize("time", ["clock", "gap"])
@pytest.mark.parametrize("hours", [0.0, 2.0])
def test_only_what_is_new_is_kept(real, hours, time):
    futures, _ = futures_of(real, hours, time=time)
    drawn = drawn_futures(futures)
    patients = np.arange(len(drawn))
    found = records_of(futures.tokenizer, *(one.tokens for one in drawn))
    whole = decode(futures.tokenizer, found)
    new = futures.unknown_part(whole, patients)
    assert new.stays["subject_id"].unique().tolist() == patients.tolist()
    firsts = new.stays.groupby("subject_id")["stay_index"].min()
    assert (firsts == 0).all()
    n_known = 0
    for one in drawn:
        theirs = whole.stays[whole.stays["subject_id"] == one.patient]
        ours = new.stays[new.stays["subject_id"] == one.patient]
        n = len(source_of(real, futures, one.patient))
        assert ours["stay_id"].tolist() == theirs["stay_id"].tolist()[n - 1 :]
        assert ours["stay_index"].tolist() == list(range(len(ours)))
        for place, stay in enumerate(ours["stay_id"]):
            before = whole.measurements[whole.measurements["stay_id"] == stay]
            after = new.measurements[new.measurements["stay_id"] == stay]
            asked = futures.asked[one.patient // 2]
            times = before["hours"].unique()
            gone = times[: asked.n_steps] if place == 0 else times[:0]
            n_known += len(gone)
            kept = before[~before["hours"].isin(gone)]
            if place == 0 and time == "clock":
                # What a model places into the window is not new either.
                kept = kept[~in_window(kept["hours"], hours)]
            assert after["hours"].tolist() == kept["hours"].tolist()
            assert after["variable"].tolist() == kept["variable"].tolist()
            codes = [t.codes[t.codes["stay_id"] == stay]["code"].tolist() for t in (whole, new)]
            assert codes[0] == codes[1]
    assert set(new.codes["stay_id"]) <= set(new.stays["stay_id"])
    assert (n_known > 0) == (hours > 0)


def test_a_long_history_is_shortened_as_a_question_is(real):
    """The earliest admissions have no room; what is put back is whole."""
    futures, records = futures_of(real, 2.0, n_ctx=60)
    history = futures.tokenizer.token(HISTORY)
    short = [asked for asked in futures.asked if asked.prompt[0] == history]
    assert short
    assert all(len(asked.prompt) <= 45 for asked in futures.asked)
    assert all(asked.before[0] == futures.tokenizer.token(START) for asked in futures.asked)
    for i, asked in enumerate(futures.asked):
        record = records[int(futures.source[i])].astype(np.int64)
        assert asked.before.tolist() == record[: len(asked.before)].tolist()


@pytest.mark.parametrize("n_ctx", [160, 60])
def test_a_model_of_whole_patients_goes_on_from_the_covariates(real, n_ctx):
    futures, _ = futures_of(real, 0.0, n_ctx=n_ctx, forecaster=False)
    tokenizer = futures.tokenizer
    for asked in futures.asked:
        texts = words(tokenizer, asked.prompt)
        assert texts[-1] == END_COVARIATES
        assert FORECAST not in texts
        assert texts[0] == START or (texts[0] == HISTORY and n_ctx == 60)
        assert len(texts) <= max(0.75 * n_ctx, 4)
        assert not len(asked.window)
    if n_ctx == 60:
        assert any(asked.prompt[0] == tokenizer.token(HISTORY) for asked in futures.asked)
    drawn = drawn_futures(futures, n_ctx)
    assert find_faults(tokenizer, records_of(tokenizer, *(one.tokens for one in drawn))) == []


def test_the_batch_changes_no_future(real):
    futures, _ = futures_of(real, 2.0, n_ctx=60)
    expected = [one.tokens.tolist() for one in drawn_futures(futures, 60)]
    assert [one.tokens.tolist() for one in drawn_futures(futures, 60, batch_size=7)] == expected
    assert expected[0] != expected[1]


def test_only_a_forecaster_knows_hours(real):
    run = noisy_run()
    with pytest.raises(UserError, match=r"'noisy' was trained to make whole .* mode=fcast"):
        futures_job(run, Options(), real, 2.0, 2)
    assert futures_job(run, Options(), real, 0.0, 2).n == 2 * len(going_on(real, 0.0))
    run = replace(run, config={"mode": "fcast"})
    assert futures_job(run, Options(), real, 2.0, 2).n == 2 * len(going_on(real, 2.0))


def settings_for(run, synthetic, *more):
    return compose(
        "generate",
        [
            *(f"model={run.name}", f"paths.saved_models={run.parent}", "mode=forecast"),
            *(f"paths.synthetic={synthetic}", "device=cpu", "n_resample=4", "condition.hours=2"),
            *("n_samples=null", *more),
        ],
    )


def test_a_folder_of_futures_is_scored(forecaster, cohort_folder, tmp_path, monkeypatch):
    out = generate(settings_for(forecaster, tmp_path))
    assert out.name == "forecaster-2h"
    real = read_cohort(cohort_folder).select(split="test")
    futures, questions = read_cohort(out), read_questions(out)
    asked = going_on(real, 2.0)
    assert futures.stays["subject_id"].unique().tolist() == questions["subject_id"].tolist()
    assert questions["subject_id"].tolist() == list(range(FIRST_ID, FIRST_ID + 4 * len(asked)))
    assert questions["source_stay_id"].tolist() == np.repeat(asked["stay_id"], 4).tolist()
    assert questions["sample"].tolist() == [0, 1, 2, 3] * len(asked)
    predictions = pd.read_parquet(out / PREDICTIONS_FILE)
    pd.testing.assert_frame_equal(predictions, label_predictions(futures, questions))
    report = json.loads((out / "generation.json").read_text())
    assert report["real"] == str(cohort_folder)
    assert report["split"] == "test"
    assert report["records"] == len(questions)
    scored = evaluate_run(
        compose(
            "evaluate",
            [
                *("model=forecaster-2h", f"paths.saved_models={forecaster.parent}"),
                *(f"paths.synthetic={tmp_path}", f"paths.results={tmp_path / 'results'}"),
            ],
        )
    )
    assert list((tmp_path / "results").rglob("metrics.json"))
    assert scored is not None
    # In parts of a stay each, and in other batches, all is the same.
    monkeypatch.setattr(jobs, "_PART", 3)
    again = generate(settings_for(forecaster, tmp_path / "again", "batch_size=5"))
    for file in out.glob("*.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(again / file.name), pd.read_parquet(file))


def test_some_stays_of_another_split_and_folder(forecaster, cohort_folder, tmp_path):
    more = ["condition.split=val", f"data.path={cohort_folder}", "condition.hours=0"]
    out = generate(settings_for(forecaster, tmp_path, *more, "n_samples=3"))
    assert out.name == "forecaster-0h"
    real = read_cohort(cohort_folder).select(split="val")
    questions = pd.read_parquet(out / QUESTIONS_FILE)
    assert questions["source_stay_id"].nunique() == 3
    assert questions["source_stay_id"].isin(real.stays["stay_id"]).all()
    with pytest.raises(UserError, match="nowhere holds no cohort"):
        generate(settings_for(forecaster, tmp_path / "b", f"data.path={tmp_path / 'nowhere'}"))


def test_conditions_on_futures_are_refused_not_ignored(forecaster, tmp_path):
    for more in ("condition.gender=F", "condition.balance=shock", "condition.labels=[shock]"):
        with pytest.raises(UserError, match="condition"):
            generate(settings_for(forecaster, tmp_path, more, "n_samples=1", "n_resample=1"))


def test_a_forecaster_makes_no_whole_patients(forecaster, tmp_path):
    with pytest.raises(UserError, match="no effect without mode=forecast"):
        generate(settings_for(forecaster, tmp_path, "mode=generate"))
    plain = [f"model={forecaster.name}", f"paths.saved_models={forecaster.parent}", "device=cpu"]
    with pytest.raises(UserError, match=r"'forecaster' was trained to forecast .* mode=forecast"):
        generate(compose("generate", [*plain, f"paths.synthetic={tmp_path}"]))
    assert load_run(forecaster, CPU).config["mode"] == "fcast"


def test_futures_have_no_benchmark(forecaster, tmp_path):
    with pytest.raises(UserError, match="format=benchmark is of whole stays"):
        generate(settings_for(forecaster, tmp_path, "format=benchmark"))


def test_time_in_bins_cannot_tell_what_was_known(cohort_folder, tmp_path):
    overrides = train_overrides(
        *(cohort_folder, tmp_path / "models", "train.epochs=1", "mode=fcast", "run_name=gap"),
        *("preprocess.time=gap",),
    )
    run = train(compose("train", overrides))
    with pytest.raises(UserError, match=r"writes time in bins \(preprocess\.time=gap\)"):
        generate(settings_for(run, tmp_path))
    out = generate(settings_for(run, tmp_path, "condition.hours=0", "n_samples=2"))
    assert len(read_questions(out)) == 8


def test_a_cohort_without_splits_is_asked_about_whole(forecaster, cohort_folder, tmp_path):
    cohort = read_cohort(cohort_folder)
    cohort.stays["split"] = None
    write(cohort, tmp_path / "mine")
    out = generate(settings_for(forecaster, tmp_path, f"data.path={tmp_path / 'mine'}"))
    asked = going_on(cohort, 2.0)
    assert sorted(set(read_questions(out)["source_stay_id"])) == sorted(asked["stay_id"])
    assert json.loads((out / "generation.json").read_text())["stays"] == len(read_cohort(out).stays)
