"""CSV files of another tool as a cohort with the columns of a real one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv

from synehrgy.cohort.io import CohortWriter, read_schema
from synehrgy.cohort.schema import Schema
from synehrgy.cohort.tables import arrow_schema, defines
from synehrgy.errors import UserError, nearest

# What may be left out, as it can be made up or is not known.
_OPTIONAL = {
    "stays": {"hadm_id", "stay_index", "split", "los_hours"},
    "codes": {"position", "system"},
    "measurements": {"value", "level"},
}


def import_csv(folder: Path, path: Path, like: Path) -> Path:
    """Write a cohort from CSV files, so that it can be compared with a real one.

    ``stays.csv`` has a row per stay, those of a patient in the order of time; ``codes.csv`` and
    ``measurements.csv`` have the columns of the tables of a cohort. Rows may be in any order
    otherwise. Without ``codes.csv``, or ``measurements.csv``, the cohort declares no codes, or no
    series: the tool does not cover them. May be left out: ``hadm_id``, ``stay_index`` (the order of
    rows counts), ``split``, ``los_hours``, ``position`` (likewise), ``system`` where there is one
    only, ``value`` or ``level`` where all are empty, and labels that the codes define.

    Args:
        folder: of the CSV files.
        path: of the cohort to write.
        like: folder of a cohort whose columns these are, such as the real one.

    Returns:
        ``path``.

    Raises:
        UserError: a file, column or value that is missing or wrong, by its name.
    """
    folder = Path(folder)
    declared, _ = read_schema(like)
    has = {name: (folder / f"{name}.csv").exists() for name in ("codes", "measurements")}
    schema = declared.part(codes=has["codes"], series=has["measurements"])
    stays = _read(folder / "stays.csv", "stays", schema, optional=_defined(declared))
    order = stays.sort_values("subject_id", kind="stable").index
    stays = stays.loc[order].reset_index(drop=True)
    if "stay_index" in stays:
        stays = stays.sort_values(["subject_id", "stay_index"], kind="stable", ignore_index=True)
    stays["stay_index"] = stays.groupby("subject_id").cumcount()
    for column in ("hadm_id", "split", "los_hours"):
        if column not in stays:
            stays[column] = None
    codes, measurements = (
        _of_stays(folder / f"{name}.csv", name, schema, stays) if has[name] else None
        for name in ("codes", "measurements")
    )
    _labels(schema, stays, codes, folder / "stays.csv")
    source = {"imported_from": folder.name, "files": [f.name for f in sorted(folder.glob("*.csv"))]}
    with CohortWriter(path, schema, source) as writer:
        names = arrow_schema("stays", schema).names
        writer.write(stays=pa.Table.from_pandas(stays[names], preserve_index=False))
        writer.write(codes=codes, measurements=measurements)
    return Path(path)


def _defined(schema: Schema) -> set[str]:
    return {label.column for label in schema.labels if label.system is not None}


def _read(file: Path, table: str, schema: Schema, optional: set[str] | None = None) -> pd.DataFrame:
    """A file with the types of the declared columns."""
    expected = arrow_schema(table, schema)
    types = {column.name: column.type for column in expected}
    try:
        read = pa_csv.read_csv(
            file,
            # Only what is empty is missing: a level may be called NA.
            convert_options=pa_csv.ConvertOptions(
                column_types=types, strings_can_be_null=True, null_values=[""]
            ),
        )
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; it has a row for each stay.") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{file} cannot be read: {error}.") from None
    extra = [name for name in read.column_names if name not in types]
    if extra:
        raise UserError(
            f"{file}: column {extra[0]!r} is not declared in the cohort that it is like."
            f"{nearest(extra[0], expected.names)}"
        )
    may_lack = _OPTIONAL[table] | (optional or set())
    missing = [name for name in expected.names if name not in {*read.column_names, *may_lack}]
    if missing:
        raise UserError(
            f"{file}: column {missing[0]!r} is missing; found: {', '.join(read.column_names)}."
        )
    return read.to_pandas()


def _of_stays(file: Path, table: str, schema: Schema, stays: pd.DataFrame) -> pd.DataFrame:
    """Codes or measurements in the order of a cohort."""
    rows = _read(file, table, schema)
    rank = pd.Series(np.arange(len(stays)), index=pd.Index(stays["stay_id"]))
    if not rank.index.is_unique:
        raise UserError(f"{file.with_name('stays.csv')}: stay_id is not unique.")
    found = rows["stay_id"].map(rank)
    if found.isna().any():
        unknown = rows.loc[found.isna(), "stay_id"].iloc[0]
        raise UserError(f"{file}: stay_id {unknown} is not in stays.csv.")
    rows = rows.assign(_rank=found)
    if table == "measurements":
        for column in ("value", "level"):
            if column not in rows:
                rows[column] = None
        rows = rows.sort_values(["_rank", "hours", "variable"], kind="stable", ignore_index=True)
    else:
        if "system" not in rows:
            if len(schema.code_systems) != 1:
                raise UserError(f"{file}: column 'system' is missing, and there are several.")
            rows["system"] = schema.code_systems[0].name
        by = ["_rank", "position"] if "position" in rows else ["_rank"]
        rows = rows.sort_values(by, kind="stable", ignore_index=True)
        if "position" not in rows:
            rows["position"] = rows.groupby("_rank").cumcount()
    return rows[arrow_schema(table, schema).names]


def _labels(schema: Schema, stays: pd.DataFrame, codes: pd.DataFrame | None, file: Path) -> None:
    """Labels that are not there, as the codes define them."""
    for label in schema.labels:
        if label.column in stays:
            continue
        if codes is None or label.system is None:
            raise UserError(
                f"{file}: column {label.column!r} is missing, and no codes say which stays have it."
            )
        having = codes.loc[defines(label, codes), "stay_id"]
        stays[label.column] = stays["stay_id"].isin(having).astype(np.int8)
