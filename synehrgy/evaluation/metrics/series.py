"""Values of each series: their distribution, their spread, and how often they are there."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from synehrgy.cohort.schema import Variable
from synehrgy.evaluation.blocks import (
    FEWEST_PATIENTS,
    block_of_stay,
    block_weights,
    count_by,
    distance,
    divide,
    limits,
    mean_of,
    moments,
    patients_with,
    scored,
    total_variation,
    worst_of,
)
from synehrgy.evaluation.kept import kept
from synehrgy.evaluation.metric import NAN, TEST, Bench, Found, Metric, Scale
from synehrgy.evaluation.patients import Floats, Patients

_N_BINS = 40
# What a histogram shows: a few wild values would squeeze all others into one bar.
_SHOWN = (0.005, 0.995)
# Rows of the table of levels.
_MOST_LEVELS = 1000
# Values between which normal scores are interpolated.
_N_SCORES = 512
# Twentyfold: the end of the scale of a spread.
_MOST_SPREAD = 3.0

# Each is said of the mean over series, of the mean by their real values, and of the worst one.
_MEAN = ": mean over series."
_BY_VALUES = ": mean over series, each weighing as much as it has real values."
_WORST = ": of the series that is furthest off."


def _low(title: str, meaning: str, good: float, poor: float, most: float = float("inf")) -> Scale:
    return Scale(title, meaning, "low", (0.0, most), TEST, good, poor)


_KS = (
    "The share of values of a continuous series that lie on the wrong side of a threshold, at the "
    "worst threshold"
)
_WASSERSTEIN = (
    "How far the values of a continuous series have to move on average to be distributed as real "
    "ones, in real standard deviations"
)
_SPREAD = (
    "By what part a continuous series varies too little or too much (the absolute logarithm of its "
    "standard deviation over the real one, on the scale of ranks)"
)
_LEVELS = "The share of values of a categorical series that have the wrong level"
_MISSING = "By how much the share of time points at which a series has no value is off"


class Series(Metric):
    """Each series by itself, over all admissions."""

    name = "series"
    title = "Values of each series"
    group = "fidelity"
    needs = frozenset({"series"})
    scales = {
        "series/ks": _low("Distribution of values", _KS + _MEAN, 0.03, 0.1, 1.0),
        "series/ks_weighted": _low("Distribution, by values", _KS + _BY_VALUES, 0.03, 0.1, 1.0),
        "series/ks_worst": _low("Distribution, worst series", _KS + _WORST, 0.08, 0.2, 1.0),
        "series/wasserstein": _low("Distance of values", _WASSERSTEIN + _MEAN, 0.08, 0.2),
        "series/wasserstein_weighted": _low(
            "Distance, by values", _WASSERSTEIN + _BY_VALUES, 0.08, 0.2
        ),
        "series/wasserstein_worst": _low(
            "Distance, worst series", _WASSERSTEIN + _WORST, 0.25, 0.5
        ),
        "series/spread": _low("Spread of values", _SPREAD + _MEAN, 0.05, 0.15, _MOST_SPREAD),
        "series/spread_worst": _low(
            "Spread, worst series", _SPREAD + _WORST, 0.2, 0.5, _MOST_SPREAD
        ),
        "series/levels": _low(
            "Levels of categorical series",
            _LEVELS + _MEAN,
            0.05,
            0.15,
            1.0,
        ),
        "series/levels_worst": _low("Levels, worst series", _LEVELS + _WORST, 0.1, 0.25, 1.0),
        "series/missing": _low(
            "Missing values",
            _MISSING + _MEAN,
            0.01,
            0.04,
            1.0,
        ),
        "series/missing_worst": _low(
            "Missing values, worst series", _MISSING + _WORST, 0.05, 0.15, 1.0
        ),
        "series/never": _low(
            "Series never measured",
            f"By how much the share of stays without any value of a series is off{_MEAN}",
            0.03,
            0.1,
            1.0,
        ),
        "series/values_per_stay": _low(
            "Values per stay",
            "The share of stays that have too many or too few values of a series, at the worst "
            f"number{_MEAN}",
            0.05,
            0.15,
            1.0,
        ),
    }

    def measure(self, bench: Bench, row: str) -> Found:
        """Measure one row against the train patients."""
        patients = bench.equal[row]
        real, found = _real(bench.train), _describe(patients)
        off = _compare(bench.train, real, found, block_weights(patients, bench))
        enough = patients_with(bench.train) >= FEWEST_PATIENTS
        many = real.per_stay.sum(axis=0)[enough].astype(np.float64)
        judged = {what: values[enough] for what, values in off.items()}
        scores = {f"series/{what}": mean_of(values) for what, values in judged.items()}
        for what in ("ks", "wasserstein", "spread", "levels", "missing"):
            scores[f"series/{what}_worst"] = worst_of(judged[what])
        for what in ("ks", "wasserstein"):
            scores[f"series/{what}_weighted"] = mean_of(judged[what], many)
        variables = bench.train.schema.variables
        return Found(
            {name: scored(scores[name], scale) for name, scale in self.scales.items()},
            {
                "series_summary": _summary(variables, real, found, off),
                "series_histograms": _histograms(variables, real, found),
                "series_levels": _levels(variables, real, found),
            },
        )


@dataclass(frozen=True)
class _Described:
    """What there is of each series, and in which block of patients.

    Attributes:
        values: of each series; ascending in real patients.
        blocks: of each of these values; none for real patients.
        per_stay: values of each series in each stay: [stays, series].
        points: time points of each stay: [stays].
        block: of each stay: [stays].
    """

    values: list[NDArray[np.float32]]
    blocks: list[NDArray[np.int64]]
    per_stay: NDArray[np.int64]
    points: NDArray[np.int64]
    block: NDArray[np.int64]

    @property
    def missing(self) -> Floats:
        """The share of time points without a value of each series: [series]."""
        return 1 - divide(self.per_stay.sum(axis=0), np.asarray(self.points.sum()))

    @property
    def never(self) -> Floats:
        """The share of stays without a value of each series: [series]."""
        return (self.per_stay == 0).mean(axis=0)


def _describe(patients: Patients) -> _Described:
    grid, n_stays = patients.grid, len(patients.stays)
    block = block_of_stay(patients)
    values, blocks, per_stay = [], [], []
    for column in grid.values.T:
        there = np.flatnonzero(~np.isnan(column))
        stay = grid.stay[there]
        values.append(column[there])
        blocks.append(block[stay])
        per_stay.append(np.bincount(stay, minlength=n_stays))
    points = np.bincount(grid.stay, minlength=n_stays)
    return _Described(values, blocks, np.stack(per_stay, axis=1), points, block)


@kept
def _real(train: Patients) -> _Described:
    found = _describe(train)
    return replace(found, values=[np.sort(v) for v in found.values], blocks=[])


def _compare(
    train: Patients, real: _Described, found: _Described, weights: Floats
) -> dict[str, Floats]:
    """How far each series is off, by what: [series, 1 + resamples]; NaN where it does not apply."""
    variables = train.schema.variables
    (low, high), (_, sd) = limits(train), moments(train)
    undefined = np.full((len(variables), len(weights)), NAN)
    off = {what: undefined.copy() for what in ("ks", "wasserstein", "spread", "levels")}
    per_stay = []
    for i, variable in enumerate(variables):
        values, block = found.values[i], found.blocks[i]
        if variable.kind == "continuous":
            of_real, values = (np.clip(x, low[i], high[i]) for x in (real.values[i], values))
            ks, area = distance(of_real, values, block, weights)
            off["ks"][i], off["wasserstein"][i] = ks, area / sd[i]
            off["spread"][i] = _spread(of_real, values, block, weights)
        else:
            n_levels = len(variable.levels)
            levels = np.bincount(real.values[i].astype(np.int64), minlength=n_levels)
            counts = weights @ count_by(block, values.astype(np.int64), weights.shape[1], n_levels)
            off["levels"][i] = total_variation(levels, counts)
        many = np.sort(real.per_stay[:, i])
        per_stay.append(distance(many, found.per_stay[:, i], found.block, weights)[0])
    # Stays of a block follow each other.
    start = np.flatnonzero(np.diff(found.block, prepend=-1))
    there, ever, points = (
        weights @ np.add.reduceat(x, start, axis=0)
        for x in (found.per_stay, found.per_stay > 0, found.points[:, None])
    )
    stays = weights @ np.bincount(found.block)[:, None]
    off["missing"] = np.abs(1 - divide(there, points) - real.missing).T
    off["never"] = np.abs(1 - divide(ever, stays) - real.never).T
    off["values_per_stay"] = np.stack(per_stay)
    return off


def _spread(
    real: NDArray[np.float32],
    found: NDArray[np.float32],
    block: NDArray[np.int64],
    weights: Floats,
) -> Floats:
    """The absolute logarithm of the standard deviation over the real one: [1 + resamples].

    Of normal scores (van der Waerden, Indagationes Mathematicae 14, 1952): a value counts as the
    quantile of the normal distribution at its rank among real values. On the scale of the values,
    a few wild ones would decide the deviation of a series with a heavy tail.
    """
    if not len(real) or not len(found):
        return np.full(len(weights), NAN)
    points = np.unique(real[np.linspace(0, len(real) - 1, _N_SCORES).astype(np.int64)])
    if len(points) < 2:
        return np.full(len(weights), NAN)
    ranks = np.searchsorted(real, points, "left") + np.searchsorted(real, points, "right")
    scores = ndtri(ranks / (2 * len(real)))
    of_real, values = np.interp(real, points, scores), np.interp(found, points, scores)
    n, total, squares = (
        weights @ np.bincount(block, weights=amount, minlength=weights.shape[1])
        for amount in (None, values, values**2)
    )
    variance = divide(squares - divide(total**2, n), n)
    ratio = np.sqrt(np.clip(variance, 0.0, None)) / of_real.std()
    # A series that never varies is as far off as the scale goes.
    return np.abs(np.log(np.clip(ratio, np.exp(-_MOST_SPREAD), None)))


def _summary(
    variables: list[Variable], real: _Described, found: _Described, off: dict[str, Floats]
) -> pd.DataFrame:
    """One row per series."""
    table = pd.DataFrame(
        {
            "series": [v.name for v in variables],
            "kind": [v.kind for v in variables],
            "unit": [v.unit or "" for v in variables],
        }
    )
    for side, described in (("real", real), ("found", found)):
        numbers = [
            x.astype(np.float64) if v.kind == "continuous" else x[:0]
            for v, x in zip(variables, described.values, strict=True)
        ]
        table[f"values_{side}"] = described.per_stay.sum(axis=0)
        table[f"mean_{side}"] = [x.mean() if len(x) else NAN for x in numbers]
        table[f"sd_{side}"] = [x.std(ddof=1) if len(x) > 1 else NAN for x in numbers]
        table[f"missing_{side}"] = described.missing
        table[f"never_{side}"] = described.never
        table[f"per_stay_{side}"] = described.per_stay.mean(axis=0)
    for what in ("ks", "wasserstein", "levels", "values_per_stay"):
        table[what] = off[what][:, 0]
    return table


def _histograms(variables: list[Variable], real: _Described, found: _Described) -> pd.DataFrame:
    """Densities of the values of each continuous series, in bins of equal width.

    Bins are those of the real values and a whole number of their steps wide, so that bins of
    rounded values do not hold one value more by turns. Values outside count in the density of none.
    """
    parts = []
    for variable, of_real, of_found in zip(variables, real.values, found.values, strict=True):
        if variable.kind != "continuous" or not len(of_real):
            continue
        edges = _edges(of_real.astype(np.float64))
        part = {"series": variable.name, "left": edges[:-1], "right": edges[1:]}
        for side, values in (("real", of_real), ("found", of_found)):
            part[side] = np.histogram(values, edges)[0] / max(len(values), 1) / np.diff(edges)
        parts.append(pd.DataFrame(part))
    empty = pd.DataFrame(columns=["series", "left", "right", "real", "found"])
    return pd.concat(parts, ignore_index=True) if parts else empty


def _edges(values: Floats) -> Floats:
    low, high = np.quantile(values, _SHOWN)
    steps = np.diff(np.unique(values))
    step = float(np.median(steps)) if len(steps) else 1.0
    width = max(np.ceil((high - low) / _N_BINS / step), 1.0) * step
    n_bins = int(np.floor((high - low) / width)) + 1
    edges: Floats = low - step / 2 + width * np.arange(n_bins + 1)
    return edges


def _levels(variables: list[Variable], real: _Described, found: _Described) -> pd.DataFrame:
    """The share of each level among the values of each categorical series."""
    parts = []
    for variable, *both in zip(variables, real.values, found.values, strict=True):
        if variable.kind == "categorical":
            part: dict[str, object] = {"series": variable.name, "level": variable.levels}
            for side, values in zip(("real", "found"), both, strict=True):
                counts = np.bincount(values.astype(np.int64), minlength=len(variable.levels))
                part[side] = counts / max(len(values), 1)
            parts.append(pd.DataFrame(part))
    empty = pd.DataFrame(columns=["series", "level", "real", "found"])
    return pd.concat(parts).head(_MOST_LEVELS) if parts else empty
