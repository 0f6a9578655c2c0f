"""Small MEDS datasets, made by hand for tests, and their schema checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import meds
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from synehrgy.files import write_json

BEGIN = pd.Timestamp("2150-01-01")
Row = Sequence[Any]


def at(hours: float) -> pd.Timestamp:
    """The time so many hours after the beginning."""
    return BEGIN + pd.Timedelta(hours=hours)


def write_dataset(
    folder: Path,
    shards: Mapping[str, Sequence[Row]],
    columns: Sequence[str] = (),
    splits: Mapping[int, str] | None = None,
    described: Mapping[str, str | None] | None = None,
) -> Path:
    """Write a dataset: rows are subject, hours (None: static), code, number, text, own columns.

    Args:
        folder: to write.
        shards: rows of each, by its name such as ``train/0``.
        columns: names of the own columns, which hold whole numbers.
        splits: of the subjects, if the dataset says so.
        described: descriptions of codes; None: every code that occurs has one.
    """
    types = {
        **{"subject_id": pa.int64(), "time": pa.timestamp("us"), "code": pa.string()},
        **{"numeric_value": pa.float32(), "text_value": pa.large_string()},
        **dict.fromkeys(columns, pa.int64()),
    }
    for name, rows in shards.items():
        file = folder / "data" / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        full = [[*row, *[None] * (len(types) - len(row))] for row in rows]
        arrays = [
            pa.array([None if row[1] is None else at(row[1]) for row in full], kind)
            if column == "time"
            else pa.array([row[i] for row in full], kind)
            for i, (column, kind) in enumerate(types.items())
        ]
        table = pa.table(arrays, names=list(types))
        meds.DataSchema.validate(table)
        pq.write_table(table, file)
    metadata = folder / "metadata"
    write_json(metadata / "dataset.json", {"dataset_name": "hand", "meds_version": "0.4.1"})
    if described is None:
        described = {row[2]: f"What {row[2]} is" for rows in shards.values() for row in rows}
    codes = {
        "code": pa.array(described, pa.string()),
        "description": pa.array(described.values(), pa.string()),
        "parent_codes": pa.nulls(len(described), pa.list_(pa.string())),
    }
    pq.write_table(pa.table(codes), folder / meds.code_metadata_filepath)
    if splits is not None:
        table = pa.table({"subject_id": list(splits), "split": list(splits.values())})
        pq.write_table(table, folder / meds.subject_splits_filepath)
    return folder


def check_dataset(folder: Path) -> pd.DataFrame:
    """All events of a dataset, which is valid by the standard's own schemas.

    A subject is in one shard, its rows stand together and in order of time, those without a time
    first, and every code is described.
    """
    seen: set[int] = set()
    found = []
    for file in sorted((folder / meds.data_subdirectory).rglob("*.parquet")):
        table = pq.read_table(file, partitioning=None)
        meds.DataSchema.validate(table)
        frame = table.to_pandas()
        subjects = frame["subject_id"]
        assert not seen & set(subjects)
        seen |= set(subjects)
        assert (subjects != subjects.shift()).sum() == subjects.nunique()
        for _, mine in frame.groupby("subject_id"):
            assert mine["time"].notna().is_monotonic_increasing
            assert mine["time"].dropna().is_monotonic_increasing
        found.append(frame.assign(shard=file.relative_to(folder / "data").as_posix()))
    splits = pq.read_table(folder / meds.subject_splits_filepath)
    meds.SubjectSplitSchema.validate(splits)
    assert set(splits["subject_id"].to_pylist()) >= seen
    codes = pq.read_table(folder / meds.code_metadata_filepath)
    meds.CodeMetadataSchema.validate(codes)
    events = pd.concat(found, ignore_index=True)
    assert set(codes["code"].to_pylist()) >= set(events["code"])
    return events
