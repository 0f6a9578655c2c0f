"""Views of a cohort, compared with plain loops."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from synehrgy.evaluation.patients import FIRST_HOURS, Patients
from tests.cohorts import cohorts, small_cohort


@pytest.fixture(scope="module")
def patients():
    return Patients(small_cohort(40))


def test_a_sample_has_whole_patients(patients):
    some = patients.sample(7, seed=1)
    assert len(some) == 7
    assert set(some.subjects) <= set(patients.subjects)
    whole = patients.stays[patients.stays["subject_id"].isin(some.subjects)]
    assert some.stays["stay_id"].tolist() == whole["stay_id"].tolist()
    for name in ("codes", "measurements"):
        mine = patients.cohort.table(name)
        expected = mine[mine["stay_id"].isin(whole["stay_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(some.cohort.table(name), expected)
    assert patients.sample(7, seed=1).subjects.tolist() == some.subjects.tolist()
    assert patients.sample(7, seed=2).subjects.tolist() != some.subjects.tolist()
    assert patients.sample(40, seed=1) is patients


def test_first_stays(patients):
    assert len(patients.first.stays) == len(patients.first) == len(patients)
    assert set(patients.first.stays["stay_index"]) == {0}


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(cohort=cohorts())
def test_the_grid_holds_every_measurement_of_any_cohort(cohort):
    patients = Patients(cohort)
    grid = patients.grid
    assert len(grid.hours) == cohort.counts()["time_points"]
    assert grid.observed.sum() == len(cohort.measurements)
    names = [v.name for v in cohort.schema.variables]
    point = {(s, h): i for i, (s, h) in enumerate(zip(grid.stay, grid.hours, strict=True))}
    place = {stay: i for i, stay in enumerate(cohort.stays["stay_id"])}
    for row in cohort.measurements.itertuples():
        column = names.index(row.variable)
        found = grid.values[point[place[row.stay_id], row.hours], column]
        variable = cohort.schema.variables[column]
        if variable.kind == "categorical":
            assert variable.levels[int(found)] == row.level
        else:
            assert found == np.float32(row.value)


def test_presence_and_codes(patients):
    vocabulary = pd.Index(["icd9_diagnosis:4019", "icd9_procedure:9604", "nowhere:1"])
    found = patients.presence(vocabulary).toarray()
    codes = patients.cohort.codes
    for column, text in enumerate(vocabulary):
        system, code = text.split(":")
        having = codes.loc[(codes["system"] == system) & (codes["code"] == code), "stay_id"]
        assert (found[:, column] == patients.stays["stay_id"].isin(having)).all()
    assert found.sum() > 0
    assert patients.coded["stay"].is_monotonic_increasing


def test_the_embedding_sums_up_the_first_hours(patients):
    names = patients.embedding_names()
    table = pd.DataFrame(patients.embedding, columns=names)
    rows = patients.cohort.measurements
    rows = rows[rows["hours"] < FIRST_HOURS]
    for place in (0, 5, 17):
        stay = patients.stays["stay_id"].iloc[place]
        mine = rows[(rows["stay_id"] == stay) & (rows["variable"] == "Lactate")]["value"]
        found = [table.loc[place, f"Lactate, {what}"] for what in ("min", "max", "mean", "sd")]
        expected = [mine.min(), mine.max(), mine.mean(), mine.std()]
        assert found == pytest.approx(expected, rel=1e-5, nan_ok=True)
