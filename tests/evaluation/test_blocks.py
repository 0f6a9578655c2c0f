"""Sums over blocks of patients, and distances that are resampled by them."""

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from synehrgy.evaluation import blocks
from synehrgy.evaluation.kept import kept
from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.patients import Patients
from tests.cohorts import small_cohort

WHOLE = np.ones((1, 1))
numbers = st.lists(st.integers(-20, 20), min_size=1, max_size=60).map(np.array)


def patients(n=60):
    return Patients(small_cohort(n))


def apart(real, found):
    ks, area = blocks.distance(np.sort(real), found, np.zeros(len(found), dtype=int), WHOLE)
    return ks[0], area[0]


def ks_by_definition(one, other):
    return max(abs((one <= x).mean() - (other <= x).mean()) for x in [*one, *other])


@given(numbers, numbers)
def test_distances_are_those_of_their_definitions(real, found):
    ks, area = apart(real, found)
    assert ks == pytest.approx(ks_by_definition(real, found))
    assert area == pytest.approx(wasserstein_distance(real, found))


@given(numbers, numbers)
def test_distances_are_symmetric_and_move_with_the_unit(real, found):
    assert apart(real, found) == pytest.approx(apart(found, real))
    ks, area = apart(real, found)
    assert apart(2 * real + 5, 2 * found + 5) == pytest.approx((ks, 2 * area))


@given(numbers, numbers, st.integers(0, 99))
def test_distances_of_resamples_are_those_of_the_drawn_values(real, found, seed):
    """Of so few distinct values those of resamples are exact, too."""
    rng = np.random.default_rng(seed)
    block = rng.integers(0, 4, size=len(found))
    weights = np.vstack([np.ones(4), rng.integers(0, 3, size=(3, 4))])
    ks, area = blocks.distance(np.sort(real), found, block, weights)
    for i, line in enumerate(weights):
        drawn = np.repeat(found, line[block].astype(int))
        if not len(drawn):
            assert np.isnan([ks[i], area[i]]).all()
            continue
        assert ks[i] == pytest.approx(ks_by_definition(real, drawn))
        assert area[i] == pytest.approx(wasserstein_distance(real, drawn))


def test_nothing_is_as_far_as_can_be_from_something():
    none, some, no_block = np.zeros(0), np.arange(3.0), np.zeros(0, dtype=int)
    ks, area = blocks.distance(some, none, no_block, WHOLE)
    assert ks[0] == 1
    assert np.isnan(area[0])
    assert np.isnan(blocks.distance(none, some, np.zeros(3, dtype=int), WHOLE)).all()
    assert blocks.total_variation(np.array([1, 1]), np.zeros((1, 2)))[0] == 1
    assert np.isnan(blocks.total_variation(np.zeros(2, dtype=int), np.ones((1, 2)))[0])


@pytest.mark.parametrize("most", [7, 200])
def test_blocks_are_of_whole_patients(most):
    some = patients()
    block = blocks.block_of_stay(some, most)
    sizes = [len(set(some.patient[block == i])) for i in range(blocks.n_blocks(some, most))]
    assert sum(sizes) == len(some)
    assert max(sizes) - min(sizes) <= 1
    assert (np.diff(block) >= 0).all()
    parts = list(blocks.point_blocks(some, most))
    assert [len(some.grid.hours[part]) for part in parts] == [
        (block[some.grid.stay] == i).sum() for i in range(len(sizes))
    ]


def test_first_line_of_the_weights_is_the_sample():
    some = patients()
    bench = Bench(some, {"synthetic": some, "test": some}, Effort(n_resamples=5), seed=3)
    weights = blocks.block_weights(some, bench)
    assert weights.shape == (6, 60)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 60).all()
    assert np.array_equal(weights, blocks.block_weights(some, bench))


def test_resampled_sums_are_weighted_sums():
    rng = np.random.default_rng(0)
    weights, one, two = rng.random((70, 5)), rng.random((5, 2, 3)), rng.random(5)
    found = list(blocks.resampled(weights, one, two))
    assert np.allclose([x for x, _ in found], np.tensordot(weights, one, axes=1))
    assert np.allclose([x for _, x in found], weights @ two)


def test_moments_do_not_hang_on_wild_values():
    cohort = small_cohort(300)
    plain = Patients(cohort)
    rows = cohort.measurements.copy()
    pulse = np.flatnonzero(rows["variable"] == "Heart Rate")
    rows.loc[pulse[0], "value"] = 1e6
    wild = Patients(type(cohort)(cohort.schema, cohort.stays, cohort.codes, rows))
    names = [v.name for v in cohort.schema.variables]
    place = names.index("Heart Rate")
    values = cohort.measurements.loc[pulse, "value"]
    mean, sd = (x[place] for x in blocks.moments(plain))
    assert mean == pytest.approx(values.mean(), rel=1e-5)
    assert sd == pytest.approx(values.std(), rel=1e-5)
    assert blocks.moments(wild)[1][place] == pytest.approx(sd, rel=0.02)


def test_patients_with_a_series_are_counted():
    some = patients()
    rows = some.cohort.measurements.merge(some.stays[["stay_id", "subject_id"]], on="stay_id")
    expected = rows.groupby("variable", observed=True)["subject_id"].nunique()
    names = [v.name for v in some.schema.variables]
    assert (blocks.patients_with(some) == expected[names]).all()


def test_what_was_computed_is_kept_as_long_as_the_patients():
    calls = []

    @kept
    def size(some):
        calls.append(len(some))
        return len(some)

    some = patients(5)
    assert size(some) == size(some) == 5
    assert calls == [5]
    del some
    gc.collect()
    size(patients(6))
    assert calls == [5, 6]


def test_means_leave_out_what_is_not_defined():
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    assert blocks.mean_of(values)[0] == 2
    assert blocks.mean_of(values, np.array([3.0, 1.0]))[0] == 1.5
    assert np.isnan(blocks.mean_of(values)[1])
    assert blocks.worst_of(values)[0] == 3
    assert np.isnan(blocks.worst_of(values)[1])
    assert np.isnan(blocks.worst_of(values[:0])).all()
