"""A cohort as CSV files, for tools that do not read Parquet."""

from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from synehrgy.cohort.io import read_schema, reading
from synehrgy.cohort.tables import TABLES
from synehrgy.files import new_folder


def export_csv(cohort: Path, path: Path) -> list[Path]:
    """Write the three tables of a cohort folder as CSV, streaming: memory stays small.

    Text is quoted, so that codes such as "0389" keep their zeros in readers that respect quotes;
    read codes as text (``pandas.read_csv(..., dtype={"code": str})``). Empty cells are missing
    values.

    Args:
        cohort: the cohort folder.
        path: the folder of CSV files; replaced if it holds nothing else.

    Returns:
        The files written.

    Raises:
        UserError: no cohort there, a missing or damaged table, or ``path`` holds something else.
    """
    read_schema(cohort)
    names = [f"{name}.csv" for name in TABLES]
    with new_folder(path, lambda p: {f.name for f in p.iterdir()} <= set(names)) as folder:
        for name in TABLES:
            table = Path(cohort) / f"{name}.parquet"
            with reading(table):
                file = pq.ParquetFile(table)
            options = pa_csv.WriteOptions(quoting_style="needed")
            with pa_csv.CSVWriter(
                folder / f"{name}.csv", file.schema_arrow, write_options=options
            ) as writer:
                for batch in file.iter_batches():
                    writer.write_batch(batch)
    return [Path(path) / name for name in names]
