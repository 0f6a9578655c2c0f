"""The rules that every cohort keeps. An error names table, column and first offending rows."""

from typing import Any

import numpy as np
import pandas as pd

from synehrgy.cohort.schema import SPLITS, Schema
from synehrgy.errors import UserError

_SHOWN_ROWS = 3


def check_stays(schema: Schema, stays: pd.DataFrame) -> None:
    """Check the stays table of a whole cohort.

    Raises:
        UserError: keys that repeat or are missing, an order that is not (subject_id, stay_index),
            an unknown split or one that differs between stays of a patient, covariates outside
            their levels, labels other than 0 and 1, a negative length of stay.
    """
    for column in ("subject_id", "stay_id", "stay_index"):
        _refuse("stays", column, stays, stays[column].isna(), "is empty")
    _refuse("stays", "stay_id", stays, stays["stay_id"].duplicated(), "is not unique")
    _refuse(
        "stays",
        "subject_id",
        stays,
        stays["subject_id"].diff() < 0,
        "is not in ascending order",
    )
    expected = stays.groupby("subject_id").cumcount()
    _refuse(
        "stays",
        "stay_index",
        stays,
        stays["stay_index"] != expected,
        "does not count 0, 1, ... within the patient",
    )
    known = stays["split"].isin(SPLITS) | stays["split"].isna()
    _refuse("stays", "split", stays, ~known, f"is none of {', '.join(SPLITS)}")
    split, before = stays["split"], stays["split"].shift()
    same = (split == before) | (split.isna() & before.isna())
    differs = (stays["stay_index"] > 0) & ~same
    _refuse("stays", "split", stays, differs, "differs from that of the patient's stay before")
    for covariate in schema.covariates:
        values = stays[covariate.name]
        if covariate.kind == "categorical":
            undeclared = values.notna() & ~values.isin(covariate.levels)
            reason = f"is not a declared level ({', '.join(covariate.levels)})"
            _refuse("stays", covariate.name, stays, undeclared, reason)
        else:
            _refuse("stays", covariate.name, stays, np.isinf(values), "is infinite")
    for label in schema.labels:
        _refuse("stays", label.column, stays, ~stays[label.column].isin((0, 1)), "is not 0 or 1")
    los = stays["los_hours"]
    _refuse("stays", "los_hours", stays, (los < 0) | np.isinf(los), "is not a duration")


def check_codes(schema: Schema, stay_rank: pd.Series, codes: pd.DataFrame) -> None:
    """Check (a part of) the codes table.

    Args:
        schema: the declared code systems.
        stay_rank: position of each stay in the stays table, indexed by stay_id.
        codes: rows of whole stays.

    Raises:
        UserError: a stay that does not exist, an undeclared system, an empty code, or rows that
            are not in the order (stay, position).
    """
    rank = _ranks("codes", stay_rank, codes)
    systems = {system.name for system in schema.code_systems}
    _refuse("codes", "system", codes, ~codes["system"].isin(systems), "is not a declared system")
    empty = codes["code"].isna() | (codes["code"] == "")
    _refuse("codes", "code", codes, empty, "is empty")
    _refuse("codes", "position", codes, codes["position"].isna(), "is empty")
    same = np.diff(rank) == 0
    fell = np.diff(rank) < 0
    _refuse("codes", "stay_id", codes, _later(fell), "is not in the order of the stays table")
    backwards = same & (np.diff(codes["position"]) <= 0)
    _refuse("codes", "position", codes, _later(backwards), "does not increase within the stay")


