"""MIMIC-IV: its rules, on databases of a few rows, and MIMIC-III's demo rewritten into its form."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from synehrgy.cohort import Cohort, read_cohort, read_schema
from synehrgy.errors import UserError
from synehrgy.sources.mimic3 import extract as extract_mimic3
from synehrgy.sources.mimic4 import MIMIC4, extract
from tests.sources.mimic4_database import (
    COLUMNS,
    HOSP,
    LATER,
    admission,
    chart,
    code,
    database,
    lab,
    patient,
    stay,
    write_database,
)
from tests.sources.raw_database import at
from tests.sources.raw_tables import Database, Row

DEMO = Path(__file__).parents[2].parent / "shared" / "data" / "mimic3-demo"


def cohort_of(tmp_path: Path, rows: Database, **arguments: object) -> Cohort:
    raw = write_database(rows, tmp_path / "raw")
    extract(raw, tmp_path / "cohort", progress=False, **arguments)  # type: ignore[arg-type]
    return read_cohort(tmp_path / "cohort")


def values(cohort: Cohort, variable: str) -> list[float | str]:
    """The values or levels of a series, in order."""
    rows = cohort.measurements[cohort.measurements["variable"] == variable]
    return list(rows["value"].astype(object).where(rows["level"].isna(), rows["level"]))


def two_stays() -> Database:
    """A patient with two admissions of one stay each, the second 100 hours after the first."""
    second = {"hadm_id": 20, "stay_id": 200}
    return database(
        admissions=[admission(), admission(hadm_id=20, admittime=at(99), dischtime=at(150))],
        icustays=[stay(**second, intime=at(100), outtime=at(148)), stay()],
        chartevents=[chart(220045, "80"), chart(220045, "90", hours=101, **second)],
    )


# Files


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_a_cohort_of_each_form(tmp_path: Path, form: str) -> None:
    raw = write_database(two_stays(), tmp_path / "raw", form)
    summary = extract(raw, tmp_path / "cohort", progress=False)
    cohort = read_cohort(tmp_path / "cohort")
    assert cohort.schema.name == cohort.schema.source == "mimic4"
    stays = cohort.stays[["subject_id", "stay_id", "hadm_id", "stay_index", "los_hours"]]
    assert stays.to_numpy().tolist() == [[1, 100, 10, 0, 48], [1, 200, 20, 1, 48]]
    measurements = cohort.measurements[["stay_id", "hours", "value"]]
    assert measurements.to_numpy().tolist() == [[100, 1, 80], [200, 1, 90]]
    assert cohort.codes["code"].tolist() == ["A419", "5A1945Z"]
    assert summary.rows == {"chartevents": 2, "labevents": 0}
    _, provenance = read_schema(tmp_path / "cohort")
    assert provenance["sources"][0]["file"] == f"hosp/patients.{form}"


def test_version_2_has_fewer_columns(tmp_path: Path) -> None:
    assert any(column in names.split() for names in COLUMNS.values() for column in LATER)
    cohorts = []
    for without in ([], [*LATER]):
        raw = write_database(two_stays(), tmp_path / f"raw{len(without)}", without=without)
        extract(raw, tmp_path / f"cohort{len(without)}", progress=False)
        cohorts.append(read_cohort(tmp_path / f"cohort{len(without)}"))
    pd.testing.assert_frame_equal(cohorts[0].measurements, cohorts[1].measurements)
    pd.testing.assert_frame_equal(cohorts[0].stays, cohorts[1].stays)


def test_all_files_may_be_in_one_folder(tmp_path: Path) -> None:
    raw = write_database(database(), tmp_path / "raw")
    for file in [*raw.glob("*/*")]:
        file.rename(raw / file.name)
    extract(raw, tmp_path / "cohort", progress=False)
    assert len(read_cohort(tmp_path / "cohort").measurements) == 1


def numeric_codes(raw: Path) -> None:
    (raw / "hosp" / "diagnoses_icd.csv.gz").unlink()
    codes = pd.DataFrame({"hadm_id": [10], "seq_num": [1], "icd_code": [389], "icd_version": [9]})
    codes.to_parquet(raw / "hosp" / "diagnoses_icd.parquet")


def rewrite(file: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def damage(raw: Path) -> None:
        change(pd.read_csv(raw / file, dtype=str)).to_csv(raw / file, index=False)

    return damage


ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing file": (
        lambda raw: (raw / "icu" / "icustays.csv.gz").unlink(),
        r"lacks ICUSTAYS.*in hosp and icu.*hosp/admissions\.csv\.gz",
    ),
    "missing folder": (lambda raw: shutil.rmtree(raw / "icu"), r"lacks ICUSTAYS, CHARTEVENTS"),
    "no table": (
        lambda raw: [shutil.rmtree(raw / name) for name in ("hosp", "icu")],
        "no MIMIC-IV tables",
    ),
    "column of MIMIC-III": (
        rewrite("icu/icustays.csv.gz", lambda f: f.rename(columns={"stay_id": "icustay_id"})),
        r"icustays\.csv\.gz has no column STAY_ID.*Did you mean 'icustay_id'.*MIMIC-IV v2 or v3",
    ),
    "no date": (
        rewrite("icu/chartevents.csv.gz", lambda f: f.assign(charttime="yesterday")),
        r"chartevents\.csv\.gz, line 2: column CHARTTIME: 'yesterday' is not a date and time",
    ),
    "codes as numbers": (numeric_codes, "icd_code must be text, is BIGINT.*leading zeros"),
    "no stay": (
        rewrite("hosp/patients.csv.gz", lambda f: f.assign(anchor_age="17")),
        r"no stay passes the rules[\s\S]*-1 +younger than 18",
    ),
}


@pytest.mark.parametrize("what", ERRORS)
def test_an_error_says_what_is_wrong_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    damage, message = ERRORS[what]
    raw = write_database(database(), tmp_path / "raw")
    damage(raw)
    with pytest.raises(UserError, match=message):
        extract(raw, tmp_path / "out" / "cohort", progress=False)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


# Stays


@pytest.mark.parametrize(
    ("dropped", "reason"),
    [
        (stay(last_careunit="Trauma SICU (TSICU)"), "moved between units"),
        (stay(hadm_id=11), "no admission or no patient to it"),
        (stay(intime="2090-01-01 00:00:00"), "younger than 18, or of unknown age"),
        (stay(los=None), "no length of stay, or no usable event in it"),
        (stay(intime=at(30)), "no length of stay, or no usable event in it"),
    ],
)
def test_a_stay_is_dropped_by_each_rule(tmp_path: Path, dropped: Row, reason: str) -> None:
    rows = two_stays()
    rows["icustays"][1] = dropped
    raw = write_database(rows, tmp_path / "raw")
    summary = extract(raw, tmp_path / "cohort", progress=False)
    assert {why: n for why, n in summary.dropped.items() if n} == {reason: 1}
    assert read_cohort(tmp_path / "cohort").stays["stay_id"].tolist() == [200]


def test_only_admissions_with_one_stay_left_are_kept(tmp_path: Path) -> None:
    rows = two_stays()
    rows["icustays"].append(stay(stay_id=101, intime=at(50), outtime=at(60), los=0.4167))
    assert cohort_of(tmp_path, rows).stays["stay_id"].tolist() == [200]


def several(patients: list[Row]) -> Database:
    """The patients given, each with a stay and a heart rate."""
    keys = [{"subject_id": n, "hadm_id": 10 * n} for n in range(1, len(patients) + 1)]
    own = [{**key, "stay_id": 100 * key["subject_id"]} for key in keys]
    return database(
        patients=[{**row, **key} for row, key in zip(patients, keys, strict=True)],
        admissions=[admission(**key) for key in keys],
        icustays=[stay(**key) for key in own],
        chartevents=[chart(220045, "80", **key) for key in own],
    )


def test_age_is_that_of_the_anchor_year_moved_on(tmp_path: Path) -> None:
    ages = {(70, 2150): 70, (70, 2148): 72, (70, 2152): 68, (91, 2150): 90, (88, 2147): 90,
            (18, 2150): 18}  # fmt: skip
    rows = [{"gender": "M", "anchor_age": age, "anchor_year": year} for age, year in ages]
    stays = cohort_of(tmp_path, several(rows)).stays
    assert stays["age"].tolist() == list(ages.values())


@pytest.mark.parametrize("anchor", [{"anchor_age": None}, {"anchor_age": 20, "anchor_year": 2153}])
def test_minors_and_patients_of_unknown_age_are_not_in_it(
    tmp_path: Path, anchor: dict[str, int | None]
) -> None:
    with pytest.raises(UserError, match=r"-1 +younger than 18"):
        cohort_of(tmp_path, database(patients=[patient(**anchor)]))


def test_mortality_in_hospital(tmp_path: Path) -> None:
    deaths = [
        (None, None, 0),
        ("2150-01-02", None, 1),
        ("2150-01-02", at(24), 1),
        # Died on the day of admission: the date has no time, the time of death tells.
        ("2149-12-31", at(0), 1),
        ("2150-03-01", None, 0),
    ]
    rows = several([patient(dod=dod) for dod, _, _ in deaths])
    for row, (_, deathtime, _) in zip(rows["admissions"], deaths, strict=True):
        row["deathtime"] = deathtime
    stays = cohort_of(tmp_path, rows).stays
    assert stays["in_hospital_mortality"].tolist() == [died for _, _, died in deaths]


# Codes and labels


def test_the_two_versions_of_icd_are_two_code_systems(tmp_path: Path) -> None:
    rows = database(
        diagnoses_icd=[
            # Some releases pad codes with blanks.
            *(code("I10    ", 10, 2), code("A419", 10, 1), code("0389", 9, 4)),
            code("V5861", 9, 3),
            code("9999", None, 5),
        ],
        procedures_icd=[code("5A1945Z", 10, 1), code("0066", 9, 1)],
    )
    cohort = cohort_of(tmp_path, rows)
    assert [system.name for system in cohort.schema.code_systems] == [
        *("icd9_diagnosis", "icd10_diagnosis", "icd9_procedure", "icd10_procedure")
    ]
    assert cohort.codes[["system", "code"]].to_numpy().tolist() == [
        ["icd9_diagnosis", "V5861"],
        ["icd9_diagnosis", "0389"],
        ["icd10_diagnosis", "A419"],
        ["icd10_diagnosis", "I10"],
        ["icd9_procedure", "0066"],
        ["icd10_procedure", "5A1945Z"],
    ]


@pytest.mark.parametrize(
    "diagnoses",
    [[code("0389", 9), code("4019", 9)], [code("A419", 10), code("I10", 10)]],
)
def test_labels_follow_from_either_version(tmp_path: Path, diagnoses: list[Row]) -> None:
    cohort = cohort_of(tmp_path, database(diagnoses_icd=diagnoses))
    labels = cohort.schema.labels_of("phenotype")
    positive = [label.column for label in labels if cohort.stays[label.column][0] == 1]
    assert positive == ["essential_hypertension", "septicemia"]
    assert len(labels) == 25
    septicemia = next(label for label in labels if label.column == "septicemia")
    assert septicemia.definition == {
        "icd9_diagnosis": ["0389", "99592"],
        "icd10_diagnosis": ["A419"],
    }
    shock = next(label for label in labels if label.column == "shock")
    assert shock.definition == {"icd10_diagnosis": ["R6521"]}
    assert next(label for label in labels if label.column == "pneumonia").definition == {}


def test_a_code_of_the_other_version_means_something_else(tmp_path: Path) -> None:
    # E871 is a disorder of sodium in ICD-10, and in ICD-9 an object left in a body.
    dictionary = [code("E8710", 9), code("E871", 10), code("E871", 9)]
    rows = database(diagnoses_icd=[code("E871", 9)], d_icd_diagnoses=dictionary)
    assert cohort_of(tmp_path, rows).stays["fluid_electrolyte_disorders"].tolist() == [0]
    rows = database(diagnoses_icd=[code("E871", 10)], d_icd_diagnoses=dictionary)
    assert cohort_of(tmp_path, rows).stays["fluid_electrolyte_disorders"].tolist() == [1]


# Events


def test_a_result_that_was_blanked_out_has_its_number(tmp_path: Path) -> None:
    labs = [
        lab(51274, "___", valuenum=15.1),
        lab(51274, "___", hours=2),
        lab(51274, "13.0", hours=3, valuenum=13.0),
        lab(51274, "HEMOLYZED", hours=4, valuenum=99.0),
    ]
    cohort = cohort_of(tmp_path, database(labevents=labs))
    assert values(cohort, "Prothrombin time") == [15.1, 13.0]


# Item, raw text and what becomes of it; each case has its own time.
VALUES = {
    "paper": [
        (220739, "None", "Glasgow coma scale eye opening", None),
        (220739, "To Pain", "Glasgow coma scale eye opening", "To Pain"),
        (223900, "No Response-ETT", "Glasgow coma scale verbal response", "ET/Trach"),
        (223761, "98.6", "Temperature", 37.0),
        (223762, "37.5", "Temperature", 37.5),
        (223835, "40", "Fraction inspired oxygen", 0.4),
        (223835, "0.5", "Fraction inspired oxygen", 0.5),
        (223951, "Abnormal >3 Seconds", "Capillary refill rate", None),
        (211, "80", "Heart Rate", None),
        (51237, "1.1", "Prothrombin time", 1.1),
        (51274, "13", "Prothrombin time", 13),
        (51491, "5.5", "pH", 5.5),
    ],
    "clinical": [
        (220739, "None", "Glasgow coma scale eye opening", "No Response"),
        (223761, "98.6", "Temperature", 37.0),
        # 37 °F.
        (223761, "37", "Temperature", None),
        (223951, "Abnormal >3 Seconds", "Capillary refill rate", "Abnormal"),
        (224308, "Normal <3 Seconds", "Capillary refill rate", "Normal"),
        (51237, "1.1", "INR", 1.1),
        (51274, "13", "Prothrombin time", 13),
        (51491, "5.5", "pH", None),
        (50820, "7.31", "pH", 7.31),
        (220045, "999", "Heart Rate", None),
    ],
}


@pytest.mark.parametrize("profile", VALUES)
def test_raw_text_becomes_a_value(tmp_path: Path, profile: str) -> None:
    cases = list(enumerate(VALUES[profile], start=1))
    rows = database(
        chartevents=[
            chart(220210, "20"),
            *(chart(item, text, hours) for hours, (item, text, *_) in cases if item > 200_000),
        ],
        labevents=[lab(item, text, hours) for hours, (item, text, *_) in cases if item < 200_000],
    )
    measurements = cohort_of(tmp_path, rows, profile=profile).measurements
    measurements = measurements[measurements["variable"] != "Respiratory rate"]
    found = {
        row.hours: (row.variable, row.value if pd.isna(row.level) else row.level)
        for row in measurements.itertuples()
    }
    assert found == {
        hours: (variable, value if isinstance(value, str) else pytest.approx(value))
        for hours, (_, _, variable, value) in cases
        if value is not None
    }


@pytest.mark.parametrize(("profile", "kept"), [("paper", {120, 9}), ("clinical", {110, 9.5})])
def test_which_of_several_values_is_kept(tmp_path: Path, profile: str, kept: set[float]) -> None:
    pressures = [chart(220179, "120"), chart(220050, "110")]
    rows = database(chartevents=[*pressures, chart(220045, "9"), chart(220045, "10")])
    assert set(cohort_of(tmp_path, rows, profile=profile).measurements["value"]) == kept


def test_events_that_are_no_measurements(tmp_path: Path) -> None:
    labs = [
        lab(51222, "30", hadm_id=None),
        lab(51222, "30", hours=-0.01),
        lab(51222, "30", hours=48.01),
    ]
    others = [
        chart(220045, "90", hours=2, stay_id=999),
        chart(220045, "90", hours=2, hadm_id=99),
    ]
    rows = database(labevents=labs, chartevents=[chart(220045, "80"), *others])
    assert cohort_of(tmp_path, rows).measurements["hours"].tolist() == [1.0]


# What MIMIC-IV and MIMIC-III have in common: patients of MetaVision, whose items are the same.


def as_mimic4(demo: Path, raw: Path) -> list[int]:
    """Write the demo's admissions that were charted in MetaVision in the form of MIMIC-IV.

    Returns:
        Their numbers.
    """

    def read(name: str) -> pd.DataFrame:
        return pd.read_csv(demo / f"{name}.csv.gz", dtype=str, keep_default_na=False)

    icustays, patients = read("ICUSTAYS"), read("PATIENTS")
    systems = icustays.groupby("hadm_id")["dbsource"].agg(set)
    admissions = systems.index[systems == {"metavision"}]
    icustays = icustays[icustays["hadm_id"].isin(admissions)]
    # There are no wards in MIMIC-IV: a change of ward becomes one of unit.
    moved = icustays["first_wardid"] != icustays["last_wardid"]
    icustays.loc[moved, "last_careunit"] += " (other ward)"
    age_at = icustays.merge(patients, on="subject_id")
    years = pd.to_datetime(age_at["intime"]) - pd.to_datetime(age_at["dob"]).astype("datetime64[s]")
    first = age_at.assign(age=years.dt.total_seconds() // (365 * 86400)).sort_values("intime")
    first = first.drop_duplicates("subject_id").set_index("subject_id")
    anchors = patients[patients["subject_id"].isin(first.index)].copy()
    age = anchors["subject_id"].map(first["age"])
    anchors["anchor_age"] = age.where(age.between(0, 89), 91).astype(int).astype(str)
    anchors["anchor_year"] = anchors["subject_id"].map(first["intime"]).str[:4]
    anchors["dod"] = anchors["dod"].str[:10]
    tables = {"patients": anchors, "icustays": icustays.rename(columns={"icustay_id": "stay_id"})}
    for name in ("ADMISSIONS", "DIAGNOSES_ICD", "PROCEDURES_ICD", "CHARTEVENTS", "LABEVENTS"):
        table = read(name)
        tables[name.lower()] = table[table["hadm_id"].isin(admissions)].rename(
            columns={"icustay_id": "stay_id", "icd9_code": "icd_code"}
        )
    tables["d_icd_diagnoses"] = read("D_ICD_DIAGNOSES").rename(columns={"icd9_code": "icd_code"})
    for name, table in tables.items():
        folder = raw / ("hosp" if name in HOSP else "icu")
        folder.mkdir(parents=True, exist_ok=True)
        columns = COLUMNS[name].split()
        table.assign(icd_version="9").reindex(columns=columns).to_csv(
            folder / f"{name}.csv", index=False
        )
    return [int(admission) for admission in admissions]


@pytest.fixture(scope="module")
def metavision(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A folder of the demo's patients in the form of MIMIC-IV, and their admissions."""
    raw = tmp_path_factory.mktemp("metavision")
    return raw, as_mimic4(DEMO, raw)


