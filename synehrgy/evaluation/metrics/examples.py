"""Whole patients to look at: numbers alone have never shown that a record makes sense.

Tables:

- ``examples_facts``: patient (1, 2, ...), kind (``covariate``, ``label``, ``stay`` or ``code``),
  name, value (as text; ``1`` for a label or a code that is there).
- ``examples_series``: patient, hours, variable, kind, value (continuous), level (categorical).
"""

from typing import Any

import numpy as np
import pandas as pd

from synehrgy.evaluation.metric import SYNTHETIC, TEST, Bench, Found, Metric
from synehrgy.evaluation.patients import Patients

N_PATIENTS = 3
# The part of a stay that is shown.
HOURS = 72.0


class Examples(Metric):
    """A few patients by chance, each with the first hours of the first stay.

    Real patients are people: they are shown only if they are simulated, or if asked for.
    """

    name = "examples"
    title = "Example patients"
    group = "fidelity"
    scales = {}
    rows = (SYNTHETIC, TEST)

    def measure(self, bench: Bench, row: str) -> Found:
        """No scores: the tables that charts are made of."""
        patients = bench.rows[row]
        if not bench.may_show(row):
            return Found({})
        chosen = _some(patients, bench.seed)
        return Found({}, {"examples_facts": _facts(chosen), "examples_series": _series(chosen)})


def _some(patients: Patients, seed: int) -> Patients:
    """First stays of patients by chance; of patients with series and codes, if there are any."""
    first = patients.first
    ids = first.stays["stay_id"]
    cohort = first.cohort
    parts = [cohort.measurements["stay_id"], cohort.codes["stay_id"]]
    richness = sum((ids.isin(part).to_numpy().astype(int) for part in parts), np.zeros(len(ids)))
    rank = np.random.default_rng(seed).permutation(len(ids))
    best = np.lexsort((rank, -richness))[:N_PATIENTS]
    subjects = first.stays["subject_id"].to_numpy()[np.sort(best)]
    return Patients(cohort.select(subjects=subjects.tolist()))


def _facts(chosen: Patients) -> pd.DataFrame:
    schema, stays = chosen.schema, chosen.stays
    patient = np.arange(1, len(stays) + 1)
    parts = []
    for covariate in schema.covariates:
        value = stays[covariate.name]
        shown = value.map("{:.0f}".format) if covariate.kind == "continuous" else value.astype(str)
        parts.append(_part(patient, "covariate", covariate.name, shown.where(value.notna())))
    hours = stays["los_hours"]
    told = hours.map("{:.0f}".format).where(hours.notna(), "unknown")
    parts.append(_part(patient, "stay", "hours in the unit:", told))
    for label in schema.labels:
        there = stays[label.column].to_numpy() == 1
        parts.append(_part(patient[there], "label", label.title, "1"))
    found = pd.concat(parts, ignore_index=True).dropna()
    coded = chosen.coded.drop_duplicates()
    codes = _part(patient[coded["stay"]], "code", coded["code"].to_numpy(), "1")
    both = pd.concat([found, codes], ignore_index=True)
    return both.sort_values("patient", kind="stable", ignore_index=True)


def _part(patient: np.ndarray, kind: str, name: Any, value: Any) -> pd.DataFrame:
    values = value.to_numpy() if isinstance(value, pd.Series) else value
    columns = {"patient": patient, "kind": kind, "name": name, "value": values}
    return pd.DataFrame(columns).astype({"kind": object, "name": object, "value": object})


def _series(chosen: Patients) -> pd.DataFrame:
    rows = chosen.cohort.measurements
    rows = rows[rows["hours"] <= HOURS]
    variable = rows["variable"].astype(object)
    kinds = {v.name: v.kind for v in chosen.schema.variables}
    return pd.DataFrame(
        {
            "patient": chosen.stay_rows(rows) + 1,
            "hours": rows["hours"].to_numpy(np.float64),
            "variable": variable.to_numpy(),
            "kind": variable.map(kinds).to_numpy(),
            "value": rows["value"].to_numpy(np.float64),
            "level": rows["level"].astype(object).to_numpy(),
        }
    )
