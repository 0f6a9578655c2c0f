"""Files of tables, for DuckDB: their columns, their names in SQL, and what is wrong with them."""

import csv
import glob
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from synehrgy.errors import UserError

# In the order of preference: where a table has several forms, Parquet is the fastest to read.
SUFFIXES = (".parquet", ".csv", ".csv.gz")

# DuckDB before version 2 takes a gzip file that was cut off for a whole one, so the file is read
# through first. Version 2 is for Python 3.11 and later.
_TAKES_CUT_FILES = int(duckdb.__version__.split(".")[0]) < 2

_MEANING = {"BIGINT": "a whole number", "DOUBLE": "a number", "TIMESTAMP": "a date and time"}
_REPAIR = "Restore the file from its source, checking its checksum, and run again."


def csv_header(file: Path, delimiter: str = ",", encoding: str = "utf-8-sig") -> list[str]:
    """The names in the first line of a CSV file, compressed or not.

    Raises:
        UserError: an empty or unreadable file.
    """
    opened = gzip.open if file.suffix.lower() == ".gz" else open
    try:
        with opened(file, "rt", encoding=encoding, newline="") as lines:
            header = next(csv.reader(lines, delimiter=delimiter), [])
        if opened is gzip.open and _TAKES_CUT_FILES:
            with gzip.open(file) as content:
                while content.read(1 << 20):
                    pass
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {error}. {_REPAIR}") from None
    if not header:
        raise UserError(f"{file} is empty. {_REPAIR}")
    return header


def parquet_columns(file: Path) -> dict[str, str]:
    """The columns of a Parquet file and their types, as DuckDB calls them.

    Raises:
        UserError: an unreadable file.
    """
    try:
        rows = duckdb.execute(f"DESCRIBE SELECT * FROM read_parquet({sql_path(file)})").fetchall()
    except duckdb.Error as error:
        raise UserError(f"{file} cannot be read: {first_line(error)}. {_REPAIR}") from None
    return {row[0]: row[1] for row in rows}


def rows_read(file: Path, profile: Path) -> int:
    """Rows of a file that a query read, from DuckDB's profile of the query."""
    if file.suffix.lower() == ".parquet":
        return int(pq.read_metadata(file).num_rows)
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


def sql_path(file: Path) -> str:
    """The name of a file as a text literal of SQL."""
    # DuckDB takes a file name for a pattern, so brackets and stars in it are escaped.
    return sql_text(glob.escape(str(file)))


def sql_text(value: object) -> str:
    """A text literal of SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'
