"""Tiny raw folders of the shape of MIMIC-IV, made by hand for tests.

As for MIMIC-III (``raw_database``), a database is a list of rows per table, and each row function
fills the columns that a test does not care about.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.sources.raw_database import INTIME, at
from tests.sources.raw_tables import Database, Row, text_frames, write_frames

HOSP = ("patients", "admissions", "diagnoses_icd", "procedures_icd", "d_icd_diagnoses", "labevents")
ICU = ("icustays", "chartevents")

# The columns of version 3.1, in its order.
COLUMNS = {
    "patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "admissions": "subject_id hadm_id admittime dischtime deathtime admission_type "
    "admit_provider_id admission_location discharge_location insurance language marital_status "
    "race edregtime edouttime hospital_expire_flag",
    "diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
    "procedures_icd": "subject_id hadm_id seq_num chartdate icd_code icd_version",
    "d_icd_diagnoses": "icd_code icd_version long_title",
    "labevents": "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime "
    "storetime value valuenum valueuom ref_range_lower ref_range_upper flag priority comments",
    "icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
    "chartevents": "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value "
    "valuenum valueuom warning",
}
# What version 2.0 did not have yet.
LATER = {"admit_provider_id", "order_provider_id", "caregiver_id"}
_WHOLE = (
    *("subject_id", "hadm_id", "stay_id", "itemid", "seq_num", "icd_version", "anchor_age"),
    *("anchor_year", "labevent_id", "specimen_id", "caregiver_id", "warning"),
    "hospital_expire_flag",
)
_TIMES = ("admittime", "dischtime", "deathtime", "intime", "outtime", "charttime", "storetime")
TYPES = {
    **dict.fromkeys(_WHOLE, "Int64"),
    **dict.fromkeys((*_TIMES, "dod"), "datetime64[us]"),
    **dict.fromkeys(("los", "valuenum"), "Float64"),
}


def patient(subject_id: int = 1, **columns: Any) -> Row:
    """A woman of 70 in the year of the default stay."""
    row = {"subject_id": subject_id, "gender": "F", "anchor_age": 70, "anchor_year": 2150}
    return {**row, **columns}


def admission(subject_id: int = 1, hadm_id: int = 10, **columns: Any) -> Row:
    """Five days in hospital."""
    times = {"admittime": at(-1), "dischtime": at(119)}
    return {"subject_id": subject_id, "hadm_id": hadm_id, **times, **columns}


def stay(subject_id: int = 1, hadm_id: int = 10, stay_id: int = 100, **columns: Any) -> Row:
    """Two days in one unit."""
    unit = "Medical Intensive Care Unit (MICU)"
    row = {
        **{"subject_id": subject_id, "hadm_id": hadm_id, "stay_id": stay_id},
        **{"first_careunit": unit, "last_careunit": unit},
        **{"intime": INTIME, "outtime": at(48), "los": 2.0},
    }
    return {**row, **columns}


def chart(itemid: int, value: str | None, hours: float = 1.0, **columns: Any) -> Row:
    """A row of chartevents in the default stay."""
    keys = {"subject_id": 1, "hadm_id": 10, "stay_id": 100}
    return {**keys, "itemid": itemid, "charttime": at(hours), "value": value, **columns}


def lab(itemid: int, value: str | None, hours: float = 1.0, **columns: Any) -> Row:
    """A row of labevents in the default admission."""
    keys = {"subject_id": 1, "hadm_id": 10}
    return {**keys, "itemid": itemid, "charttime": at(hours), "value": value, **columns}


def code(icd_code: str, icd_version: int | None, seq_num: int = 1, hadm_id: int = 10) -> Row:
    """A row of diagnoses_icd, procedures_icd or, with its code alone, of d_icd_diagnoses."""
    keys = {"subject_id": 1, "hadm_id": hadm_id, "seq_num": seq_num}
    return {**keys, "icd_code": icd_code, "icd_version": icd_version}


def database(**tables: Sequence[Row]) -> Database:
    """One patient with one stay, one heart rate and two codes, but for the tables given."""
    default: Database = {
        "patients": [patient()],
        "admissions": [admission()],
        "icustays": [stay()],
        "diagnoses_icd": [code("A419", 10)],
        "procedures_icd": [code("5A1945Z", 10)],
        "d_icd_diagnoses": [
            *(code(c, 9) for c in ("0389", "4019", "41401", "99592")),
            *(code(c, 10) for c in ("A419", "I10", "N179", "R6521")),
        ],
        "chartevents": [chart(220045, "80")],
        "labevents": [],
    }
    return {**default, **{name: list(rows) for name, rows in tables.items()}}


def write_database(
    rows: Database, folder: Path, form: str = "csv.gz", without: Sequence[str] = ()
) -> Path:
    """Write a database into ``hosp/`` and ``icu/``, as it is released.

    Args:
        rows: of the database.
        folder: to write to.
        form: ``csv``, ``csv.gz`` or ``parquet``.
        without: columns that the files do not have.
    """
    columns: Mapping[str, Sequence[str]] = {
        name: [column for column in names.split() if column not in without]
        for name, names in COLUMNS.items()
    }
    placed = {
        f"{'hosp' if name in HOSP else 'icu'}/{name}": frame
        for name, frame in text_frames(rows, columns).items()
    }
    return write_frames(placed, folder, form, TYPES)
