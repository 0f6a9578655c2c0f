"""From the pieces that a generator draws to a cohort."""

import numpy as np
import pandas as pd

from synehrgy.cohort import Cohort, Schema, defines

FIRST_ID = 1


def assemble(
    schema: Schema,
    stays: pd.DataFrame,
    codes: pd.DataFrame | None = None,
    measurements: pd.DataFrame | None = None,
) -> Cohort:
    """Put patients together; identifiers, positions, order and types are seen to.

    Args:
        schema: of the cohort; without code systems or series where these are not covered.
        stays: one row per stay, those of a patient together and in time order: ``patient`` (any
            number that is the same for all stays of a patient), a column per covariate and label
            and ``los_hours``.
        codes: in the order of listing: ``stay`` (the row number of its stay, from 0), ``system``,
            ``code``; None: without codes. A code that is listed twice in a stay stays once.
        measurements: in any order: ``stay`` (as above), ``hours``, ``variable``, ``value``,
            ``level``; None: without series. Of several values of a series at one time the first
            stays, and times beyond the end of the stay are left out.

    Returns:
        The cohort, which keeps every rule that ``read_cohort`` checks.
    """
    n = len(stays)
    patient = stays["patient"].to_numpy()
    new = np.ones(n, dtype=bool)
    new[1:] = patient[1:] != patient[:-1]
    number = np.cumsum(new) - 1
    first = np.flatnonzero(new)[number] if n else np.zeros(0, dtype=np.int64)
    columns: dict[str, object] = {
        "subject_id": number + FIRST_ID,
        "stay_id": np.arange(n) + FIRST_ID,
        "hadm_id": pd.array([pd.NA] * n, dtype="Int64"),
        "stay_index": (np.arange(n) - first).astype(np.int32),
        "split": pd.Series([None] * n, dtype="str"),
    }
    for covariate in schema.covariates:
        facts = stays[covariate.name]
        if covariate.kind == "continuous":
            columns[covariate.name] = facts.astype("float64").array
        else:
            # In pandas 2 what is missing becomes a text, too.
            columns[covariate.name] = facts.astype("str").where(facts.notna()).array
    for label in schema.labels:
        columns[label.column] = stays[label.column].to_numpy(np.int8)
    columns["los_hours"] = stays["los_hours"].to_numpy(np.float64)
    table = pd.DataFrame(columns)
    return Cohort(schema, table, _codes(table, codes), _measurements(schema, table, measurements))


def _codes(stays: pd.DataFrame, codes: pd.DataFrame | None) -> pd.DataFrame:
    if codes is None:
        codes = pd.DataFrame({"stay": np.zeros(0, np.int64), "system": [], "code": []})
    codes = codes.drop_duplicates(["stay", "system", "code"])
    codes = codes.sort_values("stay", kind="stable", ignore_index=True)
    return pd.DataFrame(
        {
            "stay_id": stays["stay_id"].to_numpy()[codes["stay"].to_numpy(np.int64)],
            "position": codes.groupby("stay").cumcount().astype(np.int32),
            "system": codes["system"].astype(str).astype("category"),
            "code": codes["code"].astype(str).astype("category"),
        }
    )


def _measurements(
    schema: Schema, stays: pd.DataFrame, measurements: pd.DataFrame | None
) -> pd.DataFrame:
    columns = ["stay", "hours", "variable", "value", "level"]
    if measurements is None:
        measurements = pd.DataFrame({name: [] for name in columns})
    rows = measurements[columns].reset_index(drop=True)
    stay = rows["stay"].to_numpy(np.int64)
    hours = rows["hours"].to_numpy(np.float64)
    end = stays["los_hours"].to_numpy()[stay]
    keep = (hours >= 0) & ~(hours > end)
    rows = rows[keep].drop_duplicates(["stay", "hours", "variable"])
    rows = rows.assign(variable=rows["variable"].astype(str))
    rows = rows.sort_values(["stay", "hours", "variable"], ignore_index=True)
    level = rows["level"].astype(object).where(rows["level"].notna(), None)
    return pd.DataFrame(
        {
            "stay_id": stays["stay_id"].to_numpy()[rows["stay"].to_numpy(np.int64)],
            "hours": rows["hours"].to_numpy(np.float64),
            "variable": rows["variable"].astype("category"),
            "value": rows["value"].to_numpy(np.float64),
            "level": pd.Series(level, dtype=object).astype("category"),
        }
    )


def drawn_patients(
    stays: pd.DataFrame, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``n`` patients with replacement, each with all of the stays.

    Args:
        stays: those of a patient together.
        n: patients.
        rng: to draw with.

    Returns:
        The rows of the stays, and the number of the patient that each belongs to, from 0.
    """
    _, start, n_stays = np.unique(stays["subject_id"], return_index=True, return_counts=True)
    chosen = rng.integers(len(start), size=n)
    rows = np.concatenate([np.arange(start[i], start[i] + n_stays[i]) for i in chosen])
    return rows, np.repeat(np.arange(n), n_stays[chosen])


def labels_of_codes(schema: Schema, stays: pd.DataFrame, codes: pd.DataFrame) -> pd.DataFrame:
    """The stays with each label that codes define as the codes say.

    Args:
        schema: says which codes define a label; other labels are left as they are.
        stays, codes: as for ``assemble``.
    """
    found = stays.copy()
    for label in schema.labels:
        if label.system is not None:
            says = np.zeros(len(found), dtype=np.int8)
            says[codes.loc[defines(label, codes), "stay"].to_numpy(np.int64)] = 1
            found[label.column] = says
    return found
