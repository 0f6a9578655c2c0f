"""What the tests of metrics of series share: comparisons of changed cohorts."""

import warnings
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd

from synehrgy.cohort import read_cohort
from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.patients import Patients
from tests.cohorts import small_cohort

FAST = Effort(n_resamples=40)
SERIES = [
    "Creatinine",
    "Diastolic blood pressure",
    "Glasgow coma scale eye opening",
    "Glasgow coma scale motor response",
    "Heart Rate",
    "Hematocrit",
    "Hemoglobin",
    "Mean blood pressure",
    "Respiratory rate",
    "Systolic blood pressure",
]


def bench(train, synthetic, test=None, effort=FAST):
    """A comparison of cohorts in memory."""
    rows = {"synthetic": Patients(synthetic), "test": Patients(test or synthetic)}
    return Bench(Patients(train), rows, effort)


def small_bench():
    """A comparison of small cohorts, of another number of patients each."""
    return bench(small_cohort(90, 1), small_cohort(70, 2))


@lru_cache(maxsize=1)
def thirds(folder):
    """Some series of the first days of simulated patients, in three parts by chance."""
    cohort = read_cohort(folder)
    mixed = np.random.default_rng(2).permutation(np.unique(cohort.stays["subject_id"]))[:1500]
    schema = cohort.schema
    variables = [v for v in schema.variables if v.name in SERIES]
    cohort = replace(cohort, schema=replace(schema, variables=variables))
    few = changed(cohort, lambda x: x[x["variable"].isin(SERIES) & (x["hours"] < 72)])
    return [few.select(subjects=part.tolist()) for part in np.split(mixed, 3)]


def changed(cohort, change):
    """The cohort with other measurements; ``change`` gets a copy of them in a plain form."""
    rows = cohort.measurements
    plain = rows.assign(variable=rows["variable"].astype(str), level=rows["level"].astype(object))
    other = change(plain.reset_index(drop=True))
    other = other.sort_values(["stay_id", "hours", "variable"], ignore_index=True)
    return replace(cohort, measurements=other.astype({"variable": "category", "level": "category"}))


def doses(metric, folder, score, change, sizes):
    """A score of a third of a cohort, as it is and changed at each size, and the lights."""
    train, other, test = thirds(folder)
    values, lights, scale = [], [], metric.scales[score]
    for size in (None, *sizes):
        row = other if size is None else changed(other, lambda x, size=size: change(x, size))
        made = bench(train, row, test, Effort(n_resamples=2))
        found = [metric.measure(made, name).scores[score].value for name in ("synthetic", "test")]
        values.append(found[0])
        lights.append(scale.light(*found))
    return values, lights


def check_dose_response(metric, folder, score, change, sizes):
    """The score gets worse with every dose, and its light goes from good to poor."""
    values, lights = doses(metric, folder, score, change, sizes)
    worse = np.diff(values) * (1 if metric.scales[score].goal == "low" else -1)
    assert (worse > 0).all(), values
    assert (lights[0], lights[-1]) == ("good", "poor"), (values, lights)


def check_halves(metric, folder):
    """Two parts of one cohort pass, and their intervals say that they are alike."""
    train, other, test = thirds(folder)
    made = bench(train, other, test, Effort(n_resamples=100))
    one, two = metric.measure(made, "synthetic").scores, metric.measure(made, "test").scores
    for name, scale in metric.scales.items():
        assert scale.light(one[name].value, two[name].value) in ("good", None), name
        assert one[name].low <= one[name].value <= one[name].high, name
        # Both are off by chance: the interval of their difference.
        half = np.hypot(one[name].high - one[name].value, two[name].high - two[name].value)
        assert abs(one[name].value - two[name].value) <= 1.5 * half + 1e-12, name


def check_same(metric, folder):
    """Patients against themselves: nothing is off, whatever the order of the measurements."""
    train, *_ = thirds(folder)
    found = metric.measure(bench(train, train), "synthetic").scores
    for name, scale in metric.scales.items():
        best = 0.0 if scale.goal == "low" else 1.0
        assert abs(found[name].value - best) < 1e-6, name


def check_any(metric, cohort):
    """Whatever the cohorts, every score is a number in its bounds or NaN; nothing warns."""
    subjects = np.unique(cohort.stays["subject_id"]).tolist()
    none = replace(cohort, measurements=cohort.measurements.iloc[:0])
    later = changed(cohort, lambda rows: rows[rows["hours"] > 10])
    some = cohort.select(subjects=subjects[:1])
    pairs = [(cohort, some), (some, cohort), (cohort, none), (none, later), (later, none)]
    for train, row in pairs:
        made = bench(train, row, cohort, Effort(n_resamples=3))
        if metric.lacks(made) is not None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = metric.measure(made, "synthetic")
        assert found.scores.keys() == metric.scales.keys()
        for name, score in found.scores.items():
            low, high = metric.scales[name].bounds
            assert np.isnan(score.value) or low - 1e-9 <= score.value <= high + 1e-9, name
        for table in found.tables.values():
            assert isinstance(table, pd.DataFrame)
            assert "row" not in table
