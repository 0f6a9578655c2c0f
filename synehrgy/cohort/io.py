"""Reading and writing cohort folders: whole or not at all, and always valid."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from synehrgy.cohort.schema import SCHEMA_VERSION, Schema
from synehrgy.cohort.tables import (
    DICTIONARY_COLUMNS,
    TABLES,
    Cohort,
    arrow_schema,
    conform,
    to_frame,
)
from synehrgy.cohort.validate import check_codes, check_measurements, check_stays
from synehrgy.errors import UserError
from synehrgy.files import new_folder, read_json, write_json

SCHEMA_FILE = "cohort.json"


def is_cohort(path: Path) -> bool:
    """Whether a folder holds a cohort."""
    return (Path(path) / SCHEMA_FILE).is_file()


def read_schema(path: Path) -> tuple[Schema, dict[str, Any]]:
    """Read ``cohort.json``: the schema, and the provenance.

    Raises:
        UserError: no cohort there, a damaged file, or a version newer than this program's.
    """
    path = Path(path)
    if not is_cohort(path):
        raise UserError(
            f"{path} is not a cohort: it has no {SCHEMA_FILE}. Run preprocess.py first, or check "
            "the path."
        )
    content = read_json(path / SCHEMA_FILE)
    if not isinstance(content, dict) or not isinstance(content.get("schema_version"), int):
        raise UserError(f"{path / SCHEMA_FILE} is not the description of a cohort.")
    if content["schema_version"] > SCHEMA_VERSION:
        raise UserError(
            f"{path / SCHEMA_FILE} has schema version {content['schema_version']}, this program "
            f"knows up to {SCHEMA_VERSION}. Update synehrgy."
        )
    schema = Schema.from_dict(content, str(path / SCHEMA_FILE))
    return schema, content.get("provenance", {})


def hash_of(path: Path) -> str:
    """A hash of everything in a cohort folder: the same files give the same one.

    Raises:
        UserError: a file is missing.
    """
    digest = hashlib.blake2b(digest_size=32)
    for name in (SCHEMA_FILE, *(f"{table}.parquet" for table in TABLES)):
        try:
            with (Path(path) / name).open("rb") as file:
                while chunk := file.read(1 << 24):
                    digest.update(chunk)
        except FileNotFoundError:
            raise UserError(
                f"{Path(path) / name} does not exist, so {path} is not a whole cohort."
            ) from None
    return digest.hexdigest()


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn the errors of reading a table of a cohort into a UserError that names its file."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{file} does not exist, so {file.parent} is not a whole cohort.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file} cannot be read as Parquet: {error}.") from None


def read_cohort(path: Path) -> Cohort:
    """Read and validate a cohort folder.

    Raises:
        UserError: a missing or damaged file, or tables that break a rule; names file, column, rows.
    """
    path = Path(path)
    schema, provenance = read_schema(path)
    frames = {}
    for name in TABLES:
        file = path / f"{name}.parquet"
        with reading(file):
            table = pq.read_table(file, read_dictionary=DICTIONARY_COLUMNS[name])
        frames[name] = _frame(table, name, schema, file)
    return _checked(path, Cohort(schema, **frames, provenance=provenance))


def read_stays(path: Path) -> pd.DataFrame:
    """Read and validate the stays of a cohort folder alone.

    Raises:
        UserError: as ``read_cohort``, as far as stays are concerned.
    """
    path = Path(path)
    schema, _ = read_schema(path)
    with reading(path / "stays.parquet"):
        table = pq.read_table(path / "stays.parquet")
    stays = _frame(table, "stays", schema, path / "stays.parquet")
    codes, measurements = (_frame(None, name, schema, path) for name in TABLES[1:])
    return _checked(path, Cohort(schema, stays, codes, measurements)).stays


def read_parts(path: Path, n_patients: int = 1000) -> Iterator[Cohort]:
    """Read and validate a cohort folder in parts of whole patients, in the order of its tables.

    Memory grows with the number of stays only, not with that of codes and measurements.

    Args:
        path: the cohort folder.
        n_patients: patients of a part; the last has the rest.

    Raises:
        UserError: as ``read_cohort``; a part is checked when it is read.
    """
    path = Path(path)
    schema, provenance = read_schema(path)
    stays = read_stays(path)
    part = pd.Series(
        pd.factorize(stays["subject_id"])[0] // n_patients, index=pd.Index(stays["stay_id"])
    )
    rows = [_pieces(path / f"{name}.parquet", name, schema, part) for name in TABLES[1:]]
    for (_, mine), codes, measurements in zip(stays.groupby(part.to_numpy()), *rows, strict=True):
        mine = mine.reset_index(drop=True)
        yield _checked(path, Cohort(schema, mine, codes, measurements, provenance))


def _pieces(file: Path, name: str, schema: Schema, part: pd.Series) -> Iterator[pd.DataFrame]:
    """The rows of a table for each part of the stays; ``part`` is indexed by stay_id."""
    n_parts = int(part.max()) + 1 if len(part) else 0
    done = 0
    held: list[pa.Table] = []
    with reading(file):
        parquet = pq.ParquetFile(file, read_dictionary=DICTIONARY_COLUMNS[name])
        batches = parquet.iter_batches()
    while True:
        with reading(file):
            batch = next(batches, None)
        if batch is None:
            break
        table = conform(pa.table(batch), dictionary_schema(name, schema), str(file))
        found = part.reindex(table["stay_id"].to_pandas())
        if found.isna().any():
            unknown = found.index[found.isna()][0]
            raise UserError(f"{file}: stay_id {unknown} is not a stay of this cohort.")
        numbers = found.to_numpy(dtype="int64")
        if len(numbers) and (numbers[0] < done or (np.diff(numbers) < 0).any()):
            raise UserError(f"{file}: stay_id is not in the order of the stays table.")
        while len(numbers) and numbers[-1] > done:
            end = int(np.searchsorted(numbers, done, side="right"))
            yield to_frame(pa.concat_tables([*held, table.slice(0, end)]), name)
            table, numbers, done, held = table.slice(end), numbers[end:], done + 1, []
        held.append(table)
    while done < n_parts:
        yield _frame(pa.concat_tables(held) if held else None, name, schema, file)
        done, held = done + 1, []


def dictionary_schema(name: str, schema: Schema) -> pa.Schema:
    """Columns and types of one table as it is read: text of few distinct values as a dictionary."""
    expected = arrow_schema(name, schema)
    for column in DICTIONARY_COLUMNS[name]:
        i = expected.get_field_index(column)
        expected = expected.set(i, pa.field(column, pa.dictionary(pa.int32(), pa.string())))
    return expected


def _frame(table: pa.Table | None, name: str, schema: Schema, file: Path) -> pd.DataFrame:
    """A table in memory; one without rows for None."""
    expected = dictionary_schema(name, schema)
    table = expected.empty_table() if table is None else conform(table, expected, str(file))
    return to_frame(table, name)


def _checked(path: Path, cohort: Cohort) -> Cohort:
    try:
        check_stays(cohort.schema, cohort.stays)
        ranks = _stay_ranks(cohort.stays)
        check_codes(cohort.schema, ranks, cohort.codes)
        check_measurements(cohort.schema, ranks, cohort.measurements)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return cohort


def _stay_ranks(stays: pd.DataFrame) -> pd.Series:
    return pd.Series(range(len(stays)), index=pd.Index(stays["stay_id"]), dtype="int64")


class CohortWriter:
    """Writes a cohort in chunks, so that memory does not grow with the number of patients.

    Used as a context manager. The folder appears at ``path`` only when the block ends without an
    error; a cohort that was there before is replaced. Rows come in the order of the tables: the
    stays of a patient before their codes and measurements, and each chunk of codes or
    measurements holds whole stays.

    Args:
        path: folder to write.
        schema: the declared columns.
        provenance: configuration, versions and sources; JSON values.
        complete: called with the temporary folder just before it is renamed, to add files that
            must appear together with the cohort.

    Raises:
        UserError: rows that break a rule, or a folder at ``path`` that is no cohort.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        provenance: dict[str, Any],
        complete: Callable[[Path], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.schema = schema
        self.provenance = provenance
        self.complete = complete
        self.counts = {"patients": 0, "stays": 0, "codes": 0, "measurements": 0, "time_points": 0}
        self._stack = ExitStack()

    def __enter__(self) -> "CohortWriter":
        with ExitStack() as stack:
            self._folder = stack.enter_context(new_folder(self.path, replaceable=is_cohort))
            self._files = {
                name: stack.enter_context(
                    pq.ParquetWriter(
                        self._folder / f"{name}.parquet",
                        arrow_schema(name, self.schema),
                        compression="zstd",
                    )
                )
                for name in TABLES
            }
            self._stack = stack.pop_all()
        self._ranks = pd.Series(dtype="int64", index=pd.Index([], dtype="int64"))
        self._last_subject: int | None = None
        self._last_rank = {"codes": -1, "measurements": -1}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            for file in self._files.values():
                file.close()
            write_json(
                self._folder / SCHEMA_FILE,
                {
                    "schema_version": SCHEMA_VERSION,
                    **self.schema.to_dict(),
                    "counts": self.counts,
                    "provenance": self.provenance,
                },
            )
            if self.complete is not None:
                self.complete(self._folder)

    def write(
        self,
        stays: pa.Table | pd.DataFrame | None = None,
        codes: pa.Table | pd.DataFrame | None = None,
        measurements: pa.Table | pd.DataFrame | None = None,
    ) -> None:
        """Append a chunk to one or more of the tables; stays first.

        Raises:
            UserError: rows that break a rule of the cohort.
        """
        if stays is not None:
            self._write_stays(self._arrow("stays", stays))
        if codes is not None:
            self._write_events("codes", self._arrow("codes", codes))
        if measurements is not None:
            self._write_events("measurements", self._arrow("measurements", measurements))

    def _arrow(self, name: str, rows: pa.Table | pd.DataFrame) -> pa.Table:
        if isinstance(rows, pd.DataFrame):
            rows = pa.Table.from_pandas(rows, preserve_index=False)
        return conform(rows, arrow_schema(name, self.schema), name).replace_schema_metadata(None)

    def _write_stays(self, table: pa.Table) -> None:
        frame = to_frame(table, "stays")
        if not len(frame):
            return
        check_stays(self.schema, frame)
        first, last = frame["subject_id"].iloc[[0, -1]]
        if self._last_subject is not None and first <= self._last_subject:
            raise UserError(
                f"stays.subject_id: {first} comes after {self._last_subject}; stays are written in "
                "ascending order, all stays of a patient in one chunk."
            )
        again = frame["stay_id"].isin(self._ranks.index)
        if again.any():
            raise UserError(f"stays.stay_id {frame['stay_id'][again].iloc[0]} is not unique.")
        self._last_subject = last
        ids = [*self._ranks.index, *frame["stay_id"]]
        self._ranks = pd.Series(range(len(ids)), index=pd.Index(ids), dtype="int64")
        self.counts["patients"] += int(frame["subject_id"].nunique())
        self.counts["stays"] += len(frame)
        self._files["stays"].write_table(table)

    def _write_events(self, name: str, table: pa.Table) -> None:
        frame = to_frame(table, name)
        if not len(frame):
            return
        check = check_codes if name == "codes" else check_measurements
        check(self.schema, self._ranks, frame)
        ranks = self._ranks[frame["stay_id"].iloc[[0, -1]]]
        if ranks.iloc[0] <= self._last_rank[name]:
            raise UserError(
                f"{name}.stay_id {frame['stay_id'].iloc[0]} is not in the order of the stays table;"
                " a chunk holds whole stays."
            )
        self._last_rank[name] = ranks.iloc[-1]
        self.counts[name] += len(frame)
        if name == "measurements":
            points = frame[["stay_id", "hours"]]
            new = (points != points.shift()).any(axis=1)
            self.counts["time_points"] += int(new.sum())
        self._files[name].write_table(table)
