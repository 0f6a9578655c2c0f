"""A MEDS dataset to a cohort folder, shard by shard.

Each shard becomes a small cohort in the folder ``<path>.shards``; in the end they are joined. So
memory does not grow with the dataset, work that was interrupted goes on, and several machines can
share it.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from tqdm import tqdm

from synehrgy import __version__
from synehrgy.cohort import SPLITS as COHORT_SPLITS
from synehrgy.cohort import CohortWriter, Schema, is_cohort, read_schema
from synehrgy.cohort.meds import UNASSIGNED
from synehrgy.cohort.tables import arrow_schema
from synehrgy.errors import UserError
from synehrgy.provenance import versions
from synehrgy.sources.database import database
from synehrgy.sources.extraction.events import (
    BUCKET_ROWS,
    MEASUREMENTS,
    REJECTED,
    load_events,
    load_item_sets,
    load_records,
)
from synehrgy.sources.extraction.resources import Profile
from synehrgy.sources.extraction.summary import ExtractionSummary
from synehrgy.sources.marks import is_simulated
from synehrgy.sources.meds.dataset import Dataset, open_dataset
from synehrgy.sources.meds.joining import join_parts
from synehrgy.sources.meds.labels import defining_codes
from synehrgy.sources.meds.mapping import Mapping, find_mapping
from synehrgy.sources.meds.shard import (
    TIMED,
    load_codes,
    load_covariates,
    load_labels,
    load_marked,
    load_raw,
    load_series,
    load_stays,
)
from synehrgy.sources.reading import first_line, sql_path, sql_text
from synehrgy.sources.splits import Splits

PARTS_SUFFIX = ".shards"


@dataclass(frozen=True)
class _Work:
    """What each shard is extracted with.

    Attributes:
        dataset: that the shards are of.
        mapping: what its codes mean.
        schema: of the cohort.
        defining: codes that make a label 1, by its column and their system.
        splits: who is in which split; None: as the dataset says.
        split_files: the lists that say so.
        profile: of the series.
        memory_limit, threads: what DuckDB may use.
        parts: folder of the shards' cohorts.
    """

    dataset: Dataset
    mapping: Mapping
    schema: Schema
    defining: dict[str, dict[str, list[str]]]
    splits: Splits | None
    split_files: list[Path]
    profile: str
    memory_limit: str
    threads: int | None
    parts: Path

    def part(self, shard: str) -> Path:
        """The folder of the cohort of a shard."""
        return self.parts / shard.replace("/", "-")


def extract_meds(
    raw_dir: str | Path,
    path: str | Path,
    *,
    mapping: str | None = None,
    name: str = "meds",
    split_dir: str | Path | None = None,
    profile: str = "paper",
    worker: int | None = None,
    n_workers: int = 1,
    memory_limit: str = "4GB",
    threads: int | None = None,
    progress: bool = True,
    declared: Callable[[Schema], None] | None = None,
    complete: Callable[[Path], None] | None = None,
) -> ExtractionSummary | None:
    """Make a cohort of a MEDS dataset.

    Args:
        raw_dir: folder of the dataset, with ``data/`` and ``metadata/``.
        path: folder of the cohort to write; a cohort already there is replaced.
        mapping: what the codes mean: ``mimic3``, ``mimic4`` or a YAML file; None: the dataset's
            own, as an export of ours has.
        name: name of the cohort.
        split_dir: folder of ``testset.csv`` and ``valset.csv``, instead of the dataset's splits;
            without either patients are split 70/15/15 by a hash of their id.
        profile: of series that are those of MIMIC-III: ``paper`` or ``clinical``.
        worker: extract only this worker's share of the shards, and do not join; None: all that are
            not extracted yet, and join.
        n_workers: workers that share the shards.
        memory_limit: memory for the rows of a shard, such as ``4GB``; what exceeds it goes to disk.
        threads: threads to use; None for all cores.
        progress: whether to show a progress bar.
        declared: called with the schema before events are read, to refuse it at once.
        complete: called with the folder of the cohort just before it appears at ``path``, to add
            files that must appear together with it.

    Returns:
        Counts of what was read, kept and dropped; None for a worker.

    Raises:
        UserError: no MEDS dataset, a mapping that does not fit it, or no stay that is kept.
    """
    started = time.perf_counter()
    raw_dir, path = Path(raw_dir), Path(path).resolve()
    if worker is not None and not worker < n_workers:
        raise UserError(
            f"data.meds.worker={worker}: workers are numbered from 0 to data.meds.n_workers - 1 = "
            f"{n_workers - 1}."
        )
    dataset = open_dataset(raw_dir)
    what = find_mapping(mapping, raw_dir, profile)
    dataset.check(what.columns)
    defining = defining_codes(what, dataset)
    schema = what.schema(name, defining)
    if declared is not None:
        declared(schema)
    own = split_dir is not None or dataset.splits() is None
    splits = Splits(Path(split_dir) if split_dir is not None else None) if own else None
    lists = sorted(Path(split_dir).glob("*set.csv")) if split_dir is not None else []
    parts = path.with_name(path.name + PARTS_SUFFIX)
    work = _Work(
        dataset, what, schema, defining, splits, lists, profile, memory_limit, threads, parts
    )
    mine = dataset.shards if worker is None else dataset.shards[worker::n_workers]
    for shard in tqdm(mine, desc="Shards", unit="shard", disable=not progress):
        if not _is_finished(work, shard):
            _extract_shard(work, shard)
    if worker is not None:
        return None
    finished = [work.part(shard) for shard in dataset.shards]
    summary = _total(work, path, finished)
    if not summary.n_stays:
        _remove(finished)
        raise UserError(f"{raw_dir}: no stay is kept.\n{summary.render()}")
    provenance = {
        "config": {
            "raw_dir": str(raw_dir),
            "split_dir": str(split_dir) if split_dir is not None else None,
            "profile": profile,
            "mapping": mapping,
        },
        "mapping": what.text,
        "splits": summary.split_rule,
        "simulated": is_simulated(raw_dir),
        "versions": versions(),
        "sources": [
            {"file": f"data/{shard}.parquet", "bytes": dataset.file(shard).stat().st_size}
            for shard in dataset.shards
        ],
        "dataset": dataset.about,
    }
    summary.time_points = join_parts(
        finished, path, schema, provenance, complete, memory_limit, threads, progress
    )
    _remove(finished)
    summary.seconds = time.perf_counter() - started
    return summary


def _remove(parts: Sequence[Path]) -> None:
    """Remove the shards' cohorts, and their folder if nothing else is in it."""
    for part in parts:
        shutil.rmtree(part)
    with suppress(OSError):
        parts[0].parent.rmdir()


