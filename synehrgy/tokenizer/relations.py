"""What the values of one time point have in common, learnt from the train split.

The diastolic pressure is never above the systolic one, and a total follows from its parts. A model
may draw values that contradict each other, and numbers drawn inside two bins that overlap may do so
although the bins do not. ``Relations.settle`` puts such values right. Only generated patients are
settled: real ones come back as they were.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import Cohort

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# A relation holds at this share of the time points that it can be asked of, or more...
HOLDS = 0.995
# ... of which there are so many, or more...
FEWEST_POINTS = 200
# ... and would by chance be broken at this share, or more: else it says nothing.
BROKEN_BY_CHANCE = 0.01
# Parts of a total are measured at this share of its time points, or more.
PARTS_MEASURED = 0.5

_SEED = 0


@dataclass(frozen=True)
class Total:
    """A categorical series whose level follows from those of others at the same time.

    Attributes:
        series: the total.
        parts: the others.
        levels: the levels of the parts, and then that of the total, of each combination seen.
    """

    series: str
    parts: list[str]
    levels: list[list[str]]


@dataclass(frozen=True)
class Relations:
    """Relations between series at the same time.

    Attributes:
        orders: pairs of continuous series, the first of which is never the greater one. No series
            is below itself by way of others, or settling would not come to an end.
        totals: categorical series that follow from others.
    """

    orders: list[tuple[str, str]] = field(default_factory=list)
    totals: list[Total] = field(default_factory=list)

    @classmethod
    def fit(cls, train: Cohort) -> "Relations":
        """Find those that hold in a cohort."""
        points = _Points(train)
        return cls(_without_circles(sorted(_orders(points))), list(_totals(points)))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        totals = [asdict(total) for total in self.totals]
        return {"orders": [list(pair) for pair in self.orders], "totals": totals}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Relations":
        """What ``to_json`` gave."""
        orders = [(low, high) for low, high in content["orders"]]
        return cls(orders, [Total(**total) for total in content["totals"]])

    def settle(
        self,
        names: Sequence[str],
        levels: Sequence[str],
        point: Ints,
        series: Ints,
        value: Floats,
        level: Ints,
    ) -> tuple[Floats, Ints]:
        """Values that keep to the relations.

        Two numbers in the wrong order change places; a total becomes what its parts say, where
        they were seen together.

        Args:
            names: of the series.
            levels: of all categorical series.
            point: int64 [values]; number of the time point of each value.
            series: int64 [values]; number of its series; each once in a time point.
            value: float64 [values]; NaN where there is a level.
            level: int64 [values]; number of its level, -1 where there is a number.

        Returns:
            Values and levels of the same shapes.
        """
        value, level = value.copy(), level.copy()
        n_points = int(point.max(initial=-1)) + 1
        number = {name: i for i, name in enumerate(names)}

        def row_of(name: str) -> Ints:
            """The row that has the value of a series at each time point, -1 for none."""
            rows = np.full(n_points, -1, dtype=np.int64)
            mine = np.flatnonzero(series == number[name])
            rows[point[mine]] = mine
            return rows

        pairs = []
        for one, other in self.orders:
            low, high = row_of(one), row_of(other)
            both = (low >= 0) & (high >= 0)
            pairs.append((low[both], high[both]))
        swapped = True
        # Each exchange moves the smaller number to the lower series, so this comes to an end.
        while swapped:
            swapped = False
            for low, high in pairs:
                wrong = value[low] > value[high]
                if wrong.any():
                    swapped = True
                    a, b = low[wrong], high[wrong]
                    value[a], value[b] = value[b], value[a]
        index = {text: i for i, text in enumerate(levels)}
        for total in self.totals:
            rows = np.stack([row_of(name) for name in [*total.parts, total.series]])
            rows = rows[:, (rows >= 0).all(axis=0)]
            known = np.array([[index[text] for text in line] for line in total.levels])
            keys = np.ravel_multi_index(tuple(known[:, :-1].T), (len(levels),) * len(total.parts))
            asked = np.ravel_multi_index(tuple(level[rows[:-1]]), (len(levels),) * len(total.parts))
            order = np.argsort(keys)
            at = np.minimum(np.searchsorted(keys[order], asked), len(keys) - 1)
            seen = keys[order][at] == asked
            level[rows[-1][seen]] = known[order[at[seen]], -1]
        return value, level


class _Points:
    """Time points of a cohort, and what each series was at each of them."""

    def __init__(self, cohort: Cohort):
        rows = cohort.measurements
        self.schema = cohort.schema
        # Rows are sorted, so those of a time point stand together.
        begins = (rows["stay_id"].diff() != 0) | (rows["hours"].diff() != 0)
        self.point = begins.cumsum().to_numpy(np.int64) - 1
        self.n = int(begins.sum())
        self.rows = rows
        self.rows_of = {
            str(name): at for name, at in rows.groupby("variable", observed=True).indices.items()
        }

    def numbers(self, name: str) -> Floats:
        """The value at each time point, NaN for none."""
        found = np.full(self.n, np.nan)
        at = self.rows_of.get(name, np.zeros(0, np.int64))
        found[self.point[at]] = self.rows["value"].to_numpy()[at]
        return found

    def texts(self, name: str) -> "pd.Series[str]":
        """The level at each time point where there is one, by its number."""
        at = self.rows_of.get(name, np.zeros(0, np.int64))
        return pd.Series(self.rows["level"].iloc[at].astype(object).to_numpy(), self.point[at])


def _orders(points: _Points) -> Iterator[tuple[str, str]]:
    units: dict[str, list[str]] = {}
    for variable in points.schema.variables_of("continuous"):
        if variable.unit:
            units.setdefault(variable.unit, []).append(variable.name)
    for names in units.values():
        values = {name: points.numbers(name) for name in names} if len(names) > 1 else {}
        for low, high in permutations(values, 2):
            both = ~np.isnan(values[low]) & ~np.isnan(values[high])
            if both.sum() < FEWEST_POINTS:
                continue
            a, b = values[low][both], values[high][both]
            by_chance = np.random.default_rng(_SEED).permutation(b)
            if (a <= b).mean() >= HOLDS and (a > by_chance).mean() >= BROKEN_BY_CHANCE:
                yield low, high


def _without_circles(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs but for those of series that are each below the other, being nearly always equal.

    The others stay, in their order, if no pair before them says the contrary.
    """
    above: dict[str, set[str]] = {}
    found = []
    for low, high in pairs:
        if (high, low) in pairs or low in above.get(high, ()):
            continue
        found.append((low, high))
        for name in [low, *(name for name, others in above.items() if low in others)]:
            above.setdefault(name, set()).update({high}, above.get(high, ()))
    return found


