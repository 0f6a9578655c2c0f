"""Reads the folders of the mimic3-benchmarks as its own programs do.

Written anew from what those programs do: they split lines at commas, take the first column as hours
and put the last value of each time step into a matrix, with a column per level where a channel is
categorical.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np

CORE = [
    "Capillary refill rate",
    "Diastolic blood pressure",
    "Fraction inspired oxygen",
    "Glascow coma scale eye opening",
    "Glascow coma scale motor response",
    "Glascow coma scale total",
    "Glascow coma scale verbal response",
    "Glucose",
    "Heart Rate",
    "Height",
    "Mean blood pressure",
    "Oxygen saturation",
    "Respiratory rate",
    "Systolic blood pressure",
    "Temperature",
    "Weight",
    "pH",
]
POSSIBLE = {
    "Capillary refill rate": ["0.0", "1.0"],
    "Glascow coma scale eye opening": [
        "To Pain", "3 To speech", "1 No Response", "4 Spontaneously", "None", "To Speech",
        "Spontaneously", "2 To pain",
    ],
    "Glascow coma scale motor response": [
        "1 No Response", "3 Abnorm flexion", "Abnormal extension", "No response",
        "4 Flex-withdraws", "Localizes Pain", "Flex-withdraws", "Obeys Commands",
        "Abnormal Flexion", "6 Obeys Commands", "5 Localizes Pain", "2 Abnorm extensn",
    ],
    "Glascow coma scale total": [
        "11", "10", "13", "12", "15", "14", "3", "5", "4", "7", "6", "9", "8",
    ],
    "Glascow coma scale verbal response": [
        "1 No Response", "No Response", "Confused", "Inappropriate Words", "Oriented",
        "No Response-ETT", "5 Oriented", "Incomprehensible sounds", "1.0 ET/Trach", "4 Confused",
        "2 Incomp sounds", "3 Inapprop words",
    ],
}  # fmt: skip
WIDTH = sum(len(POSSIBLE.get(channel, [0])) for channel in CORE)
EPS = 1e-6


def read_list(file: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a list of examples."""
    header, *rows = file.read_text(encoding="utf-8").splitlines()
    return header.split(","), [row.split(",") for row in rows]


def read_series(file: Path, until: float | None = None) -> list[list[str]]:
    """Rows up to a time in hours."""
    header, *lines = file.read_text(encoding="utf-8").splitlines()
    assert header.split(",") == ["Hours", *CORE]
    rows = [line.strip().split(",") for line in lines]
    assert all(len(row) == 1 + len(CORE) for row in rows)
    rows = [row for row in rows if until is None or float(row[0]) <= until + EPS]
    # Its readers cannot stack nothing.
    assert rows
    return rows


def discretise(rows: list[list[str]], end: float, step: float = 1.0) -> np.ndarray:
    """A row per step; 0 where nothing was measured."""
    hours = [float(row[0]) for row in rows]
    assert all(a < b + EPS for a, b in pairwise(hours))
    data = np.zeros((int(end / step + 1.0 - EPS), WIDTH))
    for row in rows:
        if float(row[0]) > end + EPS:
            continue
        place = int(float(row[0]) / step - EPS)
        assert 0 <= place < len(data)
        column = 0
        for channel, text in zip(CORE, row[1:], strict=True):
            levels = POSSIBLE.get(channel)
            width = len(levels) if levels else 1
            if text:
                one_hot = np.eye(width)[levels.index(text)] if levels else float(text)
                data[place, column : column + width] = one_hot
            column += width
    return data
