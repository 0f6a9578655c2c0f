"""The raw tables: where they are, which columns are read, and what is wrong with them."""

import csv
import glob
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from synehrgy.errors import UserError, nearest

# In the order of preference: where a table has several forms, Parquet is the fastest to read.
SUFFIXES = (".parquet", ".csv", ".csv.gz")

# Types are declared, never guessed: a code such as 0389 is text, however its column looks.
_EVENT = {
    "subject_id": "BIGINT",
    "hadm_id": "BIGINT",
    "itemid": "BIGINT",
    "charttime": "TIMESTAMP",
    "value": "VARCHAR",
    "valueuom": "VARCHAR",
}
_CODE = {"hadm_id": "BIGINT", "seq_num": "BIGINT", "icd9_code": "VARCHAR"}
COLUMNS = {
    "patients": {
        "subject_id": "BIGINT",
        "gender": "VARCHAR",
        "dob": "TIMESTAMP",
        "dod": "TIMESTAMP",
    },
    "admissions": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "admittime": "TIMESTAMP",
        "dischtime": "TIMESTAMP",
        "deathtime": "TIMESTAMP",
    },
    "icustays": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "icustay_id": "BIGINT",
        "first_careunit": "VARCHAR",
        "last_careunit": "VARCHAR",
        "first_wardid": "BIGINT",
        "last_wardid": "BIGINT",
        "intime": "TIMESTAMP",
        "outtime": "TIMESTAMP",
        "los": "DOUBLE",
    },
    "diagnoses_icd": _CODE,
    "procedures_icd": _CODE,
    "d_icd_diagnoses": {"icd9_code": "VARCHAR"},
    "chartevents": {**_EVENT, "icustay_id": "BIGINT"},
    "labevents": _EVENT,
}

# Numbers would have lost what text tells: leading zeros of codes, "9" being more than "10".
_AS_TEXT = ("value", "icd9_code")

# DuckDB before version 2 takes a gzip file that was cut off for a whole one, so the file is read
# through first. Version 2 is for Python 3.11 and later.
_TAKES_CUT_FILES = int(duckdb.__version__.split(".")[0]) < 2

_MEANING = {"BIGINT": "a whole number", "DOUBLE": "a number", "TIMESTAMP": "a date and time"}
_REPAIR = "Restore the file from its source, checking its checksum, and run again."


@dataclass(frozen=True)
class RawTable:
    """A raw table that was found, with a readable header that has the columns needed.

    Attributes:
        name: name of the table in lower case.
        file: the file that is read.
        sql: the needed columns, with their types, as a subquery.
    """

    name: str
    file: Path
    sql: str


def find_tables(raw_dir: Path, names: Iterable[str]) -> dict[str, RawTable]:
    """Find the named raw tables in a folder; their headers are read, their rows not.

    A table may be ``NAME.parquet``, ``NAME.csv`` or ``NAME.csv.gz`` in any case, taken in this
    order if there are several. Columns that are not needed are ignored.

    Raises:
        UserError: no such folder, one without MIMIC-III tables, or a table that is missing, empty,
            unreadable or without a needed column.
    """
    names = list(names)
    if not raw_dir.is_dir():
        raise UserError(
            f"The raw data folder {raw_dir} does not exist or is not a folder. Give the folder that"
            " holds the MIMIC-III files (data.raw_dir=...)."
        )
    present = {file.name.lower(): file for file in sorted(raw_dir.iterdir()) if file.is_file()}
    found = {
        name: present[name + suffix]
        for name in names
        for suffix in reversed(SUFFIXES)
        if name + suffix in present
    }
    missing = [name.upper() for name in names if name not in found]
    if missing:
        everything = sorted(entry.name for entry in raw_dir.iterdir())
        listed = ", ".join(everything[:15]) + (", ..." if len(everything) > 15 else "")
        problem = (
            f"{raw_dir} lacks {', '.join(missing)}"
            if found
            else f"{raw_dir} holds no MIMIC-III tables. Expected {', '.join(missing)}"
        )
        raise UserError(
            f"{problem}, each as one of {', '.join(SUFFIXES)} (in any case). "
            f"Found: {listed or 'nothing'}. Give the right folder (data.raw_dir=...) or "
            "download what is missing."
        )
    return {name: _open(name, file) for name, file in found.items()}


