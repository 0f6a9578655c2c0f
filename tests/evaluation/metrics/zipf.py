"""Cohorts of any size with a long tail of codes and series that hang together, made in no time."""

import numpy as np
import pandas as pd

from synehrgy.cohort import CodeSystem, Cohort, Covariate, Label, Schema, Variable
from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.patients import Patients
from tests.cohorts import build

SCHEMA = Schema(
    name="zipf",
    source="test",
    covariates=[
        Covariate("age", "continuous", unit="years"),
        Covariate("gender", "categorical", levels=["F", "M"]),
    ],
    labels=[Label("died", "Died", "outcome")],
    variables=[
        Variable("Heart Rate", "continuous", unit="bpm"),
        Variable("Lactate", "continuous"),
        Variable("Rhythm", "categorical", levels=["sinus", "other"]),
        Variable("pH", "continuous"),
    ],
    code_systems=[CodeSystem("dx", "Diagnoses"), CodeSystem("px", "Procedures")],
)
N_CODES = 120
PREVALENCE = 0.6 / np.arange(1, N_CODES + 1) ** 0.9


def zipf_cohort(n: int = 400, seed: int = 0) -> Cohort:
    """Patients of a hidden kind, on which codes and values depend; half of them come twice.

    The code of rank i is of the system dx for even i, of px for odd i. A list has the diagnoses by
    their number and then the procedures.
    """
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n), rng.integers(1, 3, n))
    total = len(patient)
    first = np.append(True, patient[1:] != patient[:-1])
    kind = rng.integers(0, 2, n)[patient]
    # Codes of one kind of patients are three times as frequent among these as among the others.
    fits = (np.arange(N_CODES) // 2 % 2)[None] == kind[:, None]
    chronic = rng.random((n, N_CODES))[patient]
    draw = np.where(rng.random((total, N_CODES)) < 0.5, chronic, rng.random((total, N_CODES)))
    has = draw < PREVALENCE * np.where(fits, 1.5, 0.5)
    stay, rank = np.nonzero(has)
    order = np.lexsort((rank, rank % 2, stay))
    stay, rank = stay[order], rank[order]
    codes = pd.DataFrame(
        {
            "stay_id": stay + 1,
            "position": np.arange(len(stay)) - np.searchsorted(stay, stay),
            "system": np.array(["dx", "px"])[rank % 2],
            "code": [f"{r:03d}" for r in rank],
        }
    )
    stays = pd.DataFrame(
        {
            "subject_id": patient + 1,
            "stay_id": np.arange(total) + 1,
            "hadm_id": None,
            "stay_index": np.where(first, 0, 1),
            "split": None,
            "age": rng.uniform(20, 80, n)[patient],
            "gender": np.array(["F", "M"])[rng.integers(0, 2, n)[patient]],
            "died": (rng.random(total) < 0.1 + 0.2 * kind).astype(int),
            "los_hours": rng.uniform(24, 96, total),
        }
    )
    level = rng.normal(size=(total, 1)) * 0.7 + kind[:, None]
    rows = []
    for hour in range(6):
        values = level + rng.normal(size=(total, 3)) * 0.5
        parts = {"Heart Rate": 80 + 10 * values[:, 0], "Lactate": 2 + 0.5 * values[:, 1]}
        parts["pH"] = 7.4 - 0.05 * values[:, 2]
        for name, value in parts.items():
            some = np.flatnonzero(rng.random(total) < 0.5)
            found = pd.DataFrame({"stay_id": some + 1, "hours": hour * 3.0, "variable": name})
            rows.append(found.assign(value=value[some].round(2), level=None))
        some = np.flatnonzero(rng.random(total) < 0.2)
        found = pd.DataFrame({"stay_id": some + 1, "hours": hour * 3.0, "variable": "Rhythm"})
        rhythm = np.where(rng.random(len(some)) < 0.8, "sinus", "other")
        rows.append(found.assign(value=None, level=rhythm))
    measurements = pd.concat(rows).sort_values(["stay_id", "hours", "variable"])
    return build(SCHEMA, stays, codes, measurements)


def bench_for(
    train: Cohort, synthetic: Cohort, test: Cohort | None = None, **effort: object
) -> Bench:
    """A comparison; without a test cohort the synthetic one stands for it."""
    rows = {"synthetic": synthetic, "test": synthetic if test is None else test, "train": train}
    patients = {name: Patients(cohort) for name, cohort in rows.items()}
    return Bench(patients["train"], patients, Effort(**{"n_resamples": 50, **effort}))


def lights(metric, bench: Bench) -> dict[str, str | None]:
    """The light of each score of the synthetic patients."""
    found, test = (metric.measure(bench, row).scores for row in ("synthetic", "test"))
    shown = {}
    for name, scale in metric.scales.items():
        known = not isinstance(scale.reference, str)
        reference = float(scale.reference) if known else test[name].value
        shown[name] = scale.light(found[name].value, reference)
    return shown
