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


def find_tables(
    raw_dir: Path,
    names: Iterable[str],
    columns: dict[str, dict[str, str]] = COLUMNS,
    optional: Iterable[str] = (),
) -> dict[str, RawTable]:
    """Find the named raw tables in a folder; their headers are read, their rows not.

    A table may be ``NAME.parquet``, ``NAME.csv`` or ``NAME.csv.gz`` in any case, taken in this
    order if there are several. Columns that are not needed are ignored.

    Args:
        raw_dir: the folder.
        names: tables that must be there.
        columns: columns of each table, with their types.
        optional: tables that are found if they are there.

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
        for name in (*names, *optional)
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
    return {name: _open(name, file, columns[name]) for name, file in found.items()}


def _open(name: str, file: Path, needed: dict[str, str]) -> RawTable:
    parquet = file.suffix.lower() == ".parquet"
    types = parquet_columns(file) if parquet else dict.fromkeys(csv_header(file), "VARCHAR")
    columns = {column.lower(): column for column in types}
    for column, kind in needed.items():
        if column not in columns:
            raise UserError(
                f"{file} has no column {column.upper()}.{nearest(column, columns)} "
                "Is this the MIMIC-III v1.4 table?"
            )
        is_text = types[columns[column]] in ("VARCHAR", '"NULL"')
        if column in _AS_TEXT and kind == "VARCHAR" and not is_text:
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
