"""Stays as points and as sets of codes, and which of others is the nearest to each.

What attacks that have nothing but the synthetic patients look at.
"""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from synehrgy.evaluation.metric import TEST, Bench
from synehrgy.evaluation.patients import Grid, Patients

Points = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Dimensions that series, and that codes, are brought to: distances stay what they are, roughly.
_DIMENSIONS = 64
# Standard deviations beyond which a number is no further away: one outlier is not a whole patient.
_FAR = 5.0
# Rows of a product of sparse matrices at a time: bounds the memory.
_CHUNK = 512


@dataclass(frozen=True)
class Located:
    """Stays as points: float32 [stays, dimensions] each.

    Attributes:
        facts: covariates and the length of stay.
        codes: a random projection of the set of codes; without columns if there are none.
        series: principal components of summaries, counts and shares of levels; without columns if
            there are no series.
    """

    facts: Points
    codes: Points
    series: Points

    @property
    def whole(self) -> Points:
        """Everything, each part weighing the same."""
        return np.hstack([self.facts, self.codes, self.series])


class Space:
    """Brings stays to one scale, which is that of the real stays, train and test alike.

    Args:
        real: parts of the real cohort. None of them may be left out: a scale of the train split
            alone would fit its patients better than those held out.
        seed: of the projections.
    """

    def __init__(self, real: list[Patients], seed: int) -> None:
        self.vocabulary = vocabulary_of(real)
        rng = np.random.default_rng(seed)
        shape = (len(self.vocabulary), min(_DIMENSIONS, len(self.vocabulary)))
        # Gaussian: keeps distances (Johnson and Lindenstrauss, 1984), those of rare codes, too.
        self._projection = rng.normal(size=shape, scale=1 / np.sqrt(max(shape[1], 1)))
        self._fact_scale = Scaler(np.vstack([fact_columns(p) for p in real]))
        series = np.vstack([series_columns(p) for p in real])
        self._series_scale = Scaler(series)
        scores = self._series_scale(series)
        # Principal components: the eigenvectors of the greatest eigenvalues come last.
        self._components = np.linalg.eigh(scores.T @ scores)[1][:, -_DIMENSIONS:]
        self._kept: WeakKeyDictionary[Patients, Located] = WeakKeyDictionary()
        self._weights = np.ones(3)
        parts = [self._located(p) for p in real]
        spreads = (
            np.vstack([getattr(part, name) for part in parts]).var(axis=0).sum()
            for name in ("facts", "codes", "series")
        )
        self._weights = np.array([1 / np.sqrt(s) if s > 1e-12 else 1.0 for s in spreads])

    def locate(self, patients: Patients) -> Located:
        """Where their stays are."""
        if patients not in self._kept:
            self._kept[patients] = self._located(patients)
        return self._kept[patients]

    def project(self, presence: sparse.csr_matrix) -> Points:
        """Sets of codes of the vocabulary as points."""
        return np.asarray((presence @ self._projection) * self._weights[1], dtype=np.float32)

    def _located(self, patients: Patients) -> Located:
        facts = self._fact_scale(fact_columns(patients)) * self._weights[0]
        scores = self._series_scale(series_columns(patients))
        series = scores @ self._components * self._weights[2]
        return Located(
            facts.astype(np.float32),
            self.project(patients.presence(self.vocabulary)),
            series.astype(np.float32),
        )


# By the test patients, the train patients, and the seed.
_SPACES: WeakKeyDictionary[Patients, WeakKeyDictionary[Patients, dict[int, Space]]]
_SPACES = WeakKeyDictionary()


def space_of(bench: Bench) -> Space:
    """The one of its train and test patients, made once."""
    test = bench.rows[TEST]
    of_seeds = _SPACES.setdefault(test, WeakKeyDictionary()).setdefault(bench.train, {})
    if bench.seed not in of_seeds:
        of_seeds[bench.seed] = Space([bench.train, test], bench.seed)
    return of_seeds[bench.seed]


def vocabulary_of(groups: list[Patients]) -> pd.Index:
    """All codes that any of them has, in order."""
    return pd.Index(np.unique(np.concatenate([p.coded["code"].unique() for p in groups])))


class Scaler:
    """Standard scores of columns; 0 where there is no value."""

    def __init__(self, values: Floats) -> None:
        known = ~np.isnan(values)
        n = np.maximum(known.sum(axis=0), 1)
        self.mean = np.where(known, values, 0.0).sum(axis=0) / n
        spread = np.sqrt((np.where(known, values - self.mean, 0.0) ** 2).sum(axis=0) / n)
        self.sd = np.where(spread > 1e-12, spread, 1.0)

    def __call__(self, values: Floats, clip: bool = True) -> Floats:
        """The scores of other values; clipped, none is further than ``_FAR`` from the mean."""
        scores = np.nan_to_num((values - self.mean) / self.sd)
        return np.clip(scores, -_FAR, _FAR) if clip else scores


