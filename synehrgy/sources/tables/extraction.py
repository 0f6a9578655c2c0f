"""A hospital's own tables to a cohort folder."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from synehrgy.cohort import Checked, CohortWriter, Limits, Schema, check_cohort, read_schema
from synehrgy.errors import UserError
from synehrgy.provenance import versions
from synehrgy.sources.database import database, watched
from synehrgy.sources.reading import rows_read
from synehrgy.sources.splits import Splits
from synehrgy.sources.tables.buckets import MEASUREMENTS, Repeats, buckets, load_bucket
from synehrgy.sources.tables.codes import define_labels, load_codes
from synehrgy.sources.tables.declaration import FILE, Declaration, read_declaration
from synehrgy.sources.tables.measurements import (
    items_of,
    load_measurements,
    load_series,
    tell_faults,
    tell_missing,
)
from synehrgy.sources.tables.problems import Problems
from synehrgy.sources.tables.raw import RawTable, open_table, try_formats
from synehrgy.sources.tables.stays import assign_splits, load_stays
from synehrgy.sources.tables.summary import TablesSummary

# Beside the tables of a cohort whose identifiers were texts: which number stands for which.
IDENTIFIERS_FILE = "identifiers.parquet"


def extract_tables(
    raw_dir: str | Path,
    path: str | Path,
    *,
    name: str = "tables",
    declaration: str | Path | None = None,
    split_dir: str | Path | None = None,
    memory_limit: str = "4GB",
    threads: int | None = None,
    progress: bool = True,
    all_problems: bool = False,
    declared: Callable[[Schema], None] | None = None,
    complete: Callable[[Path], None] | None = None,
) -> TablesSummary:
    """Make a cohort of the tables of a hospital, which ``tables.yaml`` explains.

    Memory does not grow with codes and measurements: intermediate rows go to a temporary folder
    beside ``path``, which is removed in the end.

    Args:
        raw_dir: folder of the tables.
        path: folder of the cohort to write; a cohort already there is replaced.
        name: name of the cohort, if ``tables.yaml`` gives none.
        declaration: the file that explains the tables; None: ``tables.yaml`` in ``raw_dir``.
        split_dir: folder of ``testset.csv`` and ``valset.csv``, rows ``subject,flag`` without a
            header. With neither these nor a column of splits, patients are split 70/15/15 by a hash
            of their identifier.
        memory_limit: memory for the tables' rows, such as ``4GB``; what exceeds it goes to disk.
        threads: threads to use; None for all cores.
        progress: whether to show progress bars.
        all_problems: whether to look for what is wrong with measurements even if something is wrong
            with stays or codes, which are read faster.
        declared: called with the schema before the measurements are read, to refuse it at once.
        complete: called with the folder of the cohort just before it appears at ``path``, to add
            files that must appear together with it.

    Returns:
        Counts of what was read, kept and left out.

    Raises:
        UserError: all that is wrong, with file, line and column. Nothing is left at ``path`` then
            but what was there before.
    """
    started = time.perf_counter()
    raw_dir, path = Path(raw_dir), Path(path)
    declaration = Path(declaration or raw_dir / FILE)
    form = _declaration_of(raw_dir, declaration)
    try_formats(form)
    stays, codes, measurements = _open_all(raw_dir, form)
    items = items_of(measurements, form.measurements, form)
    if form.stays.split is not None and split_dir is not None:
        raise UserError("Give either stays.split in tables.yaml or data.split_dir=..., not both.")
    splits = Splits(Path(split_dir) if split_dir is not None else None, texts=True)
    by_column = f"by the column {form.stays.split!r} of {form.stays.file}"
    summary = TablesSummary(str(path), by_column if form.stays.split else splits.rule)
    summary.codes = dict.fromkeys(form.systems, 0)
    summary.positives = dict.fromkeys(form.labels, 0)
    summary.values = dict.fromkeys(sorted(form.series), 0)
    problems = Problems()
    with ExitStack() as stack:
        connection, profile = stack.enter_context(database(path, memory_limit, threads))
        has_texts = load_stays(connection, stays, form, problems, summary)
        load_codes(connection, codes, form, problems, summary)
        defining = define_labels(connection, form, problems)
        if not all_problems:
            problems.refuse()
        schema = form.schema(name, defining)
        if declared is not None:
            declared(schema)
        if form.stays.split is None:
            assign_splits(connection, splits)

        def finish(folder: Path) -> None:
            if has_texts:
                _write_identifiers(connection, folder / IDENTIFIERS_FILE)
            if complete is not None:
                complete(folder)

        provenance = _provenance(
            raw_dir, split_dir, declaration, summary.split_rule, [stays, *codes, *measurements]
        )
        writer = stack.enter_context(CohortWriter(path, schema, provenance, finish))
        load_series(connection, form)
        for listing, (table, mine) in enumerate(zip(measurements, items, strict=True)):
            with watched(connection, table.file.name, progress):
                load_measurements(connection, listing, table, mine, form)
            summary.rows[table.file.name] = rows_read(table.file, profile)
            tell_faults(connection, listing, table, mine, form, problems, summary.dropped)
        tell_missing(connection, measurements, items, form, problems)
        if not all_problems:
            problems.refuse()
        repeats = Repeats()
        for first, last in tqdm(
            buckets(connection), desc="Writing", unit="bucket", disable=not progress
        ):
            load_bucket(connection, first, last, repeats)
            if problems.found or repeats.refused(form):
                continue
            rows = _bucket(connection, schema, first, last)
            writer.write(*rows)
            summary.add(*rows)
        repeats.tell(measurements, form, problems, summary.dropped)
        problems.refuse()
        summary.time_points = writer.counts["time_points"]
    used: dict[str, set[str]] = {}
    for table in (stays, *codes, *measurements):
        # One file may be several tables.
        used.setdefault(table.file.name, set()).update(table.used)
        unused = [column for column in table.columns if column not in used[table.file.name]]
        summary.unused[table.file.name] = unused
    if has_texts:
        summary.notes.append(
            f"identifiers are texts and were numbered: {IDENTIFIERS_FILE} in the cohort says how"
        )
    if form.stays.order is None and form.stays.admitted is None:
        summary.notes.append(f"stays of a patient are in the order of {form.stays.file}")
    summary.seconds = time.perf_counter() - started
    return summary


def check_tables(
    raw_dir: str | Path,
    *,
    declaration: str | Path | None = None,
    limits_of: Callable[[Schema], Mapping[str, Limits]] | None = None,
    figure: Path | None = None,
    progress: bool = True,
) -> Checked:
    """Say all that is wrong with the tables of a hospital or, if nothing is, what is in them.

    Nothing stays but the figure; while it works, the cohort is in the system's folder for temporary
    files (``TMPDIR``).

    Args:
        raw_dir: folder of the tables.
        declaration: the file that explains them; None: ``tables.yaml`` in ``raw_dir``.
        limits_of: values of series that a living person can have, by their name.
        figure: PNG file to draw to; None: no figure.
        progress: whether to show progress bars.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cohort"
        try:
            summary = extract_tables(
                raw_dir, path, declaration=declaration, progress=progress, all_problems=True
            )
        except UserError as error:
            return Checked(f"What is wrong\n  {error}", False)
        limits = None if limits_of is None else limits_of(read_schema(path)[0])
        checked = check_cohort(path, limits=limits, figure=figure, progress=progress)
    # The cohort was there for a moment only.
    said = "\n".join(summary.render().splitlines()[1:])
    text = f"The tables of {raw_dir}\n{said}\n\n{checked.text}"
    return replace(checked, text=text)


