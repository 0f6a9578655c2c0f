"""The rules that every cohort keeps. An error names table, column and first offending rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from synehrgy.cohort.schema import SPLITS, Schema
from synehrgy.errors import UserError

SHOWN_ROWS = 3


@dataclass(frozen=True)
class Fault:
    """Rows that break a rule.

    Attributes:
        column: the column that the rule is about.
        reason: what is wrong with its cells.
        rows: whether each row breaks the rule.
    """

    column: str
    reason: str
    rows: np.ndarray


def check_stays(schema: Schema, stays: pd.DataFrame) -> None:
    """Check the stays table of a whole cohort.

    Raises:
        UserError: the first of the rules of ``stay_faults`` that is broken.
    """
    _refuse("stays", stays, stay_faults(schema, stays))


def check_codes(schema: Schema, stay_rank: pd.Series, codes: pd.DataFrame) -> None:
    """Check (a part of) the codes table.

    Args:
        schema: the declared code systems.
        stay_rank: position of each stay in the stays table, indexed by stay_id.
        codes: rows of whole stays.

    Raises:
        UserError: the first of the rules of ``code_faults`` that is broken.
    """
    _refuse("codes", codes, code_faults(schema, stay_rank, codes))


def check_measurements(schema: Schema, stay_rank: pd.Series, measurements: pd.DataFrame) -> None:
    """Check (a part of) the measurements table.

    Args:
        schema: the declared variables.
        stay_rank: position of each stay in the stays table, indexed by stay_id.
        measurements: rows of whole stays.

    Raises:
        UserError: the first of the rules of ``measurement_faults`` that is broken.
    """
    _refuse("measurements", measurements, measurement_faults(schema, stay_rank, measurements))


def stay_faults(schema: Schema, stays: pd.DataFrame) -> Iterator[Fault]:
    """What is wrong with the stays of a whole cohort.

    Keys that repeat or are missing, an order that is not (subject_id, stay_index), an unknown split
    or one that differs between stays of a patient, covariates outside their levels, labels other
    than 0 and 1, a negative length of stay.
    """
    for column in ("subject_id", "stay_id", "stay_index"):
        yield from _broken(column, stays[column].isna(), "is empty")
    again = stays["stay_id"].duplicated() & stays["stay_id"].notna()
    yield from _broken("stay_id", again, "is not unique")
    yield from _broken("subject_id", stays["subject_id"].diff() < 0, "is not in ascending order")
    wrong = (stays["stay_index"] != stays.groupby("subject_id").cumcount()) & stays[
        ["subject_id", "stay_index"]
    ].notna().all(axis=1)
    yield from _broken("stay_index", wrong, "does not count 0, 1, ... within the patient")
    known = stays["split"].isin(SPLITS) | stays["split"].isna()
    yield from _broken("split", ~known, f"is none of {', '.join(SPLITS)}")
    split, before = stays["split"], stays["split"].shift()
    same = (split == before) | (split.isna() & before.isna())
    differs = (stays["stay_index"] > 0) & ~same
    yield from _broken("split", differs, "differs from that of the patient's stay before")
    for covariate in schema.covariates:
        values = stays[covariate.name]
        if covariate.kind == "categorical":
            undeclared = values.notna() & ~values.isin(covariate.levels)
            reason = f"is not a declared level ({', '.join(covariate.levels)})"
            yield from _broken(covariate.name, undeclared, reason)
        else:
            yield from _broken(covariate.name, np.isinf(values), "is infinite")
    for label in schema.labels:
        yield from _broken(label.column, ~stays[label.column].isin((0, 1)), "is not 0 or 1")
    los = stays["los_hours"]
    yield from _broken("los_hours", (los < 0) | np.isinf(los), "is not a duration")


def code_faults(schema: Schema, stay_rank: pd.Series, codes: pd.DataFrame) -> Iterator[Fault]:
    """What is wrong with codes of whole stays; arguments as for ``check_codes``.

    A stay that does not exist, an undeclared system, an empty code, or rows that are not in the
    order (stay, position).
    """
    rank = _ranks(stay_rank, codes)
    yield from _broken("stay_id", rank < 0, "is not a stay of this cohort")
    systems = {system.name for system in schema.code_systems}
    yield from _broken("system", ~codes["system"].isin(systems), "is not a declared system")
    empty = codes["code"].isna() | (codes["code"] == "")
    yield from _broken("code", empty, "is empty")
    yield from _broken("position", codes["position"].isna(), "is empty")
    same, fell = _neighbours(rank)
    yield from _broken("stay_id", fell, "is not in the order of the stays table")
    backwards = same & _later(np.diff(codes["position"]) <= 0)
    yield from _broken("position", backwards, "does not increase within the stay")


def measurement_faults(
    schema: Schema, stay_rank: pd.Series, measurements: pd.DataFrame
) -> Iterator[Fault]:
    """What is wrong with measurements of whole stays; arguments as for ``check_measurements``.

    A stay that does not exist, an undeclared variable or level, both or neither of value and level,
    hours that are negative or run backwards, duplicates.
    """
    rank = _ranks(stay_rank, measurements)
    yield from _broken("stay_id", rank < 0, "is not a stay of this cohort")
    hours = measurements["hours"].to_numpy()
    bad_hours = ~(np.isfinite(hours) & (hours >= 0))
    yield from _broken("hours", bad_hours, "is not a time since admission")

    variable = measurements["variable"].astype("category")
    names = sorted(v.name for v in schema.variables)
    # Position of each variable in alphabetical order, -1 where it is not declared.
    by_category = pd.Index(names).get_indexer(variable.cat.categories)
    place = np.append(by_category, -1)[variable.cat.codes.to_numpy()]
    declared = place >= 0
    yield from _broken("variable", ~declared, "is not a declared variable")

    categorical = {v.name for v in schema.variables if v.kind == "categorical"}
    wants_level = np.array([name in categorical for name in names] or [False])[place]
    value, level = measurements["value"].to_numpy(), measurements["level"].astype("category")
    no_level = level.isna().to_numpy()
    no_value = np.isnan(value)
    yield from _broken(
        "value",
        declared & ((no_value != wants_level) | np.isinf(value)),
        "must be a finite number for a continuous variable and empty for a categorical one",
    )
    yield from _broken(
        "level",
        declared & (no_level == wants_level),
        "must be set for a categorical variable and empty for a continuous one",
    )
    for one in schema.variables_of("categorical"):
        mine = (place == names.index(one.name)) & ~no_level
        undeclared = mine & ~level.isin(one.levels).to_numpy()
        reason = f"is not a declared level of {one.name!r} ({', '.join(one.levels)})"
        yield from _broken("level", undeclared, reason)

    same_stay, fell = _neighbours(rank)
    yield from _broken("stay_id", fell, "is not in the order of the stays table")
    later = _later(np.diff(hours) < 0)
    yield from _broken("hours", same_stay & later, "runs backwards within the stay")
    same_time = same_stay & _later(np.diff(hours) == 0) & declared
    again = same_time & _later(np.diff(place) == 0)
    yield from _broken("variable", again, "is duplicated at one time of a stay")
    unordered = same_time & _later(np.diff(place) < 0)
    yield from _broken("variable", unordered, "is not in alphabetical order within the time")


def rows_in_words(frame: pd.DataFrame, column: str, rows: np.ndarray) -> list[str]:
    """Some rows of a table: those that say which, and the column.

    Args:
        frame: the table.
        column: the column of interest.
        rows: positions of the rows.
    """
    keys = [c for c in ("subject_id", "stay_id", "position", "hours", "variable") if c in frame]
    shown = frame.iloc[rows][list(dict.fromkeys([*keys, column]))]
    return [
        ", ".join(f"{c}={v!s}" for c, v in zip(shown, values, strict=True))
        for values in shown.itertuples(index=False)
    ]


def _ranks(stay_rank: pd.Series, frame: pd.DataFrame) -> np.ndarray:
    """Position of the stay of each row; -1 where there is no such stay."""
    found = stay_rank.index.get_indexer(pd.Index(frame["stay_id"]))
    return np.where(found < 0, -1, np.append(stay_rank.to_numpy(), -1)[found])


def _neighbours(rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row is of the stay of the row before, and whether of an earlier one."""
    both = _later((rank[1:] >= 0) & (rank[:-1] >= 0))
    step = np.diff(rank)
    return both & _later(step == 0), both & _later(step < 0)


def _later(pairs: np.ndarray) -> np.ndarray:
    """A flag for each pair of neighbouring rows as a flag for the later row of the pair."""
    return np.concatenate([[False], np.asarray(pairs, dtype=bool)])


def _broken(column: str, rows: Any, reason: str) -> Iterator[Fault]:
    rows = np.asarray(rows, dtype=bool)
    if rows.any():
        yield Fault(column, reason, rows)


def _refuse(table: str, frame: pd.DataFrame, faults: Iterator[Fault]) -> None:
    """Raise the first fault, showing the column, the row numbers and the first rows."""
    fault = next(faults, None) if len(frame) else None
    if fault is None:
        return
    rows = np.flatnonzero(fault.rows)[:SHOWN_ROWS]
    texts = rows_in_words(frame, fault.column, rows)
    lines = "\n".join(f"  row {row}: {text}" for row, text in zip(rows, texts, strict=True))
    n = int(fault.rows.sum())
    raise UserError(f"{table}.{fault.column} {fault.reason}, in {n:,} row(s):\n{lines}")
