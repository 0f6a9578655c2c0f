"""Which series go together: in a patient over time, and from patient to patient."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.evaluation.blocks import (
    FEWEST_PAIRS,
    FEWEST_PAIRS_OF_ROW,
    block_weights,
    blocks_of_pairs,
    divide,
    early,
    limits,
    point_blocks,
    resampled,
    scored,
    shown,
    unit,
)
from synehrgy.evaluation.kept import kept
from synehrgy.evaluation.metric import NAN, TEST, Bench, Found, Metric, Scale
from synehrgy.evaluation.patients import Floats, Patients

# Time points over which a value is carried forward, and where correlations are cut into classes:
# as published (SynEHRgy, arXiv 2411.13428).
_FORWARD = 6
_CUTS = (-0.5, -0.2, 0.2, 0.5)
_CLASSES = ("below -0.5", "-0.5 to -0.2", "-0.2 to 0.2", "0.2 to 0.5", "0.5 and more")


class Correlation(Metric):
    """Correlations of two series at the same time, within stays and between stays."""

    name = "correlation"
    title = "Correlations of series"
    group = "fidelity"
    needs = frozenset({"series"})
    scales = {
        "correlation/within": Scale(
            "Correlation within stays",
            "By how much the correlation of two series is off, when one looks at how they move "
            "together in the course of a stay.",
            "low",
            (0.0, 2.0),
            TEST,
            0.03,
            0.1,
        ),
        "correlation/within_agreement": Scale(
            "Agreement of correlations within stays",
            "Whether the pairs of series that move together in the course of real stays are those "
            "that do so here; 1 is full agreement.",
            "high",
            (-1.0, 1.0),
            TEST,
            0.05,
            0.2,
        ),
        "correlation/between": Scale(
            "Correlation between stays",
            "By how much the correlation of two series is off, when one compares the means of "
            "whole stays.",
            "low",
            (0.0, 2.0),
            TEST,
            0.03,
            0.1,
        ),
        "correlation/between_agreement": Scale(
            "Agreement of correlations between stays",
            "Whether the pairs of series that go together from one real stay to another are those "
            "that do so here; 1 is full agreement.",
            "high",
            (-1.0, 1.0),
            TEST,
            0.05,
            0.2,
        ),
        "published/correlation/difference": Scale(
            "Temporal correlation difference, published form",
            "Mean absolute difference of the correlations of two continuous series; first "
            "admission, first 48 hours.",
            "low",
            (0.0, 2.0),
            TEST,
        ),
        "published/correlation/confusion": Scale(
            "Correlation classes that agree, published form",
            "Share of pairs of continuous series whose correlation is in the same of five classes.",
            "high",
            (0.0, 1.0),
            TEST,
        ),
    }

    def measure(self, bench: Bench, row: str) -> Found:
        """Measure one row against the train patients."""
        patients = bench.equal[row]
        real, blocks = _real(bench.train), _sums(patients, bench.train)
        weights = block_weights(patients, bench, blocks_of_pairs(patients))
        every = [_off(real, _Matrices.of(*sums)) for sums in resampled(weights, *blocks)]
        scores = {
            name: scored(values, scale)
            for (name, scale), values in zip(self.scales.items(), np.array(every).T, strict=True)
        }
        found = _Matrices.of(*(sums.sum(axis=0) for sums in blocks))
        tables = {
            "correlation_matrix": _matrix_table(bench.train, real, found),
            "correlation_confusion": _confusion_table(real.published, found.published),
        }
        return Found(scores, tables)


@dataclass(frozen=True)
class _Matrix:
    """Correlations, NaN where one is not defined, and of how many pairs of values each is."""

    r: Floats
    pairs: Floats

    @classmethod
    def of(cls, sums: Floats) -> "_Matrix":
        """From ``_pair_sums``."""
        n, total, squares, products = sums
        mean = divide(total, n)
        variance = divide(squares, n) - mean**2
        # Equal numbers have a variance that is not exactly 0.
        variance = np.where(variance > 1e-9 * divide(squares, n), variance, NAN)
        with np.errstate(invalid="ignore"):
            r = (divide(products, n) - mean * mean.T) / np.sqrt(variance * variance.T)
        return cls(r, n)

    def below(self, fewest: int) -> Floats:
        """The entries below the diagonal; NaN where there are too few pairs."""
        lower = np.tril_indices(len(self.r), -1)
        found: Floats = np.where(self.pairs[lower] >= fewest, self.r[lower], NAN)
        return found


@dataclass(frozen=True)
class _Matrices:
    """The three kinds of correlation."""

    published: _Matrix
    within: _Matrix
    between: _Matrix

    @classmethod
    def of(cls, *sums: Floats) -> "_Matrices":
        """From the sums of each."""
        return cls(*(_Matrix.of(x) for x in sums))


@kept
def _real(train: Patients) -> _Matrices:
    return _Matrices.of(*(sums.sum(axis=0) for sums in _sums(train, train)))


def _sums(patients: Patients, train: Patients) -> tuple[Floats, ...]:
    """``_pair_sums`` of each block, by the kinds of ``_Matrices``.

    What was published takes all values as they are, the others take those within ``limits``.
    """
    (low, high), (centre, scale) = limits(train), unit(train)
    grid, begun = patients.grid, early(patients)
    columns, found = patients.continuous, []
    for part in point_blocks(patients, blocks_of_pairs(patients)):
        values, stay, first = grid.values[part], grid.stay[part], begun[part]
        mean, deviation = _within((np.clip(values, low, high) - centre) / scale, stay)
        carried = carried_forward(((values[first] - centre) / scale)[:, columns], stay[first])
        found.append((_pair_sums(carried), _pair_sums(deviation), _pair_sums(mean)))
    return tuple(np.array(x) for x in zip(*found, strict=True))


def _within(values: Floats, stay: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Means of stays [stays, series], and deviations from them; NaN where there is one value."""
    start = np.flatnonzero(np.diff(stay, prepend=-1))
    there = ~np.isnan(values)
    n = np.add.reduceat(there.astype(np.float64), start, axis=0)
    mean = divide(np.add.reduceat(np.where(there, values, 0.0), start, axis=0), n)
    usual = np.where(n > 1, mean, NAN)
    length = np.diff(start, append=len(stay))
    return mean, values - np.repeat(usual, length, axis=0)


