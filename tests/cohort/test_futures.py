"""What futures predict: counted with plain loops."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from synehrgy.cohort import Covariate, Label, Schema
from synehrgy.cohort.futures import (
    QUESTIONS,
    going_on,
    has_futures,
    in_window,
    label_predictions,
    last_values,
    next_values,
    read_questions,
    sample_quantile,
    value_predictions,
)
from synehrgy.errors import UserError
from tests.cohorts import SMALL_SCHEMA, build, small_cohort
from tests.futures import SERIES, draw_futures, real_cohort, write_futures


@pytest.fixture(scope="module")
def made():
    return draw_futures(real_cohort(30), 7)


def first_value(cohort, stay, variable, window):
    """By looking at each row of a stay."""
    for row in cohort.measurements.itertuples():
        if (row.stay_id, row.variable) == (stay, variable) and row.hours > window:
            return row.value
    return None


def test_probability_is_the_share_of_futures(made):
    futures, questions = made
    table = label_predictions(futures, questions)
    assert table.columns.tolist() == ["subject_id", "stay_id", "hours", "futures", "died", "shock"]
    assert len(table) == 10
    assert (table["futures"] == 7).all()
    for row in table.itertuples():
        mine = questions.loc[questions["source_stay_id"] == row.stay_id, "subject_id"]
        stays = futures.stays[futures.stays["subject_id"].isin(mine)]
        died = [s.died for s in stays.itertuples() if s.stay_index == 0]
        assert row.died == pytest.approx(sum(died) / 7)
    assert 0 < table["died"].mean() < 1


def test_value_predictions_are_of_the_first_value_of_the_first_stay(made):
    futures, questions = made
    table = value_predictions(futures, questions, quantiles=(0.5,))
    assert len(table) == 20
    heart = table[table["variable"] == SERIES].set_index("stay_id")
    for source, mine in questions.groupby("source_stay_id"):
        of_first = futures.stays.query("stay_index == 0").set_index("subject_id")["stay_id"]
        drawn = [first_value(futures, of_first[s], SERIES, 24) for s in mine["subject_id"]]
        assert heart.loc[source, "mean"] == pytest.approx(np.mean(drawn))
        assert heart.loc[source, "q0.5"] == pytest.approx(np.median(drawn))
        assert heart.loc[source, "measured"] == 1
    never = table[table["variable"] == "Lactate"]
    assert (never["measured"] == 0).all()
    assert never[["mean", "q0.5"]].isna().all().all()


def test_measured_again_is_a_share_of_all_futures(made):
    futures, questions = made
    rows = futures.measurements
    lost = futures.stays.query("stay_index == 0")["stay_id"].iloc[[0, 1, 2]]
    fewer = build(futures.schema, futures.stays, [], rows[~rows["stay_id"].isin(lost)])
    table = value_predictions(fewer, questions)
    heart = table[table["variable"] == SERIES]
    assert heart["measured"].iloc[0] == pytest.approx(4 / 7)
    assert (heart["measured"].iloc[1:] == 1).all()


def test_next_and_last_values_against_a_loop():
    cohort = small_cohort(20)
    windows = pd.Series(2.5, index=cohort.stays["stay_id"].iloc[:25])
    for found, later in (
        (next_values(cohort.measurements, windows), True),
        (last_values(cohort.measurements, windows), False),
    ):
        expected = {}
        for row in cohort.measurements.itertuples():
            if row.stay_id not in windows.index or np.isnan(row.value):
                continue
            key = (row.stay_id, row.variable)
            if later and row.hours > 2.5:
                expected.setdefault(key, row.value)
            elif not later and row.hours <= 2.5:
                expected[key] = row.value
        assert len(expected) > 50
        assert (
            dict(
                zip(
                    zip(found["stay_id"], found["variable"], strict=True),
                    found["value"],
                    strict=True,
                )
            )
            == expected
        )


def test_each_stay_has_its_own_window():
    rows = [[s, h, "pH", 7 + h / 10, None] for s in (1, 2) for h in (1.0, 2.0, 3.0)]
    stays = [[s, s, None, 0, None, 50.0, "F", 0, 0, 0, 9.0] for s in (1, 2)]
    cohort = build(SMALL_SCHEMA, stays, [], rows)
    found = next_values(cohort.measurements, pd.Series([2.0, 1.0], index=[1, 2]))
    assert found["hours"].tolist() == [3.0, 2.0]


@pytest.mark.parametrize(
    ("hours", "window", "known"),
    [
        *((23.9, 24, True), (24.0, 24, True), (24.02, 24, False)),
        # Twenty seconds past the hour are of the minute that is known.
        (24 + 20 / 3600, 24, True),
        # A minute that floats make a hair too short.
        *((1 / 60 + 24, 24, False), (0.1 + 0.2, 0.3, True)),
        # Of nothing known not even the beginning is.
        *((0.0, 0, False), (0.0, 12, True)),
    ],
)
def test_the_window_ends_with_its_minute(hours, window, known):
    assert in_window(hours, window) == known


def test_stays_that_end_in_the_window_are_not_asked_about():
    rows = [[1, 24.0, "pH", 7.0, None], [2, 24.5, "pH", 7.0, None]]
    stays = [[s, s, None, 0, None, 50.0, "F", 0, 0, 0, 9.0] for s in (1, 2, 3)]
    cohort = build(SMALL_SCHEMA, stays, [], rows)
    assert going_on(cohort, 24)["stay_id"].tolist() == [2]
    assert going_on(cohort, 0)["stay_id"].tolist() == [1, 2]


def test_intervals_between_quantiles_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    n, m = 20_000, 19
    draws = np.sort(rng.normal(size=(n, m)), axis=1).ravel()
    observed = rng.normal(size=n)
    counts = np.full(n, m)
    low, high = (sample_quantile(draws, counts, q) for q in (0.05, 0.95))
    assert ((low <= observed) & (observed <= high)).mean() == pytest.approx(0.9, abs=0.01)


def test_quantiles_are_those_of_numpy():
    rng = np.random.default_rng(0)
    groups = [np.sort(rng.normal(size=size)) for size in (1, 2, 3, 30)]
    for q in (0, 0.05, 0.5, 0.9, 1):
        found = sample_quantile(np.concatenate(groups), np.array([1, 2, 3, 30]), q)
        assert found == pytest.approx([np.quantile(g, q, method="weibull") for g in groups])


def test_futures_and_questions_belong_together(made):
    futures, questions = made
    with pytest.raises(UserError, match=r"1000000069 is in the cohort but has no row in questions"):
        label_predictions(futures, questions.iloc[:-1])
    more = questions.iloc[[-1]].assign(subject_id=7)
    with pytest.raises(UserError, match=r"future 7 is in questions\.parquet but has no stay"):
        label_predictions(futures, pd.concat([questions, more]))
    with pytest.raises(UserError, match="has more than one row"):
        label_predictions(futures, pd.concat([questions, questions.iloc[[0]]]))


def test_a_label_cannot_have_the_name_of_a_column_of_forecasts():
    schema = Schema(
        "s", "test", [Covariate("hours", "continuous")], [Label("sick", "A", "outcome")]
    )
    questions = pd.DataFrame([[1, 1, 1, 24.0, 0]], columns=QUESTIONS.names)
    one = build(schema, [[1, 1, None, 0, None, 7.0, 1, None]], [], [])
    assert label_predictions(one, questions)[["hours", "sick"]].to_numpy().tolist() == [[24, 1]]
    bad = replace(schema, covariates=[], labels=[Label("hours", "A", "outcome")])
    one = build(bad, [[1, 1, None, 0, None, 1, None]], [], [])
    with pytest.raises(UserError, match="a label is in the column 'hours'"):
        label_predictions(one, questions)


def test_questions_come_back_from_the_folder(made, tmp_path):
    write_futures(*made, tmp_path / "run")
    assert has_futures(tmp_path / "run")
    assert not has_futures(tmp_path)
    pd.testing.assert_frame_equal(read_questions(tmp_path / "run"), made[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda q: q.drop(columns="hours"), "column 'hours' is missing"),
        (lambda q: q.assign(hour=1.0), "column 'hour' is not declared"),
        (lambda q: q.assign(hours="24"), "column 'hours' must be double"),
        (lambda q: q.assign(hours=np.nan), "column 'hours' is empty"),
    ],
)
def test_faults_of_the_questions_are_named(made, tmp_path, change, words):
    write_futures(made[0], change(made[1]), tmp_path / "run")
    with pytest.raises(UserError, match=words):
        read_questions(tmp_path / "run")
