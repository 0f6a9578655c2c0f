"""One shard of a MEDS dataset to the stays, codes and events of a cohort, in DuckDB.

Tables are made one after the other, each from those before: ``raw`` (the rows of the file),
``marked`` (begins and ends of stays and admissions, births and deaths), ``stays``, their
``covariates``, ``codes`` and ``labels``, and ``charted`` (rows of series).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa

from synehrgy.cohort.meds_mapping import BIRTH, DEATH, UNKNOWN
from synehrgy.sources.database import count_rows
from synehrgy.sources.extraction.resources import Item, ItemSet
from synehrgy.sources.meds.mapping import HOURS, BirthAge, Mapping, StayRule
from synehrgy.sources.meds.templates import Template, first_match
from synehrgy.sources.reading import identifier, sql_path, sql_text

_TEXT = "VARCHAR"

# Generated numbers of stays begin with that of their shard.
STAYS_PER_SHARD = 10_000_000

# The window of a stay's codes and labels where no column says whose they are.
_WINDOW = "BETWEEN coalesce(admittime, intime) AND coalesce(dischtime, until)"

# Which events are a stay's, by stays.events.
_OF_STAY = {
    "id": "told.stay = stays.stay_id",
    "admission": "told.admission = stays.hadm_id AND coalesce(told.stay, stay_id) = stay_id",
    "time": f"told.time {_WINDOW}",
}
# Which events tell a covariate of a stay.
_BEFORE_STAY = {
    "id": "told.stay = stays.stay_id OR (told.stay IS NULL AND told.time IS NULL)",
    "admission": "told.time IS NULL OR told.time <= intime",
    "time": "told.time IS NULL OR told.time <= intime",
}
_HOURS = "(epoch_us(charttime) - epoch_us(intime)) / 3.6e9"
# The rows of some patients' series with their time in the stay, as for ``events.load_events``.
TIMED = {
    "id": f"""
        SELECT place, coalesce(exact_hours, {_HOURS}) AS hours, true AS belongs,
            itemid, value, valueuom
        FROM charted JOIN stays USING (subject_id)
        WHERE subject_id BETWEEN ? AND ? AND icustay_id = stay_id AND hours >= 0
    """,
    # Those of the admission that do not name another stay, at their time in every stay of the
    # patient that they fall into, as of raw tables.
    "admission": f"""
        WITH admitted AS (
            SELECT subject_id, stay_id AS own_stay, itemid, charttime, value, valueuom
            FROM charted JOIN stays USING (subject_id, hadm_id)
            WHERE subject_id BETWEEN ? AND ? AND coalesce(icustay_id, stay_id) = stay_id
        )
        SELECT place, {_HOURS} AS hours,
            own_stay = stay_id OR charttime BETWEEN intime AND outtime AS belongs,
            itemid, value, valueuom
        FROM admitted JOIN stays USING (subject_id)
        WHERE hours >= 0 AND hours <= los_hours
    """,
    "time": f"""
        SELECT place, {_HOURS} AS hours, true AS belongs, itemid, value, valueuom
        FROM charted JOIN stays USING (subject_id)
        WHERE subject_id BETWEEN ? AND ? AND charttime BETWEEN intime AND until
    """,
}


def load_raw(
    connection: duckdb.DuckDBPyConnection,
    file: Path,
    found: dict[str, pa.DataType],
    mapping: Mapping,
) -> list[str]:
    """Create the view ``raw`` of the rows of a shard; a column that it lacks is empty.

    Args:
        connection: the database.
        file: of the shard.
        found: its columns.
        mapping: what its codes mean.

    Returns:
        The codes that occur.
    """
    # As people write it: 2, and 80.1 with the digits that 32 bits have.
    number = "regexp_replace(CAST(CAST(numeric_value AS FLOAT) AS VARCHAR), '\\.0$', '')"
    number = number if "numeric_value" in found else "NULL"
    written = "CAST(text_value AS VARCHAR)"
    text = f"nullif({written}, '')" if "text_value" in found else "NULL"
    if mapping.blank and "text_value" in found:
        blank = ", ".join(map(sql_text, mapping.blank))
        text = f"CASE WHEN trim({written}) NOT IN ({blank}) THEN {text} END"
    stays = mapping.stays
    admission = stays.admission.id if stays.admission is not None else None
    columns = {
        "stay": (stays.id, "BIGINT"),
        "admission": (admission, "BIGINT"),
        "exact_hours": (mapping.hours, "DOUBLE"),
        "listed_as": (mapping.codes.order or mapping.codes.position, "BIGINT"),
    }
    extra = [
        f"{identifier(name) if name in found else 'NULL'}::{kind} AS {alias}"
        for alias, (name, kind) in columns.items()
    ]
    extra += [
        f"{identifier(name) if name in found else 'NULL'}::VARCHAR AS {_same(i)}"
        for i, name in enumerate(stays.keep.same)
        if name not in stays.begin.names
    ]
    connection.execute(
        f"""
        CREATE OR REPLACE VIEW raw AS
        SELECT file_row_number AS row, subject_id::BIGINT AS subject_id,
            time::TIMESTAMP AS time, code::VARCHAR AS code,
            coalesce({text}, {number}) AS value, {", ".join(extra)}
        FROM read_parquet(
            {sql_path(file)}, file_row_number = true, hive_partitioning = false
        )
        """
    )
    rows = connection.execute("SELECT DISTINCT code FROM raw WHERE code IS NOT NULL ORDER BY code")
    return [code for (code,) in rows.fetchall()]


def _same(place: int) -> str:
    return f"same_{place}"


def load_marked(
    connection: duckdb.DuckDBPyConnection, mapping: Mapping, codes: Sequence[str]
) -> None:
    """Create the table ``marked`` of begins and ends, births and deaths."""
    stays, admission = mapping.stays, mapping.stays.admission
    templates = {
        "begin": stays.begin,
        "end": stays.end,
        "admitted": admission.begin if admission is not None else None,
        "discharged": admission.end if admission is not None else None,
        "birth": Template(BIRTH),
        "death": Template(DEATH),
    }
    # What the templates of begin and end capture and must be the same in both.
    captured = {
        _same(i): name for i, name in enumerate(stays.keep.same) if name in stays.begin.names
    }
    rows = [
        (code, mark, *(names.get(name) for name in captured.values()))
        for mark, template in templates.items()
        if template is not None
        for code, (_, names) in first_match([template], codes).items()
    ]
    _create(connection, "marks", dict.fromkeys(("code", "mark", *captured), _TEXT), rows)
    connection.execute(
        """
        CREATE TABLE marked AS FROM raw JOIN marks USING (code) WHERE time IS NOT NULL
        """
    )


def load_stays(
    connection: duckdb.DuckDBPyConnection, mapping: Mapping, shard: int
) -> tuple[int, dict[str, int]]:
    """Create the table ``stays`` of those that are kept, numbered by patient and time.

    Args:
        connection: the database.
        mapping: what the codes mean.
        shard: number of the shard, with which generated numbers of stays begin.

    Returns:
        How many there were, and how many were dropped for each reason.
    """
    rule = mapping.stays
    key = None if rule.admission is None or rule.admission.id is None else "admission"
    paired = {
        "found": _paired("begin", "end", None if rule.id is None else "stay", rule),
        "admissions": _paired("admitted", "discharged", key, rule),
    }
    for name, sql in paired.items():
        connection.execute(f"CREATE TABLE {name} AS {sql}")
    for mark in ("birth", "death"):
        connection.execute(
            f"CREATE TABLE {mark}s AS SELECT subject_id, min(time) AS {mark} FROM marked"
            f" WHERE mark = '{mark}' GROUP BY subject_id"
        )
    dropped = {}
    listed = left = count_rows(connection, "found")
    before = "found"
    for name, reason, sql in _steps(mapping):
        connection.execute(f"CREATE TABLE {name} AS {sql.format(before=before)}")
        count = count_rows(connection, name)
        if reason is not None:
            dropped[reason] = left - count
        left, before = count, name
    number = "stay" if rule.id is not None else f"{shard * STAYS_PER_SHARD} + place"
    connection.execute(
        f"""
        CREATE TABLE stays AS
        WITH placed AS (
            SELECT *, CAST(row_number() OVER (ORDER BY subject_id, intime, row) AS INTEGER)
                AS place
            FROM {before}
        )
        SELECT *, CAST({number} AS BIGINT) AS stay_id, {_length(rule)} AS los_hours FROM placed
        """
    )
    return listed, dropped


def _paired(begin: str, end: str, key: str | None, rule: StayRule) -> str:
    """The query of begins with their ends: of the same key, or else the next before another begin.

    ``until`` is the end, or the moment before the next begin where there is none.
    """
    same = "".join(
        f", began.{_same(i)}, ended.{_same(i)} AS end_{_same(i)}"
        for i in range(len(rule.keep.same))
    )
    partition = "PARTITION BY subject_id ORDER BY time, row"
    if key is not None:
        # Where a key begins or ends more than once, the first begin and the last end count.
        once = f"PARTITION BY subject_id, {key} ORDER BY"
        began = f"{key} IS NOT NULL QUALIFY row_number() OVER ({once} time, row) = 1"
        ended = f"true QUALIFY row_number() OVER ({once} time DESC, row DESC) = 1"
        pairs = f"USING (subject_id, {key})"
    else:
        began = ended = "true"
        pairs = "ON ended.subject_id = began.subject_id AND ended.row = began.next_row"
    return f"""
        WITH ordered AS (
            SELECT *, lead(row) OVER ({partition}) AS next_row
            FROM marked WHERE mark IN ('{begin}', '{end}')
        ),
        began AS (SELECT * FROM ordered WHERE mark = '{begin}' AND {began}),
        ended AS (SELECT * FROM ordered WHERE mark = '{end}' AND {ended}),
        pairs AS (
            SELECT began.row, began.subject_id, began.stay, began.admission,
                began.time AS begins, ended.time AS ends, ended.value AS length{same}
            FROM began LEFT JOIN ended {pairs}
        )
        SELECT *, coalesce(
            ends,
            lead(begins) OVER (PARTITION BY subject_id ORDER BY begins, row)
                - INTERVAL 1 microsecond,
            'infinity'::TIMESTAMP
        ) AS until
        FROM pairs
    """


def _steps(mapping: Mapping) -> list[tuple[str, str | None, str]]:
    """One query per rule: its table, why stays are dropped (None: none is), and what it leaves."""
    rule = mapping.stays
    columns = "before.* RENAME (begins AS intime, ends AS outtime, admission AS hadm_id)"
    steps: list[tuple[str, str | None, str]] = []
    if rule.keep.same:
        equal = " AND ".join(f"{_same(i)} = end_{_same(i)}" for i in range(len(rule.keep.same)))
        reason = f"not the same {', '.join(rule.keep.same)} at the end"
        steps.append(("unmoved", reason, f"SELECT * FROM {{before}} WHERE {equal}"))
    times = "admissions.begins AS admittime, admissions.ends AS dischtime"
    if rule.admission is None or rule.admission.begin is None:
        none = "NULL::TIMESTAMP AS admittime, NULL::TIMESTAMP AS dischtime"
        sql = f"SELECT {columns}, {none} FROM {{before}} AS before"
        steps.append(("admitted", None, sql))
    else:
        pairs = (
            "JOIN admissions USING (subject_id, admission)"
            if rule.admission.id is not None
            else "ASOF JOIN admissions ON admissions.subject_id = before.subject_id"
            " AND admissions.begins <= before.begins WHERE admissions.until >= before.begins"
        )
        sql = f"SELECT {columns}, {times} FROM {{before}} AS before {pairs}"
        steps.append(("admitted", "no admission to it", sql))
    if rule.keep.one_per_admission:
        each = "PARTITION BY subject_id, coalesce(hadm_id, -row)"
        sql = f"SELECT * FROM {{before}} QUALIFY count(*) OVER ({each}) = 1"
        steps.append(("alone", "not the only stay of its admission", sql))
    steps.append(("born", None, "SELECT * FROM {before} LEFT JOIN births USING (subject_id)"))
    if rule.keep.min_age is not None:
        age = next(_age(c.birth) for c in mapping.covariates if c.birth is not None)
        reason = f"younger than {rule.keep.min_age:g}, or of unknown age"
        sql = f"SELECT * FROM {{before}} WHERE {age} >= {rule.keep.min_age}"
        steps.append(("adult", reason, sql))
    return steps


def _age(rule: BirthAge) -> str:
    years = f"((epoch_us(intime) - epoch_us(birth)) / ({rule.days_per_year} * 86400e6))"
    if rule.highest is None:
        return years
    return (
        f"CASE WHEN {years} BETWEEN 0 AND {rule.highest} THEN {years}"
        f" WHEN birth IS NOT NULL THEN {rule.highest} END"
    )


def _length(rule: StayRule) -> str:
    between = "(epoch_us(outtime) - epoch_us(intime)) / 3.6e9"
    if rule.length is None:
        return between
    stated = f"TRY_CAST(length AS DOUBLE) * {HOURS[rule.length]}"
    # Of decimals of days, such as MIMIC's, the product may miss the hours by its last bit.
    return f"coalesce({stated if rule.length == 'hours' else f'round({stated}, 6)'}, {between})"


def load_covariates(
    connection: duckdb.DuckDBPyConnection, mapping: Mapping, codes: Sequence[str]
) -> None:
    """Create the table ``covariates``: a column for each, ``covariate_0`` and so on."""
    told, levels = [], []
    for which, rule in enumerate(mapping.covariates):
        if rule.code is not None:
            for code, (_, names) in first_match([rule.code], codes).items():
                told.append((which, code, names.get("level")))
        levels += [(which, level) for level in rule.covariate.levels]
    _create(connection, "telling", {"which": "INTEGER", "code": _TEXT, "named": _TEXT}, told)
    _create(connection, "known_levels", {"which": "INTEGER", "level": _TEXT}, levels)
    columns = []
    for which, rule in enumerate(mapping.covariates):
        value = "number" if rule.covariate.kind == "continuous" else "level"
        found = f"max({value}) FILTER (which = {which})"
        columns.append(f"{found if rule.birth is None else _age(rule.birth)} AS covariate_{which}")
    connection.execute(
        f"""
        CREATE TABLE covariates AS
        WITH told AS (
            SELECT telling.which, row, subject_id, time, stay, known_levels.level,
                CASE WHEN isfinite(TRY_CAST(value AS DOUBLE)) THEN TRY_CAST(value AS DOUBLE) END
                    AS number
            FROM raw JOIN telling USING (code) LEFT JOIN known_levels
                ON known_levels.which = telling.which AND level = coalesce(named, value)
            WHERE number IS NOT NULL OR level IS NOT NULL
        ),
        latest AS (
            SELECT place, which, number, level
            FROM told JOIN stays USING (subject_id) WHERE {_BEFORE_STAY[mapping.stays.events]}
            QUALIFY row_number() OVER (
                PARTITION BY place, which ORDER BY told.time DESC NULLS LAST, told.row DESC
            ) = 1
        )
        SELECT {", ".join(["place", *columns])}
        FROM stays LEFT JOIN latest USING (place) GROUP BY place, intime, birth
        """
    )


def load_codes(
    connection: duckdb.DuckDBPyConnection, mapping: Mapping, codes: Sequence[str]
) -> None:
    """Create the table ``codes`` of the stays' codes in their order."""
    systems = mapping.codes.systems
    matched = first_match([rule.code for rule in systems], codes)
    _create(
        connection,
        "listed",
        {"code": _TEXT, "which": "INTEGER", "system": _TEXT, "bare": _TEXT},
        [
            (code, which, name, mapping.codes.plain(name, names["code"]))
            for code, (which, names) in matched.items()
            for name in [systems[which].system.name]
            if names["code"]
        ],
    )
    # Without an order of their own codes are listed as the dataset has them.
    order = "listed_as NULLS LAST, bare, " if mapping.codes.order is not None else ""
    position = (
        "CAST(row_number() OVER listing - 1 AS INTEGER)"
        if mapping.codes.position is None
        else "CAST(listed_as AS INTEGER)"
    )
    connection.execute(
        f"""
        CREATE TABLE codes AS
        WITH told AS (SELECT raw.*, which, system, bare FROM raw JOIN listed USING (code))
        SELECT place, stay_id, {position} AS position, system, bare AS code
        FROM told JOIN stays USING (subject_id) WHERE {_OF_STAY[mapping.stays.events]}
        WINDOW listing AS (PARTITION BY place ORDER BY which, {order}told.time, told.row)
        """
    )


