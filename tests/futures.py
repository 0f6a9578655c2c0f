"""Real stays whose future is drawn from known odds, and futures drawn from the same or others."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd

from synehrgy.cohort import Cohort, CohortWriter, Covariate, Label, Schema, Variable
from synehrgy.cohort.futures import GENERATION_FILE, QUESTIONS_FILE
from tests.cohorts import build

WINDOW = 24.0
FIRST_ID = 1_000_000_000

SCHEMA = Schema(
    name="known-odds",
    source="test",
    covariates=[
        Covariate("odds", "continuous"),
        Covariate("gender", "categorical", levels=["F", "M"]),
    ],
    labels=[Label("died", "Died", "outcome"), Label("shock", "Shock", "phenotype")],
    variables=[
        Variable("Coma", "categorical", levels=["low", "high"]),
        Variable("Heart Rate [bpm]", "continuous", unit="bpm"),
        Variable("Lactate", "continuous", unit="mmol/L"),
    ],
)
SERIES = "Heart Rate [bpm]"


def chance(odds):
    """Of death, by the covariate: all from 0.02 to 0.98."""
    return 1 / (1 + np.exp(-odds))


def next_heart_rate(rng, last, spread=1.0):
    """Half way back to 80, with noise: carrying forward is wrong on purpose."""
    return 80 + (last - 80) / 2 + spread * rng.normal(0, 5, np.shape(last))


def real_cohort(n: int = 600, seed: int = 0) -> Cohort:
    """Stays of one patient each, two in three in the train split, that all go on after the window.

    Each has a heart rate at 1, 12 and 30 hours, a coma level at 2, and only one in two a lactate,
    which is measured once.
    """
    rng = np.random.default_rng(seed)
    stays, rows = [], []
    for i in range(n):
        stay, odds = 500 + i, rng.uniform(-4, 4)
        split = ("train", "train", "test")[i % 3]
        died = int(rng.random() < chance(odds))
        stays.append([i, stay, None, 0, split, odds, "FM"[i % 2], died, int(i % 7 == 0), 40.0])
        first, last = 80 + rng.normal(0, 15, 2)
        rows.append([stay, 1.0, SERIES, first, None])
        rows.append([stay, 2.0, "Coma", None, ("low", "high")[i % 2]])
        rows.append([stay, 12.0, SERIES, last, None])
        if i % 2:
            rows.append([stay, 13.0, "Lactate", 2.0 + i % 3, None])
        rows.append([stay, 30.0, SERIES, float(next_heart_rate(rng, last)), None])
    return build(SCHEMA, stays, [], rows)


def draw_futures(
    real: Cohort, n_samples: int, seed: int = 1, sharpen: float = 1.0, spread: float = 1.0
) -> tuple[Cohort, pd.DataFrame]:
    """Futures of the test stays: of the true odds, or of others.

    Above 1, ``sharpen`` makes probabilities more extreme than they are; below 1, ``spread`` makes
    values vary less. Every fifth future has a second stay.
    """
    rng = np.random.default_rng(seed)
    asked = real.select(split="test").stays
    known = real.measurements.query("variable == @SERIES and hours == 12").set_index("stay_id")
    stays, rows, questions = [], [], []
    number = FIRST_ID
    for stay in asked.itertuples():
        p = chance(sharpen * stay.odds)
        last = known.loc[stay.stay_id, "value"]
        for sample in range(n_samples):
            subject = FIRST_ID + len(questions)
            facts = [None, stay.odds, stay.gender, int(rng.random() < p), int(rng.random() < 1 / 7)]
            stays.append([subject, number, None, 0, *facts, 40.0])
            rows.append([number, 30.0, SERIES, float(next_heart_rate(rng, last, spread)), None])
            rows.append([number, 40.0, SERIES, 300.0, None])
            number += 1
            if sample % 5 == 0:
                # Of no account, as is the value at 40 hours.
                stays.append([subject, number, None, 1, None, 0.0, "F", 1, 1, 40.0])
                rows.append([number, 30.0, SERIES, 300.0, None])
                number += 1
            questions.append([subject, stay.subject_id, stay.stay_id, WINDOW, sample])
    columns = ["subject_id", "source_subject_id", "source_stay_id", "hours", "sample"]
    table = pd.DataFrame(questions, columns=columns).astype({"sample": np.int32})
    return build(replace(SCHEMA, name="futures"), stays, [], rows), table


def write_futures(futures: Cohort, questions: pd.DataFrame, path, real=None) -> None:
    """A folder as ``generate.py mode=forecast`` writes it."""

    def complete(folder):
        questions.to_parquet(folder / QUESTIONS_FILE, index=False)
        noted = {"seed": 0} if real is None else {"seed": 0, "real": str(real)}
        (folder / GENERATION_FILE).write_text(json.dumps(noted))

    with CohortWriter(path, futures.schema, {}, complete) as writer:
        writer.write(futures.stays, futures.codes, futures.measurements)