def check_measurements(schema: Schema, stay_rank: pd.Series, measurements: pd.DataFrame) -> None:
    """Check (a part of) the measurements table.

    Args:
        schema: the declared variables.
        stay_rank: position of each stay in the stays table, indexed by stay_id.
        measurements: rows of whole stays.

    Raises:
        UserError: a stay that does not exist, an undeclared variable or level, both or neither of
            value and level, hours that are negative or run backwards, duplicates.
    """
    rank = _ranks("measurements", stay_rank, measurements)
    hours = measurements["hours"].to_numpy()
    bad_hours = ~(np.isfinite(hours) & (hours >= 0))
    _refuse("measurements", "hours", measurements, bad_hours, "is not a time since admission")

    variable = measurements["variable"].astype("category")
    names = sorted(v.name for v in schema.variables)
    # Position of each variable in alphabetical order, -1 where it is not declared.
    by_category = pd.Index(names).get_indexer(variable.cat.categories)
    place = np.append(by_category, -1)[variable.cat.codes.to_numpy()]
    _refuse("measurements", "variable", measurements, place < 0, "is not a declared variable")

    categorical = {v.name for v in schema.variables if v.kind == "categorical"}
    wants_level = np.array([name in categorical for name in names] or [False])[place]
    value, level = measurements["value"].to_numpy(), measurements["level"].astype("category")
    no_level = level.isna().to_numpy()
    no_value = np.isnan(value)
    _refuse(
        "measurements",
        "value",
        measurements,
        (no_value != wants_level) | np.isinf(value),
        "must be a finite number for a continuous variable and empty for a categorical one",
    )
    _refuse(
        "measurements",
        "level",
        measurements,
        no_level == wants_level,
        "must be set for a categorical variable and empty for a continuous one",
    )
    for declared in schema.variables_of("categorical"):
        mine = place == names.index(declared.name)
        undeclared = mine & ~level.isin(declared.levels).to_numpy()
        reason = f"is not a declared level of {declared.name!r} ({', '.join(declared.levels)})"
        _refuse("measurements", "level", measurements, undeclared, reason)

    same_stay = np.diff(rank) == 0
    _refuse(
        "measurements",
        "stay_id",
        measurements,
        _later(np.diff(rank) < 0),
        "is not in the order of the stays table",
    )
    _refuse(
        "measurements",
        "hours",
        measurements,
        _later(same_stay & (np.diff(hours) < 0)),
        "runs backwards within the stay",
    )
    same_time = same_stay & (np.diff(hours) == 0)
    _refuse(
        "measurements",
        "variable",
        measurements,
        _later(same_time & (np.diff(place) == 0)),
        "is duplicated at one time of a stay",
    )
    _refuse(
        "measurements",
        "variable",
        measurements,
        _later(same_time & (np.diff(place) < 0)),
        "is not in alphabetical order within the time",
    )


def _ranks(table: str, stay_rank: pd.Series, frame: pd.DataFrame) -> np.ndarray:
    found = stay_rank.index.get_indexer(pd.Index(frame["stay_id"]))
    _refuse(table, "stay_id", frame, found < 0, "is not a stay of this cohort")
    return stay_rank.to_numpy()[found]


def _later(pairs: np.ndarray) -> np.ndarray:
    """A flag for each pair of neighbouring rows as a flag for the later row of the pair."""
    return np.concatenate([[False], pairs]) if len(pairs) else np.zeros(1, dtype=bool)


def _refuse(table: str, column: str, frame: pd.DataFrame, bad: Any, reason: str) -> None:
    """Raise if any row is bad, showing the column, the row numbers and the first rows."""
    bad = np.asarray(bad, dtype=bool)[: len(frame)]
    if not bad.any():
        return
    rows = np.flatnonzero(bad)[:_SHOWN_ROWS]
    keys = [c for c in ("subject_id", "stay_id", "position", "hours", "variable") if c in frame]
    shown = frame.iloc[rows][list(dict.fromkeys([*keys, column]))]
    lines = "\n".join(
        f"  row {row}: " + ", ".join(f"{c}={v!s}" for c, v in zip(shown, values, strict=True))
        for row, values in zip(rows, shown.itertuples(index=False), strict=True)
    )
    raise UserError(f"{table}.{column} {reason}, in {int(bad.sum()):,} row(s):\n{lines}")
