"""The simulator as a whole: blocks of patients, in as many processes as wanted, into files."""

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from synehrgy.errors import UserError, nearest
from synehrgy.files import new_folder, write_json
from synehrgy.provenance import versions
from synehrgy.sources.marks import MARK_FILE, is_simulated
from synehrgy.sources.simulator.chance import BLOCK, generator
from synehrgy.sources.simulator.charting import draw_chart
from synehrgy.sources.simulator.codebook import load_codebook
from synehrgy.sources.simulator.coding import draw_diagnoses, draw_procedures
from synehrgy.sources.simulator.events import event_tables
from synehrgy.sources.simulator.measuring import measure
from synehrgy.sources.simulator.people import draw_people
from synehrgy.sources.simulator.physiology import draw_course
from synehrgy.sources.simulator.tables import (
    EVENT_TABLES,
    SCHEMAS,
    code_table,
    dictionary_tables,
    people_tables,
)
from synehrgy.sources.simulator.writing import FORMATS, Writer, pack

MAX_NOISE_SHARE = 0.95
# Says that nobody in this folder ever lived, and that the folder may be replaced.
# What a stage's draws are numbered by; never renumbered, as seeds depend on it.
_PEOPLE, _DIAGNOSES, _PROCEDURES, _COURSE, _CHART, _VALUES, _ROWS, _NOISE, _FACTS = range(9)


@dataclass(frozen=True)
class SimulationSummary:
    """What was written: the folder, its format and the rows of each table."""

    raw_dir: Path
    file_format: str
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def event_rows(self) -> int:
        """Rows of CHARTEVENTS, LABEVENTS and OUTPUTEVENTS together."""
        return sum(self.rows[name] for name in EVENT_TABLES)

    def to_dict(self) -> dict[str, Any]:
        """As plain types, for JSON."""
        return {**asdict(self), "raw_dir": str(self.raw_dir)}


def simulate_block(
    seed: int, block: int, n_patients: int, noise_share: float = 0.0
) -> dict[str, pa.Table]:
    """The raw tables of one block of patients, without the dictionaries.

    Args:
        seed: of the run.
        block: number of the block, from 0 on.
        n_patients: of this block, at most ``BLOCK``.
        noise_share: see ``simulate``.
    """

    def rng(stage: int) -> Any:
        return generator(seed, block, stage)

    codebook = load_codebook()
    people = draw_people(rng(_PEOPLE), block, n_patients, codebook)
    course = draw_course(rng(_COURSE), people, codebook)
    chart = draw_chart(rng(_CHART), people, course)
    values = measure(rng(_VALUES), people, course, chart)
    diagnoses = draw_diagnoses(rng(_DIAGNOSES), people, codebook)
    procedures = draw_procedures(rng(_PROCEDURES), people, codebook)
    return {
        **people_tables(rng(_FACTS), people),
        **event_tables(rng(_ROWS), people, chart, values, noise_share, rng(_NOISE), block),
        "DIAGNOSES_ICD": code_table(people, diagnoses, "DIAGNOSES_ICD"),
        "PROCEDURES_ICD": code_table(people, procedures, "PROCEDURES_ICD"),
    }


def simulate(
    raw_dir: str | Path,
    *,
    n_patients: int = 3000,
    seed: int = 0,
    noise_share: float = 0.0,
    file_format: str = "parquet",
    chunk_patients: int = 256,
    processes: int = 1,
    progress: bool = True,
) -> SimulationSummary:
    """Write a simulated raw database in the form of MIMIC-III v1.4.

    The files depend on the seed, the number of patients, ``noise_share`` and the format alone,
    byte for byte.

    Args:
        raw_dir: folder to write, whole or not at all; one that a simulation wrote is replaced.
        n_patients: rows of PATIENTS; about seven in ten are in a cohort extracted from them.
        seed: zero or more.
        noise_share: share of CHARTEVENTS rows of items that no series uses, below 0.95; in the
            real database it is about five sixths. A few are always written.
        file_format: ``parquet``, ``csv.gz`` or ``csv``.
        chunk_patients: patients in a task for a process, rounded up to whole blocks of 128.
        processes: processes that simulate; with one, no other is started.
        progress: whether to show a progress bar.

    Returns:
        What was written.

    Raises:
        UserError: a setting outside its range, or a folder with other files in it.
    """
    _check(n_patients, seed, noise_share, file_format, chunk_patients, processes)
    path = Path(raw_dir)
    rows: dict[str, int] = {}
    chunks = _chunks(n_patients, -(-chunk_patients // BLOCK))
    with new_folder(path, is_simulated) as folder:
        dictionaries = dictionary_tables()
        with (
            closing(Writer(folder, file_format, SCHEMAS)) as writer,
            tqdm(total=n_patients, unit="patient", desc="simulate", disable=not progress) as bar,
        ):
            writer.append(pack(dictionaries, file_format))
            rows |= {name: len(table) for name, table in dictionaries.items()}
            jobs = [(seed, chunk, noise_share, file_format) for chunk in chunks]
            for chunk in _results(jobs, processes):
                for counts, packed, n in chunk:
                    writer.append(packed)
                    for name, count in counts.items():
                        rows[name] = rows.get(name, 0) + count
                    bar.update(n)
        settings = {"n_patients": n_patients, "seed": seed, "noise_share": noise_share}
        content = {"simulated": settings, "rows": rows, "versions": versions()}
        write_json(folder / MARK_FILE, content)
    return SimulationSummary(path, file_format, {name: rows[name] for name in SCHEMAS})


Job = tuple[int, list[tuple[int, int]], float, str]
Part = tuple[dict[str, int], dict[str, bytes], int]


def _chunks(n_patients: int, blocks: int) -> list[list[tuple[int, int]]]:
    """Blocks and their sizes, in lists of so many."""
    every = [(i, min(BLOCK, n_patients - i * BLOCK)) for i in range(-(-n_patients // BLOCK))]
    return [every[i : i + blocks] for i in range(0, len(every), blocks)]


def _run(job: Job) -> Iterator[Part]:
    seed, blocks, noise_share, file_format = job
    for block, n in blocks:
        tables = simulate_block(seed, block, n, noise_share)
        yield {k: len(t) for k, t in tables.items()}, pack(tables, file_format), n


def _run_whole(job: Job) -> list[Part]:
    return list(_run(job))


def _results(jobs: list[Job], processes: int) -> Iterator[Iterator[Part] | list[Part]]:
    """The parts of each job, in order; no more jobs are under way than memory has room for."""
    if processes == 1:
        yield from map(_run, jobs)
        return
    # A fresh interpreter, because a copy of one with threads may hang.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting: list[Future[list[Part]]] = []
        try:
            for job in jobs:
                waiting.append(pool.submit(_run_whole, job))
                if len(waiting) > processes:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def _check(
    n_patients: int,
    seed: int,
    noise_share: float,
    file_format: str,
    chunk_patients: int,
    processes: int,
) -> None:
    for name, value, least in (
        ("n_patients", n_patients, 1),
        ("seed", seed, 0),
        ("chunk_patients", chunk_patients, 1),
        ("processes", processes, 1),
    ):
        if value < least:
            raise UserError(f"{name} must be at least {least}, is {value}.")
    if not 0 <= noise_share <= MAX_NOISE_SHARE:
        raise UserError(f"noise_share must be between 0 and {MAX_NOISE_SHARE}, is {noise_share}.")
    if file_format not in FORMATS:
        raise UserError(f"Unknown file_format {file_format!r}.{nearest(file_format, FORMATS)}")
