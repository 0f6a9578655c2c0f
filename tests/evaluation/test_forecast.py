"""Scores of forecasts: by their definitions, and of forecasters known to be good or bad."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from synehrgy.cli import compose
from synehrgy.cohort import Schema
from synehrgy.commands import evaluate as evaluate_command
from synehrgy.errors import UserError
from synehrgy.evaluation import scores
from synehrgy.evaluation.baseline import window_features
from synehrgy.evaluation.evaluate import evaluate_run, summary
from synehrgy.evaluation.forecast import score_forecasts
from synehrgy.evaluation.forecast_report import write_forecast_report
from tests.cohorts import build, cohorts, write
from tests.futures import SERIES, draw_futures, real_cohort, write_futures

RNG = np.random.default_rng(0)
SHARES = RNG.integers(0, 11, 300) / 10
HAPPENED = (RNG.random(300) < SHARES).astype(int)


@pytest.fixture(scope="module")
def real():
    return real_cohort()


@pytest.fixture(scope="module")
def perfect(real):
    """Futures drawn from the very odds that the real stays were drawn from."""
    return score_forecasts(real, *draw_futures(real, 40))


def scores_of(found, label, forecaster="futures"):
    table = found.tables["labels"]
    return table[(table["label"] == label) & (table["forecaster"] == forecaster)].iloc[0]


def values_of(found, variable=SERIES):
    return found.tables["next_values"].set_index("variable").loc[variable]


# Scores by their definitions.


@pytest.mark.parametrize("predicted", [SHARES, RNG.random(300), np.full(300, 0.4), 1 - SHARES])
def test_auroc_and_auprc_are_those_of_sklearn(predicted):
    assert scores.auroc(HAPPENED, predicted) == pytest.approx(roc_auc_score(HAPPENED, predicted))
    expected = average_precision_score(HAPPENED, predicted)
    assert scores.auprc(HAPPENED, predicted) == pytest.approx(expected)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auroc(label):
    happened = np.full(300, label)
    assert np.isnan(scores.auroc(happened, SHARES))
    assert np.isnan(scores.auprc(happened, SHARES))
    counts = scores.resamples(300, 20, 0)
    assert np.isnan(scores.intervals(happened, SHARES, counts)["auroc"]).all()
    assert scores.brier(happened, SHARES) == pytest.approx(
        np.mean([(label - p) ** 2 for p in SHARES])
    )


def ece_by_definition(happened, predicted):
    bins = {}
    for y, p in zip(happened, predicted, strict=True):
        less = sum(other < p for other in predicted)
        bins.setdefault(10 * less // len(predicted), []).append((y, p))
    gaps = [
        len(b) * abs(np.mean([y for y, _ in b]) - np.mean([p for _, p in b])) for b in bins.values()
    ]
    return sum(gaps) / len(predicted)


@pytest.mark.parametrize(
    "predicted", [SHARES, RNG.random(300), np.where(SHARES < 0.7, 0.0, SHARES), np.full(300, 0.4)]
)
def test_ece_is_the_weighted_gap_of_bins(predicted):
    found = scores.ece(HAPPENED, predicted)
    assert found == pytest.approx(ece_by_definition(HAPPENED, predicted))
    order = RNG.permutation(300)
    assert scores.ece(HAPPENED[order], predicted[order]) == pytest.approx(found)


def test_bins_have_equal_counts_and_keep_equal_predictions_together():
    assert np.bincount(scores.bins_of(RNG.random(300))).tolist() == [30] * 10
    shares = pd.DataFrame({"p": SHARES, "bin": scores.bins_of(SHARES)})
    assert (shares.groupby("p")["bin"].nunique() == 1).all()


def test_auroc_of_a_resample_is_that_of_its_rows():
    counts = scores.resamples(300, 5, 0)
    assert (counts.sum(axis=1) == 300).all()
    found = scores._Ranked(HAPPENED, SHARES).auroc(counts.astype(float))
    for area, count in zip(found, counts, strict=True):
        expected = roc_auc_score(np.repeat(HAPPENED, count), np.repeat(SHARES, count))
        assert area == pytest.approx(expected)


@pytest.mark.parametrize("off", [0.0, 0.15])
def test_intervals_hold_the_truth_as_often_as_they_say(off):
    """Of a calibrated forecaster and one that is off, whose scores many draws tell."""
    rng = np.random.default_rng(0)

    def draw(n):
        p = rng.random(n)
        return (rng.random(n) < np.clip(p + off, 0, 1)).astype(int), p

    many = draw(200_000)
    area, error = scores.auroc(*many), 0.0 if off == 0 else scores.ece(*many)
    held = {"auroc": [], "ece": []}
    for seed in range(200):
        found = scores.intervals(*draw(300), scores.resamples(300, 200, seed + 1))
        for name, truth in (("auroc", area), ("ece", error)):
            held[name].append(found[name][0] <= truth <= found[name][1])
    assert 0.9 <= np.mean(held["auroc"]) <= 0.99
    assert 0.9 <= np.mean(held["ece"]) <= 1
    # What is not calibrated is told from what is.
    assert (found["ece"][0] > 0) == (off > 0)


def test_chance_explains_the_error_of_a_calibrated_forecaster():
    rng = np.random.default_rng(0)
    p = rng.random(500)
    expected = np.mean([scores.ece((rng.random(500) < p).astype(int), p) for _ in range(200)])
    assert scores.ece_by_chance(p, seed=1) == pytest.approx(expected, rel=0.08)


def test_chance_includes_that_of_few_futures():
    rng = np.random.default_rng(0)
    odds = rng.beta(1, 3, 2000)
    found = {}
    for m in (5, 500):
        errors, by_chance = [], []
        for _ in range(5):
            shares = rng.binomial(m, odds) / m
            errors.append(scores.ece((rng.random(2000) < odds).astype(int), shares))
            by_chance.append(scores.ece_by_chance(shares, 1, np.full(2000, m)))
        found[m] = np.mean(errors), np.mean(by_chance)
        # Of few futures somewhat less, as the shares are taken for the truth.
        assert 0.6 < found[m][1] / found[m][0] < 1.2
    assert found[5][0] > 3 * found[500][0]


def test_crps_is_that_of_all_pairs():
    counts = np.array([2, 5, 1, 30])
    draws = [np.sort(RNG.normal(size=m)) for m in counts]
    observed = RNG.normal(size=4)
    found = scores.fair_crps(np.concatenate(draws), counts, observed)
    assert np.isnan(found[2])
    for i in (0, 1, 3):
        x, y, m = draws[i], observed[i], counts[i]
        pairs = sum(abs(a - b) for a in x for b in x)
        expected = sum(abs(a - y) for a in x) / m - pairs / (2 * m * (m - 1))
        assert found[i] == pytest.approx(expected)


@pytest.mark.parametrize("m", [2, 5, 50])
def test_crps_does_not_depend_on_the_number_of_draws(m):
    """That of a standard normal forecast of a standard normal is 1 / sqrt(pi)."""
    rng = np.random.default_rng(m)
    n = 40_000
    draws = np.sort(rng.normal(size=(n, m)), axis=1).ravel()
    found = scores.fair_crps(draws, np.full(n, m), rng.normal(size=n)).mean()
    assert found == pytest.approx(1 / np.sqrt(np.pi), abs=0.015)


# Forecasters known to be good or bad.


def test_a_perfect_forecaster_is_calibrated(perfect):
    died = scores_of(perfect, "died")
    assert died["n"] == 200
    assert died["auroc"] > 0.9
    assert died["auroc_low"] < died["auroc"] < died["auroc_high"]
    assert died["ece"] < 2 * died["ece_by_chance"]
    assert died["ece_low"] == 0
    # No better than LightGBM can be, which is given the odds themselves.
    assert abs(died["auroc"] - scores_of(perfect, "died", "LightGBM")["auroc"]) < 0.06


def test_an_overconfident_forecaster_is_seen(real, perfect):
    found = score_forecasts(real, *draw_futures(real, 40, sharpen=8.0, spread=0.2))
    bad, good = scores_of(found, "died"), scores_of(perfect, "died")
    # It ranks well: only its probabilities are wrong.
    assert bad["auroc"] > 0.85
    assert bad["ece_low"] > 0
    assert bad["ece"] > 5 * bad["ece_by_chance"]
    assert bad["ece"] > 2 * good["ece"]
    assert bad["brier"] > good["brier"]
    assert values_of(found)["coverage_90"] < 0.4
    assert values_of(found)["crps"] > 1.2 * values_of(perfect)["crps"]


def test_a_perfect_forecaster_of_values_covers_and_beats_carrying_forward(perfect):
    heart = values_of(perfect)
    assert heart["n"] == 200
    assert heart["coverage_50"] == pytest.approx(0.5, abs=0.1)
    assert heart["coverage_90"] == pytest.approx(0.9, abs=0.06)
    # Of a normal of deviation 5.
    assert heart["crps"] == pytest.approx(5 / np.sqrt(np.pi), rel=0.15)
    assert heart["crps"] < 0.5 * heart["carry_forward"]
    assert heart["skill"] == pytest.approx(1 - heart["crps"] / heart["carry_forward"])


def test_values_are_scored_against_a_loop(real):
    futures, questions = draw_futures(real, 3)
    found = score_forecasts(real, futures, questions)
    of = {
        stay: rows.set_index("hours")["value"]
        for stay, rows in real.measurements[real.measurements["variable"] == SERIES].groupby(
            "stay_id"
        )
    }
    first = futures.stays.query("stay_index == 0").set_index("subject_id")["stay_id"]
    drawn = futures.measurements.query("hours == 30").set_index("stay_id")["value"]
    crps, carried = [], []
    for stay, mine in questions.groupby("source_stay_id"):
        x = [drawn[first[s]] for s in mine["subject_id"]]
        pairs = sum(abs(a - b) for a in x for b in x)
        crps.append(np.mean(np.abs(np.array(x) - of[stay][30.0])) - pairs / (2 * 3 * 2))
        carried.append(abs(of[stay][12.0] - of[stay][30.0]))
    assert values_of(found)["crps"] == pytest.approx(np.mean(crps))
    assert values_of(found)["carry_forward"] == pytest.approx(np.mean(carried))
    train = real.select(split="train").measurements
    deviation = train.loc[train["variable"] == SERIES, "value"].std()
    assert found.metrics["next_values/crps"] == pytest.approx(np.mean(crps) / deviation)
    skill = 1 - np.mean(crps) / np.mean(carried)
    assert found.metrics["next_values/skill"] == pytest.approx(skill)


def test_what_cannot_be_scored_is_counted(real, perfect):
    lactate = values_of(perfect, "Lactate")
    assert (lactate["n"], lactate["not measured again"]) == (0, 200)
    assert np.isnan(lactate["crps"])
    assert perfect.metrics["next_values/pairs"] == 200
    assert perfect.metrics["next_values/left out: not measured again"] == 200

    futures, questions = draw_futures(real, 3)
    rows = futures.measurements
    asked = questions.drop_duplicates("source_stay_id")
    # One stay keeps one future with a value; another has no value in its window.
    lost = futures.stays.merge(questions[:2], on="subject_id")["stay_id"]
    fewer = replace(futures, measurements=rows[~rows["stay_id"].isin(lost)])
    new = asked["source_stay_id"].iloc[1]
    seen = real.measurements
    unseen = seen[(seen["stay_id"] != new) | (seen["hours"] > 24)]
    heart = values_of(score_forecasts(replace(real, measurements=unseen), fewer, questions))
    assert heart[["n", "no value before", "in fewer than 2 futures"]].tolist() == [198, 1, 1]


def test_futures_without_any_measurement(real):
    futures, questions = draw_futures(real, 3)
    none = replace(futures, measurements=futures.measurements[:0])
    found = score_forecasts(real, none, questions)
    assert values_of(found)["in fewer than 2 futures"] == 200
    assert found.metrics["next_values/skill"] is None
    assert found.metrics["next_values/coverage_90"] is None
    assert scores_of(found, "died")["auroc"] > 0.75
    assert "next_values/skill = not defined" in summary(found)


def test_labels_of_one_class_are_not_scored_by_rank(real, perfect):
    stays = real.stays.assign(shock=0)
    futures, questions = draw_futures(real, 5)
    found = score_forecasts(replace(real, stays=stays), futures, questions)
    ours, learnt = (scores_of(found, "shock", who) for who in ("futures", "LightGBM"))
    assert ours[["auroc", "auroc_low", "auprc"]].isna().all()
    assert 0 < ours["brier"] < 1
    assert ours["note"] == "one class, so AUROC and AUPRC are not defined"
    assert learnt[["auroc", "auprc", "brier", "ece"]].isna().all()
    assert "nothing to learn" in learnt["note"]
    # The mean is over the other label alone.
    assert found.metrics["auroc/labels"] == 1
    assert found.metrics["auroc/futures"] == scores_of(found, "died")["auroc"]
    assert perfect.metrics["auroc/labels"] == 2


@pytest.mark.parametrize(("part", "table"), [("labels", "labels"), ("variables", "next_values")])
def test_a_cohort_without_labels_or_series(part, table):
    real = real_cohort(90)
    futures, questions = draw_futures(real, 5)

    def without(cohort):
        schema = replace(cohort.schema, **{part: []})
        if part == "variables":
            return replace(cohort, schema=schema, measurements=cohort.measurements[:0])
        return replace(cohort, schema=schema, stays=cohort.stays.drop(columns=["died", "shock"]))

    found = score_forecasts(without(real), without(futures), questions)
    assert not len(found.tables[table])
    assert "to forecast." in summary(found)
    if part == "labels":
        assert values_of(found)["n"] == 30
        assert found.metrics["auroc/futures"] is None
    else:
        # Without series no stay goes on, so that LightGBM has nothing to learn from.
        assert found.metrics["auroc/LightGBM"] is None
        assert scores_of(found, "died")["auroc"] > 0.7


def test_a_real_cohort_without_splits(real):
    futures, questions = draw_futures(real, 5)
    found = score_forecasts(replace(real, stays=real.stays.assign(split=None)), futures, questions)
    assert found.split == "all"
    assert found.metrics["auroc/LightGBM"] is None
    assert scores_of(found, "died")["auroc"] > 0.8
    # Without a train split there is no unit to add series up in.
    assert found.metrics["next_values/skill"] is None
    assert values_of(found)["skill"] > 0.4


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cohort=cohorts(), window=st.sampled_from([0.0, 24.0]))
def test_any_cohort_is_scored_and_has_a_report(tmp_path, cohort, window):
    """Against itself: each patient's own first stay is the future, twice."""
    first = cohort.stays["stay_index"] == 0
    stays, rows, n = cohort.stays[first], cohort.measurements, len(cohort.stays[first])
    rows = rows[rows["stay_id"].isin(stays["stay_id"])]
    twice = [
        (
            stays.assign(subject_id=stays["subject_id"] + shift, stay_id=stays["stay_id"] + shift),
            rows.assign(stay_id=rows["stay_id"] + shift),
        )
        for shift in (10**9, 2 * 10**9)
    ]
    futures = replace(
        cohort,
        stays=pd.concat([s for s, _ in twice], ignore_index=True),
        codes=cohort.codes[:0],
        measurements=pd.concat([r for _, r in twice], ignore_index=True),
    )
    questions = pd.DataFrame(
        {
            "subject_id": futures.stays["subject_id"],
            "source_subject_id": [*stays["subject_id"], *stays["subject_id"]],
            "source_stay_id": [*stays["stay_id"], *stays["stay_id"]],
            "hours": window,
            "sample": np.repeat([0, 1], n),
        }
    )
    found = score_forecasts(cohort, futures, questions)
    labels = found.tables["labels"]
    assert (labels.loc[labels["forecaster"] == "futures", ["brier", "ece"]] == 0).all().all()
    assert found.metrics["next_values/crps"] in (None, 0)
    write_forecast_report(tmp_path / "report.html", found)
    assert "</html>" in (tmp_path / "report.html").read_text()
    assert summary(found)


