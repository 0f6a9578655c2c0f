"""Cohorts of different patients as one."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from synehrgy.cohort import CohortWriter, Schema
from synehrgy.cohort.tables import arrow_schema
from synehrgy.errors import UserError
from synehrgy.sources.database import database
from synehrgy.sources.reading import sql_path

# Rows that come from the sort, and are written, at once.
BATCH_ROWS = 1_000_000


def join_parts(
    parts: Sequence[Path],
    path: Path,
    schema: Schema,
    provenance: dict[str, Any],
    complete: Callable[[Path], None] | None,
    memory_limit: str,
    threads: int | None,
    progress: bool,
) -> int:
    """Write the patients of several cohorts as one cohort, by the numbers of the patients.

    Rows are sorted on disk; memory grows with the number of stays only.

    Args:
        parts: folders of cohorts with this schema, and no patient in two of them.
        path, schema, provenance, complete: as for a ``CohortWriter``.
        memory_limit, threads: what DuckDB may use.
        progress: whether to show a progress bar.

    Returns:
        The number of time points.

    Raises:
        UserError: a patient in two parts.
    """
    with database(path, memory_limit, threads) as (connection, _):
        stays = ", ".join(sql_path(part / "stays.parquet") for part in parts)
        connection.execute(
            f"""
            CREATE TABLE stays AS
            SELECT *, row_number() OVER (ORDER BY subject_id, stay_index) AS " place"
            FROM read_parquet([{stays}], hive_partitioning = false)
            """
        )
        twice = connection.execute(
            "SELECT subject_id FROM stays GROUP BY subject_id, stay_index HAVING count(*) > 1"
            " ORDER BY subject_id LIMIT 1"
        ).fetchone()
        if twice is not None:
            raise UserError(
                f"Subject {twice[0]} is in more than one shard of the dataset; the standard wants "
                "all events of a subject in one."
            )
        with CohortWriter(path, schema, provenance, complete) as writer:
            query = 'SELECT * EXCLUDE (" place") FROM stays ORDER BY " place"'
            table = connection.sql(query).to_arrow_table()
            writer.write(stays=table.rename_columns(arrow_schema("stays", schema).names))
            for name, order in (("codes", "position"), ("measurements", "hours, variable")):
                files = ", ".join(sql_path(part / f"{name}.parquet") for part in parts)
                rows = connection.sql(
                    f"""
                    SELECT rows.* FROM read_parquet([{files}], hive_partitioning = false) AS rows
                        JOIN (SELECT stay_id, " place" FROM stays) USING (stay_id)
                    ORDER BY " place", {order}
                    """
                )
                n = sum(pq.read_metadata(part / f"{name}.parquet").num_rows for part in parts)
                with tqdm(total=n, desc=name.title(), unit="row", disable=not progress) as bar:
                    for batch in _of_whole_stays(rows):
                        writer.write(**{name: batch})
                        bar.update(len(batch))
        return writer.counts["time_points"]


def _of_whole_stays(rows: duckdb.DuckDBPyRelation) -> Iterator[pa.Table]:
    """Sorted rows in batches that do not part a stay."""
    held: list[pa.Table] = []
    for batch in rows.to_arrow_reader(BATCH_ROWS):
        table = pa.table(batch)
        if not len(table):
            continue
        of_last = pc.equal(table["stay_id"], table["stay_id"][-1])
        begins = len(table) - (pc.sum(of_last).as_py() or 0)
        if begins or (held and held[-1]["stay_id"][-1] != table["stay_id"][0]):
            whole = pa.concat_tables([*held, table.slice(0, begins)])
            if len(whole):
                yield whole
            held = []
        held.append(table.slice(begins))
    if held:
        yield pa.concat_tables(held)