def load_labels(
    connection: duckdb.DuckDBPyConnection,
    mapping: Mapping,
    codes: Sequence[str],
    defining: dict[str, dict[str, list[str]]],
) -> None:
    """Create the table ``labels``: a column for each, ``label_0`` and so on, with 0 or 1."""
    told, defined, columns = [], [], []
    for which, rule in enumerate(mapping.labels):
        if rule.code is not None:
            told += [(which, code) for code in first_match([rule.code], codes)]
            made = f"bool_or(flag = {which})"
        elif rule.death is not None:
            window = {"stay": "intime AND outtime", "admission": "admittime AND dischtime"}
            made = f"any_value(death BETWEEN {window[rule.death]})"
        else:
            defined += [
                (which, system, code)
                for system, found in defining[rule.label.column].items()
                for code in found
            ]
            made = f"bool_or(defined = {which})"
        columns.append(f"CAST(coalesce({made}, false) AS TINYINT) AS label_{which}")
    _create(connection, "flagging", {"which": "INTEGER", "code": _TEXT}, told)
    _create(connection, "defining", {"which": "INTEGER", "system": _TEXT, "code": _TEXT}, defined)
    connection.execute(
        f"""
        CREATE TABLE labels AS
        WITH told AS (
            SELECT raw.*, which FROM raw JOIN flagging USING (code)
            WHERE coalesce(TRY_CAST(value AS DOUBLE), 1) <> 0
        ),
        flags AS (
            SELECT place, which AS flag, NULL AS defined
            FROM told JOIN stays USING (subject_id) WHERE {_OF_STAY[mapping.stays.events]}
            UNION ALL
            SELECT place, NULL, which FROM codes JOIN defining USING (system, code)
        )
        SELECT {", ".join(["place", *columns])}
        FROM stays LEFT JOIN deaths USING (subject_id) LEFT JOIN flags USING (place)
        GROUP BY place
        """
    )