def test_the_same_seed_gives_the_same_scores(real, perfect):
    again = score_forecasts(real, *draw_futures(real, 40))
    for name, table in perfect.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table)


def test_calibration_points_are_means_of_bins(perfect):
    points = perfect.tables["calibration"].query("label == 'died' and forecaster == 'futures'")
    assert points["n"].sum() == 200
    gap = (points["n"] * (points["predicted"] - points["observed"]).abs()).sum() / 200
    assert gap == pytest.approx(scores_of(perfect, "died")["ece"])


# What LightGBM knows.


def test_features_are_what_is_known_in_the_window(real):
    stay = real.stays.iloc[1]
    table = window_features(real, [stay["stay_id"]], 24)
    rows = real.measurements.query("stay_id == @stay.stay_id and variable == @SERIES")
    known = rows.loc[rows["hours"] <= 24, "value"]
    row = table.iloc[0]
    assert row[f"{SERIES}, count"] == 2
    for what, value in known.agg(["min", "max", "mean", "std"]).items():
        assert row[f"{SERIES}, {what}"] == pytest.approx(value)
    assert row[f"{SERIES}, last"] == known.iloc[-1]
    assert row[["Coma, last", "Coma = low", "Coma = high"]].tolist() == [1, 0, 1]
    assert row[["odds", "gender = F", "gender = M"]].tolist() == [stay["odds"], 0, 1]
    assert row["stay_index"] == 0


