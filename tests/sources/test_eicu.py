"""eICU-CRD: its rules, on databases of a few rows."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from synehrgy.cohort import Cohort, read_cohort
from synehrgy.errors import UserError
from synehrgy.sources.eicu import EICU, extract
from tests.sources.eicu_database import (
    database,
    diagnosis,
    heart_rate,
    lab,
    nurse,
    patient,
    respiratory,
    vital,
    write_database,
)
from tests.sources.raw_tables import Database, Row


def cohort_of(tmp_path: Path, rows: Database, **arguments: object) -> Cohort:
    raw = write_database(rows, tmp_path / "raw")
    extract(raw, tmp_path / "cohort", progress=False, **arguments)  # type: ignore[arg-type]
    return read_cohort(tmp_path / "cohort")


def values(cohort: Cohort, variable: str) -> list[float | str]:
    """The values or levels of a series, in order."""
    rows = cohort.measurements[cohort.measurements["variable"] == variable]
    return list(rows["value"].astype(object).where(rows["level"].isna(), rows["level"]))


def several(patients: list[Row]) -> Database:
    """The unit stays given, with numbers of their own and a heart rate each."""
    numbered = [
        {**row, "patientunitstayid": 100 + n, "patienthealthsystemstayid": 10 + n}
        for n, row in enumerate(patients)
    ]
    stays = [row["patientunitstayid"] for row in numbered]
    return database(patient=numbered, nursecharting=[heart_rate(80, stay_id=s) for s in stays])


# Files


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_a_cohort_of_each_form(tmp_path: Path, form: str) -> None:
    rows = database(
        lab=[lab("albumin", 3.5), lab("-basos", 0.4, labmeasurenamesystem="%")],
        respiratorycharting=[respiratory("FiO2", "40")],
        vitalperiodic=[vital(heartrate=82, temperature=37.1, sao2=None)],
        vitalaperiodic=[vital(90, noninvasivesystolic=120, noninvasivediastolic=70)],
    )
    raw = write_database(rows, tmp_path / "raw", form)
    summary = extract(raw, tmp_path / "cohort", progress=False)
    cohort = read_cohort(tmp_path / "cohort")
    assert cohort.schema.name == cohort.schema.source == "eicu"
    columns = ["subject_id", "stay_id", "hadm_id", "age", "gender", "los_hours"]
    assert cohort.stays[columns].to_numpy().tolist() == [[2000001, 100, 10, 70, "F", 48]]
    assert cohort.measurements[["hours", "variable", "value"]].to_numpy().tolist() == [
        [1, "Albumin", 3.5],
        [1, "Basophils", 0.4],
        [1, "Fraction inspired oxygen", 0.4],
        [1, "Heart Rate", 82],
        [1, "Temperature", 37.1],
        [1.5, "Diastolic blood pressure", 70],
        [1.5, "Systolic blood pressure", 120],
    ]
    assert summary.rows == {
        **{"lab": 2, "nursecharting": 1, "respiratorycharting": 1},
        **{"vitalaperiodic": 1, "vitalperiodic": 1},
    }


def rename(file: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(raw: Path) -> None:
        frame = pd.read_csv(raw / file, dtype=str).rename(columns={old: new})
        frame.to_csv(raw / file, index=False)

    return damage


def assign(file: str, **columns: str) -> Callable[[Path], None]:
    def damage(raw: Path) -> None:
        pd.read_csv(raw / file, dtype=str).assign(**columns).to_csv(raw / file, index=False)

    return damage


ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing file": (
        lambda raw: (raw / "vitalPeriodic.csv.gz").unlink(),
        r"lacks VITALPERIODIC.*nurseCharting\.csv\.gz",
    ),
    "wrong column": (
        rename("lab.csv.gz", "labname", "lab_name"),
        r"lab\.csv\.gz has no column LABNAME\. Did you mean 'lab_name'.*eICU-CRD v2\.0",
    ),
    "no number": (
        assign("lab.csv.gz", labresult="high"),
        r"lab\.csv\.gz, line 2: column LABRESULT: 'high' is not a number",
    ),
    "no minutes": (
        assign("nurseCharting.csv.gz", nursingchartoffset="1:20"),
        r"line 2: column NURSINGCHARTOFFSET: '1:20' is not a whole number",
    ),
    "other patient numbers": (
        assign("patient.csv.gz", uniquepid="A-7"),
        r"no stay passes the rules[\s\S]*-1 +patient without a number such as 002-34851",
    ),
}


@pytest.mark.parametrize("what", ERRORS)
def test_an_error_says_what_is_wrong_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    damage, message = ERRORS[what]
    raw = write_database(database(lab=[lab("albumin", 3.5)]), tmp_path / "raw")
    damage(raw)
    with pytest.raises(UserError, match=message):
        extract(raw, tmp_path / "out" / "cohort", progress=False)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_the_cohort_does_not_depend_on_the_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stays of a patient have numbers far apart, and stay in one bucket all the same.
    rows = several([patient(uniquepid=f"002-{n % 5}") for n in range(10)])
    raw = write_database(rows, tmp_path / "raw")
    extract(raw, tmp_path / "one", progress=False)
    monkeypatch.setattr("synehrgy.sources.extraction.events.BUCKET_ROWS", 3)
    extract(raw, tmp_path / "many", progress=False, threads=1)
    for table in ("stays", "codes", "measurements"):
        one, many = (
            pq.ParquetFile(tmp_path / name / f"{table}.parquet") for name in ("one", "many")
        )
        assert one.read().equals(many.read())
    assert many.num_row_groups > 1


# Stays


@pytest.mark.parametrize(
    ("dropped", "reason"),
    [
        (patient(uniquepid=None), "patient without a number such as 002-34851"),
        (patient(unitstaytype="stepdown/other"), "in a step-down unit"),
        (patient(unitstaytype="transfer"), "moved from another unit"),
        (patient(age="17"), "younger than 18, or of unknown age"),
        (patient(age=None), "younger than 18, or of unknown age"),
        (
            patient(hospitaldischargestatus=None),
            "not known whether the patient left the hospital alive",
        ),
        (patient(unitdischargeoffset=30), "no length of stay, or no usable event in it"),
        (patient(unitdischargeoffset=None), "no length of stay, or no usable event in it"),
    ],
)
def test_a_stay_is_dropped_by_each_rule(tmp_path: Path, dropped: Row, reason: str) -> None:
    raw = write_database(several([dropped, patient(uniquepid="002-2")]), tmp_path / "raw")
    summary = extract(raw, tmp_path / "cohort", progress=False)
    assert {why: n for why, n in summary.dropped.items() if n} == {reason: 1}
    assert read_cohort(tmp_path / "cohort").stays["stay_id"].tolist() == [101]
    assert summary.stays_listed == 2


def test_only_admissions_with_one_intensive_care_stay_are_kept(tmp_path: Path) -> None:
    units = [
        # Two stays in intensive care; one and one in a step-down unit; a readmission alone.
        *(patient(1, 11), patient(2, 11, unitvisitnumber=2, unitstaytype="transfer")),
        *(patient(3, 12), patient(4, 12, unitvisitnumber=2, unitstaytype="stepdown/other")),
        patient(5, 13, unitstaytype="readmit"),
    ]
    rows = database(patient=units, nursecharting=[heart_rate(80, stay_id=s) for s in range(1, 6)])
    assert cohort_of(tmp_path, rows).stays["stay_id"].tolist() == [3, 5]


def test_ages_genders_deaths_and_lengths(tmp_path: Path) -> None:
    facts = [
        ("18", "Male", "Alive", 1010, (18, "M", 0, 1010 / 60)),
        ("89", "Female", "Expired", 60, (89, "F", 1, 1)),
        ("> 89", "Unknown", "Alive", 2880, (90, None, 0, 48)),
        ("55", None, "Alive", 2880, (55, None, 0, 48)),
    ]
    rows = several(
        [
            patient(
                uniquepid=f"003-{n}",
                age=age,
                gender=gender,
                hospitaldischargestatus=status,
                unitdischargeoffset=minutes,
            )
            for n, (age, gender, status, minutes, _) in enumerate(facts, start=1)
        ]
    )
    cohort = cohort_of(tmp_path, rows)
    columns = ["age", "gender", "in_hospital_mortality", "los_hours"]
    stays = cohort.stays[columns].astype(object)
    stays = stays.where(stays.notna(), None)
    assert [tuple(row) for row in stays.to_numpy()] == [expected for *_, expected in facts]
    assert cohort.stays["subject_id"].tolist() == [3000001, 3000002, 3000003, 3000004]


def test_patients_of_other_hospitals_are_others(tmp_path: Path) -> None:
    rows = several([patient(uniquepid="003-1234"), patient(uniquepid="031-234", gender="Male")])
    assert cohort_of(tmp_path, rows).stays["subject_id"].tolist() == [3001234, 31000234]


def test_a_death_is_the_last_stay(tmp_path: Path) -> None:
    rows = several([patient(hospitaldischargestatus="Expired"), patient()])
    stays = cohort_of(tmp_path, rows).stays
    assert stays["in_hospital_mortality"].tolist() == [0, 1]


def test_stays_of_a_patient_are_ordered_by_age_and_year(tmp_path: Path) -> None:
    rows = several(
        [
            patient(age="71", hospitaldischargeyear=2015),
            patient(age="70", hospitaldischargeyear=2015),
            patient(age="70", hospitaldischargeyear=2014),
            patient(uniquepid="030-12345"),
        ]
    )
    stays = cohort_of(tmp_path, rows).stays
    assert stays["subject_id"].tolist() == [2000001, 2000001, 2000001, 30012345]
    assert stays["stay_id"].tolist() == [102, 101, 100, 103]
    assert stays["stay_index"].tolist() == [0, 1, 2, 0]


# Codes and labels


def test_codes_of_both_versions_stand_in_one_text(tmp_path: Path) -> None:
    rows = database(
        diagnosis=[
            diagnosis("518.81, J96.00", offset=30),
            diagnosis("V58.61, Z79.01", offset=20),
            diagnosis("E878.8, Y83.9", offset=10),
            diagnosis("276.1, E87.1", priority="Major", offset=40),
            diagnosis("038.9, 995.92, A41.9", priority="Primary", offset=50),
            # Stated again, nothing stated, and no code.
            *(diagnosis("518.81, J96.00", offset=90), diagnosis(None), diagnosis("sepsis")),
            diagnosis("410.71", stay_id=999),
        ]
    )
    codes = cohort_of(tmp_path, rows).codes
    listed = {system: of["code"].tolist() for system, of in codes.groupby("system", observed=True)}
    assert listed == {
        "icd9_diagnosis": ["0389", "99592", "2761", "E8788", "V5861", "51881"],
        "icd10_diagnosis": ["A419", "E871", "Y839", "Z7901", "J9600"],
    }
    assert codes["position"].tolist() == [*range(11)]


@pytest.mark.parametrize("text", ["785.52", "R65.21", "785.52, R65.21"])
def test_labels_follow_from_either_version(tmp_path: Path, text: str) -> None:
    cohort = cohort_of(tmp_path, database(diagnosis=[diagnosis(text)]))
    labels = cohort.schema.labels_of("phenotype")
    assert [la.column for la in labels if cohort.stays[la.column][0] == 1] == ["shock"]
    (shock,) = [label for label in labels if label.column == "shock"]
    assert sum(map(len, shock.definition.values())) == text.count(",") + 1


def test_a_cohort_without_diagnoses(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, database(diagnosis=[]))
    assert not len(cohort.codes)
    labels = cohort.schema.labels_of("phenotype")
    assert len(labels) == 25
    assert cohort.stays[[label.column for label in labels]].to_numpy().sum() == 0


# Events

BP, NBP = "Invasive BP|Invasive BP", "Non-Invasive BP|Non-Invasive BP"
TEMPERATURE, GCS = "Temperature|Temperature", "Glasgow coma score|"

# A row and what becomes of it; each case has its own time.
VALUES: dict[str, list[tuple[Row, str, float | str | None]]] = {
    "paper": [
        (nurse(f"{TEMPERATURE} (C)", "37.5"), "Temperature", 37.5),
        (nurse(f"{TEMPERATURE} (F)", "98.6"), "Temperature", 37),
        (nurse(f"{GCS}Eyes", "1"), "Glasgow coma scale eye opening", "No Response"),
        (nurse(f"{GCS}Motor", "5"), "Glasgow coma scale motor response", "Localizes Pain"),
        (nurse(f"{GCS}Verbal", "4.0"), "Glasgow coma scale verbal response", "Confused"),
        (nurse(f"{GCS}GCS Total", "15"), "Glasgow coma scale total", "15"),
        (nurse("Score (Glasgow Coma Scale)|Value", "8"), "Glasgow coma scale total", "8"),
        (nurse(f"{GCS}GCS Total", "Unable to score due to medication"), "", None),
        (nurse("Heart Rate|Heart Rate", "999"), "Heart Rate", 999),
        (nurse("Heart Rate|Other", "80"), "", None),
        (nurse("O2 Saturation|O2 Saturation", "0.97"), "Oxygen saturation", 97),
        (nurse("O2 Saturation|O2 Saturation", "97 %"), "Oxygen saturation", 97),
        (respiratory("FiO2", "40"), "Fraction inspired oxygen", 0.4),
        (respiratory("FIO2 (%)", "35%"), "Fraction inspired oxygen", 0.35),
        (respiratory("FiO2", "0.5"), "Fraction inspired oxygen", 0.5),
        (respiratory("Total RR", "22"), "Respiratory rate", 22),
        (lab("FiO2", 60), "Fraction inspired oxygen", 0.6),
        (lab("PT - INR", 1.1), "Prothrombin time", 1.1),
        (lab("platelets x 1000", 210), "Platelets", 210),
        (lab("-polys", 70), "Neutrophils", 70),
        (lab("bedside glucose", 5000), "Glucose", 5000),
        (lab("glucose", None), "", None),
        (lab("sodium", 140), "", None),
    ],
    "clinical": [
        (nurse(f"{TEMPERATURE} (F)", "98.6"), "Temperature", 37),
        (nurse(f"{TEMPERATURE} (F)", "37"), "", None),
        (nurse(f"{TEMPERATURE} (C)", "98.6"), "Temperature", 37),
        (respiratory("FiO2", "40"), "Fraction inspired oxygen", 0.4),
        (respiratory("FiO2", "0"), "", None),
        (lab("PT - INR", 1.1), "INR", 1.1),
        (lab("PT", 13.5), "Prothrombin time", 13.5),
        (lab("bedside glucose", 5000), "", None),
        (lab("pH", 7.31), "pH", 7.31),
        (nurse("Heart Rate|Heart Rate", "999"), "", None),
    ],
}
OFFSETS = {"lab": "labresultoffset", "nursecharting": "nursingchartoffset",
           "respiratorycharting": "respchartoffset"}  # fmt: skip


@pytest.mark.parametrize("profile", VALUES)
def test_a_raw_row_becomes_a_value(tmp_path: Path, profile: str) -> None:
    tables: dict[str, list[Row]] = {name: [] for name in OFFSETS}
    expected = {}
    for hour, (row, variable, value) in enumerate(VALUES[profile], start=1):
        table = next(name for name, offset in OFFSETS.items() if offset in row)
        tables[table].append({**row, OFFSETS[table]: 60 * hour})
        if value is not None:
            expected[hour] = (variable, value if isinstance(value, str) else pytest.approx(value))
    measurements = cohort_of(tmp_path, database(**tables), profile=profile).measurements
    found = {
        row.hours: (row.variable, row.value if pd.isna(row.level) else row.level)
        for row in measurements.itertuples()
    }
    assert found == expected


def test_minutes_become_hours_and_both_ends_belong_to_the_stay(tmp_path: Path) -> None:
    minutes = [-1, 0, 20, 1010, 1011]
    rows = database(
        patient=[patient(unitdischargeoffset=1010)],
        nursecharting=[heart_rate(80, offset) for offset in minutes],
        vitalaperiodic=[vital(1010, noninvasivemean=70)],
    )
    hours = cohort_of(tmp_path, rows).measurements["hours"].tolist()
    assert hours == [0, 20 / 60, 1010 / 60, 1010 / 60]


def test_stays_of_a_patient_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    rows = several([patient(), patient()])
    rows["nursecharting"] += [heart_rate(90, offset=120, stay_id=101)]
    measurements = cohort_of(tmp_path, rows).measurements
    assert measurements[["stay_id", "hours", "value"]].to_numpy().tolist() == [
        [100, 1, 80],
        [101, 1, 80],
        [101, 2, 90],
    ]


def test_of_a_monitor_one_row_of_each_hour_is_taken(tmp_path: Path) -> None:
    rows = database(
        nursecharting=[],
        # Rows of five minutes that begin two minutes after admission.
        vitalperiodic=[vital(offset, heartrate=offset) for offset in range(2, 180, 5)],
        vitalaperiodic=[vital(offset, noninvasivemean=70) for offset in (15, 30)],
    )
    cohort = cohort_of(tmp_path, rows)
    assert values(cohort, "Heart Rate") == [2, 62, 122]
    assert values(cohort, "Mean blood pressure") == [70, 70]


@pytest.mark.parametrize(("profile", "systolic"), [("paper", 130), ("clinical", 110)])
def test_the_arterial_line_comes_before_the_cuff(
    tmp_path: Path, profile: str, systolic: float
) -> None:
    rows = database(
        nursecharting=[nurse(f"{BP} Systolic", "108"), nurse(f"{NBP} Systolic", "130")],
        vitalperiodic=[vital(systemicsystolic=112)],
        vitalaperiodic=[vital(noninvasivesystolic=128)],
    )
    cohort = cohort_of(tmp_path, rows, profile=profile)
    assert values(cohort, "Systolic blood pressure") == [systolic]


def test_the_series_are_those_of_mimic3_that_exist() -> None:
    paper = {item_set.name for item_set in EICU.profile("paper").item_sets}
    assert len(paper) == 40
    assert "Capillary refill rate" not in paper
    assert {item_set.name for item_set in EICU.profile("clinical").item_sets} - paper == {"INR"}
