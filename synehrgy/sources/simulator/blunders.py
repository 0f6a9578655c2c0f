"""What goes wrong when values are charted, at the rates of ``quirks``."""

import numpy as np

from synehrgy.sources.simulator import quirks as q
from synehrgy.sources.simulator import text
from synehrgy.sources.simulator.activities import CAREVUE
from synehrgy.sources.simulator.chance import Float
from synehrgy.sources.simulator.charting import MEASURED, Chart
from synehrgy.sources.simulator.items import ITEMS, LAB
from synehrgy.sources.simulator.people import People
from synehrgy.sources.simulator.rows import Rows, items_of


def pair(rng: np.random.Generator, chart: Chart, values: Float, rows: Rows) -> Rows:
    """Some pressures of CareVue stand as "120/80", in the systolic and in the diastolic item."""
    systolic, diastolic = (
        items_of(name, source=CAREVUE)
        for name in ("Systolic blood pressure", "Diastolic blood pressure")
    )
    chosen = rng.random(len(chart.stay)) < q.PAIR_SHARE
    mine = chosen[rows.point] & np.isin(rows.item, np.concatenate([systolic, diastolic]))
    both = np.zeros((2, len(chart.stay)), dtype=np.int64)
    for i, name in enumerate(("Systolic blood pressure", "Diastolic blood pressure")):
        cell = chart.series == MEASURED.index(name)
        both[i, chart.point[cell]] = np.rint(values[cell])
    rows.way[mine] = text.PAIR
    rows.number[mine] = (both[0] * text.PAIR_BASE + both[1])[rows.point[mine]]
    return rows


def duplicate(rng: np.random.Generator, rows: Rows) -> Rows:
    """The rows, then second values of some at the same time, numbers a little off."""
    chosen = np.flatnonzero(rng.random(len(rows)) < q.DUPLICATE_SHARE)
    again = rows.take(chosen)
    off = 1 + q.DUPLICATE_SPREAD * rng.standard_normal(len(chosen))
    leveled = np.array([item.style == "level" for item in ITEMS])[again.item]
    same = leveled | (again.way == text.PAIR)
    again.number[:] = np.where(same, again.number, np.rint(again.number * off))
    return rows.with_(again)


def blunder(rng: np.random.Generator, people: People, chart: Chart, rows: Rows) -> Rows:
    """Texts, empty values, slips and wrong units of CHARTEVENTS."""
    n = len(rows)
    numeric = rows.way != text.PAIR
    numeric &= ~np.array([item.style == "level" for item in ITEMS])[rows.item]
    fraction = np.isin(rows.item, items_of("Fraction inspired oxygen")) & (
        np.array([item.scale for item in ITEMS])[rows.item] > 1
    )
    fraction &= rng.random(n) < q.FRACTION_SHARE
    rows.way[fraction] = text.HUNDREDTHS
    warm = np.isin(rows.item, items_of("Temperature")) & (rng.random(n) < q.OTHER_UNIT_SHARE)
    fahrenheit = np.array([item.offset > 0 for item in ITEMS])[rows.item]
    unit = 10.0 ** np.array([getattr(item, "decimals", 0) for item in ITEMS])[rows.item]
    celsius = np.where(fahrenheit, (rows.number / unit - 32) / 1.8, rows.number / unit)
    swapped = np.where(fahrenheit, celsius, celsius * 1.8 + 32) * unit
    rows.number[warm] = np.rint(swapped[warm])
    slips = np.flatnonzero(numeric & (rng.random(n) < q.ABSURD_SHARE))
    kind = rng.integers(0, 5, len(slips))
    number = rows.number[slips]
    nines = (q.ABSURD_NINES * unit[slips]).astype(np.int64)
    rows.number[slips] = np.choose(kind, [number * 10, number * 100, number * 0, -number, nines])
    said = np.flatnonzero(numeric & (rng.random(n) < q.CHART_TEXT_SHARE))
    rows.way[said] = text.TEXT
    places = np.array([text.TEXT_PLACE[t] for t in q.CHART_TEXTS])
    rows.number[said] = places[rng.integers(0, len(places), len(said))]
    source = people.source[chart.stay[rows.point]]
    empty = rng.random(n) < np.array(q.EMPTY_SHARE)[source]
    rows.way[empty] = text.EMPTY
    rows.number[empty] = 0
    return rows


def blunder_in_laboratory(rng: np.random.Generator, rows: Rows) -> Rows:
    """Words in place of results; the usual result of glucose in urine is one, too."""
    places = np.array([text.TEXT_PLACE[t] for t in q.LAB_TEXTS])
    said = np.flatnonzero(rng.random(len(rows)) < q.LAB_TEXT_SHARE)
    rows.way[said] = text.TEXT
    rows.number[said] = places[rng.integers(0, len(places), len(said))]
    negative = np.isin(rows.item, items_of("Urine glucose", table=LAB)) & (rows.number == 0)
    rows.way[negative] = text.TEXT
    rows.number[negative] = text.TEXT_PLACE[q.URINE_NEGATIVE]
    return rows
