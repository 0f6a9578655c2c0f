"""Precision, recall, density, coverage: by their definitions, and what they see."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.metrics.manifold import Manifold, Space, prdc
from synehrgy.evaluation.patients import Patients
from tests.cohorts import cohorts
from tests.evaluation.metrics.zipf import bench_for, lights, zipf_cohort

FOUR = ("precision", "recall", "density", "coverage")


@pytest.fixture(scope="module")
def train():
    return zipf_cohort(400, 1)


@pytest.fixture(scope="module")
def other():
    return zipf_cohort(400, 2)


def values(train, synthetic):
    found = Manifold().measure(bench_for(train, synthetic, quick=True), "synthetic")
    return {name: score.value for name, score in found.scores.items()}


def by_definition(real, other, k):
    """The four of Naeem et al., pair by pair."""

    def distance(a, b):
        return np.sqrt(np.sum((a - b) ** 2))

    def radii(points):
        return [
            sorted(distance(p, q) for j, q in enumerate(points) if j != i)[k - 1]
            for i, p in enumerate(points)
        ]

    between = [[distance(r, o) for o in other] for r in real]
    of_real, of_other = radii(real), radii(other)
    n, m = range(len(real)), range(len(other))
    in_real = [[between[i][j] < of_real[i] for j in m] for i in n]
    in_other = [[between[i][j] < of_other[j] for j in m] for i in n]
    return {
        "precision": np.mean([any(in_real[i][j] for i in n) for j in m]),
        "recall": np.mean([any(in_other[i][j] for j in m) for i in n]),
        "density": np.mean([sum(in_real[i][j] for i in n) / k for j in m]),
        "coverage": np.mean([min(between[i]) < of_real[i] for i in n]),
    }


@given(st.integers(0, 50), st.integers(3, 25), st.integers(3, 25), st.integers(1, 5))
def test_prdc_is_that_of_the_definition(seed, n, m, k):
    rng = np.random.default_rng(seed)
    real, other = rng.normal(size=(n, 3)), rng.normal(0.5, 0.7, size=(m, 3))
    k = min(k, n - 1, m - 1)
    found, expected = prdc(real, other, k), by_definition(real, other, k)
    assert {name: getattr(found, name).mean() for name in FOUR} == pytest.approx(expected)


def test_more_rows_than_are_taken_at_once():
    rng = np.random.default_rng(0)
    real, other = rng.normal(size=(1203, 2)), rng.normal(size=(700, 2))
    found = prdc(real, other)
    order = rng.permutation(1203)
    again = prdc(real[order], other)
    for name in ("precision", "density"):
        assert np.array_equal(getattr(found, name), getattr(again, name))
    for name in ("recall", "coverage"):
        assert np.array_equal(getattr(found, name)[order], getattr(again, name))


def test_patients_in_the_same_place_are_near_each_other():
    """As many are who have no value at all: their neighbourhood has no extent."""
    places = np.repeat(np.random.default_rng(0).normal(size=(3, 200)), 8, axis=0)
    found = prdc(places, places[::-1], slack=1e-4)
    assert [getattr(found, name).mean() for name in ("precision", "recall", "coverage")] == [1] * 3
    assert prdc(places, places + 1.0, slack=1e-4).precision.mean() == 0


def test_two_samples_of_one_population_pass(train, other):
    bench = bench_for(train, other, zipf_cohort(400, 3), quick=True)
    assert set(lights(Manifold(), bench).values()) == {"good", None}
    found = Manifold().measure(bench, "synthetic").scores
    assert found["manifold/coverage"].value > 0.9
    assert found["manifold/density"].low <= 1 <= found["manifold/density"].high


def test_a_copy_of_train_covers_all_of_it(train):
    found = Manifold().measure(bench_for(train, train), "train").scores
    for name in ("precision", "recall", "coverage"):
        assert found[f"manifold/{name}"].value == 1


def changed(cohort, series, change):
    rows = cohort.measurements
    mine = (rows["variable"] == series).to_numpy()
    value = rows["value"].to_numpy().copy()
    value[mine] = change(value[mine])
    return replace(cohort, measurements=rows.assign(value=value))


def test_a_shifted_series(train, other):
    found = [
        values(train, changed(other, "Heart Rate", lambda x, by=by: x + by))
        for by in (0.0, 15.0, 30.0, 60.0)
    ]
    for name in ("precision", "density", "coverage"):
        assert np.all(np.diff([x[f"manifold/{name}"] for x in found]) < 0)
    # Each set standardised by itself: a shift of everybody is not there.
    published = [[x[f"published/manifold/{name}"] for name in FOUR] for x in found]
    for shifted in published[1:]:
        assert shifted == pytest.approx(published[0], abs=0.01)


def test_smaller_spread(train, other):
    """All values are drawn towards the mean of their series: the patients are all the same."""

    def narrowed(share):
        found = other
        for series in ("Heart Rate", "Lactate", "pH"):
            found = changed(found, series, lambda x: x.mean() + (1 - share) * (x - x.mean()))
        return values(train, found)

    found = [narrowed(share) for share in (0.0, 0.4, 0.7, 0.95)]
    for name in ("recall", "coverage"):
        assert np.all(np.diff([x[f"manifold/{name}"] for x in found]) < 0)


def test_a_lost_group(train):
    """Patients of a high heart rate are replaced by others: each is as plausible as before."""
    pool = zipf_cohort(1500, 2)
    rows = pool.measurements[pool.measurements["variable"] == "Heart Rate"]
    subject = rows["stay_id"].map(pool.stays.set_index("stay_id")["subject_id"])
    ordered = rows.groupby(subject)["value"].mean().sort_values().index

    def lost(share):
        kept = np.random.default_rng(0).permutation(ordered[: int((1 - share) * len(ordered))])
        return values(train, pool.select(subjects=kept[:400].tolist()))

    found = [lost(share) for share in (0.0, 0.25, 0.5, 0.7)]
    assert np.all(np.diff([x["manifold/coverage"] for x in found]) < 0)
    assert found[-1]["manifold/precision"] > 0.9


def test_series_that_are_never_measured(train, other):
    """A mean is put where there is no value, and hides that there is none."""
    rng = np.random.default_rng(0)

    def dropped(share):
        stays = rng.permutation(other.stays["stay_id"])[: int(share * len(other.stays))]
        rows = other.measurements
        gone = rows["stay_id"].isin(stays) & (rows["variable"] != "Rhythm")
        return values(train, replace(other, measurements=rows[~gone].reset_index(drop=True)))

    found = [dropped(share)["manifold/precision"] for share in (0.0, 0.3, 0.6, 1.0)]
    assert np.all(np.diff(found) < 0)
    assert found[-1] < 0.1


def test_places_are_in_units_of_train():
    nan = np.nan
    one = np.array([[1.0, 2, 3, 4], [3.0, 2, 5, nan], [nan, 2, nan, nan]])
    space = Space.of(one)
    found = space.place(np.array([[2.0, 2, 4, 9], [4.0, 3, nan, nan], [nan] * 4]))
    # Mean 2 and deviation 1; always the same, so without unit; mean 4 and deviation 1; one value.
    expected = [[0, 0, 0, 5, 0], [2, 1, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert found == pytest.approx(np.array(expected, dtype=float))


def test_the_map_has_the_directions_in_which_train_patients_differ_most(train, other):
    found = Manifold().measure(bench_for(train, other), "train").tables["manifold_map"]
    covariance = np.cov(found.T)
    assert covariance[0, 1] == pytest.approx(0, abs=1e-8)
    embedding = Patients(train).first.embedding
    eigenvalues = np.linalg.eigvalsh(np.cov(Space.of(embedding).place(embedding).T))
    assert np.diag(covariance) == pytest.approx(eigenvalues[:-3:-1])


def test_neighbours_stay_neighbours_on_the_other_map(train, other):
    far = changed(other, "Heart Rate", lambda x: x + 500)
    tables = Manifold().measure(bench_for(train, far, n_resamples=2), "synthetic").tables
    layout = tables["manifold_tsne"]
    assert layout["side"].value_counts().to_dict() == {"train": 400, "measured": 400}
    at = layout[["x", "y"]].to_numpy()
    distance = np.linalg.norm(at[:, None] - at[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    side = layout["side"].to_numpy()
    assert np.mean(side[distance.argmin(axis=1)] == side) > 0.95


def test_the_published_form_chooses_patients_anew(train):
    few = Patients(zipf_cohort(400, 2)).sample(150, 0).cohort
    found = Manifold().measure(bench_for(train, few, n_resamples=2), "synthetic").scores
    score = found["published/manifold/coverage"]
    assert score.low < score.value < score.high
    everybody = Manifold().measure(bench_for(train, train, n_resamples=2), "train").scores
    assert np.isnan(everybody["published/manifold/coverage"].low)


def test_the_same_seed_gives_the_same(train):
    few = bench_for(train, zipf_cohort(60, 2))
    one, two = (Manifold().measure(few, "synthetic") for _ in range(2))
    assert len(one.tables["manifold_tsne"]) == 120
    assert one.scores == two.scores
    for name, table in one.tables.items():
        pd.testing.assert_frame_equal(table, two.tables[name])


@settings(max_examples=40)
@given(cohort=cohorts())
def test_any_cohort_can_be_measured(cohort):
    patients = Patients(cohort)
    half = patients.sample(max(len(patients) // 2, 1), 0)
    bench = Bench(patients, {"synthetic": half, "test": patients}, Effort(n_resamples=5))
    metric = Manifold()
    if metric.lacks(bench):
        return
    found = metric.measure(bench, "synthetic")
    assert set(found.scores) == set(metric.scales)
    for name, score in found.scores.items():
        low, high = metric.scales[name].bounds
        assert np.isnan(score.value) or low <= score.value <= high
