"""Series measured together: by counting, and of cohorts that are off in one way."""

import numpy as np
import pytest
from hypothesis import given, settings

from synehrgy.evaluation.metrics.co_observation import CoObservation
from tests.cohorts import cohorts
from tests.evaluation.metrics.timeseries import (
    check_any,
    check_dose_response,
    check_halves,
    check_same,
    small_bench,
)

METRIC = CoObservation()


def shares(patients, early):
    """Of all ordered pairs of series: shares of time points with both, and given the first."""
    rows = patients.cohort.measurements
    names = [v.name for v in patients.schema.variables]
    if early:
        first = patients.stays.loc[patients.stays["stay_index"] == 0, "stay_id"]
        rows = rows[rows["stay_id"].isin(first) & (rows["hours"] < 48)]
        names = [v.name for v in patients.schema.variables_of("continuous")]
    points = {}
    for x in rows.itertuples():
        points.setdefault((x.stay_id, x.hours), set()).add(x.variable)
    sets = list(points.values())
    both = np.array([[sum(a in s and b in s for s in sets) for b in names] for a in names])
    return both / len(sets), both / np.diag(both)[:, None]


def test_shares_are_counted():
    made = small_bench()
    found = METRIC.measure(made, "synthetic")
    one, other = made.train, made.equal["synthetic"]
    joint, conditional = (
        np.array(x) for x in zip(shares(one, False), shares(other, False), strict=True)
    )
    table = found.tables["co_observation_matrix"]
    assert np.allclose(table[["real", "found"]].T, joint.reshape(2, -1))
    columns = ["conditional_real", "conditional_found"]
    assert np.allclose(table[columns].T, conditional.reshape(2, -1))
    n = joint.shape[1]
    off = np.abs(joint[0] - joint[1])[np.tril_indices(n, -1)].mean()
    assert found.scores["co_observation/joint"].value == pytest.approx(off)
    off = np.abs(conditional[0] - conditional[1])[~np.eye(n, dtype=bool)].mean()
    assert found.scores["co_observation/conditional"].value == pytest.approx(off)
    squared = (shares(one, True)[0] - shares(other, True)[0]) ** 2
    assert found.scores["published/co_observation/mse"].value == pytest.approx(squared.mean())


def apart(rows, share):
    """A share of the values move by a minute: as often measured, but not together."""
    moved = np.random.default_rng(0).random(len(rows)) < share
    return rows.assign(hours=rows["hours"] + np.where(moved, 1 / 61, 0))


@pytest.mark.parametrize("score", ["joint", "conditional"])
def test_what_is_off_is_seen(simulated_folder, score):
    name = f"co_observation/{score}"
    check_dose_response(METRIC, simulated_folder, name, apart, (0.02, 0.1, 0.4))


def test_parts_of_one_cohort_pass(simulated_folder):
    check_halves(METRIC, simulated_folder)
    check_same(METRIC, simulated_folder)


@settings(max_examples=25)
@given(cohorts())
def test_any_cohorts(cohort):
    check_any(METRIC, cohort)
