"""The raw tables: where they are, which columns are read, and what is wrong with them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from synehrgy.errors import UserError, nearest
from synehrgy.sources.reading import (
    SUFFIXES,
    csv_header,
    identifier,
    parquet_columns,
    sql_path,
    sql_text,
)

# The type of each needed column, by table. Types are declared, never guessed: a code such as 0389
# is text, however its column looks.
Columns = dict[str, dict[str, str]]


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


def find_tables(
    release: Release, raw_dir: Path, names: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, RawTable]:
    """Find the named raw tables in a folder, and the optional ones that are there.

    Their headers are read, their rows not.

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
    inside = [e for e in everything if e.is_dir() and e.name.lower() in release.folders]
    files = [file for folder in (raw_dir, *inside) for file in sorted(folder.iterdir())]
    present: dict[str, Path] = {}
    for file in files:
        if file.is_file():
            present.setdefault(file.name.lower(), file)
    found = {
        name: present[name + suffix]
        for name in (*names, *optional)
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
    types = parquet_columns(file) if parquet else dict.fromkeys(csv_header(file), "VARCHAR")
    columns = {column.lower(): column for column in types}
    for column, kind in needed.items():
        if column not in columns:
            raise UserError(
                f"{file} has no column {column.upper()}.{nearest(column, columns)} "
                f"Is this the {release.title} {release.version} table?"
            )
        is_text = types[columns[column]] in ("VARCHAR", '"NULL"')
        if column in release.text and kind == "VARCHAR" and not is_text:
            raise UserError(
                f"{file}: column {columns[column]} must be text, is {types[columns[column]]}. "
                "Write it as text, as in the CSV file, so that leading zeros are kept."
            )
    if parquet:
        selected = ", ".join(
            f"CAST({identifier(columns[column])} AS {kind}) AS {column}"
            for column, kind in needed.items()
        )
        return RawTable(name, file, f"(SELECT {selected} FROM read_parquet({sql_path(file)}))")
    declared = ", ".join(
        f"{sql_text(column)}: '{needed.get(column, 'VARCHAR')}'" for column in columns
    )
    options = "auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"'"
    source = f"read_csv({sql_path(file)}, {options}, columns = {{{declared}}})"
    return RawTable(name, file, f"(SELECT {', '.join(needed)} FROM {source})")