def _made_of(work: _Work, shard: str) -> str:
    """Whatever the cohort of a shard depends on, as a hash."""
    files = [work.dataset.file(shard), work.dataset.splits(), *work.split_files]
    stats = [file.stat() for file in files if file is not None]
    content = [
        *(__version__, work.mapping.text, work.profile, work.schema.to_dict(), work.defining),
        # The numbers of stays may begin with it.
        work.dataset.shards.index(shard),
        [str(file) for file in files],
        [(stat.st_size, stat.st_mtime_ns) for stat in stats],
    ]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def _is_finished(work: _Work, shard: str) -> bool:
    part = work.part(shard)
    return is_cohort(part) and read_schema(part)[1].get("made_of") == _made_of(work, shard)


def _extract_shard(work: _Work, shard: str) -> None:
    """Write the cohort of a shard; its provenance has the counts."""
    file, mapping, part = work.dataset.file(shard), work.mapping, work.part(shard)
    found = work.dataset.columns(shard)
    provenance: dict[str, Any] = {"made_of": _made_of(work, shard)}
    with database(part, work.memory_limit, work.threads) as (connection, _):
        try:
            codes = load_raw(connection, file, found, mapping)
            load_marked(connection, mapping, codes)
            listed, dropped = load_stays(connection, mapping, work.dataset.shards.index(shard))
            load_covariates(connection, mapping, codes)
            load_codes(connection, mapping, codes)
            load_labels(connection, mapping, codes, work.defining)
            item_sets = load_series(connection, mapping, codes)
        except (duckdb.ConversionException, duckdb.InvalidInputException) as error:
            raise UserError(f"{file} cannot be read as MEDS: {first_line(error)}.") from None
        load_item_sets(connection, Profile(item_sets, mapping.empty))
        _load_splits(connection, work)
        summary = _empty_summary(work, part)
        summary.stays_listed, summary.dropped = listed, dropped
        (rows,) = connection.execute("SELECT count(*) FROM raw").fetchone() or (0,)
        summary.rows["events"] = rows
        with CohortWriter(part, work.schema, provenance) as writer:
            for first, last in _buckets(connection):
                load_events(connection, item_sets, first, last, TIMED[mapping.stays.events])
                load_records(connection, item_sets)
                tables = _bucket(connection, work, first, last)
                writer.write(*tables)
                summary.add(*tables)
                summary.add_rejected(connection.execute(REJECTED).fetchall())
            if mapping.stays.keep.with_series:
                missing = listed - sum(dropped.values()) - summary.n_stays
                dropped["no length of stay, or no usable event in it"] = missing
            provenance["summary"] = asdict(summary)