def _open(name: str, file: Path) -> RawTable:
    parquet = file.suffix.lower() == ".parquet"
    types = _parquet_columns(file) if parquet else dict.fromkeys(_csv_header(file), "VARCHAR")
    columns = {column.lower(): column for column in types}
    for column in COLUMNS[name]:
        if column not in columns:
            raise UserError(
                f"{file} has no column {column.upper()}.{nearest(column, columns)} "
                "Is this the MIMIC-III v1.4 table?"
            )
        if column in _AS_TEXT and types[columns[column]] not in ("VARCHAR", '"NULL"'):
            raise UserError(
                f"{file}: column {columns[column]} must be text, is {types[columns[column]]}. "
                "Write it as text, as in the CSV file, so that leading zeros are kept."
            )
    if parquet:
        selected = ", ".join(
            f"CAST({_identifier(columns[column])} AS {kind}) AS {column}"
            for column, kind in COLUMNS[name].items()
        )
        return RawTable(name, file, f"(SELECT {selected} FROM read_parquet({_path(file)}))")
    declared = ", ".join(
        f"{sql_text(column)}: '{COLUMNS[name].get(column, 'VARCHAR')}'" for column in columns
    )
    options = "auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"'"
    source = f"read_csv({_path(file)}, {options}, columns = {{{declared}}})"
    return RawTable(name, file, f"(SELECT {', '.join(COLUMNS[name])} FROM {source})")


def _csv_header(file: Path) -> list[str]:
    opened = gzip.open if file.suffix.lower() == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig", newline="") as lines:
            header = next(csv.reader(lines), [])
        if opened is gzip.open and _TAKES_CUT_FILES:
            with gzip.open(file) as content:
                while content.read(1 << 20):
                    pass
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {error}. {_REPAIR}") from None
    if not header:
        raise UserError(f"{file} is empty. {_REPAIR}")
    return header


def _parquet_columns(file: Path) -> dict[str, str]:
    try:
        rows = duckdb.execute(f"DESCRIBE SELECT * FROM read_parquet({_path(file)})").fetchall()
    except duckdb.Error as error:
        raise UserError(f"{file} cannot be read: {first_line(error)}. {_REPAIR}") from None
    return {row[0]: row[1] for row in rows}


def rows_read(table: RawTable, profile: Path) -> int:
    """Rows of a raw table that a query read, from DuckDB's profile of the query."""
    if table.file.suffix.lower() == ".parquet":
        return int(pq.read_metadata(table.file).num_rows)
    return _rows_from_csv(json.loads(profile.read_text(encoding="utf-8")))


def _rows_from_csv(profile: Any) -> int:
    """Rows that came out of the CSV reader, in the tree of a query's operators."""
    if isinstance(profile, list):
        return sum(map(_rows_from_csv, profile))
    if not isinstance(profile, dict):
        return 0
    if profile.get("extra_info", {}).get("Function") == "READ_CSV":
        # The first name is DuckDB 2's, the second that of the versions before.
        return int(profile.get("intermediate_rows") or profile.get("operator_cardinality", 0))
    return sum(map(_rows_from_csv, profile.values()))


@contextmanager
def blame(file: Path) -> Iterator[None]:
    """Turn an error of a query that reads ``file`` into one that names the file and the line."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        # A full disk is no fault of this file either, though it is found out while it is read.
        if "No space left" in str(error):
            raise
        raise UserError(f"{file}{_complaint(str(error))}. {_REPAIR}") from None


def _complaint(message: str) -> str:
    """The line and the reason in one of DuckDB's messages about a file."""
    line = re.search(r"CSV Error on Line: (\d+)", message)
    where = f", line {line[1]}" if line else ""
    if fields := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
        return f"{where}: expected {fields[1]} fields, found {fields[2]}"
    if text := re.search(r'column "(\w+)". Could not convert string "(.*)" to \'(\w+)\'', message):
        meaning = _MEANING.get(text[3], text[3])
        return f"{where}: column {text[1].upper()}: {text[2]!r} is not {meaning}"
    for reason in ("unterminated quote", "not utf-8", "Maximum line size"):
        if reason.lower() in message.lower():
            return f"{where}: {reason}"
    return f"{where}: {first_line(message)}"


def first_line(error: object) -> str:
    """The first line of a message, without its full stop."""
    return str(error).strip().split("\n")[0].rstrip(".")


def _path(file: Path) -> str:
    # DuckDB takes a file name for a pattern, so brackets and stars in it are escaped.
    return sql_text(glob.escape(str(file)))


def sql_text(value: object) -> str:
    """A text literal of SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