def _totals(points: _Points) -> Iterator[Total]:
    variables = points.schema.variables_of("categorical")
    texts = {variable.name: points.texts(variable.name) for variable in variables}
    # A part also follows from the total and the other parts: that with most levels is the total.
    of_total: set[str] = set()
    for variable in sorted(variables, key=lambda v: (-len(v.levels), v.name)):
        mine = texts[variable.name]
        if variable.name in of_total or len(mine) < FEWEST_POINTS:
            continue
        parts = [
            name
            for name, other in texts.items()
            if name != variable.name and mine.index.isin(other.index).mean() >= PARTS_MEASURED
        ]
        columns = {str(i): texts[name] for i, name in enumerate(parts)} | {"total": mine}
        whole = pd.DataFrame(columns).dropna()
        if not parts or len(whole) < FEWEST_POINTS:
            continue
        counts = whole.value_counts().rename("n").reset_index()
        keys = [str(i) for i in range(len(parts))]
        # Of equally frequent totals the first in the alphabet.
        counts = counts.sort_values(["n", "total"], ascending=[False, True], kind="stable")
        likeliest = counts.drop_duplicates(keys)
        by_chance = float(whole["total"].value_counts(normalize=True).iloc[0])
        if likeliest["n"].sum() < HOLDS * len(whole) or by_chance > 1 - BROKEN_BY_CHANCE:
            continue
        of_total.update(parts)
        lines = likeliest[[*keys, "total"]].sort_values(keys).to_numpy().tolist()
        yield Total(variable.name, parts, lines)
