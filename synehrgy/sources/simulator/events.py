"""CHARTEVENTS, LABEVENTS and OUTPUTEVENTS of a block."""

import numpy as np
import pyarrow as pa

from synehrgy.sources.simulator import quirks as q
from synehrgy.sources.simulator import text
from synehrgy.sources.simulator.activities import CAREVUE
from synehrgy.sources.simulator.blunders import blunder, blunder_in_laboratory, duplicate, pair
from synehrgy.sources.simulator.chance import Float, Ints
from synehrgy.sources.simulator.charting import OUTSIDE, Chart
from synehrgy.sources.simulator.fillers import chart_fillers, lab_fillers
from synehrgy.sources.simulator.items import CHART, ITEMS, LAB, OUTPUT
from synehrgy.sources.simulator.people import People
from synehrgy.sources.simulator.rows import CATALOGUE, Rows, item_facts, spell

# Share of CHARTEVENTS rows of items that no series uses, however little of it is asked for.
LEAST_NOISE = 0.02
# Rows of one block are numbered from its own multiple of this.
ROWS_PER_BLOCK = 2**24
CAREGIVERS = (14_000, 8_000)  # first, number
SHIFT_SECONDS = 12 * 3600


def event_tables(
    rng: np.random.Generator,
    people: People,
    chart: Chart,
    values: Float,
    noise_share: float,
    noise_rng: np.random.Generator,
    block: int,
) -> dict[str, pa.Table]:
    """The rows of the three event tables of a block, in order of stay and time.

    Args:
        rng: draws of the rows of measurements.
        people, chart, values: what was measured.
        noise_share: share of CHARTEVENTS rows of items that no series uses.
        noise_rng: draws of those rows, apart, so that more of them change no measurement.
        block: number of the block, for ROW_ID.
    """
    rows = pair(rng, chart, values, spell(rng, people, chart, values))
    table_of = np.array([item.table for item in ITEMS])[rows.item]
    charted = rows.take(table_of == CHART)
    charted = blunder(rng, people, chart, duplicate(rng, charted))
    share = max(noise_share, LEAST_NOISE)
    fillers = chart_fillers(noise_rng, people, chart, round(len(charted) * share / (1 - share)))
    lab = rows.take(table_of == LAB)
    lab = blunder_in_laboratory(rng, lab)
    lab = lab.with_(lab_fillers(rng, lab))
    output = rows.take(table_of == OUTPUT)
    # The charts last: their draws depend on how much noise there is.
    tables = {
        LAB: _lab_table(rng, people, chart, _in_order(lab)),
        OUTPUT: _output_table(rng, people, chart, _in_order(output)),
        CHART: _chart_table(rng, people, chart, _in_order(charted.with_(fillers))),
    }
    return {name: _numbered(table, block) for name, table in tables.items()}


def _in_order(rows: Rows) -> Rows:
    # Points are in order of stay and time, so one stable sort by point is enough.
    return rows.take(np.argsort(rows.point, kind="stable"))


def _numbered(table: pa.Table, block: int) -> pa.Table:
    return table.add_column(
        0, "ROW_ID", pa.array(block * ROWS_PER_BLOCK + 1 + np.arange(len(table)))
    )


def _dictionary(place: Ints, texts: list[str | None]) -> pa.Array:
    """A column of few distinct texts; None is an empty field."""
    full = list(dict.fromkeys(t for t in texts if t is not None))
    at = np.array([full.index(t) if t is not None else -1 for t in texts], dtype=np.int32)[place]
    return pa.DictionaryArray.from_arrays(pa.array(at, mask=at < 0), pa.array(full, pa.string()))


def _seconds(time: Ints) -> pa.Array:
    return pa.array(time).cast(pa.timestamp("s")).cast(pa.timestamp("us"))


def _identifiers(
    rng: np.random.Generator, people: People, chart: Chart, rows: Rows, table: str
) -> dict[str, pa.Array]:
    """SUBJECT_ID, HADM_ID and ITEMID of each row, and charttime."""
    stay = chart.stay[rows.point]
    admission = people.admission[stay]
    lost = rng.random(len(rows)) < q.MISSING_ADMISSION_SHARE[table]
    lost |= chart.place[rows.point] == OUTSIDE
    itemid = np.array([item.itemid for item in CATALOGUE])
    return {
        "SUBJECT_ID": pa.array(people.subject[people.patient[admission]]),
        "HADM_ID": pa.array(people.hadm[admission], mask=lost),
        "ITEMID": pa.array(itemid[rows.item]),
        "CHARTTIME": _seconds(chart.time[rows.point]),
    }


