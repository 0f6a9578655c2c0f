"""A cohort in the folders of the mimic3-benchmarks, read as its programs read them."""

import re

import numpy as np
import pandas as pd
import pytest

from synehrgy.cohort import (
    CodeSystem,
    Covariate,
    Label,
    Schema,
    Variable,
    export_benchmark,
    read_cohort,
)
from synehrgy.cohort.benchmark import LISTS
from synehrgy.cohort.channels import channel_of, check_series, texts
from synehrgy.errors import UserError
from synehrgy.sources.extraction.resources import PROFILES
from synehrgy.sources.mimic3 import MIMIC3
from tests.cohort.benchmark_reader import CORE, POSSIBLE, discretise, read_list, read_series
from tests.cohorts import build, small_cohort, write

TASKS = ["in-hospital-mortality", "decompensation", "length-of-stay", "phenotyping"]
MORTALITY = Label("in_hospital_mortality", "In-hospital mortality", "outcome")
SCHEMA = Schema(
    name="hand",
    source="test",
    covariates=[
        Covariate("age", "continuous", unit="years"),
        Covariate("gender", "categorical", levels=["F", "M", "X"]),
    ],
    labels=[
        MORTALITY,
        Label("shock", "Shock", "phenotype"),
        Label(
            "pneumonia",
            "Pneumonia (except tuberculosis or sexually transmitted)",
            "phenotype",
            system="icd9_diagnosis",
            codes=["486"],
        ),
        Label("cold", "Cold, common", "phenotype"),
    ],
    variables=[
        Variable("Capillary refill rate", "categorical", levels=["Normal", "Abnormal"]),
        Variable("Fraction inspired oxygen", "continuous", unit="fraction"),
        Variable(
            "Glasgow coma scale eye opening",
            "categorical",
            levels=["No Response", "To Pain", "To Speech", "Spontaneously"],
        ),
        Variable("Glasgow coma scale total", "categorical", levels=["3", "15"]),
        Variable("Lactate", "continuous", unit="mmol/L"),
        Variable("Temperature", "continuous", unit="°C"),
        Variable("Weight", "continuous", unit="kg"),
    ],
    code_systems=[CodeSystem("icd9_diagnosis", "D"), CodeSystem("icd9_procedure", "P")],
)
# subject, stay, admission, index, split, age, gender, died, shock, pneumonia, cold, hours
STAYS = [
    [1, 10, 100, 0, "train", 60.0, "F", 0, 0, 1, 0, 48.0],
    [1, 11, 101, 1, "train", 61.0, "F", 1, 1, 0, 1, 30.5],
    [2, 20, 200, 0, "val", 70.0, "M", 0, 0, 0, 0, 5.0],
    [3, 30, None, 0, "test", None, None, 1, 0, 0, 0, 72.0],
    [4, 40, None, 0, None, 40.0, "X", 0, 0, 0, 0, 100.0],
    [5, 50, None, 0, "train", 40.0, "M", 0, 0, 0, 0, None],
    [6, 60, None, 0, "test", 40.0, "M", 0, 0, 0, 0, 60.0],
]
CODES = [
    [10, 0, "icd9_diagnosis", "486"],
    [10, 1, "icd9_diagnosis", "0389"],
    [10, 2, "icd9_procedure", "3893"],
    [11, 0, "icd9_diagnosis", 'a,"b'],
]
MEASUREMENTS = [
    [10, 0.0, "Capillary refill rate", None, "Abnormal"],
    [10, 0.0, "Weight", 80.5, None],
    [10, 0.5, "Lactate", 2.0, None],
    [10, 1.25, "Glasgow coma scale eye opening", None, "To Speech"],
    [10, 1.25, "Glasgow coma scale total", None, "15"],
    [10, 1.25, "Temperature", 36.6, None],
    [10, 48.0, "Fraction inspired oxygen", 0.4, None],
    [11, 7.5, "Weight", 79.0, None],
    [20, 6.0, "Weight", 79.0, None],
    [30, 50.0, "Temperature", 37.0, None],
    [40, 3.0, "Temperature", 37.0, None],
    [40, 48.5, "Temperature", 38.0, None],
    [50, 3.0, "Temperature", 37.0, None],
    [60, 3.0, "Lactate", 1.0, None],
]


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    write(build(SCHEMA, STAYS, CODES, MEASUREMENTS), folder / "cohort")
    files = export_benchmark(folder / "cohort", folder / "data")
    assert all(file.is_file() for file in files)
    return folder / "data"


def listed(folder, task, name):
    return read_list(folder / task / name)[1]


def file_of(subject, episode=1):
    return f"{subject}_episode{episode}_timeseries.csv"


