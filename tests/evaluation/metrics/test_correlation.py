"""Correlations of series: by independent computations, and of cohorts that are off in one way."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.evaluation.blocks import limits
from synehrgy.evaluation.metrics.correlation import Correlation, carried_forward
from tests.cohorts import cohorts
from tests.evaluation.metrics.timeseries import (
    bench,
    changed,
    check_any,
    check_dose_response,
    check_halves,
    check_same,
    thirds,
)

METRIC = Correlation()


@pytest.fixture(scope="module")
def made(simulated_folder):
    train, other, _ = thirds(simulated_folder)
    return bench(train, other)


@pytest.fixture(scope="module")
def found(made):
    return METRIC.measure(made, "synthetic")


def frames(made, clipped):
    """Real and found grids as data frames by stay and hours."""
    low, high = limits(made.train)
    for patients in (made.train, made.equal["synthetic"]):
        grid = patients.grid
        names = [v.name for v in patients.schema.variables]
        values = pd.DataFrame(grid.values.astype(float), columns=names)
        values = values.clip(low, high) if clipped else values
        yield patients, values, grid


def lower(matrix):
    return matrix.to_numpy()[np.tril_indices(len(matrix), -1)]


def test_published_form_is_that_of_pandas(made, found):
    matrices = []
    for patients, values, grid in frames(made, clipped=False):
        first = patients.stays["stay_index"].to_numpy()[grid.stay] == 0
        values = values.iloc[:, patients.continuous][first & (grid.hours < 48)]
        filled = values.groupby(grid.stay[values.index]).ffill(limit=6)
        matrices.append(filled.corr(min_periods=100))
    one, other = (lower(m) for m in matrices)
    difference = found.scores["published/correlation/difference"].value
    assert difference == pytest.approx(np.nanmean(np.abs(one - other)), abs=1e-6)
    cuts = [-1.01, -0.5, -0.2, 0.2, 0.5, 1.01]
    confusion = pd.crosstab(*(pd.cut(x, cuts, right=False, labels=False) for x in (one, other)))
    confusion = confusion.reindex(index=range(5), columns=range(5), fill_value=0).to_numpy()
    table = found.tables["correlation_confusion"]
    assert (table["pairs"].to_numpy() == confusion.ravel()).all()
    share = np.trace(confusion) / confusion.sum()
    assert found.scores["published/correlation/confusion"].value == pytest.approx(share)


@pytest.mark.parametrize("kind", ["within", "between"])
def test_corrected_form_is_that_of_pandas(made, found, kind):
    matrices, pairs = [], []
    for _, values, grid in frames(made, clipped=True):
        by_stay = values.groupby(grid.stay)
        deviations = (values - by_stay.transform("mean")).where(by_stay.transform("count") > 1)
        values = by_stay.mean() if kind == "between" else deviations
        matrices.append(values.corr())
        there = values.notna().astype(float)
        pairs.append(there.T @ there)
    one, other, weight = lower(matrices[0]), lower(matrices[1]), lower(pairs[0])
    table = found.tables["correlation_matrix"]
    table = table[table["kind"] == kind]
    assert np.allclose(table[["real", "found"]].T, [one, other], atol=1e-6, equal_nan=True)
    assert (table["pairs_found"].to_numpy() == lower(pairs[1])).all()
    one, other, weight = (x[weight >= 100] for x in (one, other, weight))
    assert len(one) > 20
    error = np.sqrt(np.average((one - other) ** 2, weights=weight))
    assert found.scores[f"correlation/{kind}"].value == pytest.approx(error, abs=1e-6)
    covariance = np.cov(one, other, aweights=weight)
    agreement = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert found.scores[f"correlation/{kind}_agreement"].value == pytest.approx(agreement)


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(-5, 5)), max_size=40))
def test_values_are_carried_forward_as_by_pandas(points):
    frame = pd.DataFrame(sorted(points, key=lambda x: x[0]), columns=["stay", "x"], dtype=float)
    expected = frame.groupby("stay")[["x"]].ffill(limit=6)
    stay = frame["stay"].to_numpy(np.int64)
    filled = carried_forward(frame[["x"]].to_numpy(float), stay)
    assert np.array_equal(filled, expected.to_numpy(float), equal_nan=True)


def test_a_missing_series_counts_as_uncorrelated(made, found):
    row = changed(made.rows["synthetic"].cohort, lambda x: x[x["variable"] != "Hematocrit"])
    gone = METRIC.measure(bench(made.train.cohort, row), "synthetic")
    for kind in ("within", "between"):
        assert gone.scores[f"correlation/{kind}"].value > (
            found.scores[f"correlation/{kind}"].value + 0.03
        )


def exchanged(rows, share, keys):
    """A share of the values of hemoglobin and mean pressure change places within the keys."""
    rng = np.random.default_rng(0)
    mine = rows["variable"].isin(["Hemoglobin", "Mean blood pressure"])
    chosen = rows[mine & (rng.random(len(rows)) < share)]
    mixed = chosen.iloc[rng.permutation(len(chosen))].sort_values(keys, kind="stable").index
    rows.loc[chosen.sort_values(keys, kind="stable").index, "value"] = rows.loc[
        mixed, "value"
    ].to_numpy()
    return rows


def in_stays(rows, share):
    return exchanged(rows, share, ["variable", "stay_id"])


def between_stays(rows, share):
    return exchanged(rows, share, ["variable"])


@pytest.mark.parametrize(
    ("score", "change", "sizes"),
    [
        ("within", in_stays, (0.15, 0.4, 1.0)),
        ("within_agreement", in_stays, (0.15, 0.4, 1.0)),
        ("between", between_stays, (0.3, 0.6, 1.0)),
        ("between_agreement", between_stays, (0.3, 0.6, 1.0)),
    ],
)
def test_what_is_off_is_seen(simulated_folder, score, change, sizes):
    check_dose_response(METRIC, simulated_folder, f"correlation/{score}", change, sizes)


def test_parts_of_one_cohort_pass(simulated_folder):
    check_halves(METRIC, simulated_folder)
    check_same(METRIC, simulated_folder)


@settings(max_examples=25)
@given(cohorts())
def test_any_cohorts(cohort):
    check_any(METRIC, cohort)