def _of_unit(
    rng: np.random.Generator, people: People, chart: Chart, rows: Rows
) -> dict[str, pa.Array]:
    """ICUSTAY_ID, STORETIME and CGID of each row."""
    n = len(rows)
    stay, time = chart.stay[rows.point], chart.time[rows.point]
    lost = rng.random(n) < q.MISSING_STAY_SHARE
    first, number = CAREGIVERS
    nurse = (people.icustay[stay] * 31 + time // SHIFT_SECONDS * 7919) % number
    return {
        "ICUSTAY_ID": pa.array(people.icustay[stay], mask=lost),
        "STORETIME": _seconds(time + 60 * rng.integers(1, 45, n)),
        "CGID": pa.array(first + nurse),
    }


def _chart_table(rng: np.random.Generator, people: People, chart: Chart, rows: Rows) -> pa.Table:
    n = len(rows)
    ids = _identifiers(rng, people, chart, rows, CHART)
    of_unit = _of_unit(rng, people, chart, rows)
    carevue = people.source[chart.stay[rows.point]] == CAREVUE
    value, number = text.write_values(rows.way, rows.number)
    unit = _dictionary(rows.item, [item.unit for item in CATALOGUE])
    chance = rng.random(n)
    final, manual = q.RESULT_STATUS_SHARES
    status = np.where(chance < manual, 1, np.where(chance < final + manual, 0, 2))
    stopped = np.where(carevue, (rng.random(n) < q.DISCONTINUED_SHARE).astype(np.int64), 2)
    return pa.table(
        {
            "SUBJECT_ID": ids["SUBJECT_ID"],
            "HADM_ID": ids["HADM_ID"],
            "ICUSTAY_ID": of_unit["ICUSTAY_ID"],
            "ITEMID": ids["ITEMID"],
            "CHARTTIME": ids["CHARTTIME"],
            "STORETIME": of_unit["STORETIME"],
            "CGID": of_unit["CGID"],
            "VALUE": value,
            "VALUENUM": number,
            "VALUEUOM": unit,
            "WARNING": pa.array((rng.random(n) < q.WARNING_SHARE).astype(np.int64), mask=carevue),
            "ERROR": pa.array((rng.random(n) < q.ERROR_SHARE).astype(np.int64), mask=carevue),
            "RESULTSTATUS": _dictionary(np.where(carevue, status, 2), ["Final", "Manual", None]),
            "STOPPED": _dictionary(stopped, ["NotStopd", "D/C'd", None]),
        }
    )


def _lab_table(rng: np.random.Generator, people: People, chart: Chart, rows: Rows) -> pa.Table:
    ids = _identifiers(rng, people, chart, rows, LAB)
    value, number = text.write_values(rows.way, rows.number)
    facts = item_facts()
    series = rows.item < len(ITEMS)
    place = np.where(series, rows.item, 0)
    odd = (rows.number < facts["low"][place]) | (rows.number > facts["high"][place])
    odd &= series & (rows.way != text.TEXT)
    return pa.table(
        {
            **ids,
            "VALUE": value,
            "VALUENUM": number,
            "VALUEUOM": _dictionary(rows.item, [item.unit for item in CATALOGUE]),
            "FLAG": _dictionary(odd.astype(np.int64), [None, "abnormal"]),
        }
    )


def _output_table(rng: np.random.Generator, people: People, chart: Chart, rows: Rows) -> pa.Table:
    n = len(rows)
    ids = _identifiers(rng, people, chart, rows, OUTPUT)
    of_unit = _of_unit(rng, people, chart, rows)
    _, number = text.write_values(rows.way, rows.number)
    return pa.table(
        {
            "SUBJECT_ID": ids["SUBJECT_ID"],
            "HADM_ID": ids["HADM_ID"],
            "ICUSTAY_ID": of_unit["ICUSTAY_ID"],
            "CHARTTIME": ids["CHARTTIME"],
            "ITEMID": ids["ITEMID"],
            "VALUE": number,
            "VALUEUOM": _dictionary(rows.item, [item.unit for item in CATALOGUE]),
            "STORETIME": of_unit["STORETIME"],
            "CGID": of_unit["CGID"],
            "STOPPED": pa.nulls(n, pa.string()),
            "NEWBOTTLE": pa.nulls(n, pa.string()),
            "ISERROR": pa.nulls(n, pa.string()),
        }
    )
