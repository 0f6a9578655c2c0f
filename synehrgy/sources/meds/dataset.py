"""A MEDS dataset on disk: https://github.com/Medical-Event-Data-Standard/meds, version 0.4."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synehrgy.errors import UserError, nearest
from synehrgy.files import read_json

ABOUT = Path("metadata") / "dataset.json"
CODES = Path("metadata") / "codes.parquet"
SPLITS = Path("metadata") / "subject_splits.parquet"
_NEEDED = ("subject_id", "time", "code")
_TIMES = (pa.types.is_timestamp, pa.types.is_null)


@dataclass(frozen=True)
class Dataset:
    """A dataset that was found.

    Attributes:
        folder: of the dataset.
        shards: names of its shards, such as ``train/0``, in order.
        about: the content of ``metadata/dataset.json``; empty if there is none.
    """

    folder: Path
    shards: list[str]
    about: dict[str, Any]

    def file(self, shard: str) -> Path:
        """The file of a shard."""
        return self.folder / "data" / f"{shard}.parquet"

    def columns(self, shard: str) -> dict[str, pa.DataType]:
        """The columns of a shard with their types.

        Raises:
            UserError: a shard that cannot be read, or a column of the standard that is missing or
                no time.
        """
        file = self.file(shard)
        with _readable(file):
            schema = pq.read_schema(file)
        found = dict(zip(schema.names, schema.types, strict=True))
        for column in _NEEDED:
            if column not in found:
                raise UserError(
                    f"{file} has no column {column!r}, which the standard needs."
                    f"{nearest(column, found)}"
                )
        if not any(is_time(found["time"]) for is_time in _TIMES):
            raise UserError(f"{file}: column 'time' must be a timestamp, is {found['time']}.")
        return found

    def check(self, names: list[str]) -> None:
        """Check that there are columns of these names, in some shard at least.

        Raises:
            UserError: a column that no shard has.
        """
        missing = set(names)
        found: set[str] = set()
        for shard in self.shards:
            if not missing:
                return
            found |= set(self.columns(shard))
            missing -= found
        for name in names:
            if name in missing:
                raise UserError(
                    f"{self.folder / 'data'}: no shard has a column {name!r}, which the mapping "
                    f"needs.{nearest(name, sorted(found))}"
                )

    def codes(self) -> dict[str, str | None]:
        """Descriptions of the codes in ``metadata/codes.parquet``.

        Raises:
            UserError: no such file, or one that cannot be read.
        """
        file = self.folder / CODES
        with _readable(file):
            names = pq.read_schema(file).names
            wanted = [name for name in ("code", "description") if name in names]
            table = pq.read_table(file, columns=wanted)
        if "code" not in wanted:
            raise UserError(f"{file} has no column 'code'.")
        codes = table["code"].to_pylist()
        described = table["description"].to_pylist() if len(wanted) > 1 else [None] * len(codes)
        return dict(zip(codes, described, strict=True))

    def splits(self) -> Path | None:
        """The file of the subjects' splits, if there is one."""
        file = self.folder / SPLITS
        return file if file.is_file() else None


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{file} does not exist.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file} cannot be read as Parquet: {error}.") from None


def open_dataset(folder: Path) -> Dataset:
    """Find the shards of a dataset.

    Raises:
        UserError: no such folder, or one without shards.
    """
    if not folder.is_dir():
        raise UserError(
            f"The MEDS dataset {folder} does not exist or is not a folder (data.raw_dir=...)."
        )
    data = folder / "data"
    files = sorted(data.rglob("*.parquet")) if data.is_dir() else []
    names = [file.relative_to(data).with_suffix("").as_posix() for file in files]
    shards = [name for name in names if not any(part[0] == "." for part in name.split("/"))]
    if not shards:
        raise UserError(
            f"{folder} is no MEDS dataset: it has no file data/**/*.parquet. Give the folder that "
            "holds data/ and metadata/ (data.raw_dir=...)."
        )
    about = read_json(folder / ABOUT) if (folder / ABOUT).is_file() else {}
    return Dataset(folder, shards, about if isinstance(about, dict) else {})
