"""Correlations across types: by numpy, and lost with what hangs together."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synehrgy.baselines.marginals import independent_columns
from synehrgy.cohort import read_cohort
from synehrgy.evaluation.compare import compare
from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.metrics.across import (
    Across,
    features,
    frequent_codes,
    jackknifed,
    pairs_of,
    pearson,
    sums_by_part,
)
from synehrgy.evaluation.patients import Patients
from tests.cohorts import SMALL_SCHEMA, build, cohorts, small_cohort
from tests.evaluation.corruptions import halves, values_shuffled


def bench(found, train) -> Bench:
    found, train = Patients(found), Patients(train)
    return Bench(train, {"synthetic": found, "test": train}, Effort(n_resamples=20))


def measured(found, train):
    return Across().measure(bench(found, train), "synthetic")


# By definition.


def test_features_of_a_small_cohort():
    stays = [
        [1, 1, None, 0, None, 50.0, "F", 1, 0, 0, 9.0],
        [2, 2, None, 0, None, None, None, 0, 1, 0, 9.0],
    ]
    codes = [[1, 0, "icd9_diagnosis", "A"], [1, 1, "icd9_diagnosis", "A"]]
    rows = [[1, 0.0, "Glasgow coma scale total", None, "3"], [1, 0.0, "pH", 7.0, None]]
    rows += [[1, 2.0, "Glasgow coma scale total", None, "5"], [2, 0.0, "pH", 7.2, None]]
    found = features(
        Patients(build(SMALL_SCHEMA, stays, codes, rows)), pd.Index(["icd9_diagnosis:A"])
    )
    table = pd.DataFrame(found.values.T, index=[found.kinds, found.names])
    expected = {
        ("covariate", "age"): [50.0, np.nan],
        ("covariate", "gender = M"): [0.0, np.nan],
        ("label", "in_hospital_mortality"): [1, 0],
        ("label", "septicemia"): [0, 1],
        ("code", "icd9_diagnosis:A"): [1, 0],
        # Level 3 is the first of the list, 5 the third.
        ("mean", "Glasgow coma scale total"): [1.0, np.nan],
        ("mean", "pH"): [7.0, 7.2],
        ("mean", "Lactate"): [np.nan, np.nan],
        ("count", "Glasgow coma scale total"): [np.log(3), 0.0],
        ("count", "pH"): [np.log(2), np.log(2)],
    }
    for key, values in expected.items():
        assert table.loc[key].to_numpy() == pytest.approx(np.array(values, float), nan_ok=True)
    assert len(table) == 2 + 3 + 1 + 4 + 4


def test_pairs_are_of_different_types_or_of_labels_and_covariates():
    kinds = np.array(["covariate", "label", "label", "code", "code", "mean", "mean", "count"])
    first, second = pairs_of(kinds)
    found = sorted(f"{kinds[i]} {kinds[j]}" for i, j in zip(first, second, strict=True))
    assert found == sorted(
        ["covariate label"] * 2
        + ["covariate code"] * 2
        + ["covariate mean"] * 2
        + ["covariate count", "label label"]
        + ["label code"] * 4
        + ["label mean"] * 4
        + ["label count"] * 2
        + ["code mean"] * 4
        + ["code count"] * 2
    )


def test_correlations_are_those_of_pandas():
    patients = Patients(small_cohort(90))
    found = features(patients, frequent_codes(patients))
    first, second = pairs_of(found.kinds)
    center = np.nanmean(found.values, axis=0)
    sums = sums_by_part(patients, found.values - center, (first, second))
    expected = pd.DataFrame(found.values).corr(min_periods=10).to_numpy()[first, second]
    assert pearson(sums.sum(axis=0)) == pytest.approx(expected, nan_ok=True)
    assert np.isfinite(expected).any()
    # All of a patient are in one part, and without it there are the others.
    part = np.random.default_rng(0).permutation(len(patients))[patients.patient] % len(sums)
    rest = pd.DataFrame(found.values[part != 3]).corr(min_periods=10).to_numpy()[first, second]
    assert pearson(sums.sum(axis=0) - sums[3]) == pytest.approx(rest, nan_ok=True)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 2, 40), rng.normal(5, 3, 40)
    without = [(x.sum() - x) / 39 for x in (one, other)]
    score = jackknifed(1.0, without, (-10.0, 10.0))
    error = np.sqrt(one.var(ddof=1) / 40 + other.var(ddof=1) / 40)
    assert score.high - score.low == pytest.approx(2 * 1.96 * error)
    bounded = jackknifed(1.0, without, (0.9, 1.1))
    assert (bounded.low, bounded.high) == (0.9, 1.1)


def test_frequent_codes_are_those_of_most_stays():
    patients = Patients(small_cohort(120))
    once = patients.cohort.codes.drop_duplicates(["stay_id", "system", "code"])
    counts = once.groupby(["system", "code"], observed=True).size()
    expected = {f"{system}:{code}" for (system, code), n in counts.items() if n >= 20}
    assert set(frequent_codes(patients)) == expected


def test_a_cohort_against_itself_has_the_same_correlations():
    cohort = small_cohort(90)
    found = measured(cohort, cohort)
    assert found.scores["across/difference"].value == pytest.approx(0)
    assert found.scores["across/agreement"].value == pytest.approx(1)
    table = found.tables["across_associations"]
    shock = table.query("a == 'septicemia' and kind_b == 'mean' and b == 'Heart Rate'")
    # The small cohort raises the heart rate of those with septicemia.
    assert shock["real"].item() > 0.8


def test_what_a_row_cannot_have_counts_as_no_association():
    cohort = small_cohort(90)
    bare = replace(cohort, measurements=cohort.measurements.iloc[:0])
    table = measured(bare, cohort).tables["across_associations"]
    series = table[table["kind_b"].isin(["mean", "count"])]
    assert len(series)
    assert (series["here"] == 0).all()


# Corruptions and two halves.


@pytest.fixture(scope="module")
def simulated(simulated_folder):
    """Three parts, without the later hours, which take long."""
    cohort = read_cohort(simulated_folder)
    rows = cohort.measurements
    rows = rows[rows["hours"] < 6].reset_index(drop=True)
    first, rest = halves(replace(cohort, measurements=rows), 0)
    return [first, *halves(rest, 1)]


def test_two_parts_are_as_far_from_a_third(simulated):
    train, one, other = (Patients(part) for part in simulated)
    found = compare(Bench(train, {"synthetic": one, "test": other}), [Across()], progress=False)
    rows = found.scores[found.scores["row"] == "synthetic"]
    assert (rows["light"] == "good").all()
    assert len(rows) == len(Across.scales)
    reference = found.scores[found.scores["row"] == "test"]["value"].to_numpy()
    assert (rows["low"] <= reference).all()
    assert (reference <= rows["high"]).all()


def labels_moved(cohort, dose, rng):
    """In a share of the stays, the labels are those of another."""
    stays = cohort.stays.copy()
    chosen = np.flatnonzero(rng.random(len(stays)) < dose)
    columns = [label.column for label in cohort.schema.labels]
    stays.loc[chosen, columns] = stays.loc[rng.permutation(chosen), columns].to_numpy()
    return replace(cohort, stays=stays)


@pytest.mark.parametrize("corrupt", [labels_moved, values_shuffled])
def test_faults_lower_the_agreement_with_the_dose(simulated, corrupt):
    first, second, _ = simulated
    found = [
        measured(corrupt(first, dose, np.random.default_rng(1)), second).scores
        for dose in (0.0, 0.3, 0.6, 1.0)
    ]
    for name, scale in Across.scales.items():
        worse = [-s[name].value if scale.goal == "high" else s[name].value for s in found]
        assert worse == sorted(worse)
    strong = Across.scales["across/strong"]
    reference = found[0]["across/strong"].value
    assert strong.light(found[-1]["across/strong"].value, reference) == "poor"
    assert found[-1]["across/strong"].low > found[0]["across/strong"].high


def test_independent_columns_have_nothing_in_common(simulated):
    first, second, _ = simulated
    apart = independent_columns(first, first.n_patients, 0)
    found = compare(bench(apart, second), [Across()], progress=False)
    assert found.value("across/agreement") < 0.2
    lights = found.scores[found.scores["row"] == "synthetic"]["light"]
    assert (lights == "poor").all()


# Any cohort.


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(cohorts(), st.integers(0, 3))
def test_any_two_cohorts_of_a_schema_can_be_measured(cohort, keep):
    subjects = cohort.stays["subject_id"].unique()
    part = cohort.select(subjects=subjects[: keep + 1])
    for one, other in ((part, cohort), (cohort, part)):
        found = measured(one, other)
        assert set(found.scores) == set(Across.scales)
        # There are too few stays to tell anything.
        assert all(np.isnan(score.value) for score in found.scores.values())
