"""Agreement of frequencies, beside the libraries that compute it for one sample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import r2_score

from synehrgy.evaluation import agreement

RNG = np.random.default_rng(0)
REAL = RNG.integers(0, 20, 40) / 20.0
FOUND = RNG.integers(0, 20, (5, 40)) / 20.0

CASES = [
    (agreement.pearson, lambda x, y: stats.pearsonr(x, y)[0]),
    (agreement.spearman, lambda x, y: stats.spearmanr(x, y)[0]),
    (agreement.r_squared, r2_score),
    (agreement.js_distance, lambda x, y: jensenshannon(x, y, base=2)),
]


@pytest.mark.parametrize(("score", "library"), CASES)
def test_each_resample_is_scored_as_by_the_library(score, library):
    expected = [library(REAL, found) for found in FOUND]
    assert score(REAL, FOUND) == pytest.approx(expected)


@pytest.mark.parametrize(("score", "expected"), [(s, s != agreement.js_distance) for s, _ in CASES])
def test_equal_frequencies_agree(score, expected):
    assert score(REAL, REAL[None]) == pytest.approx([float(expected)], abs=1e-7)


def test_twice_the_frequency_is_correlated_but_not_equal():
    assert agreement.pearson(REAL, 2 * REAL[None]) == pytest.approx([1])
    assert agreement.r_squared(REAL, 2 * REAL[None])[0] < 0


def test_nothing_in_common_is_the_greatest_distance():
    assert agreement.js_distance(np.array([1.0, 0]), np.array([[0, 3.0]])) == pytest.approx([1])


_few = st.lists(st.sampled_from([0.0, 0.1, 0.3, 1.0]), max_size=4)


@given(_few, st.data())
def test_any_frequencies_have_a_score_or_none(real, data):
    same = st.lists(st.sampled_from([0.0, 0.1, 0.3]), min_size=len(real), max_size=len(real))
    rows = data.draw(st.lists(same, min_size=1, max_size=3))
    found = np.array(rows).reshape(len(rows), len(real))
    with np.errstate(all="raise"):
        for score, _ in CASES:
            values = score(np.array(real), found)
            assert values.shape == (len(found),)
            low = -np.inf if score is agreement.r_squared else -1
            assert all(np.isnan(x) or low <= x <= 1 + 1e-9 for x in values)
