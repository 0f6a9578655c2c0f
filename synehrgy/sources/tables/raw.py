"""The files of a hospital's tables, every cell as text until it is known what it must be."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from synehrgy.errors import UserError, nearest
from synehrgy.sources.reading import (
    SUFFIXES,
    blame,
    csv_header,
    identifier,
    parquet_columns,
    sql_path,
    sql_text,
)
from synehrgy.sources.tables.declaration import Declaration, spelling

# Types of text, as DuckDB calls them: a code such as 0389 is none as a number.
_TEXTS = ("VARCHAR", "ENUM", '"NULL"')
# Types of numbers that are written with a point.
_FRACTIONS = ("FLOAT", "DOUBLE", "DECIMAL")

# What else a cast to a time takes, such as "8:00 PM", it takes for something else.
_ISO = r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([ T][0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?$"
# Likewise of a number: 1_000.
_NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"


@dataclass(frozen=True)
class RawTable:
    """A table that was found, with a readable header.

    Attributes:
        file: the file that is read.
        source: its rows for SQL, with their number, from 1, as ``row``.
        columns: names in SQL of its columns.
        types: types of its columns, as DuckDB calls them.
        first_line: what the first row is called in messages: 2 in a CSV file, 1 in Parquet.
        declared: how cells are written.
        used: the columns that were asked for.
    """

    file: Path
    source: str
    columns: dict[str, str]
    types: dict[str, str]
    first_line: int
    declared: Declaration
    used: set[str] = field(default_factory=set)

    def text(self, column: str, key: str, *, codes: bool = False) -> str:
        """SQL of a column's cells without blanks around them; null where they mean nothing.

        Args:
            column: its name in the file.
            key: the key of ``tables.yaml`` that names it, for the message.
            codes: whether the cells are codes, which must be text in the file, too.

        Raises:
            UserError: no such column, codes that are numbers, or times with a zone.
        """
        if column not in self.columns:
            raise UserError(
                f"{self.file} has no column {column!r} ({key}).{nearest(column, self.columns)}"
            )
        if codes and not self.types[column].startswith(_TEXTS):
            raise UserError(
                f"{self.file}: column {column!r} ({key}) must be text, is {self.types[column]}. "
                "Write it as text, so that codes keep their leading zeros."
            )
        if self.types[column] == "TIMESTAMP WITH TIME ZONE":
            raise UserError(
                f"{self.file}: column {column!r} ({key}) has a time zone. Write the time of the "
                "hospital's clocks, without a zone."
            )
        self.used.add(column)
        nothing = ", ".join(sql_text(spelling(text)) for text in ["", *self.declared.missing])
        text = f"trim(CAST({self.columns[column]} AS VARCHAR))"
        if self.declared.csv.decimal == "," and self.types[column].startswith(_FRACTIONS):
            text = f"replace({text}, '.', ',')"
        return f"CASE WHEN {spelling_sql(text)} NOT IN ({nothing}) THEN {text} END"

    def key(self, column: str, key: str) -> str:
        """SQL of a column of identifiers.

        Raises:
            UserError: no such column.
        """
        return spelling_sql(self.text(column, key))

    def line(self, row: int) -> str:
        """What a row is called in messages."""
        return str(row - 1 + self.first_line)

    @property
    def what_line(self) -> str:
        """What rows are counted in."""
        return "row" if self.first_line == 1 else "line"


def spelling_sql(text: str) -> str:
    """SQL of ``declaration.spelling``."""
    return f"regexp_replace({text}, '^(-?[0-9]+)\\.0+$', '\\1')"


def number_sql(text: str, declared: Declaration) -> str:
    """SQL of a finite number, null where the text is none."""
    if declared.csv.decimal == ",":
        # A point in it separates thousands, or is a mistake.
        text = spelling_sql(text)
        text = f"CASE WHEN NOT contains({text}, '.') THEN replace({text}, ',', '.') END"
    number = f"TRY_CAST({text} AS DOUBLE)"
    is_number = f"regexp_full_match({text}, {sql_text(_NUMBER)})"
    return f"CASE WHEN {is_number} AND isfinite({number}) THEN {number} END"


def time_sql(text: str, declared: Declaration) -> str:
    """SQL of a date and time, null where the text is none."""
    is_iso = f"regexp_full_match({text}, {sql_text(_ISO)})"
    iso = f"CASE WHEN {is_iso} THEN TRY_CAST({text} AS TIMESTAMP) END"
    if not declared.time_format:
        return iso
    # Times of Parquet files come as ISO has them.
    formats = ", ".join(map(sql_text, declared.time_format))
    return f"coalesce(TRY_STRPTIME({text}, [{formats}]), {iso})"


def open_table(folder: Path, name: str, key: str, declared: Declaration) -> RawTable:
    """Find a table and read its header.

    Args:
        folder: of the tables.
        name: of the file.
        key: the key of ``tables.yaml`` that names it, for the message.
        declared: how cells are written.

    Raises:
        UserError: a file that is missing, of another kind, empty or unreadable.
    """
    file = folder / name
    if not file.is_file():
        present = sorted(f.name for f in folder.iterdir() if f.name.lower().endswith(SUFFIXES))
        raise UserError(f"{file} does not exist ({key}).{nearest(name, present)}")
    if not name.lower().endswith(SUFFIXES):
        raise UserError(f"{file} ({key}) must end with one of {', '.join(SUFFIXES)}.")
    if name.lower().endswith(".parquet"):
        types = parquet_columns(file)
        # Names of our own, as DuckDB takes "HR" and "hr" for the same.
        columns = {column: f"c{i}" for i, column in enumerate(types)}
        renamed = ", ".join(f"{identifier(column)} AS {name}" for column, name in columns.items())
        source = f"read_parquet({sql_path(file)}, file_row_number = true)"
        source = f"(SELECT {renamed}, file_row_number + 1 AS row FROM {source})"
        return RawTable(file, source, columns, types, 1, declared)
    form = declared.csv
    delimiter = "\t" if form.delimiter == r"\t" else form.delimiter
    # A mark of the byte order is no part of the first name.
    is_utf8 = codecs.lookup(form.encoding).name == "utf-8"
    with _hinting():
        header = csv_header(file, delimiter, "utf-8-sig" if is_utf8 else form.encoding)
    twice = next((column for column in header if header.count(column) > 1), None)
    if twice is not None:
        raise UserError(f"{file} has two columns called {twice!r}. Rename one.")
    if len(header) == 1:
        others = [d for d in (",", ";", "\t", "|") if d != delimiter and d in header[0]]
        if others:
            shown = r"\t" if others[0] == "\t" else others[0]
            raise UserError(
                f"{file} has one column only, {header[0]!r}. If {shown!r} separates its fields, "
                f'say so in tables.yaml: csv: {{delimiter: "{shown}"}}.'
            )
    columns = {column: f"c{i}" for i, column in enumerate(header)}
    typed = ", ".join(f"{name}: 'VARCHAR'" for name in columns.values())
    options = (
        f"auto_detect = false, header = true, delim = {sql_text(delimiter)}, quote = '\"', "
        f"escape = '\"', encoding = {sql_text(form.encoding)}"
    )
    source = f"read_csv({sql_path(file)}, {options}, columns = {{{typed}}})"
    source = f"(SELECT *, row_number() OVER () AS row FROM {source})"
    return RawTable(file, source, columns, dict.fromkeys(header, "VARCHAR"), 2, declared)


@contextmanager
def reading(table: RawTable) -> Iterator[None]:
    """Turn an error of a query that reads a table into one that names the file and the line."""
    with _hinting(), blame(table.file):
        yield


@contextmanager
def _hinting() -> Iterator[None]:
    """Say what to do about a file in another encoding."""
    try:
        yield
    except UserError as error:
        if "utf-8" not in str(error):
            raise
        hint = "If it is in another encoding, say so in tables.yaml: csv: {encoding: latin-1}."
        raise UserError(f"{error} {hint}") from None


def try_formats(declared: Declaration) -> None:
    """Refuse formats of times that are none.

    Raises:
        UserError: names the format.
    """
    for text in declared.time_format:
        try:
            duckdb.execute("SELECT strptime(strftime(TIMESTAMP '2020-01-02', $1), $1)", [text])
        except duckdb.Error as error:
            raise UserError(
                f"time_format: {text!r} is none: {str(error).splitlines()[0]}. Write it like "
                "'%d.%m.%Y %H:%M'."
            ) from None
