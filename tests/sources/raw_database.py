"""Tiny raw folders of the shape of MIMIC-III v1.4, made by hand for tests.

A database is a list of rows per table. Each row function fills the columns that a test does not
care about, so a test states only what it is about.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tests.sources.raw_tables import Database, Row, text_frames, write_frames

INTIME = "2150-01-01 00:00:00"

COLUMNS = {
    "PATIENTS": "row_id subject_id gender dob dod dod_hosp dod_ssn expire_flag",
    "ADMISSIONS": "row_id subject_id hadm_id admittime dischtime deathtime admission_type "
    "admission_location discharge_location insurance language religion marital_status ethnicity "
    "edregtime edouttime diagnosis",
    "ICUSTAYS": "row_id subject_id hadm_id icustay_id dbsource first_careunit last_careunit "
    "first_wardid last_wardid intime outtime los",
    "DIAGNOSES_ICD": "row_id subject_id hadm_id seq_num icd9_code",
    "PROCEDURES_ICD": "row_id subject_id hadm_id seq_num icd9_code",
    "D_ICD_DIAGNOSES": "row_id icd9_code short_title long_title",
    "CHARTEVENTS": "row_id subject_id hadm_id icustay_id itemid charttime storetime cgid value "
    "valuenum valueuom warning error resultstatus stopped",
    "LABEVENTS": "row_id subject_id hadm_id itemid charttime value valuenum valueuom flag",
    "OUTPUTEVENTS": "row_id subject_id hadm_id icustay_id charttime itemid value valueuom",
    "INPUTEVENTS_MV": "row_id subject_id hadm_id icustay_id starttime endtime itemid amount "
    "amountuom rate rateuom patientweight",
    "INPUTEVENTS_CV": "row_id subject_id hadm_id icustay_id charttime itemid amount amountuom rate "
    "rateuom",
    "PROCEDUREEVENTS_MV": "row_id subject_id hadm_id icustay_id starttime endtime itemid value",
    "PRESCRIPTIONS": "row_id subject_id hadm_id icustay_id startdate enddate drug",
    "TRANSFERS": "row_id subject_id hadm_id icustay_id eventtype curr_careunit curr_wardid intime",
    "DRGCODES": "row_id subject_id hadm_id drg_type drg_code description",
    "D_ITEMS": "row_id itemid label",
    "D_LABITEMS": "row_id itemid label loinc_code",
    "D_ICD_PROCEDURES": "row_id icd9_code short_title long_title",
}
_WHOLE = {"row_id", "subject_id", "hadm_id", "icustay_id", "itemid", "seq_num", "cgid"} | {
    *("first_wardid", "last_wardid", "expire_flag", "warning", "error")
}
_TIMES = {"dob", "dod", "admittime", "dischtime", "deathtime", "intime", "outtime", "charttime"}
TYPES = {
    **dict.fromkeys(_WHOLE, "Int64"),
    **dict.fromkeys(_TIMES, "datetime64[us]"),
    **dict.fromkeys(("los", "valuenum"), "Float64"),
}


def at(hours: float) -> str:
    """The time so many hours after the default stay began, as in the raw files."""
    return str(pd.Timestamp(INTIME) + pd.Timedelta(seconds=round(hours * 3600)))


def patient(subject_id: int = 1, **columns: Any) -> Row:
    """A woman of about 70."""
    return {"subject_id": subject_id, "gender": "F", "dob": "2080-01-01 00:00:00", **columns}


def admission(subject_id: int = 1, hadm_id: int = 10, **columns: Any) -> Row:
    """Five days in hospital."""
    times = {"admittime": at(-1), "dischtime": at(119)}
    return {"subject_id": subject_id, "hadm_id": hadm_id, **times, **columns}


def stay(subject_id: int = 1, hadm_id: int = 10, icustay_id: int = 100, **columns: Any) -> Row:
    """Two days in one unit and ward."""
    row = {
        **{"subject_id": subject_id, "hadm_id": hadm_id, "icustay_id": icustay_id},
        **{"first_careunit": "MICU", "last_careunit": "MICU"},
        **{"first_wardid": 5, "last_wardid": 5},
        **{"intime": INTIME, "outtime": at(48), "los": 2.0},
    }
    return {**row, **columns}


def chart(itemid: int, value: str | None, hours: float = 1.0, **columns: Any) -> Row:
    """A row of CHARTEVENTS in the default stay."""
    keys = {"subject_id": 1, "hadm_id": 10, "icustay_id": 100}
    return {**keys, "itemid": itemid, "charttime": at(hours), "value": value, **columns}


def lab(itemid: int, value: str | None, hours: float = 1.0, **columns: Any) -> Row:
    """A row of LABEVENTS in the default admission."""
    keys = {"subject_id": 1, "hadm_id": 10}
    return {**keys, "itemid": itemid, "charttime": at(hours), "value": value, **columns}


def code(icd9_code: str | None, seq_num: int | None = 1, hadm_id: int = 10) -> Row:
    """A row of DIAGNOSES_ICD, PROCEDURES_ICD or, with its code alone, of D_ICD_DIAGNOSES."""
    return {"subject_id": 1, "hadm_id": hadm_id, "seq_num": seq_num, "icd9_code": icd9_code}


def database(**tables: Sequence[Row]) -> Database:
    """One patient with one stay, one heart rate and two codes, but for the tables given.

    >>> rows = database(chartevents=[chart(211, "80"), chart(211, "90", hours=2)])
    >>> len(rows["CHARTEVENTS"]), len(rows["LABEVENTS"])
    (2, 0)
    """
    default: Database = {
        "PATIENTS": [patient()],
        "ADMISSIONS": [admission()],
        "ICUSTAYS": [stay()],
        "DIAGNOSES_ICD": [code("0389")],
        "PROCEDURES_ICD": [code("9604")],
        "D_ICD_DIAGNOSES": [code("0389"), code("4019"), code("41401"), code("99592")],
        "CHARTEVENTS": [chart(211, "80")],
        "LABEVENTS": [],
    }
    return {**default, **{name.upper(): list(rows) for name, rows in tables.items()}}


def frames(rows: Database) -> dict[str, pd.DataFrame]:
    """The tables as data frames of text, with all columns of the real tables; null is empty."""
    numbered = {
        name: [{**row, "row_id": number} for number, row in enumerate(table)]
        for name, table in rows.items()
    }
    return text_frames(numbered, {name: names.split() for name, names in COLUMNS.items()})


def write_database(rows: Database, folder: Path, form: str = "csv") -> Path:
    """Write a database as ``csv`` (upper case), ``csv.gz`` (lower case) or typed ``parquet``."""
    folder.mkdir(parents=True, exist_ok=True)
    found = frames(rows)
    if form == "csv":
        found = {name: frame.rename(columns=str.upper) for name, frame in found.items()}
    if form == "csv.gz":
        found = {name.lower(): frame for name, frame in found.items()}
    return write_frames(found, folder, form, TYPES)
