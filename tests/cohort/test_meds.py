"""A cohort as a MEDS dataset, checked against the schema of the package ``meds``."""

import re
from functools import partial

import meds
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.cohort import (
    CodeSystem,
    Covariate,
    Label,
    Schema,
    Variable,
    export_meds,
    read_cohort,
    read_parts,
)
from synehrgy.cohort.meds import _exact_text, coded
from synehrgy.errors import UserError
from synehrgy.files import read_json, read_yaml
from tests.cohorts import build, cohorts, small_cohort, write

DAY = pd.Timedelta(days=1)
FIRST = pd.Timestamp("2100-01-01")

SCHEMA = Schema(
    name="hand",
    source="test",
    covariates=[
        Covariate("age", "continuous", unit="years"),
        Covariate("gender", "categorical", levels=["F", "M"]),
        Covariate("ward", "categorical", levels=["A", "B"]),
    ],
    labels=[Label("in_hospital_mortality", "In-hospital mortality", "outcome")],
    variables=[
        Variable("Coma", "categorical", levels=["3", "15", "Unable"]),
        Variable("Heart Rate", "continuous", unit="bpm"),
    ],
    code_systems=[CodeSystem("icd9_diagnosis", "ICD-9-CM diagnoses"), CodeSystem("own", "Own")],
)
# subject, stay, admission, index, split, age, gender, ward, died, length in hours
STAYS = [
    [7, 70, 700, 0, "train", 60.0, "F", "A", 0, 24.0],
    [7, 71, 701, 1, "train", 62.0, "F", "B", 1, 36.0],
    [8, 80, None, 0, "val", None, "M", None, 1, None],
    [8, 81, None, 1, "val", 90.0, "F", None, 0, 10.0],
    [8, 82, None, 2, "val", 90.0, "F", None, 0, 10.0],
    [9, 90, None, 0, None, 30.0, None, "A", 0, 0.0],
    [10, 95, None, 0, "test", 30.0, None, "A", 0, 1.0],
]
CODES = [[71, 0, "icd9_diagnosis", "0389"], [71, 1, "own", "x"]]
MEASUREMENTS = [
    [70, 0.5, "Coma", None, "15"],
    [70, 0.5, "Heart Rate", 80.1, None],
    [70, 1 + 1 / 60, "Coma", None, "Unable"],
    [80, 5.0, "Heart Rate", 70.0, None],
]


def export(cohort, folder):
    write(cohort, folder / "cohort")
    return export_meds(folder / "cohort", folder / "meds")


def read_meds(folder):
    """The events of each split, and the metadata, all checked against the standard."""
    splits = pq.read_table(folder / meds.subject_splits_filepath)
    meds.SubjectSplitSchema.validate(splits)
    described = pq.read_table(folder / meds.code_metadata_filepath)
    meds.CodeMetadataSchema.validate(described)
    meds.DatasetMetadataSchema.validate(read_json(folder / meds.dataset_metadata_filepath))
    split_of = dict(zip(*splits.to_pydict().values(), strict=True))
    assert len(split_of) == len(splits)
    seen, events = set(), {}
    for file in sorted((folder / meds.data_subdirectory).rglob("*.parquet")):
        table = pq.read_table(file, partitioning=None)
        meds.DataSchema.validate(table)
        frame = table.to_pandas()
        subjects = frame["subject_id"].drop_duplicates()
        assert not seen & set(subjects)
        assert subjects.is_monotonic_increasing
        assert (frame["subject_id"].diff().dropna() >= 0).all()
        for _, mine in frame.groupby("subject_id"):
            dated = mine["time"].notna().to_numpy()
            assert not (dated[:-1] & ~dated[1:]).any()
            assert mine["time"].dropna().is_monotonic_increasing
        seen |= set(subjects)
        split = file.parent.name
        assert {split_of[subject] for subject in subjects} <= {split}
        events.setdefault(split, []).append(frame)
    found = {split: pd.concat(frames, ignore_index=True) for split, frames in events.items()}
    codes = described["code"].to_pylist()
    assert len(set(codes)) == len(codes)
    assert set(codes) == {code for frame in found.values() for code in frame["code"]}
    return found, described.to_pandas().set_index("code"), split_of


def told(frame):
    """Events as tuples, with a float for the number and None where there is nothing."""
    rows = frame[["time", "code", "numeric_value", "text_value", "stay_id"]].astype(object)
    return [tuple(None if pd.isna(x) else x for x in row) for row in rows.to_numpy()]


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meds")
    files = export(build(SCHEMA, STAYS, CODES, MEASUREMENTS), folder)
    assert all(file.is_file() for file in files)
    assert {f for f in (folder / "meds").rglob("*") if f.is_file()} == set(files)
    return read_meds(folder / "meds")


