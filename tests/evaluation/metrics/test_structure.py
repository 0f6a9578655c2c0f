"""Distributions of how much there is in records: by definition, and rising with the dose."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from synehrgy.cohort import read_cohort
from synehrgy.evaluation.compare import compare
from synehrgy.evaluation.metric import Bench, Effort, patient_weights
from synehrgy.evaluation.metrics.structure import (
    Quantity,
    Structure,
    _resampled,
    distances,
    quantities,
)
from synehrgy.evaluation.patients import Patients
from tests.cohorts import SMALL_SCHEMA, build, cohorts, small_cohort
from tests.evaluation.corruptions import halves, labels_contradicted, one_sex_removed

NUMBERS = st.lists(st.integers(-5, 5) | st.floats(-10, 10), min_size=20, max_size=40)


def bench(found, train, n_resamples=50) -> Bench:
    found, train = Patients(found), Patients(train)
    return Bench(train, {"synthetic": found, "test": train}, Effort(n_resamples=n_resamples))


def measured(found, train, n_resamples=50):
    return Structure().measure(bench(found, train, n_resamples), "synthetic")


def number(values, missing=0) -> Quantity:
    values = np.concatenate([np.asarray(values, dtype=np.float64), np.full(missing, np.nan)])
    return Quantity("", "", np.arange(len(values)), values)


# By definition.


def apart(one, other) -> float:
    """Kolmogorov-Smirnov by its definition."""
    at = [*one, *other]
    return max(abs(np.mean([y <= x for y in one]) - np.mean([y <= x for y in other])) for x in at)


@given(NUMBERS, NUMBERS, st.integers(0, 3), st.integers(0, 3))
def test_distances_of_numbers_by_definition(one, other, n, m):
    """Missing values count as the greatest."""
    found = distances(number(one, n), number(other, m))[0]
    assert found == pytest.approx(apart([*one, *[99.0] * n], [*other, *[99.0] * m]))


@given(NUMBERS, NUMBERS)
def test_how_far_values_move_is_that_of_scipy(one, other):
    deviation = np.std(np.array(one, float))
    found = distances(number(one, 1), number(other, 2))[1]
    if deviation == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(wasserstein_distance(one, other) / deviation)


def test_levels_differ_by_total_variation():
    levels = ("a", "b", "c")
    real = Quantity("", "", np.arange(24), np.array([0, 0, 1, np.nan] * 6), levels)
    here = Quantity("", "", np.arange(20), np.array([2, 0, 1, 1.0] * 5), levels)
    # a: 1/2 and 1/4, b: 1/4 and 1/2, c: 0 and 1/4, missing: 1/4 and 0.
    assert distances(real, here)[0] == pytest.approx(0.5)


def test_too_few_values_tell_nothing():
    few, enough = number(range(19)), number(range(20))
    assert np.isnan([distances(few, enough), distances(enough, few)]).all()
    assert distances(enough, enough) == (0, 0)
    assert np.isnan(distances(number(range(19), 1), enough)).tolist() == [False, True]


@given(NUMBERS, NUMBERS, st.booleans(), st.integers(0, 2))
def test_a_resample_that_is_the_sample_has_its_distance(one, other, whole, missing):
    one, other = (np.round(x) if whole else np.array(x, float) for x in (one, other))
    real, here = number(one, missing), number(other)
    far, moved = _resampled(real, here, tuple(np.ones((2, len(q.values))) for q in (real, here)))
    expected = distances(real, here)
    assert far == pytest.approx(expected[0])
    assert moved == pytest.approx(expected[1], nan_ok=True)


def test_a_resample_is_the_patients_drawn():
    rng = np.random.default_rng(0)
    whose = np.sort(rng.integers(0, 40, 90))
    real, here = number(rng.normal(size=50)), Quantity("", "", whose, rng.normal(size=90))
    weights = patient_weights(50, 3, 0), patient_weights(40, 3, 1)
    far, moved = _resampled(real, here, weights)
    for i in range(3):
        one = np.repeat(real.values, weights[0][i].astype(int))
        other = np.repeat(here.values, weights[1][i].astype(int)[whose])
        assert far[i] == pytest.approx(apart(one, other))
        expected = wasserstein_distance(one, other) / real.values.std()
        assert moved[i] == pytest.approx(expected)


def test_quantities_of_a_small_cohort():
    def stay(subject, number, index, age, gender, los):
        return [subject, number, None, index, None, age, gender, 0, 0, 0, los]

    stays = [
        stay(1, 1, 0, 50.0, "F", 10.0),
        stay(1, 2, 1, 51.5, "F", None),
        stay(2, 3, 0, None, None, 5.0),
    ]
    codes = [[1, 0, "icd9_diagnosis", "A"], [1, 1, "icd9_diagnosis", "B"]]
    codes += [[3, 0, "icd9_procedure", "A"]]
    rows = [[1, 0.0, "Heart Rate", 1.0, None], [1, 0.0, "pH", 7.0, None]]
    rows += [[1, 2.0, "pH", 7.0, None]]
    found = quantities(Patients(build(SMALL_SCHEMA, stays, codes, rows)))
    values = {name: quantity.values.tolist() for name, quantity in found.items()}
    missing = values.pop("covariate: age"), values.pop("covariate: gender"), values.pop("length")
    assert np.array_equal(missing[0], [50.0, 51.5, np.nan], equal_nan=True)
    assert np.array_equal(missing[1], [0.0, 0.0, np.nan], equal_nan=True)
    assert np.array_equal(missing[2], [10.0, np.nan, 5.0], equal_nan=True)
    assert values == {
        "stays": [2.0, 1.0],
        "codes: icd9_diagnosis": [2.0, 0.0, 0.0],
        "codes: icd9_procedure": [0.0, 0.0, 1.0],
        "points": [2.0, 0.0, 0.0],
        "values": [2.0, 1.0],
        "gap": [1.5],
    }


def test_label_errors_by_brute_force():
    real, here = small_cohort(80), small_cohort(60, seed=1)
    found = measured(here, real)
    table = found.tables["structure_labels"].set_index("label")
    for label in SMALL_SCHEMA.labels:
        row = table.loc[label.column]
        assert row["here"] == pytest.approx(here.stays[label.column].mean())
        assert row["real"] == pytest.approx(real.stays[label.column].mean())
        assert row["low"] < row["here"] < row["high"]
    assert found.scores["structure/labels"].value == pytest.approx(table["error"].abs().mean())
    assert found.scores["structure/labels_worst"].value == pytest.approx(table["error"].abs().max())


def test_bars_add_up(tmp_path):
    real, here = small_cohort(80), small_cohort(60, seed=1)
    found = compare(bench(here, real), [Structure()], keep=tmp_path, progress=False)
    bars = found.tables["structure_histograms"].groupby(["row", "quantity"])
    assert bars[["share_real", "share"]].sum().to_numpy() == pytest.approx(1.0)
    sexes = found.tables["structure_histograms"].query("quantity == 'covariate: gender'")
    assert sexes["level"].tolist()[:2] == ["F", "M"]
    again = compare(bench(here, real), [Structure()], keep=tmp_path, progress=False)
    pd.testing.assert_frame_equal(again.scores, found.scores)


def test_a_cohort_against_itself_differs_in_nothing():
    cohort = small_cohort(50)
    found = measured(cohort, cohort)
    assert {name: score.value for name, score in found.scores.items()} == dict.fromkeys(
        Structure.scales, 0.0
    )
    assert (found.tables["structure_quantities"]["distance"] == 0).all()


# Corruptions and two halves.


@pytest.fixture(scope="module")
def simulated(simulated_folder):
    """Three parts, without the later hours, which take long."""
    cohort = read_cohort(simulated_folder)
    rows = cohort.measurements
    rows = rows[rows["hours"] < 24].reset_index(drop=True)
    first, rest = halves(replace(cohort, measurements=rows), 0)
    return [first, *halves(rest, 1)]


def test_two_parts_are_as_far_from_a_third(simulated):
    train, one, other = (Patients(part) for part in simulated)
    found = compare(Bench(train, {"synthetic": one, "test": other}), [Structure()], progress=False)
    rows = found.scores[found.scores["row"] == "synthetic"]
    assert (rows["light"] == "good").all()
    assert len(rows) == len(Structure.scales)
    reference = found.scores[found.scores["row"] == "test"]["value"].to_numpy()
    assert (rows["low"] <= reference).all()
    assert (reference <= rows["high"]).all()


def later_stays_gone(cohort, dose, rng):
    subjects = cohort.stays["subject_id"].unique()
    cut = cohort.stays["subject_id"].isin(subjects[rng.random(len(subjects)) < dose])
    stays = cohort.stays[~cut | (cohort.stays["stay_index"] == 0)].reset_index(drop=True)
    return _of(cohort, stays)


def lengths_scaled(cohort, dose, rng):
    stays = cohort.stays.copy()
    stays["los_hours"] *= 1 + dose
    return replace(cohort, stays=stays)


def points_dropped(cohort, dose, rng):
    rows = cohort.measurements
    times = rows.groupby(["stay_id", "hours"]).ngroup().to_numpy()
    gone = rng.random(times.max() + 1) < dose
    return replace(cohort, measurements=rows[~gone[times]].reset_index(drop=True))


def values_dropped(cohort, dose, rng):
    rows = cohort.measurements
    return replace(cohort, measurements=rows[rng.random(len(rows)) >= dose].reset_index(drop=True))


def codes_dropped(cohort, dose, rng):
    gone = rng.random(len(cohort.codes)) < dose
    return replace(cohort, codes=cohort.codes[~gone].reset_index(drop=True))


def ages_missing(cohort, dose, rng):
    stays = cohort.stays.copy()
    stays.loc[rng.random(len(stays)) < dose, "age"] = np.nan
    return replace(cohort, stays=stays)


def _of(cohort, stays):
    codes, rows = (
        frame[frame["stay_id"].isin(stays["stay_id"])].reset_index(drop=True)
        for frame in (cohort.codes, cohort.measurements)
    )
    return replace(cohort, stays=stays, codes=codes, measurements=rows)


@pytest.fixture(scope="module")
def few(simulated):
    return simulated[0].select(subjects=simulated[0].stays["subject_id"].unique()[:400])


@pytest.mark.parametrize(
    ("corrupt", "quantity"),
    [
        (later_stays_gone, "stays"),
        (lengths_scaled, "length"),
        (points_dropped, "points"),
        (values_dropped, "values"),
        (codes_dropped, "codes: icd9_diagnosis"),
        (ages_missing, "covariate: age"),
        (one_sex_removed, "covariate: gender"),
    ],
)
def test_faults_raise_the_distance_with_the_dose(few, corrupt, quantity):
    distances, found = [], []
    for dose in (0.0, 0.2, 0.5, 0.9):
        found.append(measured(corrupt(few, dose, np.random.default_rng(1)), few))
        table = found[-1].tables["structure_quantities"].set_index("quantity")
        distances.append(table.loc[quantity, "distance"])
    assert distances == sorted(distances)
    assert distances[0] == 0
    for name in ("structure/mean", "structure/worst"):
        values = [f.scores[name].value for f in found]
        assert values == sorted(values)
    worst = found[-1].scores["structure/worst"]
    assert Structure.scales["structure/worst"].light(worst.value, 0.0) != "good"
    assert worst.low > 0


def test_wrong_labels_raise_their_errors_with_the_dose(few):
    found = [
        measured(labels_contradicted(few, dose, np.random.default_rng(1)), few).scores
        for dose in (0.0, 0.1, 0.3, 1.0)
    ]
    for name in ("structure/labels", "structure/labels_worst"):
        values = [scores[name].value for scores in found]
        assert values == sorted(values)
        assert Structure.scales[name].light(values[-1], values[0]) == "poor"
        assert found[-1][name].low > values[0]


# Any cohort.


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(cohorts(), st.integers(0, 3))
def test_any_two_cohorts_of_a_schema_can_be_measured(cohort, keep):
    subjects = cohort.stays["subject_id"].unique()
    part = cohort.select(subjects=subjects[: keep + 1])
    for found in (
        measured(part, cohort, 5),
        measured(cohort, replace(part, measurements=part.measurements.iloc[:0]), 5),
        measured(replace(part, codes=part.codes.iloc[:0]), cohort, 5),
    ):
        assert set(found.scores) == set(Structure.scales)
        for name, score in found.scores.items():
            low, high = Structure.scales[name].bounds
            ends = [x for x in (score.low, score.value, score.high) if not np.isnan(x)]
            assert ends == sorted(ends)
            assert all(low - 1e-9 <= x <= high + 1e-9 for x in ends)
