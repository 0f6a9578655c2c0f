"""The three tables of a cohort, on disk (Arrow types) and in memory (data frames)."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from synehrgy.cohort.schema import SPLITS, Label, Schema
from synehrgy.errors import UserError, nearest

_INT = pd.Int64Dtype()

TABLES = ("stays", "codes", "measurements")

# Text columns with few distinct values, kept as categories in memory: at the size of full
# MIMIC-III this is the difference between one gigabyte and five.
DICTIONARY_COLUMNS = {
    "stays": [],
    "codes": ["system", "code"],
    "measurements": ["variable", "level"],
}


def defines(label: Label, codes: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows of a table of codes (``system``, ``code``) define a label."""
    found = pd.Series(False, index=codes.index)
    for system, defining in label.definition.items():
        found |= (codes["system"] == system) & codes["code"].isin(defining)
    return found


def arrow_schema(table: str, schema: Schema) -> pa.Schema:
    """Columns and types of one table on disk.

    Raises:
        KeyError: ``table`` is none of ``TABLES``.
    """
    columns = {
        "stays": [
            ("subject_id", pa.int64()),
            ("stay_id", pa.int64()),
            ("hadm_id", pa.int64()),
            ("stay_index", pa.int32()),
            ("split", pa.string()),
            *(
                (c.name, pa.float64() if c.kind == "continuous" else pa.string())
                for c in schema.covariates
            ),
            *((label.column, pa.int8()) for label in schema.labels),
            ("los_hours", pa.float64()),
        ],
        "codes": [
            ("stay_id", pa.int64()),
            ("position", pa.int32()),
            ("system", pa.string()),
            ("code", pa.string()),
        ],
        "measurements": [
            ("stay_id", pa.int64()),
            ("hours", pa.float64()),
            ("variable", pa.string()),
            ("value", pa.float64()),
            ("level", pa.string()),
        ],
    }
    return pa.schema(columns[table])


def conform(table: pa.Table, expected: pa.Schema, where: str) -> pa.Table:
    """Bring an Arrow table to the declared columns, in order, without losing a value.

    Raises:
        UserError: a column is missing, undeclared, or of a type that does not fit.
    """
    for misfit in misfits(table.schema, expected):
        raise UserError(f"{where}: {misfit}")
    table = table.select(expected.names)
    for i, column in enumerate(expected):
        if pa.types.is_null(_stored_type(table.schema.field(i).type)):
            table = table.set_column(i, column.name, pa.nulls(len(table), column.type))
    try:
        return table.cast(expected)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"{where}: a column does not have its declared type: {error}. "
            f"Expected: {', '.join(f'{c.name} {c.type}' for c in expected)}."
        ) from None


def misfits(found: pa.Schema, expected: pa.Schema) -> Iterator[str]:
    """What is wrong with the columns of a table: missing, undeclared, or of a type of other kind.

    Text is never read as a number nor a number as text: "0389" is a code, 389 is not.
    """
    for name in expected.names:
        if name not in found.names:
            yield f"column {name!r} is missing; found: {', '.join(found.names)}."
    for name in found.names:
        if name not in expected.names:
            hint = nearest(name, expected.names)
            yield f"column {name!r} is not declared in the schema.{hint}"
    for column in expected:
        if column.name not in found.names:
            continue
        kind, wanted = (_stored_type(s.field(column.name).type) for s in (found, expected))
        if not pa.types.is_null(kind) and _is_text(kind) != _is_text(wanted):
            yield f"column {column.name!r} must be {wanted}, is {kind}."


def _stored_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def to_frame(table: pa.Table, name: str) -> pd.DataFrame:
    """An Arrow table as a data frame, with categories for text of few distinct values."""
    for column in DICTIONARY_COLUMNS[name]:
        i = table.schema.get_field_index(column)
        if not pa.types.is_dictionary(table.schema.field(i).type):
            table = table.set_column(i, column, table.column(column).dictionary_encode())
    frame = table.unify_dictionaries().to_pandas()
    if name == "stays":
        # Identifiers stay whole numbers where some are missing.
        frame["hadm_id"] = table["hadm_id"].to_pandas(types_mapper={pa.int64(): _INT}.get)
    for column in DICTIONARY_COLUMNS[name]:
        # An empty table has no dictionary, and then pandas makes a category of nothing.
        frame[column] = frame[column].astype("category")
    return frame


@dataclass(frozen=True)
class Cohort:
    """A cohort in memory.

    Attributes:
        schema: what the columns mean.
        stays: one row per stay, sorted by (subject_id, stay_index).
        codes: one row per code, sorted by (stay, position).
        measurements: one row per value, sorted by (stay, hours, variable).
        provenance: how the cohort was made.
    """

    schema: Schema
    stays: pd.DataFrame
    codes: pd.DataFrame
    measurements: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def n_patients(self) -> int:
        """Number of distinct patients."""
        return int(self.stays["subject_id"].nunique())

    def table(self, name: str) -> pd.DataFrame:
        """One of the three tables by its name."""
        frame: pd.DataFrame = getattr(self, name)
        return frame

    def counts(self) -> dict[str, int]:
        """Patients, stays, codes, measurements and time points."""
        points = self.measurements[["stay_id", "hours"]].drop_duplicates()
        return {
            "patients": self.n_patients,
            "stays": len(self.stays),
            "codes": len(self.codes),
            "measurements": len(self.measurements),
            "time_points": len(points),
        }

    def part(self, *, stays: bool = True, codes: bool = True, series: bool = True) -> "Cohort":
        """The cohort without something.

        Args:
            stays: False: only the first stay of each patient.
            codes: False: without codes. Labels that they define stay, as facts whose reasons are
                not known any more.
            series: False: without series.
        """
        if not stays:
            return self.of_stays(self.stays["stay_index"] == 0).part(codes=codes, series=series)
        return Cohort(
            self.schema.part(codes=codes, series=series),
            self.stays,
            self.codes if codes else self.codes.iloc[:0],
            self.measurements if series else self.measurements.iloc[:0],
            self.provenance,
        )

    def select(self, split: str | None = None, subjects: Collection[int] | None = None) -> "Cohort":
        """The part of the cohort in a split, of some subjects, or both; order is kept.

        Raises:
            UserError: an unknown split or a subject that the cohort does not have.
        """
        keep = pd.Series(True, index=self.stays.index)
        if split is not None:
            if split not in SPLITS:
                raise UserError(f"Unknown split {split!r}.{nearest(split, SPLITS)}")
            keep &= (self.stays["split"] == split).fillna(False).astype(bool)
        if subjects is not None:
            unknown = sorted(set(subjects) - set(self.stays["subject_id"]))
            if unknown:
                raise UserError(
                    f"Cohort {self.schema.name!r} has no subject {unknown[0]}"
                    f" ({len(unknown)} unknown of {len(set(subjects))} asked for)."
                )
            keep &= self.stays["subject_id"].isin(list(subjects))
        return self.of_stays(keep)

    def of_stays(self, keep: pd.Series) -> "Cohort":
        """Some stays with their codes and measurements; order is kept."""
        stays = self.stays[keep].reset_index(drop=True)
        codes, measurements = (
            frame[frame["stay_id"].isin(stays["stay_id"])].reset_index(drop=True)
            for frame in (self.codes, self.measurements)
        )
        return Cohort(self.schema, stays, codes, measurements, self.provenance)
