"""Independent columns: every value drawn by itself from its own distribution."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from synehrgy.baselines.keeps import KeepsPatients
from synehrgy.cohort import Cohort


@dataclass
class MarginalsSettings:
    """None."""


class Marginals(KeepsPatients):
    """Patients of which nothing hangs together: the floor."""

    name = "marginals"
    title = "Independent columns"
    competes = False
    Settings = MarginalsSettings

    def sample(self, n: int, *, seed: int, device: torch.device, progress: bool) -> Cohort:
        """Draw every value by itself."""
        return independent_columns(self.cohort, n, seed)


def independent_columns(cohort: Cohort, n: int, seed: int) -> Cohort:
    """Patients of which nothing hangs together.

    The number of stays of a patient, the number of time points of a stay, its length, each
    covariate, each label, the presence of each code, the presence of each series at a time point,
    each value and the times in a stay are drawn from their own distributions in the cohort, all
    independently. Only what makes a record valid is kept: times lie within the stay and ascend.

    Args:
        cohort: to learn from.
        n: patients.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    schema = cohort.schema
    per_patient = cohort.stays.groupby("subject_id").size().to_numpy()
    n_stays = rng.choice(per_patient, size=n)
    total = int(n_stays.sum())
    subject = np.repeat(np.arange(1, n + 1), n_stays)
    first = np.repeat(np.cumsum(n_stays) - n_stays, n_stays)
    columns: dict[str, object] = {
        "subject_id": subject,
        "stay_id": np.arange(1, total + 1),
        "hadm_id": pd.array([pd.NA] * total, dtype="Int64"),
        "stay_index": (np.arange(total) - first).astype(np.int32),
        "split": None,
    }

    def drawn(column: str) -> object:
        return cohort.stays[column].sample(total, replace=True, random_state=rng).to_numpy()

    for covariate in schema.covariates:
        columns[covariate.name] = drawn(covariate.name)
    for label in schema.labels:
        columns[label.column] = drawn(label.column)
    columns["los_hours"] = drawn("los_hours")
    stays = pd.DataFrame(columns)[list(cohort.stays.columns)].astype(cohort.stays.dtypes)
    codes = _codes(cohort, stays, rng)
    return Cohort(schema, stays, codes, _measurements(cohort, stays, rng), {"seed": seed})


def _codes(cohort: Cohort, stays: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Each code with its own probability, in any order."""
    once = cohort.codes.drop_duplicates(["stay_id", "system", "code"])
    # Categories may be in any order, and the draws must not depend on it.
    once = once.astype({"system": "str", "code": "str"})
    counts = once.groupby(["system", "code"], observed=True).size().reset_index(name="n")
    has = rng.binomial(len(stays), counts["n"] / len(cohort.stays))
    which = np.repeat(np.arange(len(counts)), has)
    stay = np.concatenate(
        [rng.choice(len(stays), size=k, replace=False) for k in has] or [np.zeros(0, np.int64)]
    ).astype(np.int64)
    order = np.lexsort((rng.random(len(stay)), stay))
    stay, which = stay[order], which[order]
    start = np.searchsorted(stay, stay)
    frame = pd.DataFrame(
        {
            "stay_id": stays["stay_id"].to_numpy()[stay],
            "position": (np.arange(len(stay)) - start).astype(np.int32),
            "system": counts["system"].to_numpy()[which],
            "code": counts["code"].to_numpy()[which],
        }
    )
    return frame.astype(cohort.codes.dtypes)


def _measurements(cohort: Cohort, stays: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Time points at shares of the stay, each series present with its own probability."""
    rows = cohort.measurements
    points = rows[["stay_id", "hours"]].drop_duplicates()
    per_stay = points.groupby("stay_id").size().reindex(cohort.stays["stay_id"], fill_value=0)
    n_points = rng.choice(per_stay.to_numpy(), size=len(stays))
    stay = np.repeat(np.arange(len(stays)), n_points)
    if not len(points) or not len(stay):
        return rows.iloc[:0]
    end = points["stay_id"].map(cohort.stays.set_index("stay_id")["los_hours"])
    longest = points.groupby("stay_id")["hours"].transform("max")
    # A length of stay that is missing, or passed by, ends with the last value.
    end = np.maximum(end.fillna(0.0).to_numpy(np.float64), longest.to_numpy(np.float64))
    share = points["hours"].to_numpy(np.float64) / np.maximum(end, 1e-9)
    at = rng.choice(share, size=len(stay))
    length = stays["los_hours"].fillna(float(longest.median())).to_numpy(np.float64)[stay]
    # To the minute, as charted times are; two points of a minute become one.
    hours = np.round(np.clip(at, 0, 1) * length * 60) / 60
    keep = pd.DataFrame({"stay": stay, "hours": hours}).drop_duplicates()
    keep = keep.sort_values(["stay", "hours"], ignore_index=True)
    parts = []
    for variable in cohort.schema.variables:
        mine = rows[rows["variable"] == variable.name]
        if mine.empty:
            continue
        chosen = np.flatnonzero(rng.random(len(keep)) < len(mine) / len(points))
        value = mine[["value", "level"]].sample(len(chosen), replace=True, random_state=rng)
        part = keep.iloc[chosen].reset_index(drop=True)
        part = part.assign(variable=variable.name)
        parts.append(pd.concat([part, value.reset_index(drop=True)], axis=1))
    found = pd.concat(parts, ignore_index=True)
    found = found.sort_values(["stay", "hours", "variable"], ignore_index=True)
    found["stay_id"] = stays["stay_id"].to_numpy()[found["stay"]]
    return found[list(rows.columns)].astype(rows.dtypes)