def _declaration_of(raw_dir: Path, file: Path) -> Declaration:
    if not raw_dir.is_dir():
        raise UserError(
            f"The folder of tables {raw_dir} does not exist or is not a folder. Give the folder "
            "that holds them (data.raw_dir=...)."
        )
    if not file.is_file():
        raise UserError(
            f"{file} does not exist: it says which file and column is what. Write it as "
            f"docs/own-data.md shows; python -m synehrgy.cohort declare {raw_dir} writes a draft."
        )
    return read_declaration(file)


def _open_all(raw_dir: Path, form: Declaration) -> tuple[RawTable, list[RawTable], list[RawTable]]:
    """The tables of stays, of codes and of measurements."""
    return (
        open_table(raw_dir, form.stays.file, "stays.file", form),
        [open_table(raw_dir, table.file, "codes.file", form) for table in form.codes],
        [open_table(raw_dir, table.file, "measurements.file", form) for table in form.measurements],
    )


def _provenance(
    raw_dir: Path,
    split_dir: str | Path | None,
    declaration: Path,
    splits: str,
    tables: Sequence[RawTable],
) -> dict[str, Any]:
    return {
        "config": {
            "raw_dir": str(raw_dir),
            "split_dir": str(split_dir) if split_dir is not None else None,
            "declaration": declaration.read_text(encoding="utf-8-sig"),
        },
        "splits": splits,
        "versions": versions(),
        "sources": [
            {"file": table.file.name, "bytes": table.file.stat().st_size} for table in tables
        ],
    }


def _bucket(
    connection: duckdb.DuckDBPyConnection, schema: Schema, first: int, last: int
) -> list[pa.Table]:
    """Stays, codes and measurements of the stays from ``first`` to ``last``."""
    facts = [f"x{i}" for i, _ in enumerate(schema.covariates)]
    facts += [f"y{i}" for i, _ in enumerate(schema.labels)]
    place = f"place BETWEEN {first} AND {last}"
    stays = f"""
        SELECT subject_id, stay_id, NULL::BIGINT AS hadm_id,
            CAST(row_number() OVER (PARTITION BY subject_id ORDER BY place) - 1 AS INTEGER)
                AS stay_index,
            {", ".join(["split", *facts, "los_hours"])}
        FROM stays WHERE {place} ORDER BY place
    """
    codes = f"""
        SELECT stay_id, codes.position, system, code
        FROM codes JOIN (SELECT place, stay_id FROM stays) USING (place)
        WHERE {place} ORDER BY place, codes.position
    """
    found = [connection.sql(query).to_arrow_table() for query in (stays, codes, MEASUREMENTS)]
    names = [*(c.name for c in schema.covariates), *(label.column for label in schema.labels)]
    given = dict(zip(facts, names, strict=True))
    found[0] = found[0].rename_columns([given.get(name, name) for name in found[0].column_names])
    return found


def _write_identifiers(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    query = "SELECT subject_id, subject, stay_id, key AS stay FROM stays ORDER BY place"
    pq.write_table(connection.sql(query).to_arrow_table(), file)