def fact_columns(patients: Patients) -> Floats:
    """Log length of stay and covariates, a column per level: [stays, facts], NaN if unknown."""
    stays = patients.stays
    columns = [np.log1p(stays["los_hours"].to_numpy(np.float64))]
    for covariate in patients.schema.covariates:
        if covariate.kind == "continuous":
            columns.append(stays[covariate.name].to_numpy(np.float64))
        columns += [
            (stays[covariate.name] == level).to_numpy(np.float64) for level in covariate.levels
        ]
    return np.stack(columns, axis=1)


def series_columns(patients: Patients) -> Floats:
    """Summaries of continuous series, log counts of all, shares of levels of categorical ones.

    NaN where there is no value: [stays, columns].
    """
    grid, n = patients.grid, len(patients.stays)
    counts = _totals(grid, grid.observed, n)
    parts = [np.log1p(counts)]
    if patients.schema.variables_of("continuous"):
        parts.append(patients.embedding)
    for i, variable in enumerate(patients.schema.variables):
        if variable.kind == "categorical":
            is_level = grid.values[:, [i]] == np.arange(len(variable.levels))
            parts.append(_totals(grid, is_level, n) / np.maximum(counts[:, [i]], 1))
    return np.hstack(parts)


def _totals(grid: Grid, flags: NDArray[np.bool_], n: int) -> Floats:
    """How many points of each stay have each flag: [stays, flags]."""
    found = np.zeros((n, flags.shape[1]))
    start = np.flatnonzero(np.diff(grid.stay, prepend=-1))
    if len(start) and flags.shape[1]:
        found[grid.stay[start]] = np.add.reduceat(flags, start, axis=0, dtype=np.float64)
    return found


def nearest(points: Points, pool: Points | None = None) -> tuple[Floats, Ints]:
    """How far the nearest of a pool is, and which it is.

    Args:
        points: [n, dimensions].
        pool: [m, dimensions]; None: the other points, each leaving itself out.

    Returns:
        Euclidean distances, infinite where the pool is empty, and rows of the pool, then -1.
    """
    from sklearn.neighbors import NearestNeighbors

    others = len(points) - 1 if pool is None else len(pool)
    if others < 1 or not len(points):
        return np.full(len(points), np.inf), np.full(len(points), -1)
    finder = NearestNeighbors(n_neighbors=1, algorithm="brute")
    finder.fit(points if pool is None else pool)
    distance, row = finder.kneighbors(None if pool is None else points)
    # What is left of the distance between equal points is rounding.
    return np.round(distance[:, 0].astype(np.float64), 4), row[:, 0].astype(np.int64)


@dataclass(frozen=True)
class NearestCodes:
    """Of each set of codes.

    Attributes:
        difference: codes that only one of it and the nearest set of the pool has (the size of
            their symmetric difference); infinite where the pool is empty.
        jaccard: the greatest share that it has in common with a set of the pool; 0 of no codes.
        row: which one that is; -1 where none has a code in common.
    """

    difference: Floats
    jaccard: Floats
    row: Ints


def nearest_codes(sets: sparse.csr_matrix, pool: sparse.csr_matrix) -> NearestCodes:
    """The most similar sets of a pool: 0-1 matrices over one vocabulary."""
    n = sets.shape[0]
    size, pool_size = (np.asarray(m.sum(axis=1)).ravel() for m in (sets, pool))
    smallest = pool_size.min() if len(pool_size) else np.inf
    difference, jaccard, row = size + smallest, np.zeros(n), np.full(n, -1)
    turned = pool.T.tocsr()
    for first in range(0, n, _CHUNK):
        common = sets[first : first + _CHUNK] @ turned
        some = np.flatnonzero(np.diff(common.indptr))
        if not len(some):
            continue
        start = common.indptr[some]
        mine = np.repeat(np.arange(common.shape[0]), np.diff(common.indptr))
        union = size[first + mine] + pool_size[common.indices] - common.data
        apart = np.minimum.reduceat(union - common.data, start)
        difference[first + some] = np.minimum(difference[first + some], apart)
        share = common.data / union
        jaccard[first + some] = np.maximum.reduceat(share, start)
        best = np.flatnonzero(share == jaccard[first + mine])
        which, place = np.unique(mine[best], return_index=True)
        row[first + which] = common.indices[best[place]]
    return NearestCodes(difference.astype(np.float64), jaccard, row)


def first_stays(patients: Patients) -> Ints:
    """The row of the first stay of each patient."""
    return np.flatnonzero(np.diff(patients.patient, prepend=-1))


def of_patients(patients: Patients, values: Floats) -> Floats:
    """The greatest value of the stays of each patient: [patients] from [stays]."""
    start = first_stays(patients)
    return np.maximum.reduceat(values, start) if len(start) else np.zeros(0)
