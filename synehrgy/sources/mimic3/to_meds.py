"""Raw MIMIC-III tables as a dataset of the Medical Event Data Standard (MEDS), version 0.4.

All patients with all their events, not only those of a cohort. Each raw table is read once and
parted by groups of patients, of which each becomes a shard. What is finished is kept in the folder
``<folder>.partial``, so that a conversion that was interrupted goes on where it was.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from synehrgy import __version__
from synehrgy.cohort.meds import CODES, ETL_NAME, MEDS_VERSION, SPLIT_NAMES, SPLITS, coded
from synehrgy.errors import UserError
from synehrgy.files import read_json, write_json
from synehrgy.sources.database import database, watched
from synehrgy.sources.extraction.tables import RawTable, find_tables
from synehrgy.sources.marks import MARK_FILE, is_simulated
from synehrgy.sources.mimic3.meds_events import EVENTS, NEEDED, OPTIONAL, RELEASE, Event
from synehrgy.sources.reading import blame, sql_path, sql_text
from synehrgy.sources.splits import Splits

DATA = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us")),
        pa.field("code", pa.string(), nullable=False),
        pa.field("numeric_value", pa.float32()),
        pa.field("text_value", pa.large_string()),
        pa.field("hadm_id", pa.int64()),
        pa.field("icustay_id", pa.int64()),
        pa.field("seq_num", pa.int64()),
        pa.field("wardid", pa.int64()),
        pa.field("unit", pa.string()),
    ]
)
_OWN = DATA.names[5:]
_SQL_TYPES = {"unit": "VARCHAR"}
PLAN_FILE = "plan.json"
_BATCH_ROWS = 500_000


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        folder: of the dataset.
        patients, events, shards: how many.
        absent: raw tables that are not there, and whose events are therefore missing.
    """

    folder: Path
    patients: int
    events: int
    shards: int
    absent: list[str]


def to_meds(
    raw_dir: str | Path,
    folder: str | Path,
    *,
    split_dir: str | Path | None = None,
    patients_per_shard: int = 1000,
    memory_limit: str = "4GB",
    threads: int | None = None,
    progress: bool = True,
) -> Converted:
    """Write a folder of MIMIC-III v1.4 tables as a MEDS dataset.

    Args:
        raw_dir: folder of the raw tables, as for ``extract``. PATIENTS and ADMISSIONS are needed,
            the others are taken if they are there.
        folder: to write; there must be nothing yet.
        split_dir: folder of ``testset.csv`` and ``valset.csv``; None: 70/15/15 by a hash of the
            patient's number.
        patients_per_shard: patients of a shard, at most.
        memory_limit: memory for rows, such as ``4GB``; what exceeds it goes to disk.
        threads: threads to use; None for all cores.
        progress: whether to show progress bars.

    Raises:
        UserError: files that are missing or damaged, or something is at ``folder``.
    """
    raw_dir, folder = Path(raw_dir), Path(folder).resolve()
    if folder.exists():
        raise UserError(f"{folder} is there already. Choose another folder, or remove it.")
    if patients_per_shard < 1:
        raise UserError(f"{patients_per_shard} patients per shard: it must be at least 1.")
    splits = Splits(Path(split_dir) if split_dir is not None else None)
    tables = find_tables(RELEASE, raw_dir, NEEDED, OPTIONAL)
    work = folder.with_name(f"{folder.name}.partial")
    _begin(work, tables, split_dir, patients_per_shard)
    with database(work, memory_limit, threads) as (connection, _):
        shards = _load_patients(connection, tables, splits, patients_per_shard)
        for name in dict.fromkeys(event.table for event in EVENTS):
            if name in tables or name == "deaths":
                _stage(connection, tables, name, work, progress)
        for number, shard in enumerate(
            tqdm(shards, desc="Shards", unit="shard", disable=not progress)
        ):
            _write_shard(connection, work, number, shard)
        _write_metadata(connection, tables, work)
    if is_simulated(raw_dir):
        shutil.copyfile(raw_dir / MARK_FILE, work / MARK_FILE)
    shutil.rmtree(work / "staged")
    os.replace(work, folder)
    (folder / PLAN_FILE).unlink()
    files = [folder / "data" / f"{shard}.parquet" for shard in shards]
    return Converted(
        folder,
        patients=pq.read_metadata(folder / "metadata" / "subject_splits.parquet").num_rows,
        events=sum(pq.read_metadata(file).num_rows for file in files),
        shards=len(files),
        absent=[name.upper() for name in OPTIONAL if name not in tables],
    )


