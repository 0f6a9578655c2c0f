"""A cohort folder looked at: all that is wrong with it, and what is in it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from synehrgy.cohort.describe import Limits, describe
from synehrgy.cohort.figure import draw
from synehrgy.cohort.hints import hints
from synehrgy.cohort.io import SCHEMA_FILE, dictionary_schema, read_schema, reading
from synehrgy.cohort.report import in_words, report
from synehrgy.cohort.schema import Schema
from synehrgy.cohort.tables import DICTIONARY_COLUMNS, TABLES, conform, misfits, to_frame
from synehrgy.cohort.validate import (
    SHOWN_ROWS,
    Fault,
    code_faults,
    measurement_faults,
    rows_in_words,
    stay_faults,
)
from synehrgy.errors import UserError
from synehrgy.files import read_json

# Rows of codes or measurements that are looked at at a time.
BATCH_ROWS = 1 << 19


@dataclass(frozen=True)
class Checked:
    """What came out of a check.

    Attributes:
        text: for people.
        is_right: whether nothing is wrong.
        has_train: whether some stay is in the train split, so that it can be trained on.
    """

    text: str
    is_right: bool
    has_train: bool = False


def check_cohort(
    path: Path,
    *,
    limits: Mapping[str, Limits] | None = None,
    figure: Path | None = None,
    progress: bool = True,
) -> Checked:
    """Say in words what is wrong with a cohort folder, and what is in it.

    What is in it is told, and drawn, if nothing is wrong.

    Args:
        path: the cohort folder.
        limits: values of series that a living person can have, by their name in the schema.
        figure: PNG file to draw to; None: no figure.
        progress: whether to show progress bars.

    Raises:
        UserError: ``path`` is no cohort, or its ``cohort.json`` cannot be read.
    """
    path = Path(path)
    problems = find_problems(path, progress)
    wrong = in_words("What is wrong", problems, "nothing")
    if problems:
        return Checked(wrong, False)
    about = describe(path, limits)
    odd = in_words("What looks odd", hints(about), "nothing")
    parts = [wrong, report(about), odd]
    if figure is not None:
        try:
            parts.append(f"Figure: {draw(about, figure)}")
        except OSError as error:
            parts.append(f"No figure: {error}. --figure <file.png> writes it elsewhere.")
    return Checked("\n\n".join(parts), True, bool((about.stays["split"] == "train").any()))


def find_problems(path: Path, progress: bool = True) -> list[str]:
    """What is wrong with a cohort folder, each with its file, column and first rows.

    Rows are counted from 0. Memory grows with the number of stays only.

    Args:
        path: the cohort folder.
        progress: whether to show progress bars.

    Returns:
        A text per problem; none if ``read_cohort`` takes the folder.

    Raises:
        UserError: ``path`` is no cohort, or its ``cohort.json`` cannot be read.
    """
    path = Path(path)
    schema, _ = read_schema(path)
    found: list[str] = []
    stays = _stays(path / "stays.parquet", schema, found)
    rows = {"stays": None if stays is None else len(stays)}
    for name in TABLES[1:]:
        ranks = None if stays is None else _ranks(stays)
        rows[name] = _events(path / f"{name}.parquet", name, schema, ranks, found, progress)
    counts = read_json(path / SCHEMA_FILE).get("counts", {})
    if stays is not None and isinstance(counts, dict):
        there = {"patients": int(stays["subject_id"].nunique()), **rows}
        found += [
            f"{path / SCHEMA_FILE}: it counts {counts[name]:,} {name}, the tables have {n:,}."
            for name, n in there.items()
            if n is not None and counts.get(name, n) != n
        ]
    return found


class _Broken:
    """Rows of a table that break rules, by rule."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.counts: dict[tuple[str, str], int] = {}
        self.shown: dict[tuple[str, str], list[str]] = {}

    def add(self, frame: pd.DataFrame, faults: Iterable[Fault], first: int, skip: int = 0) -> None:
        """Add the faults of a part of the table.

        Args:
            frame: the part.
            faults: what is wrong with it.
            first: number of its first row in the file.
            skip: rows at its beginning that were in the part before, too.
        """
        for fault in faults:
            rows = np.flatnonzero(fault.rows)
            rows = rows[rows >= skip]
            if not len(rows):
                continue
            key = (fault.column, fault.reason)
            self.counts[key] = self.counts.get(key, 0) + len(rows)
            shown = self.shown.setdefault(key, [])
            rows = rows[: SHOWN_ROWS - len(shown)]
            texts = rows_in_words(frame, fault.column, rows)
            shown += [f"row {first + r:,}: {t}" for r, t in zip(rows, texts, strict=True)]

    def texts(self) -> list[str]:
        """A text per rule that is broken."""
        return [
            f"{self.file}: {column} {reason}, in {n:,} row{'s' if n > 1 else ''}:\n"
            + "\n".join(f"    {text}" for text in self.shown[column, reason])
            for (column, reason), n in self.counts.items()
        ]


def _open(file: Path, name: str, expected: pa.Schema, found: list[str]) -> Any:
    """A table to read; None if it is not there or has other columns."""
    try:
        with reading(file):
            parquet = pq.ParquetFile(file, read_dictionary=DICTIONARY_COLUMNS[name])
    except UserError as error:
        found.append(str(error))
        return None
    wrong = [f"{file}: {misfit}" for misfit in misfits(parquet.schema_arrow, expected)]
    found += wrong
    return None if wrong else parquet


def _stays(file: Path, schema: Schema, found: list[str]) -> pd.DataFrame | None:
    expected = dictionary_schema("stays", schema)
    parquet = _open(file, "stays", expected, found)
    if parquet is None:
        return None
    try:
        with reading(file):
            frame = to_frame(conform(parquet.read(), expected, str(file)), "stays")
    except UserError as error:
        found.append(str(error))
        return None
    broken = _Broken(file)
    if len(frame):
        broken.add(frame, stay_faults(schema, frame), 0)
    else:
        found.append(f"{file}: there is no stay.")
    found += broken.texts()
    return frame


def _ranks(stays: pd.DataFrame) -> pd.Series:
    """Position of each stay; of one that is there twice, the first."""
    known = stays["stay_id"].dropna().drop_duplicates()
    return pd.Series(known.index, index=pd.Index(known.astype("int64")), dtype="int64")


def _events(
    file: Path,
    name: str,
    schema: Schema,
    ranks: pd.Series | None,
    found: list[str],
    progress: bool,
) -> int | None:
    """Add what is wrong with codes or measurements; returns their number of rows."""
    expected = dictionary_schema(name, schema)
    parquet = _open(file, name, expected, found)
    if parquet is None or ranks is None:
        return None
    find = code_faults if name == "codes" else measurement_faults
    broken = _Broken(file)
    n_rows, before = 0, expected.empty_table()
    try:
        with (
            reading(file),
            tqdm(total=parquet.metadata.num_rows, desc=file.name, disable=not progress) as bar,
        ):
            for batch in parquet.iter_batches(BATCH_ROWS):
                table = conform(pa.table(batch), expected, str(file))
                # The last row of the batch before is looked at again, beside the first of this one.
                frame = to_frame(pa.concat_tables([before, table]), name)
                skip = len(before)
                if len(frame):
                    broken.add(frame, find(schema, ranks, frame), n_rows - skip, skip)
                n_rows += len(table)
                before = table.slice(len(table) - 1) if len(table) else before
                bar.update(len(table))
    except UserError as error:
        found.append(str(error))
        n_rows = -1
    found += broken.texts()
    return n_rows if n_rows >= 0 else None
