"""CSV files of another tool as a cohort with the columns of a real one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from synehrgy.cohort.csv_files import line_of, read_header, read_table
from synehrgy.cohort.io import CohortWriter, is_cohort, read_schema
from synehrgy.cohort.schema import SPLITS, Schema
from synehrgy.cohort.tables import arrow_schema, conform, defines, to_frame
from synehrgy.cohort.validate import Fault, code_faults, measurement_faults, stay_faults
from synehrgy.errors import UserError, nearest

# What may be left out, as it can be made up or is not known.
_OPTIONAL = {
    "stays": {"hadm_id", "stay_index", "split", "los_hours"},
    "codes": {"position", "system"},
    "measurements": {"value", "level"},
}

# What says whose a row is.
_KEYS = ("subject_id", "stay_id")


def import_csv(folder: Path, path: Path, like: Path, *, overwrite: bool = False) -> Path:
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
        overwrite: whether a cohort at ``path`` is replaced; that of ``like`` never is.

    Returns:
        ``path``.

    Raises:
        UserError: a file, column or value that is missing or wrong, by its name and its line in the
            file, of which the header is the first; a cohort at ``path`` that is not to be replaced.
    """
    folder, path = Path(folder), Path(path)
    declared, _ = read_schema(like)
    if path.exists() and path.samefile(like):
        raise UserError(
            f"{path} is the cohort that the new one is to be like, and is not replaced. Give "
            "another folder to write."
        )
    if is_cohort(path) and not overwrite:
        raise UserError(
            f"{path} holds a cohort already. --overwrite (from Python overwrite=True) replaces it, "
            "with its tokens; give another folder to keep it."
        )
    has = {name: (folder / f"{name}.csv").exists() for name in ("codes", "measurements")}
    schema = declared.part(codes=has["codes"], series=has["measurements"])
    files = {name: folder / f"{name}.csv" for name in ("stays", "codes", "measurements")}
    stays = _read(files["stays"], "stays", schema, optional=_defined(declared))
    if not len(stays):
        raise UserError(f"{files['stays']} has no stays: it needs a row for each.")
    again = stays["stay_id"].duplicated()
    if again.any():
        row = int(np.argmax(again))
        raise UserError(
            f"{line_of(files['stays'], row)}: stay_id {stays['stay_id'].iloc[row]} is not unique."
        )
    # Rows keep their number in the file as their index.
    by = ["subject_id", "stay_index"] if "stay_index" in stays else ["subject_id"]
    stays = stays.sort_values(by, kind="stable")
    stays["stay_index"] = stays.groupby("subject_id").cumcount()
    for column in ("hadm_id", "split", "los_hours"):
        if column not in stays:
            stays[column] = None
    codes, measurements = (
        _of_stays(files[name], name, schema, stays) if has[name] else None
        for name in ("codes", "measurements")
    )
    _labels(schema, stays, codes, files["stays"])
    stays = stays[arrow_schema("stays", schema).names]
    for name, rows in (("stays", stays), ("codes", codes), ("measurements", measurements)):
        if rows is not None and len(rows):
            _check(files[name], name, schema, stays, rows)
    source = {"imported_from": folder.name, "files": [f.name for f in sorted(folder.glob("*.csv"))]}
    with CohortWriter(path, schema, source) as writer:
        writer.write(stays=stays)
        writer.write(codes=codes, measurements=measurements)
    return path


def _defined(schema: Schema) -> set[str]:
    return {label.column for label in schema.labels if label.system is not None}


def _read(file: Path, table: str, schema: Schema, optional: set[str] | None = None) -> pd.DataFrame:
    """A file with the types of the declared columns; the index is the number of the row."""
    expected = arrow_schema(table, schema)
    try:
        header = read_header(file)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; it has a row for each stay.") from None
    read = read_table(file, header, expected)
    extra = [name for name in read.column_names if name not in expected.names]
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
    for key in (name for name in _KEYS if name in read.column_names):
        if read[key].null_count:
            row = pc.index(read[key].is_null(), True).as_py()
            raise UserError(f"{line_of(file, row)}: {key} is empty.")
    frame = read.to_pandas()
    if "hadm_id" in frame:
        # Beside empty cells it would become a floating-point number, and large ones others.
        frame["hadm_id"] = read["hadm_id"].to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame


def _check(file: Path, table: str, schema: Schema, stays: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Refuse rows that break a rule of cohorts, with the line of the first in the file.

    Args:
        file: where the rows are from.
        table: which of the tables.
        schema: the declared columns.
        stays: the stays, in the order of a cohort.
        rows: those of the table in this order; the index is their number in the file.
    """
    arrow = pa.Table.from_pandas(rows, preserve_index=False)
    frame = to_frame(conform(arrow, arrow_schema(table, schema), str(file)), table)
    if table == "stays":
        faults = stay_faults(schema, frame)
    else:
        find = code_faults if table == "codes" else measurement_faults
        faults = find(schema, _ranks(stays), frame)
    fault = next(faults, None)
    if fault is None:
        return
    broken = np.flatnonzero(fault.rows)
    place = broken[np.argmin(rows.index[broken])]
    row = frame.iloc[place]
    value = row[fault.column]
    shown = (
        " (empty)" if pd.isna(value) else f" {value!r}" if isinstance(value, str) else f" {value}"
    )
    shown = "" if fault.reason == "is empty" else shown
    more = f" {len(broken):,} rows break this rule." if len(broken) > 1 else ""
    where = line_of(file, int(rows.index[place]))
    raise UserError(
        f"{where}: {fault.column}{shown} {fault.reason}.{_hint(schema, fault, row)}{more}"
    )


def _hint(schema: Schema, fault: Fault, row: pd.Series) -> str:
    """The nearest valid value where a fault is a value that is not declared."""
    if not fault.reason.startswith(("is not a declared", "is none of")):
        return ""
    valid = {
        "split": list(SPLITS),
        "system": [system.name for system in schema.code_systems],
        "variable": [variable.name for variable in schema.variables],
        **{covariate.name: covariate.levels for covariate in schema.covariates},
    }
    if fault.column == "level":
        valid["level"] = next(v.levels for v in schema.variables if v.name == row["variable"])
    value = row[fault.column]
    hint = nearest("" if pd.isna(value) else value, valid[fault.column])
    # Other reasons list what is valid.
    return hint if hint.startswith(" Did") or fault.column in ("system", "variable") else ""


def _ranks(stays: pd.DataFrame) -> pd.Series:
    return pd.Series(np.arange(len(stays)), index=pd.Index(stays["stay_id"]))


def _of_stays(file: Path, table: str, schema: Schema, stays: pd.DataFrame) -> pd.DataFrame:
    """Codes or measurements in the order of a cohort."""
    rows = _read(file, table, schema)
    found = rows["stay_id"].map(_ranks(stays))
    if found.isna().any():
        row = int(np.argmax(found.isna()))
        raise UserError(
            f"{line_of(file, row)}: stay_id {rows['stay_id'].iloc[row]} is not in stays.csv."
        )
    rows = rows.assign(_rank=found)
    if table == "measurements":
        for column in ("value", "level"):
            if column not in rows:
                rows[column] = None
        rows = rows.sort_values(["_rank", "hours", "variable"], kind="stable")
    else:
        if "system" not in rows:
            if len(schema.code_systems) != 1:
                raise UserError(f"{file}: column 'system' is missing, and there are several.")
            rows["system"] = schema.code_systems[0].name
        by = ["_rank", "position"] if "position" in rows else ["_rank"]
        rows = rows.sort_values(by, kind="stable")
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