def _begin(
    work: Path, tables: dict[str, RawTable], split_dir: str | Path | None, patients_per_shard: int
) -> None:
    """Go on with the work that is there if it is of the same files, else begin anew."""
    lists = sorted(Path(split_dir).glob("*set.csv")) if split_dir is not None else []
    stats = [(file, file.stat()) for file in (*(t.file for t in tables.values()), *lists)]
    plan = {
        "version": __version__,
        "patients_per_shard": patients_per_shard,
        "files": [[str(file), stat.st_size, stat.st_mtime_ns] for file, stat in stats],
    }
    if work.exists():
        if (work / PLAN_FILE).is_file() and read_json(work / PLAN_FILE) == plan:
            return
        if not (work / PLAN_FILE).is_file() and any(work.iterdir()):
            raise UserError(f"{work} was not written by this program. Remove it, or rename it.")
        shutil.rmtree(work)
    write_json(work / PLAN_FILE, plan)


def _load_patients(
    connection: duckdb.DuckDBPyConnection,
    tables: dict[str, RawTable],
    splits: Splits,
    patients_per_shard: int,
) -> list[str]:
    """Create the tables ``subjects``, with the number of their shard, ``hospital`` and ``deaths``.

    Returns:
        The names of the shards.
    """
    with blame(tables["patients"].file):
        connection.execute(
            f"CREATE TABLE people AS SELECT DISTINCT ON (subject_id) * FROM"
            f" {tables['patients'].sql} WHERE subject_id IS NOT NULL ORDER BY subject_id"
        )
    with blame(tables["admissions"].file):
        connection.execute(
            f"CREATE TABLE hospital AS SELECT DISTINCT ON (hadm_id) subject_id, hadm_id, dischtime,"
            f" deathtime FROM {tables['admissions'].sql} ORDER BY hadm_id"
        )
    connection.execute(
        """
        CREATE TABLE deaths AS
        SELECT subject_id, min(deathtime) AS deathtime, any_value(dod) AS dod
        FROM people LEFT JOIN hospital USING (subject_id) GROUP BY subject_id
        """
    )
    rows = connection.execute("SELECT subject_id FROM people ORDER BY ALL").fetchall()
    subjects = [subject for (subject,) in rows]
    names = [SPLIT_NAMES[split] for split in splits.assign(subjects)]
    seen: dict[str, int] = {}
    shards: dict[str, int] = {}
    numbers = []
    for name in names:
        place = seen.get(name, 0)
        seen[name] = place + 1
        shard = f"{name}/{place // patients_per_shard}"
        numbers.append(shards.setdefault(shard, len(shards)))
    table = pa.table(
        {
            "subject_id": pa.array(subjects, pa.int64()),
            "split": pa.array(names, pa.string()),
            "shard": pa.array(numbers, pa.int32()),
        }
    )
    connection.register("assigned", table)
    connection.execute("CREATE TABLE subjects AS FROM assigned")
    connection.unregister("assigned")
    return list(shards)


