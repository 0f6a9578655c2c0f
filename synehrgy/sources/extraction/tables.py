"""The raw tables: where they are, which columns are read, and what is wrong with them."""

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from synehrgy.errors import UserError, nearest
from synehrgy.sources.database import file_text, first_line, identifier, sql_text

# In the order of preference: where a table has several forms, Parquet is the fastest to read.
SUFFIXES = (".parquet", ".csv", ".csv.gz")

# The type of each needed column, by table. Types are declared, never guessed: a code such as 0389
# is text, however its column looks.
Columns = dict[str, dict[str, str]]

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


@dataclass(frozen=True)
class Release:
    """The files of a database as it is released.

    Attributes:
        title, version: name of the database for people, and which version is meant.
        columns: the needed columns and their types, by table.
        text: columns that must be text in a Parquet file, too, because numbers would have lost what
            text tells: leading zeros of codes, "9" being more than "10".
        folders: folders inside the raw folder in which files may be.
    """

    title: str
    version: str
    columns: Columns
    text: tuple[str, ...]
    folders: tuple[str, ...] = ()


def find_tables(release: Release, raw_dir: Path, names: Iterable[str]) -> dict[str, RawTable]:
    """Find the named raw tables in a folder; their headers are read, their rows not.

    A table may be ``NAME.parquet``, ``NAME.csv`` or ``NAME.csv.gz`` in any case, taken in this
    order if there are several. Columns that are not needed are ignored.

    Raises:
        UserError: no such folder, one without tables of the release, or a table that is missing,
            empty, unreadable or without a needed column.
    """
    names = list(names)
    if not raw_dir.is_dir():
        raise UserError(
            f"The raw data folder {raw_dir} does not exist or is not a folder. Give the folder that"
            f" holds the {release.title} files (data.raw_dir=...)."
        )
    everything = sorted(raw_dir.iterdir())
    inside = [entry for entry in everything if entry.name.lower() in release.folders]
    files = [file for folder in (raw_dir, *inside) for file in sorted(folder.iterdir())]
    present: dict[str, Path] = {}
    for file in files:
        if file.is_file():
            present.setdefault(file.name.lower(), file)
    found = {
        name: present[name + suffix]
        for name in names
        for suffix in reversed(SUFFIXES)
        if name + suffix in present
    }
    missing = [name.upper() for name in names if name not in found]
    if missing:
        shown = [str(file.relative_to(raw_dir)) for file in files]
        listed = ", ".join(shown[:15]) + (", ..." if len(shown) > 15 else "")
        problem = (
            f"{raw_dir} lacks {', '.join(missing)}"
            if found
            else f"{raw_dir} holds no {release.title} tables. Expected {', '.join(missing)}"
        )
        places = f", in it or in {' and '.join(release.folders)}" if release.folders else ""
        raise UserError(
            f"{problem}, each as one of {', '.join(SUFFIXES)} (in any case{places}). "
            f"Found: {listed or 'nothing'}. Give the right folder (data.raw_dir=...) or "
            "download what is missing."
        )
    return {name: _open(release, name, file) for name, file in found.items()}


def _open(release: Release, name: str, file: Path) -> RawTable:
    needed = release.columns[name]
    parquet = file.suffix.lower() == ".parquet"
    types = _parquet_columns(file) if parquet else dict.fromkeys(_csv_header(file), "VARCHAR")
    columns = {column.lower(): column for column in types}
    for column in needed:
        if column not in columns:
            raise UserError(
                f"{file} has no column {column.upper()}.{nearest(column, columns)} "
                f"Is this the {release.title} {release.version} table?"
            )
        if column in release.text and types[columns[column]] not in ("VARCHAR", '"NULL"'):
            raise UserError(
                f"{file}: column {columns[column]} must be text, is {types[columns[column]]}. "
                "Write it as text, as in the CSV file, so that leading zeros are kept."
            )
    if parquet:
        selected = ", ".join(
            f"CAST({identifier(columns[column])} AS {kind}) AS {column}"
            for column, kind in needed.items()
        )
        return RawTable(name, file, f"(SELECT {selected} FROM read_parquet({file_text(file)}))")
    declared = ", ".join(
        f"{sql_text(column)}: '{needed.get(column, 'VARCHAR')}'" for column in columns
    )
    options = "auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"'"
    source = f"read_csv({file_text(file)}, {options}, columns = {{{declared}}})"
    return RawTable(name, file, f"(SELECT {', '.join(needed)} FROM {source})")


def _csv_header(file: Path) -> list[str]:
    opened = gzip.open if file.suffix.lower() == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig", newline="") as lines:
            header = next(csv.reader(lines), [])
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {error}. {_REPAIR}") from None
    if not header:
        raise UserError(f"{file} is empty. {_REPAIR}")
    return header


def _parquet_columns(file: Path) -> dict[str, str]:
    try:
        rows = duckdb.execute(f"DESCRIBE SELECT * FROM read_parquet({file_text(file)})").fetchall()
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