def _load_splits(connection: duckdb.DuckDBPyConnection, work: _Work) -> None:
    """Create the table ``splits`` of the stays' patients."""
    splits = work.dataset.splits()
    if work.splits is not None or splits is None:
        rows = connection.execute("SELECT DISTINCT subject_id FROM stays ORDER BY ALL").fetchall()
        subjects = [subject for (subject,) in rows]
        assigned = work.splits.assign(subjects) if work.splits is not None else []
        table = pa.table(
            {"subject_id": pa.array(subjects, pa.int64()), "split": pa.array(assigned, pa.string())}
        )
        connection.register("assigned", table)
        connection.execute("CREATE TABLE splits AS FROM assigned")
        connection.unregister("assigned")
        return
    cases = " ".join(
        f"WHEN {sql_text(theirs)} THEN {sql_text(ours)}"
        for theirs, ours in work.mapping.splits.items()
    )
    try:
        _check_splits(connection, splits, work.mapping)
        connection.execute(
            f"""
            CREATE TABLE splits AS
            SELECT subject_id::BIGINT AS subject_id,
                {f"CASE split {cases} END" if cases else "NULL::VARCHAR"} AS split
            FROM read_parquet({sql_path(splits)}, hive_partitioning = false)
            WHERE subject_id IN (SELECT subject_id FROM stays)
            """
        )
    except duckdb.Error as error:
        raise UserError(f"{splits} cannot be read: {first_line(error)}.") from None


def _check_splits(connection: duckdb.DuckDBPyConnection, file: Path, mapping: Mapping) -> None:
    """Refuse splits that the mapping does not know.

    Raises:
        UserError: names the file and the split.
    """
    rows = connection.execute(
        f"SELECT DISTINCT split FROM read_parquet({sql_path(file)}, hive_partitioning = false)"
        " WHERE split IS NOT NULL ORDER BY split"
    ).fetchall()
    for (split,) in rows:
        if split not in (*mapping.splits, UNASSIGNED):
            raise UserError(
                f"{file} has the split {split!r}, of which the mapping says nothing: "
                f"splits: {{{split}: {' or '.join(COHORT_SPLITS)}}}."
            )


def _buckets(connection: duckdb.DuckDBPyConnection) -> list[tuple[int, int]]:
    """First and last subject of consecutive buckets of patients, some BUCKET_ROWS rows each."""
    return connection.execute(
        """
        WITH patients AS (
            SELECT subject_id, count(charttime) AS n
            FROM (SELECT DISTINCT subject_id FROM stays) LEFT JOIN charted USING (subject_id)
            GROUP BY subject_id
        ),
        filled AS (
            SELECT subject_id, (sum(n) OVER (ORDER BY subject_id) - n) // ? AS bucket
            FROM patients
        )
        SELECT min(subject_id), max(subject_id) FROM filled GROUP BY bucket ORDER BY bucket
        """,
        [BUCKET_ROWS],
    ).fetchall()


def _bucket(
    connection: duckdb.DuckDBPyConnection, work: _Work, first: int, last: int
) -> list[pa.Table]:
    """Stays, codes and measurements of a bucket of patients."""
    kept = f"subject_id BETWEEN {first} AND {last}"
    if work.mapping.stays.keep.with_series:
        kept += " AND place IN (SELECT place FROM records)"
    # Named last: a column of a cohort may be called as one of those here.
    covariates = [f"covariate_{i}" for i in range(len(work.schema.covariates))]
    labels = [f"label_{i}" for i in range(len(work.schema.labels))]
    stays = f"""
        SELECT subject_id, stay_id, hadm_id,
            CAST(row_number() OVER (PARTITION BY subject_id ORDER BY place) - 1 AS INTEGER)
                AS stay_index,
            {", ".join(["split", *covariates, *labels])}, los_hours
        FROM stays JOIN covariates USING (place) JOIN labels USING (place)
            LEFT JOIN splits USING (subject_id)
        WHERE {kept} ORDER BY place
    """
    codes = f"""
        SELECT stay_id, position, system, code FROM codes
        WHERE place IN (SELECT place FROM stays WHERE {kept}) ORDER BY place, position
    """
    tables = [connection.sql(query).to_arrow_table() for query in (stays, codes, MEASUREMENTS)]
    return [tables[0].rename_columns(arrow_schema("stays", work.schema).names), *tables[1:]]


def _empty_summary(work: _Work, path: Path) -> ExtractionSummary:
    rule = "by the dataset" if work.splits is None else work.splits.rule
    return ExtractionSummary(
        path=str(path),
        profile=work.profile,
        split_rule=rule,
        stays_listed=0,
        dropped={},
        values={variable.name: 0 for variable in work.schema.variables},
        codes={system.name: 0 for system in work.schema.code_systems},
        positives={label.column: 0 for label in work.schema.labels},
    )


def _total(work: _Work, path: Path, parts: Sequence[Path]) -> ExtractionSummary:
    """The counts of all shards together."""
    total = _empty_summary(work, path)
    for part in parts:
        for key, value in read_schema(part)[1]["summary"].items():
            counts = getattr(total, key)
            if isinstance(value, dict):
                for name, n in value.items():
                    counts[name] = counts.get(name, 0) + n
            elif key == "stays_listed":
                total.stays_listed += value
    return total
