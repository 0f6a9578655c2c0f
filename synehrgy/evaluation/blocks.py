"""Sums over blocks of patients, and distances of distributions that are resampled by them.

What is summed over patients is kept as one sum per block of whole patients. A resample of blocks
is then one product of matrices, however large the cohort (random groups: Wolter, Introduction to
Variance Estimation, 2007, chapter 2). Up to ``N_BLOCKS`` patients a block is one patient.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from synehrgy.evaluation.kept import kept
from synehrgy.evaluation.metric import NAN, Bench, Scale, Score, bootstrapped, patient_weights
from synehrgy.evaluation.patients import FIRST_HOURS, Floats, Patients

N_BLOCKS = 200

# A series that fewer real patients have is in the tables, but in no mean and no worst.
FEWEST_PATIENTS = 20
# A correlation of fewer real pairs is not compared, as published; one of so few pairs of the row
# that it says nothing counts as 0, so that what a row lacks costs it something.
FEWEST_PAIRS, FEWEST_PAIRS_OF_ROW = 100, 10
# A matrix in a table has the series that are measured most.
_MOST_SHOWN = 50

# Numbers that sums per pair of series may have in all blocks together.
_MOST_PAIRS, _FEWEST_BLOCKS = 4_000_000, 20

# Resamples that are computed together.
_SIDE_BY_SIDE = 32

_MIDDLE = (0.005, 0.995)

# Points at which the distribution functions of resamples are compared.
_N_EDGES = 128


def n_blocks(patients: Patients, most: int = N_BLOCKS) -> int:
    """How many blocks the patients make."""
    return min(len(patients), most)


def block_of_stay(patients: Patients, most: int = N_BLOCKS) -> NDArray[np.int64]:
    """The block of each stay, ascending: patients in their order, equally many in each block."""
    found: NDArray[np.int64] = patients.patient * n_blocks(patients, most) // len(patients)
    return found


def block_weights(patients: Patients, bench: Bench, most: int = N_BLOCKS) -> Floats:
    """How often each block counts: [1 + resamples, blocks].

    The first line is the sample itself, each of the others a resample of the bootstrap: what is
    computed with all lines at once is a score and its replicates.
    """
    blocks = n_blocks(patients, most)
    drawn = patient_weights(blocks, bench.effort.n_resamples, bench.seed)
    return np.concatenate([np.ones((1, blocks)), drawn])


def resampled(weights: Floats, *sums: Floats) -> Iterator[list[Floats]]:
    """Sums over blocks, added up for one line of weights after the other.

    A few lines at a time are computed together: fast, and bounded in memory.

    Args:
        weights: of ``block_weights``.
        sums: each [blocks, ...].

    Yields:
        Of each the sum over blocks: [...].
    """
    flat = [x.reshape(len(x), -1) for x in sums]
    for first in range(0, len(weights), _SIDE_BY_SIDE):
        lines = weights[first : first + _SIDE_BY_SIDE]
        totals = [lines @ x for x in flat]
        for i in range(len(lines)):
            yield [total[i].reshape(x.shape[1:]) for total, x in zip(totals, sums, strict=True)]


def scored(values: Floats, scale: Scale) -> Score:
    """A score with its interval from what was computed with ``block_weights``: [1 + resamples]."""
    return bootstrapped(values[0], values[1:], scale.bounds)


def blocks_of_pairs(patients: Patients) -> int:
    """How many blocks, where each has numbers per pair of series: bounds the memory."""
    n_pairs = max(len(patients.schema.variables) ** 2, 1)
    return int(np.clip(_MOST_PAIRS // n_pairs, _FEWEST_BLOCKS, N_BLOCKS))


def point_blocks(patients: Patients, most: int = N_BLOCKS) -> Iterator[slice]:
    """The time points of each block, as rows of ``patients.grid``."""
    block = block_of_stay(patients, most)[patients.grid.stay]
    edges = np.searchsorted(block, np.arange(n_blocks(patients, most) + 1))
    yield from (slice(first, end) for first, end in itertools.pairwise(edges.tolist()))


def early(patients: Patients) -> NDArray[np.bool_]:
    """Whether a time point is in the part that was published: first stay, first 48 hours."""
    first = patients.stays["stay_index"].to_numpy() == 0
    found: NDArray[np.bool_] = first[patients.grid.stay] & (patients.grid.hours < FIRST_HOURS)
    return found


@kept
def limits(patients: Patients) -> tuple[Floats, Floats]:
    """Between which values of each series are taken as they are; others count as the limit.

    The range of the middle 99 % and as much again on either side. Real data have values that are
    wrong by a factor of a thousand: one of them would decide a mean, a variance or a correlation.

    Returns:
        Two float64 [series]; infinite for a categorical series and for one without values.
    """
    n_series = len(patients.schema.variables)
    low, high = np.full(n_series, -np.inf), np.full(n_series, np.inf)
    for i in patients.continuous:
        column = patients.grid.values[:, i]
        column = column[~np.isnan(column)].astype(np.float64)
        if len(column):
            first, last = np.quantile(column, _MIDDLE)
            width = last - first
            whole = column.min(), column.max()
            low[i], high[i] = (first - width, last + width) if width > 0 else whole
    return low, high


@kept
def moments(patients: Patients) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each series within ``limits``; of levels, of their numbers.

    Returns:
        Two float64 [series]. A series without values has mean 0, one without spread deviation NaN.
    """
    values = patients.grid.values
    mean, sd = np.zeros(values.shape[1]), np.full(values.shape[1], NAN)
    for i, (low, high) in enumerate(zip(*limits(patients), strict=True)):
        column = values[:, i]
        column = np.clip(column[~np.isnan(column)].astype(np.float64), low, high)
        if len(column):
            mean[i] = column.mean()
        if len(column) > 1 and column.min() < column.max():
            sd[i] = column.std(ddof=1)
    return mean, sd