def test_the_first_48_hours_of_stays_that_are_as_long(hand):
    task = "in-hospital-mortality"
    assert read_list(hand / task / "train" / "listfile.csv")[0] == ["stay", "y_true"]
    rows = listed(hand, task, "train/listfile.csv")
    # Of the patient 3 nothing is known in these hours, of 6 nothing in the channels.
    assert sorted(rows) == [[file_of(1), "0"], [file_of(4), "0"]]
    assert listed(hand, task, "test/listfile.csv") == []
    assert [row[0] for row in read_series(hand / task / "train" / file_of(4))] == ["3"]
    assert [row[0] for row in read_series(hand / task / "train" / file_of(1))] == [
        "0",
        "1.25",
        "48",
    ]


def test_values_as_the_discretiser_takes_them(hand):
    data = discretise(read_series(hand / "in-hospital-mortality" / "train" / file_of(1)), end=48.0)
    columns = {}
    for channel in CORE:
        width = {"Capillary refill rate": 2}.get(channel, 1)
        width = 8 if "eye" in channel else 12 if re.search("motor|verbal", channel) else width
        width = 13 if "total" in channel else width
        start = sum(len(c) for c in columns.values())
        columns[channel] = range(start, start + width)
    assert data.shape == (48, 59)
    expected = np.zeros((48, 59))
    expected[0, columns["Capillary refill rate"][1]] = 1
    expected[0, columns["Weight"]] = 80.5
    expected[1, columns["Glascow coma scale eye opening"][1]] = 1
    expected[1, columns["Glascow coma scale total"][4]] = 1
    expected[1, columns["Temperature"]] = 36.6
    expected[47, columns["Fraction inspired oxygen"]] = 0.4
    np.testing.assert_array_equal(data, expected)


def test_decompensation_is_death_within_a_day_at_each_full_hour(hand):
    header, rows = read_list(hand / "decompensation" / "train" / "listfile.csv")
    assert header == ["stay", "period_length", "y_true"]
    mine = sorted((float(t), int(y)) for file, t, y in rows if file == file_of(1, 2))
    # Measured first after 7.5 hours, dead after 30.5.
    assert mine == [(float(t), int(30.5 - t < 24)) for t in range(8, 31)]
    mine = sorted((float(t), int(y)) for file, t, y in rows if file == file_of(1))
    assert mine == [(float(t), 0) for t in range(5, 49)]
    rows = listed(hand, "decompensation", "test/listfile.csv")
    assert rows == [[file_of(3), f"{t}.000000", "1"] for t in range(51, 73)]


def test_what_remains_of_the_stay_at_each_full_hour(hand):
    rows = listed(hand, "length-of-stay", "train/listfile.csv")
    mine = sorted((float(t), float(y)) for file, t, y in rows if file == file_of(1, 2))
    assert mine == [(float(t), 30.5 - t) for t in range(8, 31)]
    assert {file for file, _, _ in rows} == {file_of(1), file_of(1, 2), file_of(4)}
    for file, t, _ in rows:
        read_series(hand / "length-of-stay" / "train" / file, float(t))


def test_phenotypes_have_the_titles_and_order_of_the_benchmark(hand):
    header, rows = read_list(hand / "phenotyping" / "train" / "listfile.csv")
    pneumonia = "Pneumonia (except that caused by tuberculosis or sexually transmitted disease)"
    assert header == ["stay", "period_length", "Cold; common", pneumonia, "Shock"]
    assert sorted(rows) == [
        [file_of(1), "48.000000", "0", "1", "0"],
        [file_of(1, 2), "30.500000", "1", "0", "1"],
        [file_of(4), "100.000000", "0", "0", "0"],
    ]
    # The only value of the patient 2 comes after the stay.
    assert listed(hand, "phenotyping", "val_listfile.csv") == []


