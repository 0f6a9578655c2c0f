"""A draw belongs to (seed, stream, record, position) and to nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from synehrgy.draws import uniforms

GRID = (np.arange(200)[:, None], np.arange(100))
integers = st.integers(0, 2**62)


@given(seed=st.integers(-(2**70), 2**70), stream=integers, record=integers, position=integers)
def test_draws_lie_in_the_open_interval(seed, stream, record, position):
    assert 0 < uniforms(seed, stream, record, position) < 1


@pytest.mark.parametrize("bits", [0, 2**64 - 1])
def test_the_most_extreme_bits_give_neither_0_nor_1(monkeypatch, bits):
    monkeypatch.setattr("synehrgy.draws._mix", lambda x: np.full_like(x, bits))
    drawn = uniforms(0, 0, np.arange(3), 0)
    assert np.all((drawn > 0) & (drawn < 1))


@given(
    record=hnp.arrays(np.int64, st.integers(1, 20), elements=integers),
    position=integers,
    seed=integers,
)
def test_a_draw_does_not_depend_on_the_batch_it_is_in(record, position, seed):
    together = uniforms(seed, 1, record, position)
    alone = [float(uniforms(seed, 1, r, position)) for r in record]
    assert together.tolist() == alone
    assert np.array_equal(together[::-1], uniforms(seed, 1, record[::-1], position))


@pytest.mark.parametrize(
    ("record", "position", "shape"),
    [
        (3, 5, ()),
        (np.arange(4), 5, (4,)),
        (np.arange(4)[:, None], np.arange(6), (4, 6)),
        (np.arange(0), 5, (0,)),
        ([1, 2], [3, 4], (2,)),
    ],
)
def test_shapes_broadcast(record, position, shape):
    assert np.shape(uniforms(0, 0, record, position)) == shape


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int32, np.uint64])
def test_the_type_of_the_integers_does_not_matter(kind):
    expected = uniforms(1, 2, np.arange(50), 3)
    assert np.array_equal(uniforms(1, 2, np.arange(50, dtype=kind), kind(3)), expected)


def test_arguments_are_not_exchangeable():
    drawn = [uniforms(*numbers) for numbers in [(1, 2, 3, 4), (1, 2, 4, 3), (1, 3, 2, 4)]]
    drawn += [uniforms(*numbers) for numbers in [(2, 1, 3, 4), (0, 0, 0, 0), (0, 0, 0, 1)]]
    assert len({float(x) for x in drawn}) == len(drawn)


def test_no_two_draws_of_a_run_are_equal():
    drawn = np.stack([uniforms(0, stream, *GRID) for stream in range(3)])
    assert len(np.unique(drawn)) == drawn.size


@pytest.mark.parametrize("seed", [0, 1, 2**63])
@pytest.mark.parametrize("stream", [0, 1])
def test_draws_are_uniform(seed, stream):
    assert stats.kstest(uniforms(seed, stream, *GRID).ravel(), "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, 0, *GRID), (0, 1, *GRID)),
        ((0, 0, *GRID), (1, 0, *GRID)),
        ((0, 0, *GRID), (0, 0, GRID[0] + 1, GRID[1])),
        ((0, 0, *GRID), (0, 0, GRID[0], GRID[1] + 1)),
    ],
    ids=["streams", "seeds", "records", "positions"],
)
def test_neighbours_are_independent(one, other):
    a, b = uniforms(*one).ravel(), uniforms(*other).ravel()
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(a.size)
    # The pair must fill the square too, not only be uncorrelated.
    counts = np.histogram2d(a, b, bins=10, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(counts.ravel()).pvalue > 0.001