def test_a_patient_told_by_hand(hand):
    events, _, _ = hand
    train = events["train"]
    second = FIRST + 2 * 365.25 * DAY
    end = second + 1.5 * DAY
    born = FIRST - 60 * 365.25 * DAY
    first_minutes = FIRST + pd.Timedelta(minutes=61)
    assert told(train[train["subject_id"] == 7]) == [
        (None, "GENDER//F", None, None, None),
        (born, "MEDS_BIRTH", None, None, None),
        (FIRST, "ICU_ADMISSION", None, None, 70),
        (FIRST, "AGE//years", 60.0, None, 70),
        (FIRST, "WARD//A", None, None, 70),
        (FIRST + DAY / 48, "MEASUREMENT//Coma//UNK", 15.0, "15", 70),
        (FIRST + DAY / 48, "MEASUREMENT//Heart Rate//bpm", float(np.float32(80.1)), None, 70),
        (first_minutes, "MEASUREMENT//Coma//UNK", None, "Unable", 70),
        (FIRST + DAY, "LABEL//in_hospital_mortality", 0.0, None, 70),
        (FIRST + DAY, "ICU_DISCHARGE", 24.0, None, 70),
        (second, "ICU_ADMISSION", None, None, 71),
        (second, "AGE//years", 62.0, None, 71),
        (second, "WARD//B", None, None, 71),
        (end, "DIAGNOSIS//ICD//9//0389", None, None, 71),
        (end, "own//x", None, None, 71),
        (end, "LABEL//in_hospital_mortality", 1.0, None, 71),
        (end, "ICU_DISCHARGE", 36.0, None, 71),
        (end, "MEDS_DEATH", None, None, None),
    ]


def test_stays_without_age_or_length_follow_each_other(hand):
    events, _, _ = hand
    tuning = events["tuning"]
    admitted = tuning[tuning["code"] == "ICU_ADMISSION"]["time"].tolist()
    # The first ends with its measurement; the ages of the others leave no time between them.
    starts = [0, 5 + 24, 5 + 24 + 10 + 24]
    assert admitted == [FIRST + pd.Timedelta(hours=h) for h in starts]
    assert tuning[tuning["code"] == "ICU_DISCHARGE"]["stay_id"].tolist() == [81, 82]
    birth = tuning[tuning["code"] == "MEDS_BIRTH"]["time"].item()
    assert birth == FIRST + pd.Timedelta(hours=29) - 90 * 365.25 * DAY


def test_a_death_before_other_stays_is_a_label_only(hand):
    events, _, _ = hand
    tuning = events["tuning"]
    assert "MEDS_DEATH" not in set(tuning["code"])
    label = tuning[tuning["code"] == "LABEL//in_hospital_mortality"]
    assert label["numeric_value"].tolist() == [1, 0, 0]


def test_a_gender_that_changes_is_told_at_each_admission(hand):
    tuning = hand[0]["tuning"]
    found = tuning[tuning["code"].str.startswith("GENDER")]
    assert found["code"].tolist() == ["GENDER//M", "GENDER//F", "GENDER//F"]
    assert found["time"].notna().all()


def test_splits_have_the_names_of_the_standard(hand):
    _, _, split_of = hand
    assert split_of == {7: "train", 8: "tuning", 9: "unassigned", 10: "held_out"}
    assert {meds.train_split, meds.tuning_split, meds.held_out_split} < set(split_of.values())


def test_patients_without_any_split_are_for_training(tmp_path):
    cohort = build(SCHEMA, [[*row[:4], None, *row[5:]] for row in STAYS], CODES, MEASUREMENTS)
    export(cohort, tmp_path)
    events, _, split_of = read_meds(tmp_path / "meds")
    assert set(events) == set(split_of.values()) == {"train"}
    mapping = read_yaml(tmp_path / "meds" / "metadata" / "mapping.yaml")
    assert mapping["splits"] == {}


def test_numbers_that_32_bits_cannot_hold_are_text_too():
    numbers = np.array([80.1, 1234.56, -0.000123, 999999.0, np.nan, 36.6111111, 2**24 + 1, 1e-7])
    found = _exact_text(numbers).to_pylist()
    assert found == [None] * 5 + ["36.6111111", "16777217", "1e-7"]


