"""Tiny raw folders of the shape of eICU-CRD v2.0, made by hand for tests.

As for MIMIC-III (``raw_database``), a database is a list of rows per table, and each row function
fills the columns that a test does not care about.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.sources.raw_tables import Database, Row, text_frames, write_frames

# The names of the files as released, and their columns in the order there.
FILES = {
    "patient": "patient",
    "diagnosis": "diagnosis",
    "lab": "lab",
    "nursecharting": "nurseCharting",
    "respiratorycharting": "respiratoryCharting",
    "vitalperiodic": "vitalPeriodic",
    "vitalaperiodic": "vitalAperiodic",
}
COLUMNS = {
    "patient": "patientunitstayid patienthealthsystemstayid gender age ethnicity hospitalid wardid "
    "apacheadmissiondx admissionheight hospitaladmittime24 hospitaladmitoffset hospitaladmitsource "
    "hospitaldischargeyear hospitaldischargetime24 hospitaldischargeoffset "
    "hospitaldischargelocation hospitaldischargestatus unittype unitadmittime24 unitadmitsource "
    "unitvisitnumber unitstaytype admissionweight dischargeweight unitdischargetime24 "
    "unitdischargeoffset unitdischargelocation unitdischargestatus uniquepid",
    "diagnosis": "diagnosisid patientunitstayid activeupondischarge diagnosisoffset "
    "diagnosisstring icd9code diagnosispriority",
    "lab": "labid patientunitstayid labresultoffset labtypeid labname labresult labresulttext "
    "labmeasurenamesystem labmeasurenameinterface labresultrevisedoffset",
    "nursecharting": "nursingchartid patientunitstayid nursingchartoffset nursingchartentryoffset "
    "nursingchartcelltypecat nursingchartcelltypevallabel nursingchartcelltypevalname "
    "nursingchartvalue",
    "respiratorycharting": "respchartid patientunitstayid respchartoffset respchartentryoffset "
    "respcharttypecat respchartvaluelabel respchartvalue",
    "vitalperiodic": "vitalperiodicid patientunitstayid observationoffset temperature sao2 "
    "heartrate respiration cvp etco2 systemicsystolic systemicdiastolic systemicmean pasystolic "
    "padiastolic pamean st1 st2 st3 icp",
    "vitalaperiodic": "vitalaperiodicid patientunitstayid observationoffset noninvasivesystolic "
    "noninvasivediastolic noninvasivemean paop cardiacoutput cardiacinput svr svri pvr pvri",
}
_WHOLE = (
    *("patientunitstayid", "patienthealthsystemstayid", "hospitaldischargeyear", "diagnosisid"),
    *("unitdischargeoffset", "diagnosisoffset", "labresultoffset", "nursingchartoffset"),
    *("respchartoffset", "observationoffset", "sao2", "heartrate", "respiration"),
    *("systemicsystolic", "systemicdiastolic", "systemicmean", "unitvisitnumber"),
)
_REAL = (
    *("labresult", "temperature"),
    *("noninvasivesystolic", "noninvasivediastolic", "noninvasivemean"),
)
TYPES = {**dict.fromkeys(_WHOLE, "Int64"), **dict.fromkeys(_REAL, "Float64")}


def patient(stay_id: int = 100, hadm_id: int = 10, **columns: Any) -> Row:
    """A unit stay of two days of a woman of 70, who left the hospital alive."""
    row = {
        **{"patientunitstayid": stay_id, "patienthealthsystemstayid": hadm_id},
        **{"uniquepid": "002-1", "gender": "Female", "age": "70"},
        **{"hospitaldischargeyear": 2014, "hospitaldischargestatus": "Alive"},
        **{"unitvisitnumber": 1, "unitstaytype": "admit", "unitdischargeoffset": 2880},
    }
    return {**row, **columns}


def diagnosis(
    icd9code: str | None, offset: int = 0, priority: str = "Other", stay_id: int = 100
) -> Row:
    """A row of diagnosis."""
    return {
        **{"patientunitstayid": stay_id, "diagnosisoffset": offset, "icd9code": icd9code},
        **{"diagnosispriority": priority, "activeupondischarge": "False"},
    }


def lab(name: str, result: float | str | None, offset: int = 60, **columns: Any) -> Row:
    """A row of lab."""
    keys = {"patientunitstayid": 100, "labresultoffset": offset}
    return {**keys, "labname": name, "labresult": result, **columns}


def nurse(item: str, value: str | None, offset: int = 60, **columns: Any) -> Row:
    """A row of nurseCharting; ``item`` is ``label|name``."""
    label, name = item.split("|")
    return {
        **{"patientunitstayid": 100, "nursingchartoffset": offset},
        **{"nursingchartcelltypevallabel": label, "nursingchartcelltypevalname": name},
        **{"nursingchartvalue": value},
        **columns,
    }


def heart_rate(value: int, offset: int = 60, stay_id: int = 100) -> Row:
    """A heart rate that a nurse charted."""
    return nurse("Heart Rate|Heart Rate", str(value), offset, patientunitstayid=stay_id)


def respiratory(label: str, value: str | None, offset: int = 60, **columns: Any) -> Row:
    """A row of respiratoryCharting."""
    keys = {"patientunitstayid": 100, "respchartoffset": offset}
    return {**keys, "respchartvaluelabel": label, "respchartvalue": value, **columns}


def vital(offset: int = 60, stay_id: int = 100, **values: float | None) -> Row:
    """A row of vitalPeriodic or vitalAperiodic."""
    return {"patientunitstayid": stay_id, "observationoffset": offset, **values}


def database(**tables: Sequence[Row]) -> Database:
    """One patient with one stay, one heart rate and one diagnosis, but for the tables given."""
    default: Database = {
        "patient": [patient()],
        "diagnosis": [diagnosis("038.9, A41.9")],
        "lab": [],
        "nursecharting": [heart_rate(80)],
        "respiratorycharting": [],
        "vitalperiodic": [],
        "vitalaperiodic": [],
    }
    found = {**default, **{name: list(rows) for name, rows in tables.items()}}
    found["diagnosis"] = [
        {"diagnosisid": number, **row} for number, row in enumerate(found["diagnosis"])
    ]
    return found


def write_database(rows: Database, folder: Path, form: str = "csv.gz") -> Path:
    """Write a database as ``csv``, ``csv.gz`` or typed ``parquet``."""
    columns = {name: names.split() for name, names in COLUMNS.items()}
    named = {FILES[name]: frame for name, frame in text_frames(rows, columns).items()}
    return write_frames(named, folder, form, TYPES)
