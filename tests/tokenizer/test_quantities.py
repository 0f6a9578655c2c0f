"""Numbers as bins and as digits."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synehrgy.settings import VALUE_DECODINGS
from synehrgy.tokenizer.bins import fit_edges
from synehrgy.tokenizer.grammar import Word
from synehrgy.tokenizer.quantities import Bins, Digits, fit_decimals, quantity_from_json

numbers = st.floats(-1e5, 1e5, allow_nan=False).map(lambda x: round(x, 2))


def ks(one, other):
    """Kolmogorov-Smirnov distance between two samples."""
    grid = np.union1d(one, other)
    cdf = [np.searchsorted(np.sort(x), grid, side="right") / len(x) for x in (one, other)]
    return np.abs(cdf[0] - cdf[1]).max()


def evenly(n):
    return (np.arange(n) + 0.5) / n


def fitted(values, bin_type="uniform", n_bins=10):
    return Bins.fit(values, fit_edges(values, bin_type, n_bins, outlier_rule=True))


@given(
    values=st.lists(numbers, min_size=1, max_size=200),
    bin_type=st.sampled_from(["uniform", "quantile"]),
    how=st.sampled_from(VALUE_DECODINGS),
    data=st.data(),
)
def test_a_decoded_number_lies_in_its_bin(values, bin_type, how, data):
    bins = fitted(values, bin_type)
    tokens = np.arange(len(bins.edges) - 1)
    u = data.draw(st.lists(st.floats(1e-9, 1 - 1e-9), min_size=len(tokens), max_size=len(tokens)))
    decoded = bins.decode(tokens, np.array(u), how)
    assert np.array_equal(bins.encode(decoded), tokens)


DISTRIBUTIONS = {
    "skewed": lambda rng: np.round(np.exp(rng.normal(3, 1.2, 5000))),
    "continuous": lambda rng: rng.normal(37, 0.7, 5000),
    "few values": lambda rng: rng.choice(
        [0.21, 0.4, 0.5, 0.6, 1.0], 3000, p=[0.1, 0.6, 0.2, 0.05, 0.05]
    ),
    "two decimals": lambda rng: np.round(rng.normal(7.38, 0.08, 4000), 2),
    "far outliers": lambda rng: np.append(np.round(rng.normal(80, 15, 2000)), [11_000.0] * 2),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("bin_type", ["uniform", "quantile"])
def test_empirical_decoding_gives_the_distribution_back(name, bin_type):
    values = DISTRIBUTIONS[name](np.random.default_rng(0))
    bins = fitted(values, bin_type)
    tokens = np.sort(bins.encode(values))
    u = np.concatenate([evenly(n) for n in np.bincount(tokens) if n])
    back = bins.decode(tokens, u, "empirical")
    assert ks(values, back) <= 0.005
    for how in ("uniform", "center"):
        assert ks(values, bins.decode(tokens, u, how)) > ks(values, back)


def test_charted_precision_is_restored():
    rng = np.random.default_rng(1)
    for decimals in (0, 1, 3):
        values = np.round(rng.normal(50, 20, 3000), decimals)
        bins = fitted(values)
        assert bins.decimals == decimals
        back = bins.decode(bins.encode(values), rng.random(3000), "empirical")
        assert np.array_equal(back, np.round(back, decimals))


def test_values_never_charted_are_not_made_up_where_few_are():
    values = DISTRIBUTIONS["few values"](np.random.default_rng(0))
    bins = fitted(values)
    assert bins.discrete
    back = bins.decode(bins.encode(values), np.random.default_rng(1).random(3000), "empirical")
    assert set(back) <= {0.21, 0.4, 0.5, 0.6, 1.0}


def test_a_quantile_stands_for_several_values():
    """Of five at least; where a bin has fewer, none is kept."""
    values = np.random.default_rng(0).normal(0, 1, 999)
    bins = fitted(values)
    for quantiles, n in zip(bins.quantiles, np.bincount(bins.encode(values)), strict=True):
        assert len(quantiles) <= n // 5
    assert max(values) not in np.concatenate(bins.quantiles)


def test_a_bin_without_values_is_drawn_uniformly():
    bins = Bins.fit([1.0, 1.0, 1.5, 1.5, 1.5, 9.0], np.array([0.0, 2.0, 5.0, 10.0]))
    assert bins.quantiles == [[1.5], [], []]
    u = np.array([0.5, 0.51, 0.51])
    # At the charted precision, where that leaves it in its bin.
    assert bins.decode(np.arange(3), u, "empirical").tolist() == [1.5, 3.5, 7.6]
    assert bins.decode(np.arange(3), u, "uniform").tolist() == pytest.approx([1.0, 3.53, 7.55])
    assert bins.decode(np.arange(3), u, "center").tolist() == [1.0, 3.5, 7.5]
    assert bins.middles.tolist() == [1.5, 3.5, 7.5]


def test_bins_of_a_narrow_series_have_different_names():
    bins = Bins.fit([100.0], 100 + np.arange(11) * 1e-7)
    (texts,) = bins.texts("x").values()
    assert len(set(texts)) == 10


@pytest.mark.parametrize(
    ("values", "decimals"),
    [
        ([], 0),
        ([5.0, 70.0, -3.0], 0),
        ([7.35, 7.4, 7.0], 2),
        # One odd number in a hundred does not decide.
        ([*range(200), 0.5], 0),
        # Stored in 32 bits once.
        (np.arange(300, dtype=np.float32) / 10, 1),
        # Fahrenheit at one decimal as Celsius: two decimals keep the values apart.
        ((np.arange(960, 1040) / 10 - 32) / 1.8, 2),
        ([1 / 3, 2 / 3], 0),
    ],
)
def test_decimals(values, decimals):
    assert fit_decimals(np.sort(np.asarray(values, dtype=np.float64))) == decimals


def test_digits_by_hand():
    digits = Digits.fit([7.35, 80.0, -0.5])
    assert digits == Digits(decimals=2, places=4, negative=True)
    kinds = digits.texts("x")
    assert list(kinds) == list(digits.word("x").kinds)
    texts = [text for found in kinds.values() for text in found]

    def written(value):
        tokens, used = digits.encode(digits.scaled([value]))
        return [texts[token] for token in tokens[used]]

    assert written(7.35) == ["_7.__", "__.3_", "__._5"]
    assert written(80) == ["8_.__", "_0.__", "__.0_", "__._0"]
    assert written(-0.5) == ["-", "__.5_", "__._0"]
    assert written(0) == written(0.004) == written(-0.004) == ["__._0"]
    # Beyond the places: the nearest that can be written, and counted.
    assert written(1234.5) == ["9_.__", "_9.__", "__.9_", "__._9"]
    assert digits.n_clipped([1234.5, 5.0, -99.99]) == 1
    assert Digits.fit([3.0]).n_clipped([-1.0]) == 1


def test_what_digits_do_not_say_is_counted():
    digits = Digits.fit([*[7.3] * 200, 7.355])
    assert digits.decimals == 1
    assert digits.n_rounded([7.3, 7.355, 7.36, 7.4]) == 2
    # Float numbers of 32 bits are what they were charted as.
    assert digits.n_rounded([float(np.float32(7.3))]) == 0


def test_numbers_beyond_all_places_are_clipped_not_garbled():
    digits = Digits.fit([1e19, 5.0])
    assert digits.places == 15
    assert digits.scaled([1e19]).tolist() == [10**15 - 1]
    assert digits.n_clipped([1e19, 5.0]) == 1


def accepts(word: Word, kinds: list[str]) -> bool:
    return (
        kinds[0] in word.entries
        and kinds[-1] in word.exits
        and all(b in word.arcs.get(a, ()) for a, b in itertools.pairwise(kinds))
    )


@given(values=st.lists(numbers, min_size=1, max_size=30))
def test_every_number_has_one_spelling_that_the_automaton_accepts(values):
    digits = Digits.fit(values)
    word, kinds = digits.word("x"), digits.texts("x")
    kind_of = [kind for kind, texts in kinds.items() for _ in texts]
    scaled = digits.scaled(values)
    tokens, used = digits.encode(scaled)
    assert digits.widths(scaled).tolist() == used.sum(axis=1).tolist()
    spellings = set()
    for row, mine, value in zip(tokens, used, scaled, strict=True):
        spelling = row[mine]
        spellings.add(tuple(spelling))
        assert accepts(word, [kind_of[token] for token in spelling])
        total = digits.amounts[spelling].sum()
        assert (-total if digits.negative and spelling[0] == 0 else total) == value
    assert len(spellings) == len(set(scaled.tolist()))


def test_the_automaton_accepts_each_number_once():
    digits = Digits(decimals=0, places=3, negative=True)
    word, kinds = digits.word("x"), digits.texts("x")
    kind_of = [kind for kind, texts in kinds.items() for _ in texts]
    found = []
    for length in range(1, 5):
        for spelling in itertools.product(range(len(kind_of)), repeat=length):
            # By kinds first: most of the 31 ** 4 are none.
            if kind_of[spelling[-1]] in word.exits and accepts(
                word, [kind_of[t] for t in spelling]
            ):
                total = int(digits.amounts[list(spelling)].sum())
                found.append(-total if spelling[0] == 0 else total)
    assert sorted(found) == list(range(-999, 1000))


@given(values=st.lists(numbers, min_size=1, max_size=50), raw=st.booleans())
def test_json_gives_the_same_quantity(values, raw):
    quantity = Digits.fit(values) if raw else fitted(values)
    again = quantity_from_json(quantity.to_json())
    assert again.to_json() == quantity.to_json()
    assert type(again) is type(quantity)
