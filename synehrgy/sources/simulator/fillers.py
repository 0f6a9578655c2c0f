"""Rows of items that no series uses."""

import numpy as np

from synehrgy.sources.simulator import text
from synehrgy.sources.simulator.chance import Ints
from synehrgy.sources.simulator.charting import IN_UNIT, Chart
from synehrgy.sources.simulator.items import FILLERS, ITEMS, LAB, LAB_FILLERS, Filler
from synehrgy.sources.simulator.people import People
from synehrgy.sources.simulator.rows import Rows, items_of

# Draws of the laboratory that also measure each item that no series uses.
LAB_FILLER_SHARE = 0.85


def _fill(
    rng: np.random.Generator, point: Ints, fillers: tuple[Filler, ...], first: int, which: Ints
) -> Rows:
    """Rows of items that no series uses: ``which`` of the fillers at each of some points."""
    texts = np.array([len(f.texts) for f in fillers])[which]
    low = np.array([f.span[0] if f.span else 0 for f in fillers])[which]
    high = np.array([f.span[1] if f.span else 0 for f in fillers])[which]
    # Rather the first of the texts, as in a chart where nothing happens.
    rank = (texts * rng.random(len(point)) ** 2).astype(np.int64)
    start = np.cumsum([0, *(len(f.texts) for f in fillers)])[:-1]
    place = np.array([text.TEXT_PLACE[t] for f in fillers for t in f.texts] or [0])
    number = rng.integers(low, high + 1)
    said = texts > 0
    number[said] = place[(start[which] + rank)[said]]
    return Rows(point, first + which, np.where(said, text.TEXT, text.WHOLE), number)


def chart_fillers(rng: np.random.Generator, people: People, chart: Chart, n: int) -> Rows:
    """``n`` rows of CHARTEVENTS of items that no series uses, at random times in the unit."""
    points = np.flatnonzero(chart.place == IN_UNIT)
    if len(points) == 0:
        n = 0
    point = points[rng.integers(0, max(len(points), 1), n)]
    source = people.source[chart.stay[point]]
    which = np.empty(n, dtype=np.int64)
    for system in np.unique(source):
        mine = source == system
        own = np.array([i for i, f in enumerate(FILLERS) if f.source == system])
        which[mine] = own[rng.integers(0, len(own), int(mine.sum()))]
    return _fill(rng, point, FILLERS, len(ITEMS), which)


def lab_fillers(rng: np.random.Generator, lab: Rows) -> Rows:
    """Items that go with every panel: those of chemistry with urea, those of blood with cells."""
    parts = []
    for i, filler in enumerate(LAB_FILLERS):
        beside = "Blood urea nitrogen" if filler.category == "Chemistry" else "Platelets"
        point = np.unique(lab.point[np.isin(lab.item, items_of(beside, table=LAB))])
        point = point[rng.random(len(point)) < LAB_FILLER_SHARE]
        first = len(ITEMS) + len(FILLERS)
        parts.append(_fill(rng, point, LAB_FILLERS, first, np.full(len(point), i)))
    rows = parts[0]
    for more in parts[1:]:
        rows = rows.with_(more)
    return rows
