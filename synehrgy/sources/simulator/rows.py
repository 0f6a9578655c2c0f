"""Rows of the event tables before they are tables: which item charts which measurement, and how."""

from dataclasses import dataclass, fields
from functools import cache

import numpy as np

from synehrgy.sources.simulator import text
from synehrgy.sources.simulator.chance import Bools, Float, Ints
from synehrgy.sources.simulator.charting import MEASURED, ROUTES, Chart
from synehrgy.sources.simulator.items import (
    CHART,
    FILLERS,
    ITEMS,
    LAB_FILLERS,
    Filler,
    Item,
)
from synehrgy.sources.simulator.people import People

# All items that can stand in a row; the place in this list stands for the item.
CATALOGUE: tuple[Item | Filler, ...] = (*ITEMS, *FILLERS, *LAB_FILLERS)


@dataclass(frozen=True)
class Rows:
    """Rows of one table: time point, place of the item in the catalogue, how the value is written
    and the number (see ``text.write_values``)."""

    point: Ints
    item: Ints
    way: Ints
    number: Ints

    def __len__(self) -> int:
        return len(self.point)

    def take(self, rows: Ints | Bools) -> "Rows":
        """These rows, by index or flag."""
        return Rows(*(getattr(self, f.name)[rows] for f in fields(self)))

    def with_(self, other: "Rows") -> "Rows":
        """These rows, then those of ``other``."""
        return Rows(
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self))
        )


@cache
def item_facts() -> dict[str, Ints | Float]:
    """Facts of the items by their place in ``ITEMS``."""
    return {
        "scale": np.array([i.scale * 10**i.decimals for i in ITEMS]),
        "offset": np.array([i.offset * 10**i.decimals for i in ITEMS]),
        "low": np.array([i.reference[0] * 10**i.decimals if i.reference else 0 for i in ITEMS]),
        "high": np.array([i.reference[1] * 10**i.decimals if i.reference else 0 for i in ITEMS]),
    }


def items_of(series: str, *, table: str = CHART, source: int | None = None) -> Ints:
    """Places in ``ITEMS`` of the items of a series."""
    return np.array(
        [
            i
            for i, item in enumerate(ITEMS)
            if item.series == series
            and item.table == table
            and (source is None or item.source == source)
        ]
    )


def spell(rng: np.random.Generator, people: People, chart: Chart, values: Float) -> Rows:
    """Every measurement by the items that chart it."""
    source = people.source[chart.stay[chart.point]]
    key = chart.series * len(ROUTES) + chart.route
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    cells, items = [], []
    for i, item in enumerate(ITEMS):
        wanted = MEASURED.index(item.series) * len(ROUTES) + ROUTES.index(item.route)
        mine = order[np.searchsorted(ordered, wanted) : np.searchsorted(ordered, wanted, "right")]
        if item.source is not None:
            mine = mine[source[mine] == item.source]
        if item.share < 1:
            mine = mine[rng.random(len(mine)) < item.share]
        cells.append(mine)
        items.append(np.full(len(mine), i))
    cell, place = np.concatenate(cells), np.concatenate(items)
    facts = item_facts()
    number = np.rint(values[cell] * facts["scale"][place] + facts["offset"][place])
    return Rows(chart.point[cell], place, text.ITEM_WAY[place], number.astype(np.int64))
