"""From the table of stays to those of the cohort: who, in which order, and the facts of each."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from synehrgy.cohort import SPLITS
from synehrgy.sources.database import count_rows
from synehrgy.sources.reading import sql_text
from synehrgy.sources.splits import Splits
from synehrgy.sources.tables.declaration import UNIT_HOURS, Declaration, LabelRule, spelling
from synehrgy.sources.tables.problems import Problems
from synehrgy.sources.tables.raw import RawTable, number_sql, reading, spelling_sql, time_sql
from synehrgy.sources.tables.summary import TablesSummary

_CORRECT = "Correct it, leave the cell empty, or name the text under missing in tables.yaml."
_FILL = "Every stay needs it: fill the cell, or remove the row."
_NO_NUMBER, _NO_TIME = "{} is no number", "{} is no date and time"


@dataclass(frozen=True)
class Cell:
    """A column of the table of stays.

    Attributes:
        name: its name here; that of its text has ``_text`` after it.
        column: its name in the file.
        text: SQL of what the file says; null where it says nothing.
        value: SQL of what ``<name>_text`` means; null where it cannot be read.
        wrong: what is wrong with a text that cannot be read.
        required: whether every stay must have it.
        advice: what to do about such a text.
    """

    name: str
    column: str
    text: str
    value: str
    wrong: str
    required: bool = False
    advice: str = _CORRECT


def load_stays(
    connection: duckdb.DuckDBPyConnection,
    table: RawTable,
    declared: Declaration,
    problems: Problems,
    summary: TablesSummary,
) -> bool:
    """Create the table ``stays``, numbered by ``place`` in the order of the cohort.

    ``subject`` and ``key`` are the identifiers in the file, ``admitted`` the time of admission or
    null, ``split`` null where no column says it. Covariates are ``x0``, ``x1``, ... and labels
    ``y0``, ``y1``, ... in the order of the schema; those that codes define are not there yet.
    Numbers out of their range are left out, and counted in ``summary``.

    Returns:
        Whether identifiers of patients or stays are texts, and so were numbered.

    Raises:
        UserError: a column that the file does not have, or a file that cannot be read.
    """
    cells = list(_cells(table, declared))
    texts = "".join(f", {cell.text} AS {cell.name}_text" for cell in cells)
    values = "".join(f", {cell.value} AS {cell.name}" for cell in cells)
    subject = table.key(declared.stays.subject, "stays.subject")
    key = table.key(declared.stays.stay, "stays.stay")
    with reading(table):
        connection.execute(
            f"""
            CREATE TABLE listed AS
            SELECT *{values}
            FROM (SELECT row, {subject} AS subject, {key} AS key{texts} FROM {table.source})
            """
        )
    summary.rows[table.file.name] = count_rows(connection, "listed")
    if not summary.rows[table.file.name]:
        problems.found.append(f"{table.file} has no stay.")
    _find_problems(connection, table, declared, cells, problems)
    numbers = {name: _are_numbers(connection, name) for name in ("subject", "key")}
    ids = [
        f"CAST({name} AS BIGINT)" if is_number else f"dense_rank() OVER (ORDER BY {name})"
        for name, is_number in numbers.items()
    ]
    names = {cell.name for cell in cells}
    order = next((name for name in ("ord", "admitted") if name in names), "row")
    facts = {
        "admitted": "admitted" if "admitted" in names else "NULL::TIMESTAMP",
        "split": "split" if "split" in names else "NULL::VARCHAR",
        "los_hours": _length(declared),
        **_covariates(declared),
        **{f"y{i}": f"y{i}" for i, _ in _labels_of_columns(declared)},
    }
    connection.execute(
        f"""
        CREATE TABLE stays AS
        SELECT CAST(row_number() OVER (ORDER BY subject_id, ordering, row) AS INTEGER) AS place, *
        FROM (
            SELECT row, subject, key, {ids[0]} AS subject_id, {ids[1]} AS stay_id,
                {order} AS ordering, {", ".join(f"{sql} AS {name}" for name, sql in facts.items())}
            FROM listed WHERE subject IS NOT NULL AND key IS NOT NULL
            QUALIFY row_number() OVER (PARTITION BY key ORDER BY row) = 1
        )
        """
    )
    for i, (name, covariate) in enumerate(declared.covariates.items()):
        if covariate.range:
            low, high = covariate.range
            outside = f"x{i} NOT BETWEEN '{low}'::DOUBLE AND '{high}'::DOUBLE"
            n = count_rows(connection, f"stays WHERE {outside}")
            summary.dropped[f"numbers of {name} outside its range"] = n
            connection.execute(f"UPDATE stays SET x{i} = NULL WHERE {outside}")
    return not all(numbers.values())


def assign_splits(connection: duckdb.DuckDBPyConnection, splits: Splits) -> None:
    """Say the split of each of the ``stays`` by lists or by a hash of the patient."""
    rows = connection.execute(
        "SELECT DISTINCT subject_id, subject FROM stays ORDER BY subject_id"
    ).fetchall()
    assigned = splits.assign(subject for _, subject in rows)
    found = pa.table({"subject_id": [number for number, _ in rows], "found": assigned})
    connection.register("assigned", found)
    connection.execute(
        "UPDATE stays SET split = found FROM assigned WHERE stays.subject_id = assigned.subject_id"
    )
    connection.unregister("assigned")


def _cells(table: RawTable, declared: Declaration) -> Iterator[Cell]:
    """The columns that are read, besides the identifiers."""
    stays = declared.stays

    def cell(
        name: str,
        column: str | None,
        key: str,
        value: Callable[[str, Declaration], str],
        wrong: str,
        required: bool = False,
    ) -> Iterator[Cell]:
        if column is not None:
            sql = value(f"{name}_text", declared)
            yield Cell(name, column, table.text(column, key), sql, wrong, required)

    yield from cell("ord", stays.order, "stays.order", number_sql, _NO_NUMBER, True)
    yield from cell("admitted", stays.admitted, "stays.admitted", time_sql, _NO_TIME, True)
    yield from cell("discharged", stays.discharged, "stays.discharged", time_sql, _NO_TIME)
    yield from cell("los", stays.los_hours, "stays.los_hours", number_sql, _NO_NUMBER)
    if stays.split is not None:
        splits = ", ".join(map(sql_text, SPLITS))
        yield Cell(
            "split",
            stays.split,
            table.text(stays.split, "stays.split"),
            f"CASE WHEN split_text IN ({splits}) THEN split_text END",
            f"{{}} is none of {', '.join(SPLITS)}",
            required=True,
            advice="Write one of these.",
        )
    for i, (name, covariate) in enumerate(declared.covariates.items()):
        key = f"covariates.{name}"
        if covariate.since is not None:
            yield from cell(f"x{i}", covariate.since, f"{key}.since", time_sql, _NO_TIME)
        elif not covariate.levels:
            yield from cell(f"x{i}", covariate.column or name, key, number_sql, _NO_NUMBER)
        else:
            column = covariate.column or name
            yield Cell(
                f"x{i}",
                column,
                table.text(column, key),
                level_sql(f"x{i}_text", covariate.levels),
                f"{{}} is no level of {name} ({', '.join(covariate.levels)})",
                advice=f"Add it to {key}.levels in tables.yaml, or name it under missing.",
            )
    for i, (name, rule) in _labels_of_columns(declared):
        column, key = rule.column or name, f"labels.{name}"
        yield Cell(
            f"y{i}",
            column,
            table.text(column, key),
            f"CASE WHEN {_is_one_of(f'y{i}_text', rule.present)} THEN 1::TINYINT "
            f"WHEN {_is_one_of(f'y{i}_text', rule.absent)} THEN 0::TINYINT END",
            "{} says neither that it is so nor that it is not",
            required="" not in [*rule.present, *rule.absent],
            advice=f"Add it to {key}.present or {key}.absent in tables.yaml; an empty cell is '' "
            "there: ['0', ''].",
        )


def _labels_of_columns(declared: Declaration) -> list[tuple[int, tuple[str, LabelRule]]]:
    """Labels that a column says, with their number."""
    return [(i, item) for i, item in enumerate(declared.labels.items()) if not item[1].codes]


def level_sql(text: str, levels: dict[str, list[str]]) -> str:
    """SQL of the level that a text spells; null if it spells none."""
    cases = " ".join(
        f"WHEN {spelling_sql(text)} IN {_texts(map(spelling, of))} THEN {sql_text(level)}"
        for level, of in levels.items()
    )
    return f"CASE {cases} END"


def _is_one_of(text: str, spellings: list[str]) -> str:
    plain = spelling_sql(f"coalesce({text}, '')")
    return f"lower({plain}) IN {_texts([spelling(s).lower() for s in spellings])}"


def _texts(texts: Iterable[str]) -> str:
    return f"({', '.join(map(sql_text, texts))})"


def _length(declared: Declaration) -> str:
    """SQL of the length of stay in hours."""
    if declared.stays.discharged:
        return "(epoch(discharged) - epoch(admitted)) / 3600"
    return "los" if declared.stays.los_hours else "NULL::DOUBLE"


def _covariates(declared: Declaration) -> dict[str, str]:
    """SQL of each covariate."""
    return {
        f"x{i}": f"x{i}"
        if covariate.since is None
        else f"(epoch(admitted) - epoch(x{i})) / {3600 * UNIT_HOURS[str(covariate.unit)]}"
        for i, covariate in enumerate(declared.covariates.values())
    }


def _are_numbers(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether identifiers are whole numbers, and different ones different numbers."""
    found = connection.execute(
        f"""
        SELECT count({name}) = count(TRY_CAST({name} AS BIGINT))
            AND count(DISTINCT {name}) = count(DISTINCT TRY_CAST({name} AS BIGINT))
            AND NOT coalesce(bool_or({name} LIKE '%.%'), false)
        FROM listed
        """
    ).fetchall()
    return bool(found[0][0])