def _stage(
    connection: duckdb.DuckDBPyConnection,
    tables: dict[str, RawTable],
    name: str,
    work: Path,
    progress: bool,
) -> None:
    """Write the events of a raw table, parted by shard, unless they are there."""
    folder = work / "staged" / name
    if folder.exists():
        return
    source = "deaths" if name == "deaths" else tables[name].sql
    aside = folder.with_name(f".{name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    events = [(n, event) for n, event in enumerate(EVENTS) if event.table == name]
    with (
        blame(work if name == "deaths" else tables[name].file),
        watched(connection, name.upper(), progress),
    ):
        for number, event in events:
            connection.execute(
                f"""
                COPY ({_selected(event, number, source)}) TO {sql_text(aside / str(number))}
                (FORMAT parquet, PARTITION_BY (shard))
                """
            )
    os.replace(aside, folder)


def _selected(event: Event, number: int, source: str) -> str:
    """The query of the events of one kind, with their shard."""
    own = dict(event.columns)
    columns = [
        f"CAST({own.get(name, 'NULL')} AS {_SQL_TYPES.get(name, 'BIGINT')}) AS {name}"
        for name in _OWN
    ]
    raw = source
    if event.of_admission:
        raw = f"{source} JOIN hospital USING (hadm_id)"
    timed = "true" if event.static else "time IS NOT NULL"
    return f"""
        WITH events AS (
            SELECT subject_id, CAST({event.time} AS TIMESTAMP) AS time, {event.code} AS code,
                CAST({event.number} AS FLOAT) AS numeric_value,
                CAST({event.text} AS VARCHAR) AS text_value,
                {", ".join(columns)}, CAST({number} AS UTINYINT) AS kind
            FROM {raw}
        )
        SELECT events.*, shard FROM events JOIN subjects USING (subject_id)
        WHERE code IS NOT NULL AND {timed}
    """


def _write_shard(
    connection: duckdb.DuckDBPyConnection, work: Path, number: int, shard: str
) -> None:
    """Write the file of a shard from its staged events, unless it is there."""
    file = work / "data" / f"{shard}.parquet"
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = sorted(work.glob(f"staged/*/*/shard={number}"))
    listed = ", ".join(sql_path(path) for part in staged for path in sorted(part.iterdir()))
    names = ", ".join(DATA.names)
    # Whatever the order in which threads wrote them, the order of events is the same.
    rows = connection.sql(
        f"""
        SELECT {names} FROM read_parquet([{listed}], hive_partitioning = false)
        ORDER BY subject_id, time NULLS FIRST, kind, seq_num NULLS LAST, {names}
        """
    )
    aside = file.with_name(f".{file.name}")
    with pq.ParquetWriter(aside, DATA, compression="zstd") as writer:
        for batch in rows.to_arrow_reader(_BATCH_ROWS):
            writer.write_table(pa.table(batch).cast(DATA))
    os.replace(aside, file)
    for part in staged:
        shutil.rmtree(part)


def _write_metadata(
    connection: duckdb.DuckDBPyConnection, tables: dict[str, RawTable], work: Path
) -> None:
    """Write ``metadata/``: the dataset, all codes that occur or could, and the splits."""
    folder = work / "metadata"
    folder.mkdir(exist_ok=True)
    dataset = {
        "dataset_name": "MIMIC-III",
        "dataset_version": "1.4",
        "etl_name": ETL_NAME,
        "etl_version": __version__,
        "meds_version": MEDS_VERSION,
        "raw_source_id_columns": ["hadm_id", "icustay_id"],
        "code_modifier_columns": ["unit"],
        "other_extension_columns": ["seq_num", "wardid"],
    }
    write_json(folder / "dataset.json", dataset)
    splits = connection.sql("SELECT subject_id, split FROM subjects ORDER BY subject_id")
    pq.write_table(splits.to_arrow_table().cast(SPLITS), folder / "subject_splits.parquet")
    data = sql_text(work / "data" / "*" / "*.parquet")
    found = connection.execute(f"SELECT DISTINCT code FROM read_parquet({data})").fetchall()
    known = _descriptions(connection, tables)
    codes = sorted({code for (code,) in found} | {code for code in known if "//ICD//" in code})
    described = [(code, *_described(code, known)) for code in codes]
    rows = [dict(zip(CODES.names, entry, strict=True)) for entry in described]
    pq.write_table(pa.Table.from_pylist(rows, CODES), folder / "codes.parquet")


def _descriptions(
    connection: duckdb.DuckDBPyConnection, tables: dict[str, RawTable]
) -> dict[str, tuple[str | None, list[str]]]:
    """Titles and parents of ICD codes, and of items by their numbers."""
    known: dict[str, tuple[str | None, list[str]]] = {}

    def rows(name: str, columns: Iterable[str]) -> list[tuple[str, ...]]:
        if name not in tables:
            return []
        with blame(tables[name].file):
            sql = f"SELECT {', '.join(columns)} FROM {tables[name].sql}"
            return connection.execute(sql).fetchall()

    for item, label in rows("d_items", ("itemid", "label")):
        known[str(item)] = label, []
    for item, label, loinc in rows("d_labitems", ("itemid", "label", "loinc_code")):
        known[str(item)] = label, [f"LOINC/{loinc}"] if loinc else []
    for kind, name in (("diagnosis", "d_icd_diagnoses"), ("procedure", "d_icd_procedures")):
        for code, title in rows(name, ("trim(icd9_code)", "long_title")):
            if code:
                spelt, parents = coded(f"icd9_{kind}", code)
                known[spelt] = title or code, parents
    return known


def _described(
    code: str, known: dict[str, tuple[str | None, list[str]]]
) -> tuple[str | None, list[str]]:
    """The description and the parents of a code: its own, or of the item that it names."""
    if code in known:
        return known[code]
    parts = code.split("//")
    for kind in ("diagnosis", "procedure"):
        if parts[:2] == [kind.upper(), "ICD"]:
            return None, coded(f"icd9_{kind}", parts[-1])[1]
    item = next((part for part in parts[1:3] if part in known), None)
    if item is not None and parts[0] not in ("MEDICATION", "DRG"):
        return known[item]
    return None, []
