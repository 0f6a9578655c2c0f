"""The raw tables of MIMIC-III v1.4: columns and types, and the small tables' rows."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from synehrgy.sources.simulator.activities import CAREVUE
from synehrgy.sources.simulator.chance import Bools, Ints
from synehrgy.sources.simulator.codebook import titles
from synehrgy.sources.simulator.coding import Codes
from synehrgy.sources.simulator.items import FILLERS, ITEMS, LAB, LAB_FILLERS
from synehrgy.sources.simulator.people import DAY, UNITS, People
from synehrgy.sources.simulator.population import ADMISSION_KINDS, FIRST_HADM, FIRST_ICUSTAY

_INT, _TEXT, _TIME, _REAL = pa.int64(), pa.string(), pa.timestamp("us"), pa.float64()

SCHEMAS: dict[str, pa.Schema] = {
    "PATIENTS": pa.schema(
        {"ROW_ID": _INT, "SUBJECT_ID": _INT, "GENDER": _TEXT, "DOB": _TIME, "DOD": _TIME,
         "DOD_HOSP": _TIME, "DOD_SSN": _TIME, "EXPIRE_FLAG": _INT}
    ),
    "ADMISSIONS": pa.schema(
        {"ROW_ID": _INT, "SUBJECT_ID": _INT, "HADM_ID": _INT, "ADMITTIME": _TIME,
         "DISCHTIME": _TIME, "DEATHTIME": _TIME, "ADMISSION_TYPE": _TEXT,
         "ADMISSION_LOCATION": _TEXT, "DISCHARGE_LOCATION": _TEXT, "INSURANCE": _TEXT,
         "LANGUAGE": _TEXT, "RELIGION": _TEXT, "MARITAL_STATUS": _TEXT, "ETHNICITY": _TEXT,
         "EDREGTIME": _TIME, "EDOUTTIME": _TIME, "DIAGNOSIS": _TEXT,
         "HOSPITAL_EXPIRE_FLAG": _INT, "HAS_CHARTEVENTS_DATA": _INT}
    ),
    "ICUSTAYS": pa.schema(
        {"ROW_ID": _INT, "SUBJECT_ID": _INT, "HADM_ID": _INT, "ICUSTAY_ID": _INT,
         "DBSOURCE": _TEXT, "FIRST_CAREUNIT": _TEXT, "LAST_CAREUNIT": _TEXT,
         "FIRST_WARDID": _INT, "LAST_WARDID": _INT, "INTIME": _TIME, "OUTTIME": _TIME,
         "LOS": _REAL}
    ),
    "CHARTEVENTS": pa.schema(
        {"ROW_ID": _INT, "SUBJECT_ID": _INT, "HADM_ID": _INT, "ICUSTAY_ID": _INT, "ITEMID": _INT,
         "CHARTTIME": _TIME, "STORETIME": _TIME, "CGID": _INT, "VALUE": _TEXT, "VALUENUM": _REAL,
         "VALUEUOM": _TEXT, "WARNING": _INT, "ERROR": _INT, "RESULTSTATUS": _TEXT,
         "STOPPED": _TEXT}
    ),
    "LABEVENTS": pa.schema(
        {"ROW_ID": _INT, "SUBJECT_ID": _INT, "HADM_ID": _INT, "ITEMID": _INT, "CHARTTIME": _TIME,
         "VALUE": _TEXT, "VALUENUM": _REAL, "VALUEUOM": _TEXT, "FLAG": _TEXT}
    ),
    "OUTPUTEVENTS": pa.schema(
        {"ROW_ID": _INT, "SUBJECT_ID": _INT, "HADM_ID": _INT, "ICUSTAY_ID": _INT,
         "CHARTTIME": _TIME, "ITEMID": _INT, "VALUE": _REAL, "VALUEUOM": _TEXT,
         "STORETIME": _TIME, "CGID": _INT, "STOPPED": _TEXT, "NEWBOTTLE": _TEXT,
         "ISERROR": _TEXT}
    ),
    "DIAGNOSES_ICD": pa.schema(
        {"ROW_ID": _INT, "SUBJECT_ID": _INT, "HADM_ID": _INT, "SEQ_NUM": _INT, "ICD9_CODE": _TEXT}
    ),
    "PROCEDURES_ICD": pa.schema(
        {"ROW_ID": _INT, "SUBJECT_ID": _INT, "HADM_ID": _INT, "SEQ_NUM": _INT, "ICD9_CODE": _TEXT}
    ),
    "D_ITEMS": pa.schema(
        {"ROW_ID": _INT, "ITEMID": _INT, "LABEL": _TEXT, "ABBREVIATION": _TEXT,
         "DBSOURCE": _TEXT, "LINKSTO": _TEXT, "CATEGORY": _TEXT, "UNITNAME": _TEXT,
         "PARAM_TYPE": _TEXT, "CONCEPTID": _INT}
    ),
    "D_LABITEMS": pa.schema(
        {"ROW_ID": _INT, "ITEMID": _INT, "LABEL": _TEXT, "FLUID": _TEXT, "CATEGORY": _TEXT,
         "LOINC_CODE": _TEXT}
    ),
    "D_ICD_DIAGNOSES": pa.schema(
        {"ROW_ID": _INT, "ICD9_CODE": _TEXT, "SHORT_TITLE": _TEXT, "LONG_TITLE": _TEXT}
    ),
    "D_ICD_PROCEDURES": pa.schema(
        {"ROW_ID": _INT, "ICD9_CODE": _TEXT, "SHORT_TITLE": _TEXT, "LONG_TITLE": _TEXT}
    ),
}  # fmt: skip
EVENT_TABLES = ("CHARTEVENTS", "LABEVENTS", "OUTPUTEVENTS")

SYSTEMS = ("carevue", "metavision")
_MAX_CODES = 64
# Text columns of admissions: values and their weights.
_CHOICES: dict[str, tuple[tuple[str | None, ...], tuple[float, ...]]] = {
    "INSURANCE": (("Medicare", "Private", "Medicaid", "Government", "Self Pay"),
                  (0.52, 0.34, 0.10, 0.03, 0.01)),
    "LANGUAGE": (("ENGL", "SPAN", "RUSS", None), (0.50, 0.04, 0.03, 0.43)),
    "RELIGION": (("CATHOLIC", "NOT SPECIFIED", "UNOBTAINABLE", "PROTESTANT QUAKER", "JEWISH",
                  "OTHER"), (0.38, 0.22, 0.16, 0.13, 0.06, 0.05)),
    "MARITAL_STATUS": (("MARRIED", "SINGLE", "WIDOWED", "DIVORCED", "UNKNOWN (DEFAULT)", None),
                       (0.46, 0.24, 0.13, 0.06, 0.01, 0.10)),
    "ETHNICITY": (("WHITE", "BLACK/AFRICAN AMERICAN", "UNKNOWN/NOT SPECIFIED",
                   "HISPANIC OR LATINO", "ASIAN", "OTHER"), (0.70, 0.10, 0.11, 0.03, 0.03, 0.03)),
}  # fmt: skip
_LOCATIONS = ("EMERGENCY ROOM ADMIT", "PHYS REFERRAL/NORMAL DELI", "TRANSFER FROM HOSP/EXTRAM",
              "CLINIC REFERRAL/PREMATURE")  # fmt: skip
_DESTINATIONS = ("HOME", "HOME HEALTH CARE", "SNF", "REHAB/DISTINCT PART HOSP", "DEAD/EXPIRED")
_DESTINATION_WEIGHTS = (0.35, 0.28, 0.22, 0.15)


def times(seconds: Ints) -> pa.Array:
    """Seconds since 1970 as time stamps; negative ones are empty."""
    column = pa.array(seconds, mask=seconds < 0) if (seconds < 0).any() else pa.array(seconds)
    return column.cast(pa.timestamp("s")).cast(_TIME)


def _texts(values: Sequence[str | None], rows: Ints) -> pa.Array:
    return pa.array(np.array(values, dtype=object)[rows].tolist(), _TEXT)


def _yes(condition: Bools) -> pa.Array:
    return pa.array(condition.astype(np.int64))


def people_tables(rng: np.random.Generator, people: People) -> dict[str, pa.Table]:
    """PATIENTS, ADMISSIONS and ICUSTAYS of a block."""
    return {
        "PATIENTS": _patients(people),
        "ADMISSIONS": _admissions(rng, people),
        "ICUSTAYS": _icustays(people),
    }


def _patients(people: People) -> pa.Table:
    in_hospital = np.full(len(people.subject), -1, dtype=np.int64)
    dead = people.death >= 0
    in_hospital[people.patient[dead]] = people.death[dead] // DAY * DAY
    born = pa.array(people.born).cast(pa.timestamp("s")).cast(_TIME)
    return pa.table(
        [
            pa.array(people.subject - 1),
            pa.array(people.subject),
            _texts(("F", "M"), people.male.astype(int)),
            born,
            times(people.died),
            times(in_hospital),
            # Social security knows of most deaths.
            times(np.where(people.subject % 5 > 0, people.died, -1)),
            _yes(people.died >= 0),
        ],
        schema=SCHEMAS["PATIENTS"],
    )


def _admissions(rng: np.random.Generator, people: People) -> pa.Table:
    m = len(people.patient)
    young = people.young[people.patient]
    dead = people.death >= 0
    emergency = people.kind == 0
    waiting = (people.admitted - rng.integers(1, 9 * 60, m) * 60).astype(np.int64)
    leaving = (people.admitted + rng.integers(1, 120, m) * 60).astype(np.int64)
    destination = rng.choice(len(_DESTINATION_WEIGHTS), m, p=_DESTINATION_WEIGHTS)
    columns = {
        "ROW_ID": pa.array(people.hadm - FIRST_HADM + 1),
        "SUBJECT_ID": pa.array(people.subject[people.patient]),
        "HADM_ID": pa.array(people.hadm),
        "ADMITTIME": times(people.admitted),
        "DISCHTIME": times(people.discharged),
        "DEATHTIME": times(people.death),
        "ADMISSION_TYPE": _texts(ADMISSION_KINDS, people.kind),
        "ADMISSION_LOCATION": _texts(_LOCATIONS, people.kind),
        "DISCHARGE_LOCATION": _texts(_DESTINATIONS, np.where(dead, 4, destination)),
    }
    for name, (values, weights) in _CHOICES.items():
        columns[name] = _texts(values, rng.choice(len(values), m, p=weights))
    reasons = ("SEPSIS", "CHEST PAIN", "PNEUMONIA", "CONGESTIVE HEART FAILURE", "GI BLEED",
               "CORONARY ARTERY DISEASE\\CORONARY ARTERY BYPASS GRAFT/SDA", "NEWBORN")  # fmt: skip
    reason = np.where(young, 6, rng.integers(0, 6, m))
    columns |= {
        "EDREGTIME": times(np.where(emergency, waiting, -1)),
        "EDOUTTIME": times(np.where(emergency, leaving, -1)),
        "DIAGNOSIS": _texts(reasons, reason),
        "HOSPITAL_EXPIRE_FLAG": _yes(dead),
        "HAS_CHARTEVENTS_DATA": _yes(np.ones(m, dtype=bool)),
    }
    return pa.table(columns).select(SCHEMAS["ADMISSIONS"].names).cast(SCHEMAS["ADMISSIONS"])


def _icustays(people: People) -> pa.Table:
    hadm = people.hadm[people.admission]
    return pa.table(
        [
            pa.array(people.icustay - FIRST_ICUSTAY + 1),
            pa.array(people.subject[people.patient[people.admission]]),
            pa.array(hadm),
            pa.array(people.icustay),
            _texts(SYSTEMS, people.source),
            _texts(UNITS, people.unit),
            _texts(UNITS, people.last_unit),
            pa.array(people.ward),
            pa.array(people.last_ward),
            times(people.intime),
            times(people.outtime),
            pa.array(np.round((people.outtime - people.intime) / DAY, 4)),
        ],
        schema=SCHEMAS["ICUSTAYS"],
    )


def code_table(people: People, codes: Codes, name: str) -> pa.Table:
    """DIAGNOSES_ICD or PROCEDURES_ICD of a block."""
    hadm = people.hadm[codes.admission]
    return pa.table(
        [
            pa.array(hadm * _MAX_CODES + codes.position),
            pa.array(people.subject[people.patient[codes.admission]]),
            pa.array(hadm),
            pa.array(codes.position),
            pa.array(codes.code, _TEXT),
        ],
        schema=SCHEMAS[name],
    )


def dictionary_tables() -> dict[str, pa.Table]:
    """The four tables that say what items and codes mean."""
    tables = {}
    for name, kind in (("D_ICD_DIAGNOSES", "DX"), ("D_ICD_PROCEDURES", "SG")):
        book = titles(kind)
        columns = [list(range(1, len(book.codes) + 1)), book.codes, book.short, book.long]
        tables[name] = pa.table(columns, schema=SCHEMAS[name])
    charted = [
        (i.itemid, i.label, i.source, i.table, i.category, i.unit, i.style != "level")
        for i in ITEMS
        if i.table != LAB
    ] + [
        (f.itemid, f.label, f.source, "CHARTEVENTS", f.category, f.unit, f.span is not None)
        for f in FILLERS
    ]
    charted.sort()
    tables["D_ITEMS"] = pa.table(
        [
            list(range(1, len(charted) + 1)),
            [c[0] for c in charted],
            [c[1] for c in charted],
            # Only MetaVision abbreviates and has types and units of its own.
            [c[1] if c[2] != CAREVUE else None for c in charted],
            [SYSTEMS[c[2] or CAREVUE] for c in charted],
            [c[3].lower() for c in charted],
            [c[4] for c in charted],
            [c[5] if c[2] != CAREVUE else None for c in charted],
            [("Numeric" if c[6] else "Text") if c[2] != CAREVUE else None for c in charted],
            [None] * len(charted),
        ],
        schema=SCHEMAS["D_ITEMS"],
    )
    lab = sorted(
        [
            (i.itemid, i.label, "Urine" if i.series.startswith("Urine ") else "Blood", i.category)
            for i in ITEMS
            if i.table == LAB
        ]
        + [(f.itemid, f.label, "Blood", f.category) for f in LAB_FILLERS]
    )
    tables["D_LABITEMS"] = pa.table(
        [
            list(range(1, len(lab) + 1)),
            *([row[i] for row in lab] for i in range(4)),
            [None] * len(lab),
        ],
        schema=SCHEMAS["D_LABITEMS"],
    )
    return tables
