"""How series move: gaps, steps, memory, the course of the first days, changes of level."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort.schema import Variable
from synehrgy.evaluation.blocks import (
    FEWEST_PAIRS,
    FEWEST_PAIRS_OF_ROW,
    FEWEST_PATIENTS,
    block_of_stay,
    block_weights,
    count_by,
    distance,
    divide,
    limits,
    mean_of,
    n_blocks,
    patients_with,
    scored,
    total_variation,
    unit,
)
from synehrgy.evaluation.kept import kept
from synehrgy.evaluation.metric import NAN, TEST, Bench, Found, Metric, Scale
from synehrgy.evaluation.patients import FIRST_HOURS, Floats, Patients

# Between consecutive values of a series, in hours; the last edge is the end.
_LAGS = ("about 1 h", "about 2 h", "about 4 h", "about 8 h", "about 24 h")
_LAG_EDGES = (0.0, 1.5, 3.0, 6.0, 12.0, 36.0)
# The course of a series has one mean per so many hours.
_COURSE_HOURS = 6.0
_N_COURSE = int(FIRST_HOURS / _COURSE_HOURS)
# Stays are parted at these shares of the real lengths and of the real numbers of time points.
_FIFTHS = (0.2, 0.4, 0.6, 0.8)
_N_PARTS = len(_FIFTHS) + 1
_N_CELLS = (_N_PARTS + 1) * _N_PARTS
# Quantiles in the tables of gaps and of steps.
_SHARES = np.linspace(0, 1, 101)
_STEP_SHARES = np.linspace(0, 1, 21)
_MOST_TRANSITIONS = 2000


def _low(title: str, meaning: str, good: float, poor: float, most: float = 1.0) -> Scale:
    return Scale(title, meaning, "low", (0.0, most), TEST, good, poor)


class Dynamics(Metric):
    """What a series does from one value to the next, over all admissions."""

    name = "dynamics"
    title = "Course over time"
    group = "fidelity"
    needs = frozenset({"series"})
    scales = {
        "dynamics/gaps": _low(
            "Time between time points",
            "The share of gaps between one time point and the next that are too short or too long, "
            "at the worst threshold.",
            0.05,
            0.15,
        ),
        "dynamics/autocorrelation": _low(
            "Memory of a series",
            "By how much the correlation of a value with the next one of the same series is off: "
            "mean over series and over times between the two.",
            0.03,
            0.08,
            2.0,
        ),
        "dynamics/individuality": _low(
            "Differences between stays",
            "By how much the share of the variance of a series is off that lies between stays, "
            "not within them: mean over series.",
            0.05,
            0.15,
            2.0,
        ),
        "dynamics/steps": _low(
            "Steps of a series",
            "The share of steps from one value to the next that are too small or too large, at the "
            "worst threshold: mean over series.",
            0.05,
            0.15,
        ),
        "dynamics/course": _low(
            "Course of the first 48 hours",
            "By how much the mean of a series rises or falls otherwise in the first 48 hours, in "
            "real standard deviations: mean over series, by their values.",
            0.015,
            0.03,
            float("inf"),
        ),
        "dynamics/transitions": _low(
            "Changes of level",
            "The share of values of a categorical series that are followed by the wrong level: "
            "mean over series.",
            0.03,
            0.08,
        ),
        "dynamics/length_and_points": _low(
            "Length of stay and time points",
            "The share of stays with the wrong combination of length and number of time points.",
            0.05,
            0.15,
        ),
    }

    def measure(self, bench: Bench, row: str) -> Found:
        """Measure one row against the train patients."""
        train, patients = bench.train, bench.equal[row]
        variables, weights = train.schema.variables, block_weights(patients, bench)
        real, found = _real(train), _describe(patients, train)
        memory, spread, course = (
            np.tensordot(weights, x, axes=1) for x in (found.memory, found.spread, found.course)
        )
        undefined = np.full((len(variables), len(weights)), NAN)
        off = {
            "autocorrelation": _memory_off(real.memory, memory),
            "individuality": np.abs(between_share(spread) - between_share(real.spread)).T,
            "course": _course_off(real.course, course),
            "steps": undefined.copy(),
            "transitions": undefined.copy(),
        }
        for i, variable in enumerate(variables):
            moves = found.moves[i]
            if variable.kind == "continuous":
                off["steps"][i], _ = distance(real.moves[i].what, *moves, weights)
            else:
                off["transitions"][i] = _transitions_off(
                    real.moves[i].what, *moves, len(variable.levels), weights
                )
        enough = patients_with(train) >= FEWEST_PATIENTS
        scores = {f"dynamics/{what}": mean_of(values[enough]) for what, values in off.items()}
        # The course of a series that is measured once a day is noise.
        early_values = real.course[enough, :, 0].sum(axis=-1)
        scores["dynamics/course"] = mean_of(off["course"][enough], early_values)
        scores["dynamics/gaps"], _ = distance(real.gaps.what, *found.gaps, weights)
        cells = weights @ count_by(found.stays.block, found.stays.what, weights.shape[1], _N_CELLS)
        of_real = np.bincount(real.stays.what, minlength=_N_CELLS)
        scores["dynamics/length_and_points"] = total_variation(of_real, cells)
        return Found(
            {name: scored(scores[name], scale) for name, scale in self.scales.items()},
            _tables(train, real, found, {what: values[:, 0] for what, values in off.items()}),
        )


class _Blocked(NamedTuple):
    """Something of stays, and the block of each; in ascending order for real patients."""

    what: NDArray[Any]
    block: NDArray[np.int64]


@dataclass(frozen=True)
class _Described:
    """What is compared. Values are those within ``limits``, in ``unit``.

    Attributes:
        gaps: hours between one time point and the next.
        moves: of each series: a continuous one has the absolute steps from a value to the next, a
            categorical one pairs of levels, as number of the first x levels + number of the second.
        memory: of pairs of consecutive values, their number, sums, sums of squares and sum of
            products: [blocks, series, lags, 6].
        spread: what ``between_share`` takes: [blocks, series, 6].
        course: number and sum of values: [blocks, series, blocks of hours, 2].
        stays: the cell of length of stay and number of time points.
    """

    gaps: _Blocked
    moves: list[_Blocked]
    memory: Floats
    spread: Floats
    course: Floats
    stays: _Blocked


def _describe(patients: Patients, train: Patients) -> _Described:
    (low, high), (centre, scale) = limits(train), unit(train)
    grid, block, n = patients.grid, block_of_stay(patients), n_blocks(patients)
    moves, memory, spread, course = [], [], [], []
    for i, (variable, column) in enumerate(zip(train.schema.variables, grid.values.T, strict=True)):
        there = np.flatnonzero(~np.isnan(column))
        value = (np.clip(column[there], low[i], high[i]) - centre[i]) / scale[i]
        stay, hours = grid.stay[there], grid.hours[there]
        follows = np.flatnonzero(np.diff(stay) == 0)
        before, after, at = value[follows], value[follows + 1], block[stay[follows]]
        lag = np.digitize(hours[follows + 1] - hours[follows], _LAG_EDGES[1:])
        amounts = (None, before, after, before**2, after**2, before * after)
        memory.append(_sums(at, lag, n, len(_LAGS), amounts))
        spread.append(_spread_sums(value, stay, block, n))
        part = (hours // _COURSE_HOURS).astype(np.int64)
        course.append(_sums(block[stay], part, n, _N_COURSE, (None, value)))
        if variable.kind == "continuous":
            # Differences of rounded values differ in their last digits only.
            moves.append(_Blocked(np.round(np.abs(after - before), 5), at))
        else:
            level = column[there].astype(np.int64)
            pair = level[follows] * len(variable.levels) + level[follows + 1]
            moves.append(_Blocked(pair, at))
    follows = np.flatnonzero(np.diff(grid.stay) == 0)
    gaps = _Blocked(grid.hours[follows + 1] - grid.hours[follows], block[grid.stay[follows]])
    return _Described(
        gaps,
        moves,
        np.stack(memory, axis=1),
        np.stack(spread, axis=1),
        np.stack(course, axis=1),
        _Blocked(_stay_cells(patients, train), block),
    )


@kept
def _real(train: Patients) -> _Described:
    found = _describe(train, train)
    none = np.zeros(0, dtype=np.int64)
    return _Described(
        _Blocked(np.sort(found.gaps.what), none),
        [_Blocked(np.sort(x.what), none) for x in found.moves],
        found.memory.sum(axis=0),
        found.spread.sum(axis=0),
        found.course.sum(axis=0),
        found.stays,
    )


def _sums(
    block: NDArray[np.int64],
    kind: NDArray[np.int64],
    many: int,
    n_kinds: int,
    amounts: Sequence[Floats | None],
) -> Floats:
    """By block and kind, the number of items (None) or their amounts: [blocks, kinds, amounts].

    Kinds beyond the last are left out.
    """
    kind = np.minimum(kind, n_kinds)
    sums = [count_by(block, kind, many, n_kinds + 1, x)[:, :-1] for x in amounts]
    return np.stack(sums, axis=-1)


def _spread_sums(
    value: Floats, stay: NDArray[np.int64], block: NDArray[np.int64], many: int
) -> Floats:
    """What ``between_share`` takes, of each block of stays: [blocks, 6]."""
    n = np.bincount(stay, minlength=len(block)).astype(np.float64)
    total = np.bincount(stay, weights=value, minlength=len(block))
    squares = np.bincount(stay, weights=value**2, minlength=len(block))
    per_stay = (n > 0, n, n**2, total, squares, np.nan_to_num(divide(total**2, n)))
    sums = [np.bincount(block, weights=x, minlength=many) for x in per_stay]
    return np.stack(sums, axis=-1)


def between_share(sums: Floats) -> Floats:
    """The share of the variance that lies between stays: the intraclass correlation of one-way
    analysis of variance, with stays of different sizes (Donner, International Statistical Review
    54, 1986).

    Args:
        sums: [..., 6]: number of stays with values, of values, sum of the squared numbers of
            values, sum of values, sum of their squares, and the sum over stays of squared sum of
            values over their number.

    Returns:
        [...]; NaN where no stay has two values, or all values are equal. May be below 0.
    """
    stays, n, squared_n, total, squares, of_stays = np.moveaxis(sums, -1, 0)
    within = divide(np.maximum(squares - of_stays, 0.0), n - stays)
    between = divide(np.maximum(of_stays - divide(total**2, n), 0.0), stays - 1)
    usual = divide(n - divide(squared_n, n), stays - 1)
    # Equal numbers have a variance that is not exactly 0.
    whole = between + (usual - 1) * within
    return divide(between - within, np.where(whole > 1e-9, whole, 0.0))


def autocorrelation(sums: Floats) -> tuple[Floats, Floats]:
    """The correlation of a value with the next, and the number of pairs that it is of.

    Args:
        sums: [..., 6]: number of pairs, sums of first and second, of their squares, of products.

    Returns:
        Two arrays [...]; the first is NaN where it is not defined.
    """
    n, first, second, squares, other_squares, products = np.moveaxis(sums, -1, 0)
    variance = divide(squares, n) - divide(first, n) ** 2
    other = divide(other_squares, n) - divide(second, n) ** 2
    covariance = divide(products, n) - divide(first, n) * divide(second, n)
    defined = (variance > 1e-9 * divide(squares, n)) & (other > 1e-9 * divide(other_squares, n))
    product = np.where(defined, variance * other, 0.0)
    return np.clip(divide(covariance, np.sqrt(product)), -1, 1), n


def _memory_off(real: Floats, found: Floats) -> Floats:
    """Mean absolute difference of the autocorrelations of each series: [series, lines].

    Args:
        real, found: sums [series, lags, 6] and [lines, series, lags, 6].
    """
    (one, pairs), (other, other_pairs) = autocorrelation(real), autocorrelation(found)
    one = np.where(pairs >= FEWEST_PAIRS, one, NAN)
    # What a row hardly has cannot agree.
    other = np.where(other_pairs >= FEWEST_PAIRS_OF_ROW, np.nan_to_num(other), 0.0)
    return mean_of(np.moveaxis(np.abs(one - other), -1, 0)).T


def course(sums: Floats, real: Floats) -> Floats:
    """How far the mean of each block of hours is from the level of the series: [..., hours].

    Args:
        sums: number and sum of values: [..., hours, 2].
        real: those of real patients, whose numbers weigh the blocks in the level.
    """
    weight = np.where(real[..., 0] >= FEWEST_PAIRS, real[..., 0], 0.0)
    mean = divide(sums[..., 1], sums[..., 0])
    weight = np.where(np.isnan(mean), 0.0, weight)
    level = divide((weight * np.nan_to_num(mean)).sum(axis=-1), weight.sum(axis=-1))
    return mean - level[..., None]


def _course_off(real: Floats, found: Floats) -> Floats:
    """Mean absolute difference of the courses of each series: [series, lines].

    Args:
        real, found: sums [series, hours, 2] and [lines, series, hours, 2].
    """
    n = real[..., 0]
    weight = np.where(n >= FEWEST_PAIRS, n, 0.0)
    # Hours without a value show no rise or fall.
    off = np.abs(np.nan_to_num(course(real, real)) - np.nan_to_num(course(found, real)))
    return divide((off * weight).sum(axis=-1), weight.sum(axis=-1)).T


def _transitions_off(
    real: NDArray[np.int64],
    pairs: NDArray[np.int64],
    block: NDArray[np.int64],
    n_levels: int,
    weights: Floats,
) -> Floats:
    """Total variation of the next level given the level, mean over real values: [lines].

    Args:
        real, pairs: levels and next levels, as in ``_Described.moves``.
        block: of each of ``pairs``.
        n_levels: of the series.
        weights: of ``block_weights``.
    """
    if not len(real):
        return np.full(len(weights), NAN)
    cells = np.union1d(real, pairs)
    of_real = np.bincount(np.searchsorted(cells, real), minlength=len(cells)).astype(np.float64)
    counts = count_by(block, np.searchsorted(cells, pairs), weights.shape[1], len(cells))
    # The cells of a level follow each other.
    first = np.flatnonzero(np.diff(cells // n_levels, prepend=-1))
    length = np.diff(first, append=len(cells))

    def given(counts: Floats) -> Floats:
        total = np.repeat(np.add.reduceat(counts, first, axis=-1), length, axis=-1)
        return divide(counts, total)

    off = np.abs(np.nan_to_num(given(of_real)) - given(weights @ counts))
    # A level that the row never has is never followed by the right one.
    off = np.nan_to_num(np.add.reduceat(off, first, axis=-1) / 2, nan=1.0)
    often = np.add.reduceat(of_real, first)
    return off @ (often / often.sum())


@kept
def _fifths(train: Patients) -> tuple[Floats, Floats]:
    """Where the real lengths of stay and numbers of time points are cut."""
    length = train.stays["los_hours"].dropna().to_numpy(np.float64)
    points = np.bincount(train.grid.stay, minlength=len(train.stays))
    # Nobody has a length of stay: there is nothing to cut.
    lengths = np.unique(np.quantile(length, _FIFTHS)) if len(length) else np.zeros(0)
    return lengths, np.unique(np.quantile(points, _FIFTHS))


def _stay_cells(patients: Patients, train: Patients) -> NDArray[np.int64]:
    """Of each stay, part of lengths x parts of points + part of points; unknown lengths last."""
    lengths, points = _fifths(train)
    length = patients.stays["los_hours"].to_numpy(np.float64)
    part = np.where(np.isnan(length), _N_PARTS, np.digitize(length, lengths))
    n_points = np.bincount(patients.grid.stay, minlength=len(patients.stays))
    cell: NDArray[np.int64] = part * _N_PARTS + np.digitize(n_points, points)
    return cell


def _tables(
    train: Patients, real: _Described, found: _Described, off: dict[str, Floats]
) -> dict[str, pd.DataFrame]:
    """What the scores are made of, and the curves and matrices for figures."""
    variables = train.schema.variables
    names = np.array([v.name for v in variables], dtype=object)
    centre, scale = unit(train)
    memory, spread, courses = (x.sum(axis=0) for x in (found.memory, found.spread, found.course))
    series = {
        "series": names,
        "individuality_real": between_share(real.spread),
        "individuality_found": between_share(spread),
    } | {f"{what}_off": values for what, values in off.items()}
    (r_real, n_real), (r_found, n_found) = autocorrelation(real.memory), autocorrelation(memory)
    continuous = train.continuous
    lags = {
        "series": np.repeat(names[continuous], len(_LAGS)),
        "lag": np.tile(_LAGS, len(continuous)),
        "real": r_real[continuous].ravel(),
        "found": r_found[continuous].ravel(),
        "pairs_real": n_real[continuous].ravel(),
        "pairs_found": n_found[continuous].ravel(),
    }
    hours = _COURSE_HOURS * np.arange(_N_COURSE)
    course_columns = {
        "series": np.repeat(names, _N_COURSE),
        "from_hours": np.tile(hours, len(names)),
        "to_hours": np.tile(hours + _COURSE_HOURS, len(names)),
    }
    for side, sums in (("real", real.course), ("found", courses)):
        mean = divide(sums[..., 1], sums[..., 0]) * scale[:, None] + centre[:, None]
        course_columns |= {side: mean.ravel(), f"values_{side}": sums[..., 0].ravel()}
    return {
        "dynamics_series": pd.DataFrame(series),
        "dynamics_autocorrelation": pd.DataFrame(lags),
        "dynamics_course": pd.DataFrame(course_columns),
        "dynamics_steps": _steps_table(variables, scale, real, found),
        "dynamics_transitions": _transitions_table(variables, real, found),
        "dynamics_gaps": pd.DataFrame(
            {
                "share": _SHARES,
                "real": _quantiles(real.gaps.what, _SHARES),
                "found": _quantiles(found.gaps.what, _SHARES),
            }
        ),
        "dynamics_stays": _stays_table(train, real, found),
    }


def _quantiles(values: Floats, shares: Floats) -> Floats:
    found: Floats = np.quantile(values, shares) if len(values) else np.full(len(shares), NAN)
    return found


def _steps_table(
    variables: list[Variable], scale: Floats, real: _Described, found: _Described
) -> pd.DataFrame:
    """Quantiles of the steps of each continuous series, in its unit."""
    parts = [
        pd.DataFrame(
            {
                "series": variable.name,
                "share": _STEP_SHARES,
                "real": _quantiles(real.moves[i].what, _STEP_SHARES) * scale[i],
                "found": _quantiles(found.moves[i].what, _STEP_SHARES) * scale[i],
            }
        )
        for i, variable in enumerate(variables)
        if variable.kind == "continuous"
    ]
    empty = pd.DataFrame(columns=["series", "share", "real", "found"])
    return pd.concat(parts, ignore_index=True) if parts else empty


def _transitions_table(
    variables: list[Variable], real: _Described, found: _Described
) -> pd.DataFrame:
    """How often each level is followed by which, the most frequent pairs in real patients."""
    parts = []
    for i, variable in enumerate(variables):
        if variable.kind != "categorical":
            continue
        both = real.moves[i].what, found.moves[i].what
        cells, levels = np.union1d(*both), np.array(variable.levels, dtype=object)
        part = {
            "series": variable.name,
            "level": levels[cells // len(levels)],
            "next": levels[cells % len(levels)],
        }
        for side, pairs in zip(("real", "found"), both, strict=True):
            part[side] = np.bincount(np.searchsorted(cells, pairs), minlength=len(cells))
        parts.append(pd.DataFrame(part))
    if not parts:
        return pd.DataFrame(columns=["series", "level", "next", "real", "found"])
    table = pd.concat(parts, ignore_index=True)
    often = table["real"].sort_values(ascending=False, kind="stable").index[:_MOST_TRANSITIONS]
    return table.loc[np.sort(often)].reset_index(drop=True)


def _stays_table(train: Patients, real: _Described, found: _Described) -> pd.DataFrame:
    """The share of stays in each cell of length of stay and number of time points."""
    lengths, points = _fifths(train)
    table = pd.DataFrame(
        {
            "length": np.repeat([*_bands(lengths, " h"), "unknown"], _N_PARTS),
            "points": np.tile(_bands(points, ""), _N_PARTS + 1),
        }
    )
    for side, stays in (("real", real.stays), ("found", found.stays)):
        table[side] = np.bincount(stays.what, minlength=_N_CELLS) / max(len(stays.what), 1)
    return table[(table["real"] > 0) | (table["found"] > 0)].reset_index(drop=True)


def _bands(cuts: Floats, unit: str) -> list[str]:
    """Names of the parts between cuts; parts beyond the last cut that do not exist have none."""
    inner = [f"{low:.3g} to {high:.3g}{unit}" for low, high in itertools.pairwise(cuts)]
    if not len(cuts):
        return ["all"] + [""] * (_N_PARTS - 1)
    ends = [f"below {cuts[0]:.3g}{unit}", *inner, f"{cuts[-1]:.3g}{unit} and more"]
    return ends + [""] * (_N_PARTS - len(ends))
