"""Cohorts made for tests: a small realistic one, and any valid one (hypothesis)."""

import operator

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

from synehrgy.cohort import (
    CodeSystem,
    Cohort,
    CohortWriter,
    Covariate,
    Label,
    Schema,
    Variable,
)
from synehrgy.cohort.tables import arrow_schema, to_frame

SMALL_SCHEMA = Schema(
    name="small",
    source="test",
    covariates=[
        Covariate("age", "continuous", unit="years"),
        Covariate("gender", "categorical", levels=["F", "M"]),
    ],
    labels=[
        Label("in_hospital_mortality", "In-hospital mortality", "outcome"),
        Label("septicemia", "Septicemia", "phenotype"),
        Label("shock", "Shock", "phenotype"),
    ],
    variables=[
        Variable("Glasgow coma scale total", "categorical", levels=[str(i) for i in range(3, 16)]),
        Variable("Heart Rate", "continuous", unit="bpm"),
        Variable("Lactate", "continuous", unit="mmol/L"),
        Variable("pH", "continuous"),
    ],
    code_systems=[
        CodeSystem("icd9_diagnosis", "ICD-9-CM diagnoses"),
        CodeSystem("icd9_procedure", "ICD-9-CM procedures"),
    ],
)
CODES = {
    "icd9_diagnosis": ["0389", "4019", "4280", "V5861", "E8788", "99592"],
    "icd9_procedure": ["0066", "3893", "9604"],
}


def build(schema, stays, codes, measurements) -> Cohort:
    """A cohort from lists of rows, in the order and types of the tables."""
    frames = {}
    for name, rows in (("stays", stays), ("codes", codes), ("measurements", measurements)):
        expected = arrow_schema(name, schema)
        frame = pd.DataFrame(rows, columns=expected.names)
        frames[name] = to_frame(pa.Table.from_pandas(frame, expected, preserve_index=False), name)
    return Cohort(schema, **frames)


def small_cohort(n_patients: int = 60, seed: int = 0) -> Cohort:
    """Patients with one to three stays, codes, labels and series that hang together."""
    rng = np.random.default_rng(seed)
    stays, codes, measurements = [], [], []
    stay_id = 200
    for subject in range(10, 10 + n_patients):
        split = ("train", "train", "train", "val", "test")[subject % 5]
        age, gender = rng.uniform(20, 89), str(rng.choice(["F", "M"]))
        for stay_index in range(int(rng.integers(1, 4))):
            stay_id += 1
            sick = int(rng.random() < 0.3)
            los = float(rng.uniform(5, 60))
            key = (subject, stay_id, 1000 + stay_id, stay_index, split)
            labels = (int(sick and rng.random() < 0.5), sick, int(rng.random() < 0.2))
            stays.append((*key, age + stay_index, gender, *labels, los))
            position = 0
            for system, found in CODES.items():
                for code in rng.permutation(found)[: rng.integers(0, len(found))]:
                    codes.append((stay_id, position, system, str(code)))
                    position += 1
            for hours in np.sort(rng.choice(np.arange(0, 5, 0.25), 6, replace=False)):
                if rng.random() < 0.5:
                    level = str(rng.integers(3, 9) if sick else rng.integers(9, 16))
                    measurements.append((stay_id, hours, "Glasgow coma scale total", None, level))
                values = {"Heart Rate": 80 + 30 * sick, "Lactate": 1 + 3 * sick, "pH": 7.4}
                for name, mean in values.items():
                    if rng.random() < 0.6:
                        value = round(float(mean * rng.normal(1, 0.05)), 2)
                        measurements.append((stay_id, float(hours), name, value, None))
    return build(SMALL_SCHEMA, stays, codes, measurements)


def write(cohort: Cohort, path) -> None:
    """Write a cohort in memory to a folder."""
    with CohortWriter(path, cohort.schema, cohort.provenance) as writer:
        writer.write(cohort.stays, cohort.codes, cohort.measurements)


_names = st.text("abcxyzABC ()/%-_.é", min_size=1, max_size=8)
_numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))


@st.composite
def schemas(draw) -> Schema:
    """Any schema: from nothing declared to a few of everything."""

    def typed(kind_of_item, name):
        if draw(st.booleans()):
            return kind_of_item(name, "continuous", unit=draw(st.sampled_from([None, "mmHg"])))
        levels = draw(st.lists(_names, min_size=1, max_size=3, unique=True))
        return kind_of_item(name, "categorical", levels=levels)

    names = draw(st.lists(_names, max_size=5, unique=True))
    columns = [f"c_{i}" for i in range(draw(st.integers(0, 5)))]
    kinds = st.sampled_from(["covariate", "outcome", "phenotype"])
    chosen = [(column, draw(kinds)) for column in columns]
    return Schema(
        name="any",
        source="hypothesis",
        covariates=[typed(Covariate, c) for c, kind in chosen if kind == "covariate"],
        labels=[Label(c, c.title(), kind) for c, kind in chosen if kind != "covariate"],
        variables=[typed(Variable, name) for name in names],
        code_systems=[CodeSystem(f"s{i}", f"S{i}") for i in range(draw(st.integers(0, 2)))],
    )


@st.composite
def cohorts(draw) -> Cohort:
    """Any valid cohort with at least one stay in the train split."""
    schema = draw(schemas())
    by_name = operator.attrgetter("name")
    stays, codes, measurements = [], [], []
    stay_id = 0
    for subject in range(draw(st.integers(1, 4))):
        split = "train" if subject == 0 else draw(st.sampled_from(["train", "val", "test", None]))
        for stay_index in range(draw(st.integers(1, 3))):
            stay_id += draw(st.integers(1, 5))
            facts = [
                draw(st.none() | _numbers)
                if c.kind == "continuous"
                else draw(st.sampled_from([None, *c.levels]))
                for c in schema.covariates
            ]
            facts += [draw(st.integers(0, 1)) for _ in schema.labels]
            los = draw(st.none() | st.floats(0, 500))
            stays.append((subject * 7, stay_id, None, stay_index, split, *facts, los))
            position = 0
            for system in schema.code_systems:
                for _ in range(draw(st.integers(0, 3))):
                    position += draw(st.integers(1, 2))
                    codes.append((stay_id, position, system.name, draw(_names)))
            if not schema.variables:
                continue
            times = draw(st.lists(st.floats(0, 400).map(lambda x: round(x, 2)), max_size=4))
            for hours in sorted(set(times)):
                chosen = draw(st.sets(st.sampled_from(range(len(schema.variables))), min_size=1))
                for variable in sorted((schema.variables[i] for i in chosen), key=by_name):
                    value = draw(_numbers) if variable.kind == "continuous" else None
                    level = None if value is not None else draw(st.sampled_from(variable.levels))
                    measurements.append((stay_id, hours, variable.name, value, level))
    return build(schema, stays, codes, measurements)
