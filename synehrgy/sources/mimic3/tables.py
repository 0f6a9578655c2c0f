"""The files of MIMIC-III, with the columns that are needed."""

from synehrgy.sources.extraction import Release

_EVENT = {
    "subject_id": "BIGINT",
    "hadm_id": "BIGINT",
    "itemid": "BIGINT",
    "charttime": "TIMESTAMP",
    "value": "VARCHAR",
    "valueuom": "VARCHAR",
}
_CODE = {"hadm_id": "BIGINT", "seq_num": "BIGINT", "icd9_code": "VARCHAR"}

RELEASE = Release(
    title="MIMIC-III",
    version="v1.4",
    columns={
        "patients": {
            "subject_id": "BIGINT",
            "gender": "VARCHAR",
            "dob": "TIMESTAMP",
            "dod": "TIMESTAMP",
        },
        "admissions": {
            "subject_id": "BIGINT",
            "hadm_id": "BIGINT",
            "admittime": "TIMESTAMP",
            "dischtime": "TIMESTAMP",
            "deathtime": "TIMESTAMP",
        },
        "icustays": {
            "subject_id": "BIGINT",
            "hadm_id": "BIGINT",
            "icustay_id": "BIGINT",
            "first_careunit": "VARCHAR",
            "last_careunit": "VARCHAR",
            "first_wardid": "BIGINT",
            "last_wardid": "BIGINT",
            "intime": "TIMESTAMP",
            "outtime": "TIMESTAMP",
            "los": "DOUBLE",
        },
        "diagnoses_icd": _CODE,
        "procedures_icd": _CODE,
        "d_icd_diagnoses": {"icd9_code": "VARCHAR"},
        "chartevents": {**_EVENT, "icustay_id": "BIGINT"},
        "labevents": _EVENT,
    },
    text=("value", "icd9_code"),
)
