"""How a continuous quantity is written: as the bin that it lies in, or digit by digit.

Both forms offer the same: their tokens, numbers to tokens, and tokens to numbers. Tokens of a
quantity are numbered from 0 here; the vocabulary says where they stand.
"""

import itertools
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synehrgy.tokenizer.bins import Edges, draw_values, find_bins, n_outside
from synehrgy.tokenizer.grammar import Word

# A quantile stands for at most this share of all values of a quantity, and for at least so many
# values: fewer are left to the edges of their bin.
QUANTILE_SHARE = 0.004
VALUES_PER_QUANTILE = 5
# Where a bin has enough values, so many quantiles at least: the shape of a thin tail counts, too.
QUANTILES_PER_BIN = 16

MOST_DECIMALS = 6
# More digits than a float is exact for say nothing.
MOST_PLACES = 15


@dataclass(frozen=True)
class Bins:
    """One token per number: the bin that it lies in.

    Attributes:
        edges: ascending, one more than there are bins.
        quantiles: by bin, of the values of the train split in it, at the middles of equal shares
            of probability; empty for a bin that has too few.
        decimals: places after the point that the quantity is charted with.
        discrete: whether so few different values are charted that the quantiles name each of
            them; else decoding goes between the quantiles.
    """

    edges: Edges
    quantiles: list[list[float]]
    decimals: int
    discrete: bool

    @classmethod
    def fit(cls, values: ArrayLike, edges: Edges) -> "Bins":
        """Learn the distribution inside each bin.

        Args:
            values: finite numbers of the train split, in any order; there may be none.
            edges: of the bins.
        """
        ordered = np.sort(np.asarray(values, dtype=np.float64))
        if not len(ordered):
            return cls(edges, [[] for _ in edges[1:]], MOST_DECIMALS, False)
        bounds = np.searchsorted(find_bins(ordered, edges), np.arange(len(edges)))
        quantiles = []
        for low, high in itertools.pairwise(bounds):
            n = int(high - low)
            wanted = max(QUANTILES_PER_BIN, math.ceil(n / len(ordered) / QUANTILE_SHARE))
            k = min(n // VALUES_PER_QUANTILE, wanted)
            at = low + ((np.arange(k) + 0.5) * n / max(k, 1)).astype(np.int64)
            quantiles.append(ordered[at].tolist())
        n_distinct = 1 + int(np.count_nonzero(np.diff(ordered)))
        discrete = n_distinct <= sum(map(len, quantiles))
        return cls(edges, quantiles, fit_decimals(ordered), discrete)

    def word(self, kind: str) -> Word:
        """One token."""
        return Word.of(kind)

    def texts(self, kind: str) -> dict[str, list[str]]:
        """The intervals."""
        # As many digits as tell the bins apart, six if they do.
        for digits in range(6, 18):
            texts = [f"({a:.{digits}g}, {b:.{digits}g}]" for a, b in itertools.pairwise(self.edges)]
            if len(set(texts)) == len(texts):
                break
        return {kind: texts}

    def encode(self, values: ArrayLike) -> NDArray[np.int64]:
        """Token of each number."""
        return find_bins(values, self.edges)

    def n_clipped(self, values: ArrayLike) -> int:
        """How many numbers lie outside the edges, and so in the first or last bin."""
        return n_outside(values, self.edges)

    def decode(
        self, tokens: NDArray[np.int64], uniform: NDArray[np.float64], how: str
    ) -> NDArray[np.float64]:
        """A number of each bin; ``encode`` gives the bin back.

        Args:
            tokens: index of the bin of each number.
            uniform: draws in (0, 1), one per number.
            how: ``empirical``, the inverse of the distribution inside the bin, at the charted
                precision; ``uniform``, anywhere between the edges (as published); ``center``, the
                middle of the bin.
        """
        if how == "center":
            return 0.5 * (self.edges[tokens] + self.edges[tokens + 1])
        drawn = draw_values(tokens, self.edges, uniform)
        if how == "uniform":
            return drawn
        flat, first, count = self._flat
        rounded = np.round(drawn, self.decimals)
        drawn = np.where(find_bins(rounded, self.edges) == tokens, rounded, drawn)
        known = count[tokens] > 0
        token, u = tokens[known], uniform[known]
        start, n = first[token], count[token]
        if self.discrete:
            drawn[known] = flat[start + np.minimum((u * n).astype(np.int64), n - 1)]
            return drawn
        place = np.clip(u * n - 0.5, 0, n - 1)
        below = place.astype(np.int64)
        low, high = flat[start + below], flat[start + np.minimum(below + 1, n - 1)]
        value = np.round(low + (place - below) * (high - low), self.decimals)
        # Rounding must not carry a number out of its bin.
        drawn[known] = np.clip(value, low, high)
        return drawn

    def bounds(self, tokens: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest number of each bin; those at the ends reach to what was seen there."""
        low = np.nextafter(self.edges[:-1], np.inf)
        high = self.edges[1:].copy()
        low[0] = min([self.edges[0], *self.quantiles[0][:1]])
        high[-1] = max([self.edges[-1], *self.quantiles[-1][-1:]])
        return np.minimum(low, high)[tokens], high[tokens]

    def without_quantiles(self) -> "Bins":
        """The same bins, of which nothing but the edges is known."""
        return replace(self, quantiles=[[] for _ in self.quantiles], discrete=False)

    @cached_property
    def _flat(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """All quantiles, where those of each bin begin, and how many they are."""
        count = np.array([len(q) for q in self.quantiles], dtype=np.int64)
        flat = np.array([*itertools.chain.from_iterable(self.quantiles)], dtype=np.float64)
        return flat, np.cumsum(count) - count, count

    @cached_property
    def middles(self) -> NDArray[np.float64]:
        """A typical number of each bin: its median where known, else its middle."""
        middle = 0.5 * (self.edges[:-1] + self.edges[1:])
        known = [q[len(q) // 2] if q else m for q, m in zip(self.quantiles, middle, strict=True)]
        return np.array(known, dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "edges": self.edges.tolist(),
            "quantiles": self.quantiles,
            "decimals": self.decimals,
            "discrete": self.discrete,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Bins":
        """The inverse of ``to_json``."""
        edges = np.array(content["edges"], dtype=np.float64)
        quantiles = [[float(x) for x in q] for q in content["quantiles"]]
        if len(quantiles) != len(edges) - 1:
            raise ValueError(f"{len(quantiles)} bins with {len(edges)} edges")
        return cls(edges, quantiles, content["decimals"], content["discrete"])


@dataclass(frozen=True)
class Digits:
    """A token per digit, the highest first, each of which says its place.

    A number is exact at its charted precision: 7.35 is ``7.__`` ``_.3_`` ``_._5``. There are no
    leading zeros, so each number is written in one way only.

    Attributes:
        decimals: places after the point.
        places: digits of the largest number.
        negative: whether there are numbers below zero, and so a token for the sign.
    """

    decimals: int
    places: int
    negative: bool
    # Number of the token of digit 0 at each place, the lowest place first.
    zero: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        above = np.arange(self.places)[::-1]
        object.__setattr__(self, "zero", int(self.negative) + 10 * above)

    @classmethod
    def fit(cls, values: ArrayLike) -> "Digits":
        """Learn precision and width from the numbers of the train split."""
        numbers = np.asarray(values, dtype=np.float64)
        decimals = fit_decimals(np.sort(numbers))
        scaled = np.rint(np.abs(numbers) * 10.0**decimals)
        places = min(len(str(int(scaled.max(initial=0)))), MOST_PLACES)
        return cls(decimals, places, bool((numbers[scaled > 0] < 0).any()))

    def word(self, kind: str) -> Word:
        """Sign if below zero, then a first digit that is not zero, then the places below it."""
        sign, zero, other = self._kinds(kind)
        arcs: dict[str, tuple[str, ...]] = {}
        for place in range(1, self.places):
            below = (zero[place - 1], other[place - 1])
            arcs[zero[place]] = arcs[other[place]] = below
        if self.negative:
            arcs[sign] = tuple(other)
        return Word(
            tuple(self.texts(kind)),
            (*([sign] if self.negative else []), *other, zero[0]),
            (zero[0], other[0]),
            arcs,
        )

    def texts(self, kind: str) -> dict[str, list[str]]:
        """``-``, then every digit at every place, as ``_.3_``."""
        sign, zero, other = self._kinds(kind)
        found = {sign: ["-"]} if self.negative else {}
        for place in reversed(range(self.places)):
            texts = [self._text(place, digit) for digit in range(10)]
            found[zero[place]], found[other[place]] = texts[:1], texts[1:]
        return found

    def _kinds(self, kind: str) -> tuple[str, list[str], list[str]]:
        """Kinds of the sign and, by place, of the digit 0 and of the others."""
        places = range(self.places)
        zero, other = ([f"{what} {place}:{kind}" for place in places] for what in ("zero", "digit"))
        return f"sign:{kind}", zero, other

    def _text(self, place: int, digit: int) -> str:
        width = max(self.places, self.decimals + 1)
        marks = ["_"] * width
        marks[width - 1 - place] = str(digit)
        if self.decimals:
            marks.insert(width - self.decimals, ".")
        return "".join(marks)

    def scaled(self, values: ArrayLike) -> NDArray[np.int64]:
        """Numbers in units of the last place, the nearest that can be written."""
        most = 10**self.places - 1
        numbers = np.asarray(values, dtype=np.float64) * 10.0**self.decimals
        clipped = np.clip(np.rint(numbers), -most if self.negative else 0, most)
        return clipped.astype(np.int64)

    def n_clipped(self, values: ArrayLike) -> int:
        """How many numbers have more digits than there are places, or a sign too much."""
        numbers = np.rint(np.asarray(values, dtype=np.float64) * 10.0**self.decimals)
        return int((self.scaled(values) != numbers).sum())

    def n_rounded(self, values: ArrayLike) -> int:
        """How many of the numbers that have a place are not at the charted precision."""
        numbers = np.asarray(values, dtype=np.float64)
        written = self.scaled(numbers) / 10.0**self.decimals
        off = np.abs(written - numbers)
        return int(((off > 1e-6 * np.abs(numbers) + 1e-9) & (off <= 10.0**-self.decimals)).sum())

    def widths(self, scaled: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of each number."""
        powers = 10 ** np.arange(1, self.places, dtype=np.int64)
        return 1 + np.searchsorted(powers, np.abs(scaled), side="right") + (scaled < 0)

    def encode(self, scaled: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Tokens of numbers in units of the last place.

        Returns:
            (tokens, used), both [n, places + 1]; the tokens of a number are those used, from left
            to right.
        """
        place = np.arange(self.places - 1, -1, -1)
        digit = np.abs(scaled)[:, None] // 10**place % 10
        n_digits = (self.widths(scaled) - (scaled < 0))[:, None]
        tokens = np.concatenate(
            [np.zeros((len(scaled), 1), dtype=np.int64), self.zero[place] + digit], axis=1
        )
        used = np.concatenate([(scaled < 0)[:, None], place < n_digits], axis=1)
        return tokens, used

    @cached_property
    def amounts(self) -> NDArray[np.int64]:
        """What each token adds to a number, in units of the last place; the sign adds nothing."""
        place = np.repeat(np.arange(self.places - 1, -1, -1), 10)
        digits = np.tile(np.arange(10), self.places) * 10**place
        return np.concatenate([np.zeros(int(self.negative), dtype=np.int64), digits])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"decimals": self.decimals, "places": self.places, "negative": self.negative}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Digits":
        """The inverse of ``to_json``."""
        return cls(content["decimals"], content["places"], content["negative"])


def quantity_from_json(content: dict[str, Any]) -> Bins | Digits:
    """Read either form."""
    return Bins.from_json(content) if "edges" in content else Digits.from_json(content)


def fit_decimals(ordered: NDArray[np.float64]) -> int:
    """Places after the point that numbers are charted with, at most six.

    The fewest with which 99 % of the numbers are what they are (up to the precision of 32 bits,
    in which many were once stored). Numbers that were calculated, such as degrees Celsius from
    Fahrenheit, have no such place; for them, the fewest that keep 99 % of the different numbers
    apart.

    Args:
        ordered: finite numbers, ascending.
    """
    if not len(ordered):
        return 0
    single = np.maximum(1e-6 * np.abs(ordered), 1e-9)
    rounded = [np.round(ordered, places) for places in range(MOST_DECIMALS + 1)]
    for places, numbers in enumerate(rounded):
        # Much less than half a step, which any number is near enough to.
        tolerance = np.minimum(single, 10.0 ** -(places + 2))
        if np.mean(np.abs(numbers - ordered) <= tolerance) >= 0.99:
            return places
    n_distinct = np.count_nonzero(np.diff(ordered) > single[1:])
    for places, numbers in enumerate(rounded):
        if np.count_nonzero(np.diff(numbers)) >= 0.99 * n_distinct:
            return places
    return MOST_DECIMALS
