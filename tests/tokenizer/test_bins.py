"""Bins as published: (edges[i], edges[i + 1]], fitted on equal width or equal counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from synehrgy.errors import UserError
from synehrgy.tokenizer.bins import draw_values, find_bins, fit_edges

finite = st.floats(-1e300, 1e300)
values_of = hnp.arrays(np.float64, st.integers(1, 60), elements=finite)
# The ends are as near to 0 and 1 as numbers get.
uniform = st.floats(0, 1, exclude_min=True, exclude_max=True) | st.sampled_from(
    [5e-324, 2.0**-53, 1 - 2.0**-53]
)


@pytest.mark.parametrize(
    ("distinct", "n_bins", "expected"),
    [
        *((1, 10, 1), (4, 10, 1), (9, 10, 1), (10, 10, 2), (49, 10, 9), (50, 10, 10)),
        *((500, 10, 10), (500, 3, 3), (500, 1, 1)),
    ],
)
@pytest.mark.parametrize("bin_type", ["uniform", "quantile"])
def test_a_fifth_of_the_distinct_values_bounds_the_bins(distinct, n_bins, expected, bin_type):
    values = np.repeat(np.arange(distinct), 3)
    assert len(fit_edges(values, bin_type, n_bins, False)) - 1 == expected


def test_uniform_bins_have_equal_width():
    edges = fit_edges(np.linspace(-2, 8, 101), "uniform", 10, False)
    assert edges == pytest.approx(np.arange(-2, 9))


def test_quantile_bins_have_equal_counts():
    values = np.random.default_rng(0).lognormal(size=1000)
    edges = fit_edges(values, "quantile", 10, False)
    # The smallest value is the open edge, and belongs to the first bin all the same.
    assert np.bincount(find_bins(values, edges)).tolist() == [100] * 10


def test_equal_quantiles_are_merged():
    # 70 % of the values are 0: seven of the ten bins have no width.
    values = np.concatenate([np.zeros(700), np.linspace(1, 30, 300)])
    edges = fit_edges(values, "quantile", 10, False)
    assert np.all(np.diff(edges) > 0)
    assert len(edges) - 1 < 10
    assert edges[0] == 0
    assert edges[-1] == 30


@pytest.mark.parametrize("bin_type", ["uniform", "quantile"])
@pytest.mark.parametrize("rule", [True, False])
@pytest.mark.parametrize("values", [[7.0], [7.0] * 50, [-0.0, 0.0]])
def test_equal_values_make_one_bin_that_gives_the_value_back(values, bin_type, rule):
    edges = fit_edges(values, bin_type, 10, rule)
    assert edges.tolist() == [values[0]] * 2
    assert find_bins([*values, -1e9, 1e9], edges).tolist() == [0] * (len(values) + 2)
    assert draw_values(np.zeros(1, dtype=int), edges, np.array([0.3])).tolist() == [values[0]]


def test_a_far_tail_is_left_out_on_its_side_only():
    body = np.linspace(100, 200, 999)
    assert fit_edges([*body, 1e6], "uniform", 10, True)[-1] < 200
    assert fit_edges([*body, 1e6], "uniform", 10, True)[0] == 100
    assert fit_edges([*body, -1e6], "uniform", 10, True)[0] > 100
    assert fit_edges([*body, -1e6], "uniform", 10, True)[-1] == 200
    assert fit_edges([*body, 1e6], "uniform", 10, False)[-1] == 1e6


def test_the_outlier_rule_is_the_published_one():
    # By hand: q2.5, q50, q97.5 of 0 ... 1000 are 25, 500, 975. The limit above is
    # 975 + 3 * (975 - 500) = 2400, where the quantiles hardly move with one more value.
    body = np.arange(1001.0)
    for top, kept in ((2390.0, True), (2410.0, False)):
        values = np.append(body[:-1], top)
        middle, high = np.quantile(values, [0.5, 0.975])
        assert (top - high <= 3 * (high - middle)) == kept
        edges = fit_edges(values, "uniform", 10, True)
        assert edges[-1] == (top if kept else body[body <= high].max())
        assert edges[0] == 0


def test_values_beyond_the_edges_belong_to_the_outer_bins():
    edges = np.array([0.0, 1.0, 2.0])
    assert find_bins([-5, 0, 1, 1.5, 2, 99], edges).tolist() == [0, 0, 0, 1, 1, 1]


def test_bins_are_open_on_the_left_and_closed_on_the_right():
    edges = np.array([0.0, 0.5, 1.5, 48.0, 48.1])
    for i in range(len(edges) - 1):
        assert find_bins(edges[i + 1], edges) == i
        assert find_bins(np.nextafter(edges[i], np.inf), edges) == i


def test_unknown_kind_of_bins_is_refused():
    with pytest.raises(UserError, match="'raw'; valid: uniform, quantile"):
        fit_edges([1.0], "raw", 10, True)


@given(
    values=values_of,
    bin_type=st.sampled_from(["uniform", "quantile"]),
    n_bins=st.integers(1, 12),
    rule=st.booleans(),
)
def test_fitted_edges_ascend_within_the_values(values, bin_type, n_bins, rule):
    edges = fit_edges(values, bin_type, n_bins, rule)
    assert 2 <= len(edges) <= n_bins + 1
    assert np.all(np.isfinite(edges))
    assert values.min() <= edges[0] <= edges[-1] <= values.max()
    assert np.all(np.diff(edges) > 0) or (len(edges) == 2 and edges[0] == edges[1])


@given(
    edges=st.lists(finite, min_size=2, max_size=8, unique=True).map(sorted).map(np.array),
    data=st.data(),
)
def test_a_drawn_value_is_found_in_its_bin(edges, data):
    n = data.draw(st.integers(1, 10))
    bins = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, len(edges) - 2)))
    drawn = draw_values(bins, edges, data.draw(hnp.arrays(np.float64, n, elements=uniform)))
    assert np.array_equal(find_bins(drawn, edges), bins)
    assert np.all((drawn > edges[bins]) & (drawn <= edges[bins + 1]))


@given(low=finite, u=hnp.arrays(np.float64, 3, elements=uniform))
def test_the_narrowest_bin_there_is_holds_its_draws(low, u):
    edges = np.array([low, np.nextafter(low, np.inf)])
    drawn = draw_values(np.zeros(3, dtype=int), edges, u)
    assert drawn.tolist() == [edges[1]] * 3


@given(values=values_of, bin_type=st.sampled_from(["uniform", "quantile"]))
def test_draws_from_fitted_bins_come_back(values, bin_type):
    edges = fit_edges(values, bin_type, 10, True)
    bins = find_bins(values, edges)
    drawn = draw_values(bins, edges, np.full(len(bins), 0.5))
    assert np.array_equal(find_bins(drawn, edges), bins)


def test_draws_fill_their_bin():
    u = (np.arange(1000) + 0.5) / 1000
    drawn = draw_values(np.zeros(1000, dtype=int), np.array([2.0, 4.0]), u)
    assert drawn == pytest.approx(2 + 2 * u)
