"""A cohort with the views of it that metrics share, each made once."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from synehrgy.cohort import Cohort, Schema

SUMMARIES = ("min", "max", "mean", "sd")
# The first hours of a stay that the published evaluation looks at (SynEHRgy, arXiv 2411.13428).
FIRST_HOURS = 48.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Measurements as one row per time point.

    Attributes:
        stay: int64 [points], the row of the stay in ``cohort.stays``, ascending.
        hours: float64 [points], ascending within a stay.
        values: float32 [points, series], NaN where there is none; a categorical series has the
            number of its level, as declared.
    """

    stay: NDArray[np.int64]
    hours: Floats
    values: NDArray[np.float32]

    @property
    def observed(self) -> NDArray[np.bool_]:
        """Whether there is a value: [points, series]."""
        return ~np.isnan(self.values)

    def first(self, hours: float) -> "Grid":
        """The points of the first hours of each stay."""
        keep = self.hours < hours
        return Grid(self.stay[keep], self.hours[keep], self.values[keep])


class Patients:
    """Patients of a cohort. Read it, do not write to it: what was computed is kept.

    Attributes:
        cohort: their tables.
    """

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self._samples: dict[tuple[int, int], Patients] = {}

    @property
    def schema(self) -> Schema:
        """What the columns mean."""
        return self.cohort.schema

    @property
    def stays(self) -> pd.DataFrame:
        """One row per stay."""
        return self.cohort.stays

    def __len__(self) -> int:
        return len(self.subjects)

    @cached_property
    def subjects(self) -> NDArray[np.int64]:
        """Their numbers, ascending."""
        return np.unique(self.stays["subject_id"].to_numpy(np.int64))

    @cached_property
    def patient(self) -> NDArray[np.int64]:
        """Of each stay, the place of its patient in ``subjects``."""
        return np.searchsorted(self.subjects, self.stays["subject_id"].to_numpy(np.int64))

    @cached_property
    def first(self) -> "Patients":
        """The same patients with their first stay only."""
        return Patients(self.cohort.of_stays(self.stays["stay_index"] == 0))

    def sample(self, n: int, seed: int) -> "Patients":
        """So many of them by chance, in their order; all if there are not more."""
        if n >= len(self):
            return self
        if (n, seed) not in self._samples:
            rng = np.random.default_rng(seed)
            chosen = rng.choice(self.subjects, size=n, replace=False)
            some = self.cohort.of_stays(self.stays["subject_id"].isin(chosen))
            self._samples[n, seed] = Patients(some)
        return self._samples[n, seed]

    def stay_rows(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """Of each row of codes or measurements, the row of its stay in ``stays``."""
        order = pd.Index(self.stays["stay_id"].to_numpy(np.int64))
        rows: NDArray[np.int64] = order.get_indexer(pd.Index(frame["stay_id"])).astype(np.int64)
        return rows

    @cached_property
    def coded(self) -> pd.DataFrame:
        """Codes in order, one row each: ``stay`` (row of its stay), ``code`` ("system:code")."""
        codes = self.cohort.codes
        text = codes["system"].astype(str) + ":" + codes["code"].astype(str)
        return pd.DataFrame({"stay": self.stay_rows(codes), "code": text})

    def presence(self, vocabulary: pd.Index) -> sparse.csr_matrix:
        """Which stay has which code.

        Args:
            vocabulary: codes as "system:code"; others are left out.

        Returns:
            float32 [stays, vocabulary] of 0 and 1.
        """
        column = vocabulary.get_indexer(pd.Index(self.coded["code"]))
        known = column >= 0
        pairs = (self.coded["stay"].to_numpy()[known], column[known])
        shape = (len(self.stays), len(vocabulary))
        found = sparse.csr_matrix((np.ones(known.sum(), dtype=np.float32), pairs), shape=shape)
        # A code that is listed twice is there once.
        found.data[:] = 1.0
        return found

    @cached_property
    def grid(self) -> Grid:
        """All time points, with a column per series of the schema."""
        rows = self.cohort.measurements
        stay, hours = self.stay_rows(rows), rows["hours"].to_numpy(np.float64)
        new = np.ones(len(rows), dtype=bool)
        new[1:] = (np.diff(stay) != 0) | (np.diff(hours) != 0)
        point = np.cumsum(new) - 1
        variables = self.schema.variables
        column = pd.Index([v.name for v in variables]).get_indexer(
            pd.Index(rows["variable"].astype(object))
        )
        number = rows["value"].to_numpy(np.float64, copy=True)
        level = rows["level"].astype(object).to_numpy()
        for i, variable in enumerate(variables):
            if variable.kind == "categorical":
                mine = column == i
                number[mine] = pd.Index(variable.levels).get_indexer(pd.Index(level[mine]))
        values = np.full((int(new.sum()), len(variables)), np.nan, dtype=np.float32)
        values[point, column] = number
        return Grid(stay[new], hours[new], values)

    @cached_property
    def continuous(self) -> NDArray[np.int64]:
        """The columns of ``grid`` that are continuous series."""
        kinds = [v.kind == "continuous" for v in self.schema.variables]
        return np.flatnonzero(kinds).astype(np.int64)

    @cached_property
    def embedding(self) -> Floats:
        """Summaries of each stay's first 48 hours; NaN where a series has no value (sd: one value).

        Returns:
            float64 [stays, continuous series x (min, max, mean, sd)], as published.
        """
        if not len(self.continuous):
            return np.zeros((len(self.stays), 0))
        grid = self.grid.first(FIRST_HOURS)
        table = pd.DataFrame(grid.values[:, self.continuous].astype(np.float64))
        found = table.groupby(grid.stay).agg(["min", "max", "mean", "std"])
        return found.reindex(range(len(self.stays))).to_numpy(np.float64)

    def embedding_names(self) -> list[str]:
        """The columns of ``embedding``."""
        names = [self.schema.variables[i].name for i in self.continuous]
        return [f"{name}, {what}" for name in names for what in SUMMARIES]