def load_series(
    connection: duckdb.DuckDBPyConnection, mapping: Mapping, codes: Sequence[str]
) -> list[ItemSet]:
    """Create the table ``charted`` of the rows of series.

    Returns:
        The series in alphabetical order, with the numbers of their items in the table.
    """
    item_sets = [rule.items for rule in mapping.series]
    matched: list[tuple[str, int, str | None, float, float]] = []
    spelt: list[tuple[Item, str, str]] = []
    if mapping.item_codes:
        for code, (_, names) in first_match(mapping.item_codes, codes).items():
            unit = names.get("unit")
            matched.append((code, int(names["item"]), None if unit == UNKNOWN else unit, 1.0, 0.0))
    else:
        entries = [(s, entry) for s, rule in enumerate(mapping.series) for entry in rule.codes]
        # A code may be of several series, such as both pressures of one text.
        for s in range(len(mapping.series)):
            mine_at = [(item, entry) for item, (of, entry) in enumerate(entries) if of == s]
            templates = [entry.code for _, entry in mine_at]
            for code, (place, _) in first_match(templates, codes).items():
                item, entry = mine_at[place]
                matched.append((code, item, None, entry.multiply, entry.add))
        item_sets = []
        for s, rule in enumerate(mapping.series):
            mine: dict[Item, str] = {
                item: entry.code.text for item, (of, entry) in enumerate(entries) if of == s
            }
            item_sets.append(replace(rule.items, items={"codes": mine}))
            if rule.exact:
                levels = list(enumerate(rule.items.levels))
                spelt += [(item, level, str(place)) for item in mine for place, level in levels]
    wanted = {item for items in item_sets for listed in items.items.values() for item in listed}
    types = {"code": _TEXT, "itemid": "BIGINT", "valueuom": _TEXT, "multiply": "DOUBLE"}
    _create(
        connection,
        "itemised",
        {**types, "add": "DOUBLE"},
        [entry for entry in matched if entry[1] in wanted],
    )
    _create(connection, "spelt", {"spelt_item": "BIGINT", "level": _TEXT, "place": _TEXT}, spelt)
    empty = ", ".join(map(sql_text, ["", *mapping.empty]))
    connection.execute(
        f"""
        CREATE TABLE charted AS
        SELECT subject_id, admission AS hadm_id, stay AS icustay_id, itemid, time AS charttime,
            CASE
                WHEN multiply <> 1 OR "add" <> 0
                    THEN CAST(TRY_CAST(value AS DOUBLE) * multiply + "add" AS VARCHAR)
                -- A text that is none of the levels stays one that cannot be read.
                WHEN itemid IN (SELECT spelt_item FROM spelt) THEN coalesce(place, '?')
                ELSE value
            END AS value,
            valueuom, exact_hours
        FROM raw JOIN itemised USING (code)
            LEFT JOIN spelt ON spelt_item = itemid AND level = value
        WHERE time IS NOT NULL AND raw.value NOT IN ({empty})
        """
    )
    return sorted(item_sets, key=lambda items: items.name)


def _create(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    columns: dict[str, str],
    rows: Sequence[tuple[object, ...]],
) -> None:
    """Create a table of a few rows."""
    declared = ", ".join(f"{identifier(column)} {kind}" for column, kind in columns.items())
    connection.execute(f"CREATE TABLE {name} ({declared})")
    if rows:
        table = pa.table({column: [row[i] for row in rows] for i, column in enumerate(columns)})
        connection.register("rows_of_table", table)
        connection.execute(f"INSERT INTO {name} FROM rows_of_table")
        connection.unregister("rows_of_table")
