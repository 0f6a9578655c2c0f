"""Rows made by hand as the files of a database, in each form in which files come."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

Row = dict[str, Any]
Database = dict[str, list[Row]]


def text_frames(rows: Database, columns: Mapping[str, Sequence[str]]) -> dict[str, pd.DataFrame]:
    """The tables as data frames of text, with all columns of the real tables; null is empty."""
    return {
        name: pd.DataFrame(table, columns=list(columns[name]), dtype="object").map(
            lambda cell: None if pd.isna(cell) else str(cell)
        )
        for name, table in rows.items()
    }


def typed(frame: pd.DataFrame, types: Mapping[str, str]) -> pd.DataFrame:
    """The frame with the pandas type of each column; those without one stay text."""
    kinds = {column: types.get(column, "string") for column in frame}
    numbers = [column for column, kind in kinds.items() if kind in ("Int64", "Float64")]
    frame = frame.assign(**{column: pd.to_numeric(frame[column]) for column in numbers})
    times = [column for column, kind in kinds.items() if kind.startswith("datetime64")]
    frame = frame.astype({column: kind for column, kind in kinds.items() if column not in times})
    return frame.assign(
        **{column: pd.to_datetime(frame[column]).astype(kinds[column]) for column in times}
    )


def write_frames(
    frames: Mapping[str, pd.DataFrame],
    folder: Path,
    form: str,
    types: Mapping[str, str],
) -> Path:
    """Write tables as ``csv``, ``csv.gz`` or typed ``parquet``; a name may be in a subfolder."""
    for name, frame in frames.items():
        file = folder / f"{name}.{form}"
        file.parent.mkdir(parents=True, exist_ok=True)
        if form == "parquet":
            typed(frame, types).to_parquet(file, index=False)
        else:
            frame.to_csv(file, index=False)
    return folder