def test_features_of_no_hours_are_the_covariates(real):
    table = window_features(real, real.stays["stay_id"], 0)
    assert table.columns.equals(window_features(real, real.stays["stay_id"], 24).columns)
    assert (table.filter(like="count") == 0).all().all()
    assert table[f"{SERIES}, last"].isna().all()
    assert table["odds"].tolist() == real.stays["odds"].tolist()


def test_features_do_not_change_with_what_comes_later(real):
    later = real.measurements["hours"] > 24
    changed = real.measurements.assign(value=real.measurements["value"].where(~later, 999.0))
    stays = real.stays.assign(died=1 - real.stays["died"], shock=1, los_hours=1.0)
    other = replace(real, measurements=changed, stays=stays)
    ids = real.stays["stay_id"]
    pd.testing.assert_frame_equal(window_features(real, ids, 24), window_features(other, ids, 24))


def test_patients_who_are_asked_about_are_not_learnt_from(real):
    """Asked about the train split, LightGBM has nobody to learn from."""
    swapped = {"train": "test", "test": "train"}
    other = replace(real, stays=real.stays.assign(split=real.stays["split"].map(swapped)))
    futures, questions = draw_futures(other, 2)
    found = score_forecasts(real, futures, questions)
    learnt = found.tables["questions"].set_index("quantity")["value"]
    assert learnt["stays that LightGBM learns from"] == 0
    assert found.split == "train"
    assert found.metrics["auroc/LightGBM"] is None
    assert found.metrics["auroc/labels"] == 2