@pytest.mark.skipif(not DEMO.is_dir(), reason="the open demo is not beside the repository")
@pytest.mark.parametrize("profile", ["paper", "clinical"])
def test_patients_of_mimic3_rewritten_have_the_same_records(
    tmp_path: Path, metavision: tuple[Path, list[int]], profile: str
) -> None:
    raw, admissions = metavision
    extract(raw, tmp_path / "four", profile=profile, progress=False)
    extract_mimic3(DEMO, tmp_path / "three", profile=profile, progress=False)
    four, three = read_cohort(tmp_path / "four"), read_cohort(tmp_path / "three")
    stays = three.stays[three.stays["hadm_id"].isin(admissions)]
    assert len(stays) > 40
    ids = stays["stay_id"]
    same = [c for c in stays if c not in ("age", "stay_index")]
    pd.testing.assert_frame_equal(
        four.stays[same].reset_index(drop=True), stays[same].reset_index(drop=True)
    )
    difference = four.stays["age"].to_numpy() - stays["age"].to_numpy()
    # Whole years instead of days, twice.
    assert (abs(difference) < 2).all()
    codes = three.codes[three.codes["stay_id"].isin(ids)]
    columns = ["stay_id", "position", "system", "code"]
    pd.testing.assert_frame_equal(
        four.codes[columns].astype(str), codes[columns].astype(str).reset_index(drop=True)
    )
    # MIMIC-IV's profile has the capillary refill of MetaVision, which MIMIC-III's leaves out.
    new = four.measurements[four.measurements["variable"] == "Capillary refill rate"]
    assert set(new["level"]) == ({"Normal", "Abnormal"} if profile == "clinical" else set())
    measured = [
        frame[frame["stay_id"].isin(ids) & (frame["variable"] != "Capillary refill rate")]
        .astype({"variable": str, "level": object})
        .reset_index(drop=True)
        for frame in (four.measurements, three.measurements)
    ]
    assert len(measured[0]) > 40_000
    pd.testing.assert_frame_equal(*measured)


def test_the_series_are_those_of_mimic3_that_exist() -> None:
    paper = {item_set.name for item_set in MIMIC4.profile("paper").item_sets}
    assert len(paper) == 39
    clinical = {item_set.name for item_set in MIMIC4.profile("clinical").item_sets}
    assert clinical - paper == {"INR", "Capillary refill rate"}
