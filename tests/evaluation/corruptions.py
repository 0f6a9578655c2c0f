"""Faults of known size, put into a cohort. Each takes a dose from 0 (nothing) to 1."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from synehrgy.cohort import Cohort

Corruption = Callable[[Cohort, float, np.random.Generator], Cohort]


def values_shuffled(cohort: Cohort, dose: float, rng: np.random.Generator) -> Cohort:
    """A share of the values of each series change places, within and between patients."""
    rows = cohort.measurements
    taken = np.arange(len(rows))
    for places in rows.groupby("variable", observed=True).indices.values():
        chosen = places[rng.random(len(places)) < dose]
        taken[chosen] = rng.permutation(chosen)
    columns = ["value", "level"]
    mixed = rows[columns].iloc[taken].reset_index(drop=True)
    return replace(cohort, measurements=rows.drop(columns=columns).join(mixed)[rows.columns])


def tail_codes_dropped(cohort: Cohort, dose: float, rng: np.random.Generator) -> Cohort:
    """The rarest codes are gone: those that make up a share (``dose`` / 5) of all."""
    key = cohort.codes["system"].astype(str) + ":" + cohort.codes["code"].astype(str)
    counts = key.value_counts().sort_values(kind="stable")
    rare = counts.index[counts.cumsum() <= dose / 5 * len(key)]
    return replace(cohort, codes=cohort.codes[~key.isin(rare)].reset_index(drop=True))


def one_series_shifted(name: str) -> Corruption:
    """All values of one series are higher by ``dose`` standard deviations."""

    def corrupt(cohort: Cohort, dose: float, rng: np.random.Generator) -> Cohort:
        rows = cohort.measurements.copy()
        mine = rows["variable"] == name
        rows.loc[mine, "value"] += dose * rows.loc[mine, "value"].std()
        return replace(cohort, measurements=rows)

    return corrupt


def variance_halved(cohort: Cohort, dose: float, rng: np.random.Generator) -> Cohort:
    """Values are nearer to the mean of their series: variance times (1 - ``dose`` / 2)."""
    rows = cohort.measurements.copy()
    mean = rows.groupby("variable", observed=True)["value"].transform("mean")
    rows["value"] = mean + (rows["value"] - mean) * np.sqrt(1 - dose / 2)
    return replace(cohort, measurements=rows)


def time_order_broken(cohort: Cohort, dose: float, rng: np.random.Generator) -> Cohort:
    """In a share of the stays, what was measured stands at the times in any order."""
    rows = cohort.measurements.copy()
    stays = cohort.stays["stay_id"].to_numpy()
    chosen = set(stays[rng.random(len(stays)) < dose])
    points = rows[["stay_id", "hours"]].drop_duplicates()
    points = points[points["stay_id"].isin(chosen)].copy()
    mixed = points.groupby("stay_id")["hours"].transform(lambda h: rng.permutation(h.to_numpy()))
    points["new"] = mixed
    keyed = rows.merge(points, on=["stay_id", "hours"], how="left")
    rows["hours"] = keyed["new"].fillna(keyed["hours"]).to_numpy()
    rank = rows["stay_id"].map(dict(zip(stays, range(len(stays)), strict=True)))
    order = np.lexsort((rows["variable"].astype(str), rows["hours"], rank))
    return replace(cohort, measurements=rows.iloc[order].reset_index(drop=True))


def labels_contradicted(cohort: Cohort, dose: float, rng: np.random.Generator) -> Cohort:
    """A share of the stays has the opposite of every label that codes define."""
    stays = cohort.stays.copy()
    wrong = rng.random(len(stays)) < dose
    for label in cohort.schema.labels:
        if label.codes:
            column = stays[label.column].to_numpy()
            stays[label.column] = np.where(wrong, 1 - column, column).astype(np.int8)
    return replace(cohort, stays=stays)


def one_sex_removed(cohort: Cohort, dose: float, rng: np.random.Generator) -> Cohort:
    """A share of the women is gone."""
    women = cohort.stays.loc[cohort.stays["gender"] == "F", "subject_id"].unique()
    gone = set(women[rng.random(len(women)) < dose])
    return cohort.select(subjects=sorted(set(cohort.stays["subject_id"]) - gone))


def memorised(train: Cohort) -> Corruption:
    """A share of the patients are replaced by copies of patients of ``train``."""

    def corrupt(cohort: Cohort, dose: float, rng: np.random.Generator) -> Cohort:
        subjects = np.unique(cohort.stays["subject_id"])
        sources = np.unique(train.stays["subject_id"])
        n = min(round(dose * len(subjects)), len(sources))
        kept = cohort.select(subjects=rng.permutation(subjects)[n:].tolist())
        copied = train.select(subjects=rng.choice(sources, size=n, replace=False).tolist())
        if not n:
            return cohort
        # New numbers, beyond all others.
        by = int(max(cohort.stays[["subject_id", "stay_id"]].to_numpy().max(), 0)) + 1
        stays = copied.stays.assign(
            subject_id=copied.stays["subject_id"] + by, stay_id=copied.stays["stay_id"] + by
        )
        codes, rows = (
            frame.assign(stay_id=frame["stay_id"] + by)
            for frame in (copied.codes, copied.measurements)
        )
        tables = [
            _joined(*parts)
            for parts in ((kept.stays, stays), (kept.codes, codes), (kept.measurements, rows))
        ]
        return Cohort(cohort.schema, *tables)

    return corrupt


def _joined(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Both, one below the other; categories are those of both."""
    found = pd.concat([first, second], ignore_index=True)
    for column, dtype in first.dtypes.items():
        found[column] = found[column].astype("category" if str(dtype) == "category" else dtype)
    return found


def halves(cohort: Cohort, seed: int) -> tuple[Cohort, Cohort]:
    """Two random halves of the patients."""
    subjects = np.random.default_rng(seed).permutation(np.unique(cohort.stays["subject_id"]))
    middle = len(subjects) // 2
    first, second = subjects[:middle], subjects[middle:]
    return cohort.select(subjects=first.tolist()), cohort.select(subjects=second.tolist())