# Words for what does not fit.


def test_stays_that_the_real_cohort_lacks(real):
    futures, questions = draw_futures(real, 2)
    part = real.select(subjects=real.stays["subject_id"][:300])
    with pytest.raises(UserError, match=r"has no stay 802 of subject 302.*100 unknown of 200"):
        score_forecasts(part, futures, questions)


def test_one_window_at_a_time(real):
    futures, questions = draw_futures(real, 2)
    questions.loc[:9, "hours"] = 12.0
    with pytest.raises(UserError, match=r"futures after 12, 24 hours\. Score one window"):
        score_forecasts(real, futures, questions)


def test_other_columns_are_refused(real):
    futures, questions = draw_futures(real, 2)
    schema = Schema("other", "test")
    other = build(schema, [[1, 1, None, 0, "test", 1.0]], [], [])
    with pytest.raises(UserError, match="declare other covariates"):
        score_forecasts(other, futures, questions)


def test_no_futures(real):
    futures, questions = draw_futures(real, 2)
    with pytest.raises(UserError, match="holds no futures to score"):
        score_forecasts(real, futures.select(subjects=[]), questions[:0])


# The command.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("forecast")
    real = real_cohort(90)
    write(real, path / "real")
    write_futures(*draw_futures(real, 4), path / "synthetic" / "run", path / "real")
    return path