def test_the_folders_of_the_patients(hand):
    folders = {p.relative_to(hand / "root").as_posix() for p in (hand / "root").glob("*/*")}
    assert folders == {*(f"train/{i}" for i in (1, 2, 4, 5)), "test/3", "test/6"}
    home = hand / "root" / "train" / "1"
    assert {f.name for f in home.iterdir()} == {
        "stays.csv",
        "diagnoses.csv",
        *(f"episode{i}{what}.csv" for i in (1, 2) for what in ("", "_timeseries")),
    }
    assert {f.name for f in (hand / "root" / "test" / "6").iterdir()} == {
        "stays.csv",
        "diagnoses.csv",
    }
    stays = pd.read_csv(home / "stays.csv")
    assert stays["ICUSTAY_ID"].tolist() == [10, 11]
    assert stays["INTIME"].tolist() == ["2100-01-01 00:00:00", "2101-01-01 06:00:00"]
    assert stays["OUTTIME"].tolist() == ["2100-01-03 00:00:00", "2101-01-02 12:30:00"]
    assert stays["DEATHTIME"].isna().tolist() == [True, False]
    assert stays["DEATHTIME"][1] == stays["OUTTIME"][1]
    assert stays["LOS"].tolist() == [2.0, 30.5 / 24]
    diagnoses = pd.read_csv(home / "diagnoses.csv", dtype={"ICD9_CODE": str})
    assert diagnoses["ICD9_CODE"].tolist() == ["486", "0389", 'a,"b']
    assert diagnoses["SEQ_NUM"].tolist() == [1, 2, 1]
    assert diagnoses["USE_IN_BENCHMARK"].tolist() == [1, 0, 0]
    assert diagnoses["HCUP_CCS_2015"][0].startswith("Pneumonia")
    episode = pd.read_csv(home / "episode1.csv")
    facts = {"Icustay": 10, "Gender": 1, "Age": 60, "Weight": 80.5, "Length of Stay": 2}
    assert episode.iloc[0][list(facts)].to_dict() == facts
    assert episode["Height"].isna().all()
    assert pd.read_csv(hand / "root" / "train" / "4" / "episode1.csv")["Gender"].item() == 3
    assert pd.read_csv(hand / "root" / "test" / "3" / "episode1.csv")["Gender"].item() == 0


@pytest.mark.parametrize("task", TASKS)
def test_lists_of_the_splits(task, tmp_path):
    cohort = small_cohort(30)
    write(cohort, tmp_path / "cohort")
    export_benchmark(tmp_path / "cohort", tmp_path / "data")
    split = dict(zip(cohort.stays["subject_id"].astype(str), cohort.stays["split"], strict=True))
    rows = {name: listed(tmp_path / "data", task, name) for name in LISTS}
    for name in ("train", "val", "test"):
        found = rows[f"{name}_listfile.csv"]
        assert found
        assert {split[row[0].split("_")[0]] for row in found} == {name}
    assert (
        rows["test/listfile.csv"]
        == rows["test_listfile.csv"]
        == sorted(rows["test_listfile.csv"], key=lambda row: (row[0], float(row[1])))
    )
    both = rows["train_listfile.csv"] + rows["val_listfile.csv"]
    assert sorted(rows["train/listfile.csv"]) == sorted(both)
    assert rows["train/listfile.csv"] != sorted(rows["train/listfile.csv"])
    for side in ("train", "test"):
        files = {f.name for f in (tmp_path / "data" / task / side).glob("*timeseries.csv")}
        assert {row[0] for row in rows[f"{side}/listfile.csv"]} <= files


def test_every_value_of_the_demo_is_in_its_place(demo_cohort, tmp_path):
    export_benchmark(demo_cohort, tmp_path / "data")
    cohort = read_cohort(demo_cohort)
    assert len(list((tmp_path / "data" / "root" / "test").iterdir())) > 5
    spellings = {item_set.name: item_set.levels for item_set in MIMIC3.profile("paper").item_sets}
    spellings["Capillary refill rate"] = {"Normal": ["0.0"], "Abnormal": ["1.0"]}
    for subject, stays in cohort.stays.groupby("subject_id"):
        for stay in stays.itertuples():
            mine = cohort.measurements[cohort.measurements["stay_id"] == stay.stay_id]
            mine = mine[mine["variable"].map(channel_of).isin(CORE)]
            side = "test" if stay.split == "test" else "train"
            name = f"episode{stay.stay_index + 1}_timeseries.csv"
            rows = read_series(tmp_path / "data" / "root" / side / str(subject) / name)
            found = {
                (float(row[0]), channel): text
                for row in rows
                for channel, text in zip(CORE, row[1:], strict=True)
                if text
            }
            assert len(found) == len(mine)
            for row in mine.itertuples():
                text = found[row.hours, channel_of(row.variable)]
                if pd.isna(row.level):
                    assert float(text) == row.value
                else:
                    assert text.lower() in spellings[row.variable][row.level]
            discretise(rows, end=stay.los_hours)


@pytest.mark.parametrize("task", TASKS)
def test_every_example_of_the_demo_can_be_read(task, demo_cohort, tmp_path):
    export_benchmark(demo_cohort, tmp_path / "data")
    folder = tmp_path / "data" / task
    n_examples = 0
    for side in ("train", "test"):
        header, rows = read_list(folder / side / "listfile.csv")
        assert len(header) == {"phenotyping": 27, "in-hospital-mortality": 2}.get(task, 3)
        for row in rows[:: 1 if task in ("phenotyping", "in-hospital-mortality") else 37]:
            end = 48.0 if task == "in-hospital-mortality" else float(row[1])
            data = discretise(read_series(folder / side / row[0], end), end)
            assert data.any()
            n_examples += 1
    assert n_examples > 40


