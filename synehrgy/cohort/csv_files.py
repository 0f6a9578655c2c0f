"""CSV files as Arrow tables, with errors that name the line and the cell."""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from synehrgy.errors import UserError


def read_header(file: Path) -> list[str]:
    """The names of the columns.

    Raises:
        FileNotFoundError: no such file.
        UserError: a name that stands there twice.
    """
    _, header = next(_lines(file), (1, []))
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{file} has two columns called {repeated!r}. Rename or remove one.")
    return header


def read_table(file: Path, header: list[str], expected: pa.Schema) -> pa.Table:
    """The rows of a file; columns that are expected have their types.

    Args:
        file: the CSV file.
        header: the names of its columns.
        expected: columns and their types; of others the type is guessed.

    Raises:
        UserError: a cell that does not fit its type, or a row of another length; names the line, of
            which the header is the first.
    """
    try:
        return _read(file, {column.name: column.type for column in expected})
    except pa.ArrowInvalid as error:
        raise UserError(_why_not(file, header, expected, error)) from None


def line_of(file: Path, row: int) -> str:
    """Where a row of a file is, for people; rows are counted from 0, without the header."""
    line, _ = next(islice(_lines(file), row + 1, None))
    return f"{file}, line {line}"


def _read(file: Path, types: dict[str, pa.DataType]) -> pa.Table:
    return pa_csv.read_csv(
        file,
        # Only what is empty is missing: a level may be called NA.
        convert_options=pa_csv.ConvertOptions(
            column_types=types, strings_can_be_null=True, null_values=[""]
        ),
    )


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The header and the rows of a CSV file, each with its line; empty lines are no rows."""
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        reader = csv.reader(text)
        line = 1
        try:
            for cells in reader:
                if cells:
                    yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            raise UserError(f"{file}, line {line} cannot be read: {error}.") from None


def _why_not(file: Path, header: list[str], expected: pa.Schema, error: Exception) -> str:
    """Which line and cell of a file is the reason for an error of reading it, in words."""
    if "UTF8" in str(error):
        return f"{file} is not text in UTF-8. Save it as such."
    for line, cells in _lines(file):
        if len(cells) != len(header):
            return f"{file}, line {line}: it has {len(cells)} cells, the header {len(header)}."
    try:
        texts = _read(file, dict.fromkeys(header, pa.string()))
    except pa.ArrowInvalid:
        return f"{file} cannot be read: {error}."
    found = [
        (row, column)
        for column in expected
        if column.name in header and not pa.types.is_string(column.type)
        if (row := _first_misfit(texts[column.name], column.type)) is not None
    ]
    if not found:
        return f"{file} cannot be read: {error}."
    row, column = min(found, key=lambda one: one[0])
    if column.type == pa.int8():
        wanted = "0 or 1"
    else:
        wanted = "a whole number" if pa.types.is_integer(column.type) else "a number"
    text = texts[column.name][row].as_py()
    return f"{line_of(file, row)}: column {column.name!r} must be {wanted}, is {text!r}."


def _first_misfit(texts: pa.ChunkedArray, kind: pa.DataType) -> int | None:
    """The first row whose text is no number of a type; None if all are."""
    texts = pc.utf8_trim_whitespace(texts)

    def fits(first: int, last: int) -> bool:
        try:
            texts.slice(first, last - first).cast(kind)
        except pa.ArrowInvalid:
            return False
        return True

    first, last = 0, len(texts)
    if fits(first, last):
        return None
    while last - first > 1:
        middle = (first + last) // 2
        if fits(first, middle):
            first = middle
        else:
            last = middle
    return first
