"""Records on disk until all are there: what makes an interrupted generation go on."""

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synehrgy.errors import UserError
from synehrgy.files import read_json, write_json
from synehrgy.generation.sampler import Drawn

PLAN_FILE = "plan.json"


class Parts:
    """The records of patients 0 to n - 1, some of them to a file.

    Args:
        folder: where they are; made for this.
        plan: what decides about the records, JSON values. Parts of another plan are thrown away.
        n: number of patients.
        size: patients in a part.
    """

    def __init__(self, folder: Path, plan: dict[str, Any], n: int, size: int):
        self.folder, self.plan, self.n, self.size = folder, plan, n, size

    def open(self) -> None:
        """Make the folder, and keep only parts of the same plan that may be there."""
        if self._plan_there() != self.plan:
            self.remove()
        if not self.folder.exists():
            write_json(self.folder / PLAN_FILE, self.plan)

    def _plan_there(self) -> Any:
        try:
            return read_json(self.folder / PLAN_FILE)
        except UserError:
            return None

    def remove(self) -> None:
        """Delete all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def numbers(self) -> range:
        """Numbers of all parts."""
        return range(-(-self.n // self.size))

    def patients(self, part: int) -> range:
        """Numbers of the patients of a part."""
        return range(part * self.size, min((part + 1) * self.size, self.n))

    def has(self, part: int) -> bool:
        """Whether a part is there, and whole."""
        try:
            return bool(pq.read_metadata(self._file(part)).num_rows == len(self.patients(part)))
        except (OSError, pa.ArrowInvalid):
            return False

    def write(self, part: int, drawn: Sequence[Drawn]) -> None:
        """Keep a part, whole or not at all; patients in any order."""
        ordered = sorted(drawn, key=lambda one: one.patient)
        columns = {
            field.name: [getattr(one, field.name) for one in ordered] for field in fields(Drawn)
        }
        aside = self.folder / f".{uuid.uuid4().hex[:8]}"
        pq.write_table(pa.table(columns), aside, compression="zstd")
        # On the disk before it has its name: a power cut must not leave half of it.
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, self._file(part))

    def read(self) -> Iterator[list[Drawn]]:
        """All parts in order, each in the order of its patients."""
        for part in self.numbers():
            table = pq.read_table(self._file(part))
            tokens = [row.values.to_numpy() for row in table.column("tokens")]
            rest = table.drop_columns(["tokens"]).to_pylist()
            yield [Drawn(tokens=t, **row) for t, row in zip(tokens, rest, strict=True)]

    def _file(self, part: int) -> Path:
        return self.folder / f"{part:06d}.parquet"


def collect(drawn: Iterator[Drawn], parts: Parts) -> Iterator[Drawn]:
    """Pass records on, and keep each part as soon as all of it is there."""
    open_parts: dict[int, list[Drawn]] = {}
    for one in drawn:
        part = one.patient // parts.size
        found = open_parts.setdefault(part, [])
        found.append(one)
        if len(found) == len(parts.patients(part)):
            parts.write(part, open_parts.pop(part))
        yield one