def _find_problems(
    connection: duckdb.DuckDBPyConnection,
    table: RawTable,
    declared: Declaration,
    cells: list[Cell],
    problems: Problems,
) -> None:
    """What is wrong with single rows, and with rows beside each other."""

    def find(
        column: str,
        condition: str,
        what: str,
        advice: str,
        text: str = "key",
        of_texts: bool = False,
    ) -> None:
        problems.find(
            *(connection, table, column),
            rows="listed",
            condition=condition,
            text=text,
            what=what,
            advice=advice,
            of_texts=of_texts,
        )

    stays = declared.stays
    for column, name in ((stays.subject, "subject"), (stays.stay, "key")):
        find(column, f"{name} IS NULL", "it is empty", _FILL)
    find(
        stays.stay,
        "key IN (SELECT key FROM listed GROUP BY key HAVING count(*) > 1)",
        "the stay {} stands in several rows",
        "Stays have one row each, and identifiers that are no other patient's either: if yours "
        "count within the patient, join both identifiers to one.",
    )
    for cell in cells:
        text = f"{cell.name}_text"
        unread = f"{text} IS NOT NULL AND {cell.name} IS NULL"
        find(cell.column, unread, cell.wrong, cell.advice, text, of_texts=True)
        if cell.required:
            find(cell.column, f"{text} IS NULL", "it is empty", _FILL, text)
    if stays.split is not None:
        several = "SELECT subject FROM listed GROUP BY subject HAVING count(DISTINCT split) > 1"
        find(
            stays.split,
            f"subject IN ({several})",
            "the patient {} is in several splits",
            "All stays of a patient are in one, or a model would be tested on whom it knows.",
            "subject",
        )
    if stays.discharged is not None:
        find(
            stays.discharged,
            "discharged < admitted",
            "{} is before the admission",
            "Correct either time.",
            "discharged_text",
        )
    if stays.los_hours is not None:
        find(stays.los_hours, "los < 0", "{} is negative", _CORRECT, "los_text")
    for i, covariate in enumerate(declared.covariates.values()):
        if covariate.since is not None:
            find(
                covariate.since,
                f"x{i} > admitted",
                "{} is after the admission",
                "Correct either time.",
                f"x{i}_text",
            )