def config_of(folder, *more, results="results"):
    paths = [f"paths.{name}={folder / name}" for name in ("synthetic", "saved_models")]
    return compose("evaluate", [*paths, f"paths.results={folder / results}", *more])


def refuse_nan(name):
    raise AssertionError(f"{name} is not JSON")


def test_the_command_knows_futures_and_where_they_come_from(folder, capsys):
    by_run = evaluate_command(config_of(folder, "model=run"))
    out = folder / "results" / "run"
    assert by_run.line.endswith(f"Next: open {out / 'report.html'}")
    said = capsys.readouterr().out
    assert said.startswith("futures: futures of stays of known-odds, test, after 24 hours")
    for word in ("Died", "LightGBM", SERIES, "next_values/skill = ", "auroc/futures = "):
        assert word in said
    content = json.loads((out / "metrics.json").read_text(), parse_constant=refuse_nan)
    assert content["real"] == str(folder / "real")
    assert content["split"] == "test"
    assert len(content["tables"]["labels"]) == 4
    tables = {p.stem: pd.read_csv(p) for p in (out / "tables").iterdir()}
    assert set(tables) == {"questions", "labels", "calibration", "next_values"}
    assert tables["labels"]["label"].tolist() == ["died", "died", "shock", "shock"]

    by_folder = evaluate_run(
        config_of(folder, f"synthetic={folder / 'synthetic/run'}", results="by_folder")
    )[1]
    assert by_folder.metrics == content["metrics"]


