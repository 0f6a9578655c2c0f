"""What looks odd about a cohort that keeps the rules: for a person to look at."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from synehrgy.cohort.describe import Description
from synehrgy.cohort.icd import is_icd
from synehrgy.cohort.schema import SPLITS

# How many times the distance of the quartiles a value lies beyond them that looks like a mistake.
FAR = 20.0

# A number for "unknown" is not among the others: it lies this much farther out than the quartiles.
APART = 3.0

# Fewer stays with, or without, a label are hard to learn from.
FEW = 10


def hints(about: Description) -> list[str]:
    """What to look at, each in a sentence."""
    return [
        *_of_splits(about),
        *_of_stays(about),
        *_of_covariates(about),
        *_of_labels(about),
        *_of_codes(about),
        *_of_series(about),
    ]


def _of_splits(about: Description) -> Iterator[str]:
    split = about.stays["split"]
    if split.isna().all():
        yield "No patient has a split, as in synthetic cohorts: this one cannot be trained on."
        return
    for name in SPLITS:
        if not (split == name).any():
            yield f"No patient is in the split {name}."


def _of_stays(about: Description) -> Iterator[str]:
    stays = about.stays
    n_unknown = int(stays["los_hours"].isna().sum())
    if 0 < n_unknown < len(stays):
        yield f"{n_unknown:,} stays have no length, the others have one."
    if about.n_late:
        yield f"{about.n_late:,} measurements are later than the end of their stay."
    if about.schema.variables and about.n_measured < len(stays):
        yield f"{len(stays) - about.n_measured:,} stays have no measurement."


def _of_covariates(about: Description) -> Iterator[str]:
    for covariate in about.schema.covariates:
        values = about.stays[covariate.name]
        name = f"The covariate {covariate.name}"
        if values.isna().all():
            yield f"{name} is empty in all stays."
            continue
        if values.nunique() == 1:
            yield f"{name} is {values.dropna().iloc[0]} wherever it is known."
        if covariate.kind == "categorical":
            unused = [level for level in covariate.levels if not (values == level).any()]
            if unused:
                yield f"{name} never is {', '.join(unused)}."
        elif covariate.name.lower() == "age" and covariate.unit in (None, "years"):
            odd = int(((values < 0) | (values > 120)).sum())
            if odd:
                yield f"{name} is below 0 or above 120 years in {odd:,} stays."


def _of_labels(about: Description) -> Iterator[str]:
    for label in about.schema.labels:
        n = int(about.stays[label.column].sum())
        rest = len(about.stays) - n
        if min(n, rest) < FEW:
            do = "have" if n < rest else "do not have"
            yield f"Only {min(n, rest):,} stays {do} the label {label.column}."
    for column, n in about.disagreeing.items():
        if n:
            yield f"In {n:,} stays the label {column} is not what the codes that define it say."


def _of_codes(about: Description) -> Iterator[str]:
    for system in about.schema.code_systems:
        if system.name not in about.codes.index:
            yield f"No stay has a code of {system.name}."
            continue
        row = about.codes.loc[system.name]
        if row["n_repeated"]:
            yield f"{int(row['n_repeated']):,} codes of {system.name} stand in their stay twice."
        if is_icd(system.name) and row["n_pointed"]:
            yield (
                f"{int(row['n_pointed']):,} different codes of {system.name} have a point; ICD "
                "codes are written without it here."
            )
        if row["n_rare"] > row["n_codes"] / 2:
            yield (
                f"{row['n_rare'] / row['n_codes']:.0%} of the different codes of {system.name} "
                "occur less than 6 times: preprocess.rare_codes=parent keeps more of them than "
                "drop, where the system has a hierarchy."
            )


def _of_series(about: Description) -> Iterator[str]:
    for variable in about.schema.variables:
        name = variable.name
        if name not in about.stays_of.index:
            yield f"The series {name} has no value."
        elif variable.kind == "categorical":
            mine = about.levels.loc[about.levels["variable"] == name, "level"]
            unused = [level for level in variable.levels if level not in set(mine)]
            if unused:
                yield f"The series {name} never is {', '.join(unused)}."
        else:
            sentinels = about.sentinels[about.sentinels["variable"] == name]
            row: Any = about.numbers.loc[name]
            yield from _of_numbers(name, variable.unit, row, sentinels)


def _of_numbers(
    name: str, unit: str | None, row: pd.Series, sentinels: pd.DataFrame
) -> Iterator[str]:
    what = f"{name} ({unit})" if unit else name
    if row["lowest"] == row["highest"]:
        yield f"The series {what} is {row['lowest']:g} wherever it is measured."
        return
    if row["n_impossible"] > 0:
        share = row["n_impossible"] / row["n"]
        yield (
            f"{int(row['n_impossible']):,} values of {what} ({share:.2%}) are not possible in this "
            f"unit: they go from {row['lowest']:g} to {row['highest']:g}."
        )
    spread = row["three_quarters"] - row["quarter"]
    low, high = row["quarter"] - APART * spread, row["three_quarters"] + APART * spread
    marks = sentinels[~sentinels["value"].between(low, high) & (sentinels["n"] > 2)]
    for value, n in zip(marks["value"], marks["n"], strict=True):
        yield f"{what} is {value:g} in {n:,} rows. Does this mean that there is no value?"
    below = row["lowest"] < row["quarter"] - FAR * spread
    above = row["highest"] > row["three_quarters"] + FAR * spread
    if spread > 0 and (below or above) and not len(marks) and not row["n_impossible"] > 0:
        ends = [f"{row[end]:g}" for end, far in (("lowest", below), ("highest", above)) if far]
        yield (
            f"{what} goes to {' and '.join(ends)}, though half of its values are between "
            f"{row['quarter']:g} and {row['three_quarters']:g}. Is this one unit?"
        )
