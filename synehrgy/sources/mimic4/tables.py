"""The files of MIMIC-IV, with the columns that are needed: those of versions 2.0 to 3.1."""

from synehrgy.sources.extraction import Release

_EVENT = {
    "subject_id": "BIGINT",
    "hadm_id": "BIGINT",
    "itemid": "BIGINT",
    "charttime": "TIMESTAMP",
    "value": "VARCHAR",
    "valueuom": "VARCHAR",
}
_CODE = {
    "hadm_id": "BIGINT",
    "seq_num": "BIGINT",
    "icd_code": "VARCHAR",
    "icd_version": "BIGINT",
}

RELEASE = Release(
    title="MIMIC-IV",
    version="v2 or v3",
    columns={
        "patients": {
            "subject_id": "BIGINT",
            "gender": "VARCHAR",
            "anchor_age": "BIGINT",
            "anchor_year": "BIGINT",
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
            "stay_id": "BIGINT",
            "first_careunit": "VARCHAR",
            "last_careunit": "VARCHAR",
            "intime": "TIMESTAMP",
            "outtime": "TIMESTAMP",
            "los": "DOUBLE",
        },
        "diagnoses_icd": _CODE,
        "procedures_icd": _CODE,
        "d_icd_diagnoses": {"icd_code": "VARCHAR", "icd_version": "BIGINT"},
        "chartevents": {**_EVENT, "stay_id": "BIGINT"},
        "labevents": {**_EVENT, "valuenum": "VARCHAR"},
    },
    text=("value", "icd_code"),
    folders=("hosp", "icu"),
)