def test_the_report_opens_without_network(folder):
    out, _ = evaluate_run(config_of(folder, "model=run", results="report"))
    text = (out / "report.html").read_text()
    assert not re.search(r"<(link|script|img)|(src|href)=.http|url\(.?http", text)
    assert "<svg" in text
    for word in ("Died", "LightGBM", "Calibration", "not defined", "Heart Rate [bpm]"):
        assert word in text


def test_a_real_cohort_can_be_named(folder):
    write(real_cohort(90), folder / "elsewhere")
    found = evaluate_run(
        config_of(folder, "model=run", f"real={folder / 'elsewhere'}", results="x")
    )
    assert json.loads((found[0] / "metrics.json").read_text())["real"] == str(folder / "elsewhere")


@pytest.mark.parametrize(
    ("noted", "more", "words"),
    [
        (None, [], "does not say of which cohort. Give real=<folder"),
        ("gone", [], r"continues stays of .*gone, where there is no cohort any more\. Give real="),
        ("real", ["oracle={folder}/real"], "leave oracle= out"),
        ("real", ["real={folder}/nowhere"], "nowhere is not a cohort"),
    ],
)
def test_what_is_missing_is_said(folder, noted, more, words):
    noted = None if noted is None else folder / noted
    write_futures(*draw_futures(real_cohort(30), 2), folder / "synthetic" / "other", noted)
    more = [text.format(folder=folder) for text in more]
    with pytest.raises(UserError, match=words):
        evaluate_run(config_of(folder, "model=other", *more, results="none"))
    assert not (folder / "none").exists()


def test_a_column_that_the_questions_lack(folder):
    futures, questions = draw_futures(real_cohort(30), 2)
    faulty = questions.drop(columns="source_stay_id")
    write_futures(futures, faulty, folder / "synthetic" / "faulty", folder / "real")
    with pytest.raises(UserError, match="column 'source_stay_id' is missing"):
        evaluate_run(config_of(folder, "model=faulty", results="none"))