@pytest.mark.parametrize("profile", PROFILES)
def test_levels_of_mimic_are_texts_that_mimic_has_and_the_benchmark_knows(profile):
    item_sets = [s for s in MIMIC3.profile(profile).item_sets if channel_of(s.name) in CORE]
    # All channels but height and weight.
    assert len(item_sets) == 15
    variables = [Variable(s.name, s.kind, s.unit, list(s.levels)) for s in item_sets]
    check_series(Schema("s", "test", variables=variables))
    categorical = [(v, s) for v, s in zip(variables, item_sets, strict=True) if v.levels]
    assert {channel_of(v.name) for v, _ in categorical} == set(POSSIBLE)
    for variable, item_set in categorical:
        found = texts(variable, pd.Series(variable.levels))
        assert set(found) <= set(POSSIBLE[channel_of(variable.name)])
        if variable.name == "Capillary refill rate":
            assert found.tolist() == ["0.0", "1.0"]
            continue
        for level, text in zip(variable.levels, found, strict=True):
            assert text.lower() in item_set.levels[level]


def only(variable):
    schema = Schema("s", "test", labels=[MORTALITY], variables=[variable])
    value = None if variable.levels else 98.6
    level = variable.levels[0] if variable.levels else None
    return build(
        schema, [[1, 1, None, 0, "train", 0, 50.0]], [], [[1, 1.0, variable.name, value, level]]
    )


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (Variable("Temperature", "continuous", unit="°F"), 37.0),
        (Variable("Fraction inspired oxygen", "continuous", unit="%"), 0.986),
        (Variable("Height", "continuous", unit="in"), 98.6 * 2.54),
        (Variable("Weight", "continuous"), 98.6),
    ],
)
def test_values_are_in_the_units_of_the_benchmark(variable, expected, tmp_path):
    write(only(variable), tmp_path / "cohort")
    export_benchmark(tmp_path / "cohort", tmp_path / "data")
    (row,) = read_series(tmp_path / "data" / "in-hospital-mortality" / "train" / file_of(1))
    assert float(row[1 + CORE.index(variable.name)]) == pytest.approx(expected)
    assert not (tmp_path / "data" / "phenotyping").exists()


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (Variable("Temperature", "continuous", unit="K"), "unit 'K' has no counterpart"),
        (Variable("Capillary refill rate", "categorical", levels=["slow"]), "level 'slow' has no"),
        (Variable("Heart Rate", "categorical", levels=["a"]), "continuous in the benchmark"),
    ],
)
def test_series_of_another_meaning_are_refused(variable, message, tmp_path):
    write(only(variable), tmp_path / "cohort")
    with pytest.raises(UserError, match=message):
        export_benchmark(tmp_path / "cohort", tmp_path / "data")
    assert [entry.name for entry in tmp_path.iterdir()] == ["cohort"]


def test_a_cohort_without_mortality_or_patients_is_refused(tmp_path):
    write(build(Schema("s", "t"), [[1, 1, None, 0, None, 5.0]], [], []), tmp_path / "plain")
    with pytest.raises(UserError, match="has no label 'in_hospital_mortality'"):
        export_benchmark(tmp_path / "plain", tmp_path / "data")
    write(small_cohort(2).select(subjects=[]), tmp_path / "empty")
    with pytest.raises(UserError, match="has no patient"):
        export_benchmark(tmp_path / "empty", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_without_splits_all_are_in_train(tmp_path):
    cohort = small_cohort(5)
    cohort.stays["split"] = None
    write(cohort, tmp_path / "cohort")
    export_benchmark(tmp_path / "cohort", tmp_path / "data")
    for task in TASKS[1:]:
        train = listed(tmp_path / "data", task, "train/listfile.csv")
        assert train == listed(tmp_path / "data", task, "train_listfile.csv") != []
        assert listed(tmp_path / "data", task, "val_listfile.csv") == []
        assert listed(tmp_path / "data", task, "test_listfile.csv") == []


def test_its_own_folder_is_replaced_but_nothing_else(tmp_path):
    write(small_cohort(5), tmp_path / "cohort")
    files = export_benchmark(tmp_path / "cohort", tmp_path / "data")
    files[0].unlink()
    export_benchmark(tmp_path / "cohort", tmp_path / "data")
    assert files[0].exists()
    (tmp_path / "data" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not written by this program"):
        export_benchmark(tmp_path / "cohort", tmp_path / "data")