def carried_forward(values: Floats, stay: NDArray[np.int64]) -> Floats:
    """Fill what is missing by the last value of the stay, over at most so many points as published.

    Args:
        values: [points, series].
        stay: of each point, ascending.
    """
    point = np.arange(len(stay))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, point), axis=0)
    begin = np.searchsorted(stay, stay)[:, None]
    near = (last >= begin) & (point - last <= _FORWARD)
    return np.where(near, np.take_along_axis(values, np.maximum(last, 0), axis=0), NAN)


def _pair_sums(values: Floats) -> Floats:
    """Of all pairs of columns over the rows that have both: [4, columns, columns].

    The number of rows; the sum of the first, of its squares, and of the products.
    """
    there = ~np.isnan(values)
    known, value = there.astype(np.float64), np.where(there, values, 0.0)
    return np.stack([known.T @ known, value.T @ known, (value**2).T @ known, value.T @ value])


def _off(real: _Matrices, found: _Matrices) -> tuple[float, ...]:
    """The scores, in their order."""
    one, other = (m.published.below(FEWEST_PAIRS) for m in (real, found))
    both = ~np.isnan(one) & ~np.isnan(other)
    difference = np.abs(one - other)[both]
    agree = np.digitize(one[both], _CUTS) == np.digitize(other[both], _CUTS)
    published = (difference.mean(), agree.mean()) if both.any() else (NAN, NAN)
    return (
        *_compare(real.within, found.within),
        *_compare(real.between, found.between),
        *published,
    )


def _compare(real: _Matrix, found: _Matrix) -> tuple[float, float]:
    """Root mean squared difference and correlation of the entries, weighted by real pairs."""
    one = real.below(FEWEST_PAIRS)
    known = ~np.isnan(one)
    if not known.any():
        return NAN, NAN
    weight = real.pairs[np.tril_indices(len(real.r), -1)][known]
    weight = weight / weight.sum()
    one, other = one[known], np.nan_to_num(found.below(FEWEST_PAIRS_OF_ROW)[known])
    error = float(np.sqrt(weight @ (one - other) ** 2))
    one, other = one - weight @ one, other - weight @ other
    norm = np.sqrt((weight @ one**2) * (weight @ other**2))
    if weight @ one**2 < 1e-12:
        return error, NAN
    # Correlations that are all the same agree with nothing.
    return error, float(weight @ (one * other) / norm) if norm > 1e-12 else 0.0


def _matrix_table(train: Patients, real: _Matrices, found: _Matrices) -> pd.DataFrame:
    """One row per kind and unordered pair of series."""
    variables, continuous = train.schema.variables, train.continuous
    names = np.array([v.name for v in variables], dtype=object)
    parts = []
    for kind, columns in (
        ("published", continuous),
        ("within", np.arange(len(names))),
        ("between", np.arange(len(names))),
    ):
        place = np.flatnonzero(np.isin(columns, shown(train)))
        first, second = (place[i] for i in np.tril_indices(len(place), -1))
        one, other = getattr(real, kind), getattr(found, kind)
        part = {
            "kind": kind,
            "series_a": names[columns[first]],
            "series_b": names[columns[second]],
            "real": one.r[first, second],
            "found": other.r[first, second],
            "pairs_real": one.pairs[first, second],
            "pairs_found": other.pairs[first, second],
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def _confusion_table(real: _Matrix, found: _Matrix) -> pd.DataFrame:
    """How many pairs of series are in which class in real patients and here."""
    one, other = real.below(FEWEST_PAIRS), found.below(FEWEST_PAIRS)
    both = ~np.isnan(one) & ~np.isnan(other)
    n = len(_CLASSES)
    cell = np.digitize(one[both], _CUTS) * n + np.digitize(other[both], _CUTS)
    return pd.DataFrame(
        {
            "real": np.repeat(_CLASSES, n),
            "found": np.tile(_CLASSES, n),
            "pairs": np.bincount(cell, minlength=n * n),
        }
    )
