"""From tables of measurements, long or wide, to values of stays, each with what is wrong with it.

The files are read once, and what they say is kept on disk: the place of its stay, its time, and its
value as a number (a level by its position).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from synehrgy.errors import UserError, nearest
from synehrgy.sources.tables.declaration import Declaration, MeasurementsTable, spelling
from synehrgy.sources.tables.problems import Fault, Problems
from synehrgy.sources.tables.raw import RawTable, number_sql, reading, spelling_sql, time_sql

# Names of series that are not taken, shown of each file.
SHOWN_NAMES = 5


@dataclass(frozen=True)
class Item:
    """A series in a file.

    Attributes:
        name: what it is called there; its column, in a wide file.
        variable: place of the series in alphabetical order.
    """

    name: str
    variable: int


def load_series(connection: duckdb.DuckDBPyConnection, declared: Declaration) -> None:
    """Create the tables ``variables``, ``levels`` and ``measured``, which has no rows yet.

    A variable's number is its place in alphabetical order, which is the order of measurements.
    """
    numbered = list(enumerate(sorted(declared.series.items())))
    _create(
        connection,
        "variables",
        {
            "variable": (pa.int32(), [i for i, _ in numbered]),
            "name": (pa.string(), [name for _, (name, _) in numbered]),
            "has_levels": (pa.bool_(), [bool(s.levels) for _, (_, s) in numbered]),
            "low": (pa.float64(), [(s.range or [-math.inf])[0] for _, (_, s) in numbered]),
            "high": (pa.float64(), [(s.range or [math.inf])[-1] for _, (_, s) in numbered]),
        },
    )
    # Each spelling once, or its rows would be there twice.
    spelt = list(
        dict.fromkeys(
            (i, rank, level, spelling(text))
            for i, (_, s) in numbered
            for rank, (level, texts) in enumerate(s.levels.items())
            for text in texts
        )
    )
    kinds = {
        "variable": pa.int32(),
        "rank": pa.float64(),
        "level": pa.string(),
        "spelling": pa.string(),
    }
    _create(
        connection,
        "levels",
        {name: (kind, [row[i] for row in spelt]) for i, (name, kind) in enumerate(kinds.items())},
    )
    connection.execute(
        """
        CREATE TABLE measured (
            listing INTEGER, row BIGINT, nth INTEGER, place INTEGER, hours DOUBLE,
            variable INTEGER, number DOUBLE, fault VARCHAR, text VARCHAR
        )
        """
    )


def items_of(
    tables: Sequence[RawTable], forms: Sequence[MeasurementsTable], declared: Declaration
) -> list[list[Item]]:
    """The series to look for in each file: all in a long one, those with a column in a wide one.

    Raises:
        UserError: a wide file without any of them; a series that has no column, where there are
            wide files only.
    """
    numbered = [(name, i) for i, name in enumerate(sorted(declared.series))]
    names = [Item(called, i) for name, i in numbered for called in declared.names_of(name)]
    in_rows = list({spelling(item.name): item for item in names}.values())
    found = []
    for table, form in zip(tables, forms, strict=True):
        in_columns = [item for item in names if item.name in table.columns]
        found.append(in_columns if form.variable is None else in_rows)
        if not found[-1]:
            called = ", ".join(item.name for item in names)
            raise UserError(
                f"{table.file} has a column of none of the series ({called}). If it has a row per "
                "value, name its columns: measurements.variable and measurements.value."
            )
    if all(form.variable is None for form in forms):
        have = {item.variable for items in found for item in items}
        for name, i in numbered:
            if i not in have:
                called = declared.names_of(name)[0]
                columns = [column for table in tables for column in table.columns]
                where = ", ".join(str(table.file) for table in tables)
                raise UserError(
                    f"{where}: no column {called!r} (series.{name}).{nearest(called, columns)} "
                    "Say what it is called: called: [...]."
                )
    return found


def load_measurements(
    connection: duckdb.DuckDBPyConnection,
    listing: int,
    table: RawTable,
    items: Sequence[Item],
    declared: Declaration,
) -> None:
    """Read a file and add its values to ``measured``, with what is wrong with each.

    Raises:
        UserError: a column that the file does not have, or a file that cannot be read.
    """
    form = declared.measurements[listing]
    names = [f"v{i}" if form.variable is None else spelling(x.name) for i, x in enumerate(items)]
    _create(
        connection,
        "items",
        {
            "item": (pa.string(), names),
            "nth": (pa.int32(), list(range(len(items)))),
            "variable": (pa.int32(), [item.variable for item in items]),
        },
    )
    if form.hours is not None:
        hours = number_sql("moment", declared)
    else:
        hours = f"(epoch({time_sql('moment', declared)}) - epoch(admitted)) / 3600"
    with reading(table):
        connection.execute(
            f"""
            INSERT INTO measured
            SELECT {listing}, row, nth, place, hours, variable, number, fault,
                CASE WHEN fault = 'unknown_stay' THEN key WHEN fault = 'undeclared' THEN item
                    WHEN fault IN ('unreadable_time', 'before_admission', 'after_discharge')
                    THEN moment WHEN fault IS NOT NULL THEN value END AS text
            FROM (
                SELECT *, CASE
                    WHEN variable IS NULL THEN 'undeclared'
                    WHEN value IS NULL THEN 'empty'
                    WHEN place IS NULL THEN 'unknown_stay'
                    WHEN hours IS NULL THEN 'unreadable_time'
                    WHEN hours < 0 THEN 'before_admission'
                    WHEN hours > los_hours THEN 'after_discharge'
                    WHEN number IS NULL AND has_levels THEN 'unknown_level:' || nth
                    WHEN number IS NULL THEN 'unreadable_value:' || nth
                    WHEN number NOT BETWEEN low AND high THEN 'outside_range' END AS fault
                FROM (
                    SELECT cells.*, place, los_hours, items.variable, nth, has_levels, low, high,
                        {hours} AS hours,
                        CASE WHEN has_levels THEN rank ELSE {number_sql("value", declared)} END
                            AS number
                    FROM ({_cells(table, form, items)}) AS cells
                        LEFT JOIN (SELECT key, place, admitted, los_hours FROM stays) AS known
                            USING (key)
                        LEFT JOIN items USING (item)
                        LEFT JOIN variables ON variables.variable = items.variable
                        LEFT JOIN levels ON levels.variable = items.variable
                            AND levels.spelling = {spelling_sql("value")}
                )
            )
            """
        )


def _cells(table: RawTable, form: MeasurementsTable, items: Sequence[Item]) -> str:
    """A query of ``row``, ``key`` of the stay, ``moment``, ``item`` and ``value``, all texts."""
    key = table.key(form.stay, "measurements.stay")
    if form.hours is not None:
        moment = table.text(form.hours, "measurements.hours")
    else:
        moment = table.text(str(form.time), "measurements.time")
    if form.variable is not None:
        item = spelling_sql(table.text(form.variable, "measurements.variable"))
        value = table.text(str(form.value), "measurements.value")
        return (
            f"SELECT row, {key} AS key, {moment} AS moment, {item} AS item, {value} AS value "
            f"FROM {table.source}"
        )
    values = {f"v{i}": table.text(item.name, "series") for i, item in enumerate(items)}
    listed = ", ".join(f"{sql} AS {name}" for name, sql in values.items())
    # Cells without a value fall away here.
    return (
        f"FROM (SELECT row, {key} AS key, {moment} AS moment, {listed} FROM {table.source}) "
        f"UNPIVOT (value FOR item IN ({', '.join(values)}))"
    )


def tell_faults(
    connection: duckdb.DuckDBPyConnection,
    listing: int,
    table: RawTable,
    items: Sequence[Item],
    declared: Declaration,
    problems: Problems,
    dropped: dict[str, int],
) -> None:
    """Add what is wrong with the rows of a file to problems, or count what is left out."""
    form = declared.measurements[listing]
    faults = dict(_faults(form, items, declared))
    rows = f"FROM measured WHERE listing = {listing}"
    problems.of_rows(connection, table, rows, faults, "measurements", form.drop, dropped)
    counted = connection.execute(
        f"""
        SELECT fault, name, count(*) FROM ({rows}) LEFT JOIN variables USING (variable)
        WHERE fault IN ('empty', 'outside_range') GROUP BY fault, name ORDER BY fault, name
        """
    ).fetchall()
    for fault, name, n in counted:
        what = f"values of {name} outside its range" if fault != "empty" else "rows without a value"
        dropped[what] = dropped.get(what, 0) + n
    n, n_names = connection.execute(
        f"SELECT count(*), count(DISTINCT text) FROM ({rows}) WHERE fault = 'undeclared'"
    ).fetchall()[0]
    if n:
        names = _undeclared(connection, SHOWN_NAMES, rows)
        more = f" and {n_names - SHOWN_NAMES:,} more" if n_names > SHOWN_NAMES else ""
        reason = f"rows of {table.file.name} of series that are not taken"
        dropped[f"{reason} ({', '.join(names)}{more})"] = n


def tell_missing(
    connection: duckdb.DuckDBPyConnection,
    tables: Sequence[RawTable],
    items: Sequence[Sequence[Item]],
    declared: Declaration,
    problems: Problems,
) -> None:
    """Add series that no file has a row of; a wide file has them by their columns."""
    seen = {
        variable
        for (variable,) in connection.execute("SELECT DISTINCT variable FROM measured").fetchall()
    }
    for form, mine in zip(declared.measurements, items, strict=True):
        seen |= {item.variable for item in mine if form.variable is None}
    for i, name in enumerate(sorted(declared.series)):
        if i not in seen:
            called = declared.names_of(name)
            hint = nearest(called[0], _undeclared(connection, 1000, "FROM measured"))
            files = ", ".join(str(table.file) for table in tables)
            problems.found.append(
                f"{files}: no row of a series called {' or '.join(map(repr, called))} "
                f"(series.{name}).{hint} Correct series.{name}.called in tables.yaml, or remove "
                "the series."
            )


def _undeclared(connection: duckdb.DuckDBPyConnection, n: int, rows: str) -> list[str]:
    """The commonest names of series that are not taken."""
    found = connection.execute(
        f"""
        SELECT text FROM ({rows}) WHERE fault = 'undeclared' AND text IS NOT NULL
        GROUP BY text ORDER BY count(*) DESC, text LIMIT {n}
        """
    ).fetchall()
    return [name for (name,) in found]


def _faults(
    form: MeasurementsTable, items: Sequence[Item], declared: Declaration
) -> Iterator[tuple[str, Fault]]:
    moment = form.hours or str(form.time)
    correct = "Correct it"
    yield (
        "unknown_stay",
        Fault(
            form.stay,
            f"{{}} is no stay of {declared.stays.file}",
            "of unknown stays",
            "Add the stay",
        ),
    )
    wanted = "number of hours" if form.hours else "date and time"
    yield (
        "unreadable_time",
        Fault(moment, f"{{}} is no {wanted}", "without a readable time", correct),
    )
    yield (
        "before_admission",
        Fault(moment, "{} is before the admission", "before the admission", correct),
    )
    yield (
        "after_discharge",
        Fault(moment, "{} is after the end of the stay", "after the end of the stay", correct),
    )
    names = sorted(declared.series)
    for i, item in enumerate(items):
        name = names[item.variable]
        column = form.value or item.name
        yield (
            f"unreadable_value:{i}",
            Fault(
                column,
                f"{{}} is no number ({name})",
                f"with a value of {name} that is no number",
                "Correct it, name the text under missing in tables.yaml",
                of_texts=True,
            ),
        )
        levels = ", ".join(declared.series[name].levels)
        yield (
            f"unknown_level:{i}",
            Fault(
                column,
                f"{{}} is no level of {name} ({levels})",
                f"with an unknown level of {name}",
                f"Add it to series.{name}.levels in tables.yaml, name it under missing",
                of_texts=True,
            ),
        )


def _create(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    columns: Mapping[str, tuple[pa.DataType, Sequence[object]]],
) -> None:
    arrays = [pa.array(values, kind) for kind, values in columns.values()]
    connection.register("given", pa.table(arrays, names=list(columns)))
    connection.execute(f"CREATE OR REPLACE TABLE {name} AS FROM given")
    connection.unregister("given")