def unit(train: Patients) -> tuple[Floats, Floats]:
    """Centre and scale in which sums of squares stay exact: two float64 [series], never NaN."""
    centre, scale = moments(train)
    return centre, np.where(np.isnan(scale), 1.0, scale)


@kept
def patients_with(patients: Patients) -> NDArray[np.int64]:
    """How many patients have a value of each series: [series]."""
    grid = patients.grid
    patient = patients.patient[grid.stay]
    new = np.flatnonzero(np.diff(patient, prepend=-1))
    if not len(new):
        return np.zeros(grid.values.shape[1], dtype=np.int64)
    return np.logical_or.reduceat(grid.observed, new, axis=0).sum(axis=0)


def shown(patients: Patients) -> NDArray[np.int64]:
    """The columns of the series that matrices in tables have: those measured most, in order."""
    order = np.argsort(-patients_with(patients), kind="stable")[:_MOST_SHOWN]
    return np.sort(order)


def distance(
    real: NDArray[np.number],
    found: NDArray[np.number],
    block: NDArray[np.int64],
    weights: Floats,
) -> tuple[Floats, Floats]:
    """How far the values of a row are from real ones.

    The distances are exact. Those of resamples are taken at quantiles of all values, for speed.

    Args:
        real: ascending.
        found: in any order.
        block: of each value that was found.
        weights: of ``block_weights``.

    Returns:
        Two arrays [1 + resamples]. The Kolmogorov-Smirnov distance is the greatest difference of
        the distribution functions, the Wasserstein distance the area between them, in the unit of
        the values. All NaN if there are no real values. If there are, but none was found, the first
        is the greatest possible, 1, and the second is not defined.
    """
    undefined = np.full(len(weights), NAN)
    if not len(real):
        return undefined, undefined
    if not len(found):
        return np.ones(len(weights)), undefined
    both = np.sort(np.concatenate([real, found]))
    edges = np.unique(both[np.linspace(0, len(both) - 1, _N_EDGES).astype(np.int64)])
    bins = np.searchsorted(edges, found, side="left")
    counts = weights @ count_by(block, bins, weights.shape[1], len(edges))
    below = divide(np.cumsum(counts, axis=1), counts.sum(axis=1, keepdims=True))
    off = np.abs(below - _share_of(real, edges))
    ks, area = off.max(axis=1), off[:, :-1] @ np.diff(edges.astype(np.float64))
    exact = np.abs(_share_of(real, both) - _share_of(np.sort(found), both))
    # With a single edge the area is 0 even of no values.
    area[np.isnan(ks)] = NAN
    ks[0], area[0] = exact.max(), exact[:-1] @ np.diff(both.astype(np.float64))
    return ks, area


def _share_of(ascending: NDArray[np.number], at: NDArray[np.number]) -> Floats:
    """The distribution function of values."""
    shares: Floats = np.searchsorted(ascending, at, side="right") / len(ascending)
    return shares


def total_variation(real: NDArray[np.integer], counts: Floats) -> Floats:
    """The share of items that are of the wrong kind: half the absolute differences of the shares.

    Args:
        real: how many real items there are of each kind: [kinds].
        counts: how many were found: [lines, kinds].

    Returns:
        [lines]; NaN if there are no real items, 1 if there are but none was found.
    """
    if not real.sum():
        return np.full(len(counts), NAN)
    shares = divide(counts, counts.sum(axis=1, keepdims=True))
    return np.nan_to_num(np.abs(shares - real / real.sum()).sum(axis=1) / 2, nan=1.0)


def count_by(
    block: NDArray[np.integer],
    what: NDArray[np.integer],
    n_blocks: int,
    n_kinds: int,
    amount: NDArray[np.floating] | None = None,
) -> Floats:
    """How many items of each kind each block has, or the sum of their amounts: [blocks, kinds]."""
    flat = np.bincount(block * n_kinds + what, weights=amount, minlength=n_blocks * n_kinds)
    return flat.reshape(n_blocks, n_kinds).astype(np.float64)


def divide(above: NDArray[np.number], below: NDArray[np.number]) -> Floats:
    """A quotient; NaN where nothing divides."""
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(above.shape, NAN), where=below > 0)


def mean_of(values: Floats, weights: Floats | None = None) -> Floats:
    """The mean over the first axis of what is defined; NaN if nothing is.

    Args:
        values: [items, ...], NaN where one is not defined.
        weights: of the items: [items]; None: they are equal.
    """
    if weights is None:
        weights = np.ones(len(values))
    weight = np.where(np.isnan(values), 0.0, weights.reshape(-1, *[1] * (values.ndim - 1)))
    return divide((np.nan_to_num(values) * weight).sum(axis=0), weight.sum(axis=0))


def worst_of(values: Floats) -> Floats:
    """The greatest over the first axis of what is defined; NaN if nothing is."""
    if not len(values):
        return np.full(values.shape[1:], NAN)
    greatest: Floats = np.fmax.reduce(values, axis=0)
    return greatest
