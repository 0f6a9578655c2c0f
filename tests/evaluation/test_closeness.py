import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial.distance import cdist

from synehrgy.evaluation.closeness import (
    Scaler,
    Space,
    nearest,
    nearest_codes,
    of_patients,
    vocabulary_of,
)
from synehrgy.evaluation.patients import Patients
from tests.cohorts import small_cohort

code_sets = st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=6)


def matrix(sets):
    dense = np.zeros((len(sets), 6), dtype=np.float32)
    for row, found in enumerate(sets):
        dense[row, list(found)] = 1
    return sparse.csr_matrix(dense)


@given(code_sets, code_sets)
def test_nearest_codes_against_a_loop(sets, pool):
    found = nearest_codes(matrix(sets), matrix(pool))
    for i, mine in enumerate(sets):
        assert found.difference[i] == min(len(mine ^ other) for other in pool)
        shares = [len(mine & other) / len(mine | other) if mine | other else 0 for other in pool]
        assert found.jaccard[i] == pytest.approx(max(shares))
        if max(shares):
            assert shares[found.row[i]] == pytest.approx(max(shares))
        else:
            assert found.row[i] == -1


def test_nearest_points():
    rng = np.random.default_rng(0)
    points, pool = (rng.normal(size=(n, 3)).astype(np.float32) for n in (7, 9))
    distance, row = nearest(points, pool)
    every = cdist(points, pool)
    np.testing.assert_allclose(distance, every.min(axis=1), atol=1e-4)
    assert row.tolist() == every.argmin(axis=1).tolist()
    others = cdist(points, points) + np.diag(np.full(7, np.inf))
    np.testing.assert_allclose(nearest(points)[0], others.min(axis=1), atol=1e-4)
    assert nearest(pool, pool)[0].tolist() == [0] * 9
    assert np.isinf(nearest(points, pool[:0])[0]).all()


def test_scaler_ignores_what_is_missing():
    values = np.array([[1.0, np.nan, 2.0], [3.0, np.nan, 2.0], [np.nan, np.nan, 2.0]])
    scaler = Scaler(values)
    np.testing.assert_allclose(scaler(values), [[-1, 0, 0], [1, 0, 0], [0, 0, 0]])
    assert scaler(np.array([[100.0, 0.0, 2.0]]))[0, 0] == 5
    assert scaler(np.array([[100.0, 0.0, 2.0]]), clip=False)[0, 0] == 98


def test_parts_weigh_the_same_and_copies_are_in_one_place():
    train, test = Patients(small_cohort(60, 1)), Patients(small_cohort(60, 2))
    space = Space([train, test], 0)
    here = [space.locate(p) for p in (train, test)]
    for part in ("facts", "codes", "series"):
        spread = np.vstack([getattr(x, part) for x in here]).var(axis=0).sum()
        assert spread == pytest.approx(1.0, rel=1e-3)
    np.testing.assert_array_equal(space.locate(Patients(small_cohort(60, 1))).whole, here[0].whole)
    assert nearest(here[1].whole, here[0].whole)[0].min() > 0


def test_of_patients_takes_the_greatest():
    patients = Patients(small_cohort(20, 0))
    values = np.random.default_rng(0).random(len(patients.stays))
    expected = pd.Series(values).groupby(patients.stays["subject_id"].to_numpy()).max()
    np.testing.assert_array_equal(of_patients(patients, values), expected)


def test_vocabulary_is_the_union():
    one, other = Patients(small_cohort(3, 0)), Patients(small_cohort(3, 1))
    expected = sorted(set(one.coded["code"]) | set(other.coded["code"]))
    assert vocabulary_of([one, other]).tolist() == expected
