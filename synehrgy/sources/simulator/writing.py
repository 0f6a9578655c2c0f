"""Raw tables on disk, block after block: Parquet, CSV, or CSV in gzip."""

import gzip
import io
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from synehrgy.sources.simulator.tables import SCHEMAS

FORMATS = ("parquet", "csv.gz", "csv")
# Text is compressed well by little work; more work shrinks it by a tenth at half the speed.
GZIP_LEVEL = 1


def pack(tables: dict[str, pa.Table], file_format: str) -> dict[str, bytes]:
    """The part of each file that holds the rows of one block, to be written by a ``Writer``.

    For CSV it is what stands in the file (with gzip, a member of its own); for Parquet an Arrow
    stream, as only the file as a whole can be Parquet.
    """
    if file_format == "parquet":
        return {name: _stream(table) for name, table in tables.items()}
    packed = {}
    for name, table in tables.items():
        lines = _lines(table, header=False)
        packed[name] = _compress(lines) if file_format == "csv.gz" else lines
    return packed


def _stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _lines(table: pa.Table, header: bool) -> bytes:
    sink = io.BytesIO()
    # Seconds only, as in the original; texts in quotes, numbers and empty fields without.
    columns = [
        c.cast(pa.timestamp("s")) if pa.types.is_timestamp(c.type) else c for c in table.columns
    ]
    plain = pa.table(columns, names=table.column_names)
    pa_csv.write_csv(plain, sink, pa_csv.WriteOptions(include_header=header))
    return sink.getvalue()


def _compress(lines: bytes) -> bytes:
    return gzip.compress(lines, GZIP_LEVEL, mtime=0)


class Writer:
    """The files of a raw database in a folder; parts are appended in order.

    Args:
        folder: an existing folder.
        file_format: one of ``FORMATS``.
        names: the tables to write.
    """

    def __init__(self, folder: Path, file_format: str, names: Iterable[str]) -> None:
        self._files: dict[str, IO[bytes]] = {}
        self._parquet: dict[str, pq.ParquetWriter] = {}
        for name in names:
            path = folder / f"{name}.{file_format}"
            if file_format == "parquet":
                # Without the Arrow schema the file says text, however the text was held.
                self._parquet[name] = pq.ParquetWriter(
                    path, SCHEMAS[name], compression="zstd", store_schema=False
                )
                continue
            self._files[name] = path.open("wb")
            header = _lines(SCHEMAS[name].empty_table(), header=True)
            self._files[name].write(_compress(header) if file_format == "csv.gz" else header)

    def append(self, packed: dict[str, bytes]) -> None:
        """Write the parts of one block."""
        for name, part in packed.items():
            if name in self._files:
                self._files[name].write(part)
                continue
            table = pa.ipc.open_stream(part).read_all()
            if len(table):
                self._parquet[name].write_table(
                    table.cast(SCHEMAS[name]), row_group_size=len(table)
                )

    def close(self) -> None:
        """Finish all files."""
        for file in (*self._files.values(), *self._parquet.values()):
            file.close()
