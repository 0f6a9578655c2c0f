"""The files of eICU-CRD, with the columns that are needed."""

from synehrgy.sources.extraction import Release

# Numbers that monitors and laboratories send are numbers; what people chart is text.
RELEASE = Release(
    title="eICU-CRD",
    version="v2.0",
    columns={
        "patient": {
            "patientunitstayid": "BIGINT",
            "patienthealthsystemstayid": "BIGINT",
            "uniquepid": "VARCHAR",
            "gender": "VARCHAR",
            "age": "VARCHAR",
            "hospitaldischargeyear": "BIGINT",
            "hospitaldischargestatus": "VARCHAR",
            "unitstaytype": "VARCHAR",
            "unitdischargeoffset": "BIGINT",
        },
        "diagnosis": {
            "diagnosisid": "BIGINT",
            "patientunitstayid": "BIGINT",
            "diagnosisoffset": "BIGINT",
            "icd9code": "VARCHAR",
            "diagnosispriority": "VARCHAR",
        },
        "lab": {
            "patientunitstayid": "BIGINT",
            "labresultoffset": "BIGINT",
            "labname": "VARCHAR",
            "labresult": "DOUBLE",
            "labmeasurenamesystem": "VARCHAR",
        },
        "nursecharting": {
            "patientunitstayid": "BIGINT",
            "nursingchartoffset": "BIGINT",
            "nursingchartcelltypevallabel": "VARCHAR",
            "nursingchartcelltypevalname": "VARCHAR",
            "nursingchartvalue": "VARCHAR",
        },
        "respiratorycharting": {
            "patientunitstayid": "BIGINT",
            "respchartoffset": "BIGINT",
            "respchartvaluelabel": "VARCHAR",
            "respchartvalue": "VARCHAR",
        },
        "vitalperiodic": {
            "patientunitstayid": "BIGINT",
            "observationoffset": "BIGINT",
            "temperature": "DOUBLE",
            "sao2": "DOUBLE",
            "heartrate": "DOUBLE",
            "respiration": "DOUBLE",
            "systemicsystolic": "DOUBLE",
            "systemicdiastolic": "DOUBLE",
            "systemicmean": "DOUBLE",
        },
        "vitalaperiodic": {
            "patientunitstayid": "BIGINT",
            "observationoffset": "BIGINT",
            "noninvasivesystolic": "DOUBLE",
            "noninvasivediastolic": "DOUBLE",
            "noninvasivemean": "DOUBLE",
        },
    },
    text=("uniquepid", "icd9code"),
)