@settings(max_examples=300)
@given(st.floats(-1e12, 1e12))
def test_a_number_without_text_has_its_decimals_in_32_bits(number):
    if _exact_text(np.array([number])).to_pylist() == [None]:
        assert float(str(np.float32(number))) == number


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (
            {"variables": [Variable("a", "continuous"), Variable("a//UNK", "continuous", "b")]},
            None,
        ),
        (
            {
                "variables": [
                    Variable("a", "continuous", "b//c"),
                    Variable("a//b", "continuous", "c"),
                ]
            },
            "series 'a' and series 'a//b' would have the same code 'MEASUREMENT//a//b//c'",
        ),
        (
            {
                "covariates": [Covariate("s", "categorical", levels=["x"])],
                "code_systems": [CodeSystem("S", "S")],
            },
            "covariate 's' has the code 'S//x' in MEDS, as if it were of code system 'S'",
        ),
    ],
)
def test_names_that_would_be_the_same_code_are_refused(schema, says, tmp_path):
    cohort = build(Schema("s", "test", **schema), [], [], [])
    if says is None:
        export(cohort, tmp_path)
        return
    with pytest.raises(UserError, match=re.escape(says)):
        export(cohort, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cohort"]


def test_codes_are_described(hand):
    _, described, _ = hand
    assert described.loc["MEASUREMENT//Heart Rate//bpm", "description"] == "Heart Rate (bpm)"
    assert described.loc["DIAGNOSIS//ICD//9//0389", "description"] == "ICD-9-CM diagnoses: 0389"
    assert described.loc["DIAGNOSIS//ICD//9//0389", "parent_codes"].tolist() == ["ICD9CM/038.9"]
    assert described.loc[meds.birth_code, "description"] == "Birth"


@pytest.mark.parametrize(
    ("system", "code", "expected"),
    [
        ("icd9_diagnosis", "4019", ("DIAGNOSIS//ICD//9//4019", ["ICD9CM/401.9"])),
        ("icd9_diagnosis", "486", ("DIAGNOSIS//ICD//9//486", ["ICD9CM/486"])),
        ("icd9_diagnosis", "V5861", ("DIAGNOSIS//ICD//9//V5861", ["ICD9CM/V58.61"])),
        ("icd9_diagnosis", "E8788", ("DIAGNOSIS//ICD//9//E8788", ["ICD9CM/E878.8"])),
        ("icd9_procedure", "0066", ("PROCEDURE//ICD//9//0066", ["ICD9Proc/00.66"])),
        ("icd10_diagnosis", "E119", ("DIAGNOSIS//ICD//10//E119", ["ICD10CM/E11.9"])),
        ("icd10_procedure", "0DB6", ("PROCEDURE//ICD//10//0DB6", ["ICD10PCS/0DB6"])),
        ("icd10_diagnosis", "E11.9", ("DIAGNOSIS//ICD//10//E11.9", ["ICD10CM/E11.9"])),
        ("atc", "N02.1", ("atc//N02.1", [])),
    ],
)
def test_codes_are_written_as_in_public_extractions(system, code, expected):
    assert coded(system, code) == expected


def assert_cohort_comes_back(cohort, events):
    """Measurements, codes, labels and lengths of all stays, from the events alone."""
    events = pd.concat(events.values(), ignore_index=True)
    of_stay = events[events["stay_id"].notna()].astype({"stay_id": "int64"})
    start = of_stay[of_stay["code"] == "ICU_ADMISSION"].set_index("stay_id")["time"]
    assert sorted(start.index) == sorted(cohort.stays["stay_id"])
    hours = (of_stay["time"] - of_stay["stay_id"].map(start)) / pd.Timedelta(hours=1)
    of_stay = of_stay.assign(hours=hours)
    rank = {stay: i for i, stay in enumerate(cohort.stays["stay_id"])}
    of_stay = of_stay.sort_values("stay_id", key=lambda s: s.map(rank), kind="stable")

    measured = of_stay[of_stay["code"].str.startswith("MEASUREMENT//")]
    units = {v.name: f"MEASUREMENT//{v.name}//{v.unit or 'UNK'}" for v in cohort.schema.variables}
    expected = cohort.measurements
    assert measured["stay_id"].tolist() == expected["stay_id"].tolist()
    assert measured["code"].tolist() == [units[name] for name in expected["variable"]]
    # To the microsecond of the dates.
    np.testing.assert_allclose(measured["hours"], expected["hours"], rtol=0, atol=3e-10)
    given = expected["value"].notna().to_numpy()
    assert measured["text_value"][~given].tolist() == expected["level"][~given].tolist()
    np.testing.assert_array_equal(
        measured["numeric_value"].to_numpy()[given],
        expected["value"].to_numpy()[given].astype("float32"),
    )

    names = [
        coded(system, code)[0]
        for system, code in zip(cohort.codes["system"], cohort.codes["code"], strict=True)
    ]
    found = of_stay[of_stay["code"].isin(names)]
    assert found["stay_id"].tolist() == cohort.codes["stay_id"].tolist()
    assert found["code"].tolist() == names

    for label in cohort.schema.labels:
        found = of_stay[of_stay["code"] == f"LABEL//{label.column}"]
        assert found["numeric_value"].tolist() == cohort.stays[label.column].tolist()
    known = cohort.stays[cohort.stays["los_hours"].notna()]
    left = of_stay[of_stay["code"] == "ICU_DISCHARGE"]
    assert left["stay_id"].tolist() == known["stay_id"].tolist()
    np.testing.assert_allclose(left["hours"], known["los_hours"], rtol=0, atol=3e-10)

    # Stays of a patient are in order and do not overlap.
    span = of_stay.groupby("stay_id", sort=False)["time"].agg(["min", "max"])
    span = span.loc[cohort.stays["stay_id"]]
    later = (cohort.stays["stay_index"] > 0).to_numpy()
    assert (span["min"].to_numpy() >= span["max"].shift().to_numpy())[later].all()


@settings(max_examples=40, deadline=None)
@given(cohort=cohorts())
def test_any_cohort_is_valid_and_comes_back(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("meds")
    export(cohort, folder)
    events, _, split_of = read_meds(folder / "meds")
    assert set(split_of) == set(cohort.stays["subject_id"])
    assert_cohort_comes_back(cohort, events)


def test_more_patients_than_a_part_are_in_several_shards(tmp_path, monkeypatch):
    cohort = small_cohort(20)
    monkeypatch.setattr("synehrgy.cohort.meds.read_parts", partial(read_parts, n_patients=6))
    files = export(cohort, tmp_path)
    shards = [f.relative_to(tmp_path / "meds").as_posix() for f in files if "data" in f.parts]
    assert {f"data/train/{i}.parquet" for i in range(3)} <= set(shards)
    assert_cohort_comes_back(cohort, read_meds(tmp_path / "meds")[0])


def test_the_demo(demo_cohort, tmp_path):
    export_meds(demo_cohort, tmp_path / "meds")
    events, _, _ = read_meds(tmp_path / "meds")
    cohort = read_cohort(demo_cohort)
    assert_cohort_comes_back(cohort, events)
    events = pd.concat(events.values())
    birth = events[events["code"] == meds.birth_code].set_index("subject_id")["time"]
    admitted = events[events["code"] == "ICU_ADMISSION"]
    age = (admitted["time"] - admitted["subject_id"].map(birth)) / (365.25 * DAY)
    # An age is exact to the second of the admission; of the oldest, whose age is cut, it grows.
    expected = admitted["stay_id"].map(cohort.stays.set_index("stay_id")["age"])
    assert ((age - expected).abs() < 1e-7)[expected < 90].all()
    assert (age >= expected - 1e-7).all()


def test_its_own_dataset_is_replaced_but_nothing_else(tmp_path):
    files = export(small_cohort(5), tmp_path)
    files[-1].unlink()
    export_meds(tmp_path / "cohort", tmp_path / "meds")
    assert files[-1].exists()
    (tmp_path / "meds" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not written by this program"):
        export_meds(tmp_path / "cohort", tmp_path / "meds")


@pytest.mark.parametrize("content", ['{"etl_name": "other"}', "{}", "[]"])
def test_a_dataset_of_another_program_is_kept(tmp_path, content):
    write(small_cohort(5), tmp_path / "cohort")
    about = tmp_path / "meds" / "metadata" / "dataset.json"
    about.parent.mkdir(parents=True)
    (tmp_path / "meds" / "data").mkdir()
    about.write_text(content)
    with pytest.raises(UserError, match="not written by this program"):
        export_meds(tmp_path / "cohort", tmp_path / "meds")


def test_a_stay_of_a_century_is_refused_and_nothing_is_left(tmp_path):
    cohort = build(Schema("s", "test"), [[1, 5, None, 0, None, 1e6]], [], [])
    write(cohort, tmp_path / "cohort")
    with pytest.raises(UserError, match="Stay 5 lasts 1e\\+06 hours"):
        export_meds(tmp_path / "cohort", tmp_path / "meds")
    assert [entry.name for entry in tmp_path.iterdir()] == ["cohort"]


def test_a_cohort_without_patients_is_an_empty_dataset(tmp_path):
    export(small_cohort(2).select(subjects=[]), tmp_path)
    events, described, split_of = read_meds(tmp_path / "meds")
    assert (events, len(described), split_of) == ({}, 0, {})
    content = read_json(tmp_path / "meds" / meds.dataset_metadata_filepath)
    assert content["dataset_name"] == "small"
    assert content["meds_version"] == meds.__version__
