"""Which events each raw table of MIMIC-III has, as those of MIMIC-IV in MIMIC_IV_MEDS.

That is the public extraction of MIMIC-IV of the organisation behind the standard.

Laboratory values are ``LAB//<item>//<unit>`` at the time of the specimen, as in its older releases.
MIMIC-III does not say when they were known, which in newer ones is that of ``LAB//RESULT//...``.
"""

from dataclasses import dataclass

from synehrgy.sources.extraction import Release

# Types are declared as in tables.py.
_ITEM = {"subject_id": "BIGINT", "hadm_id": "BIGINT", "itemid": "BIGINT", "charttime": "TIMESTAMP"}
_VALUE = {"value": "VARCHAR", "valuenum": "DOUBLE", "valueuom": "VARCHAR"}
_STAY = {"icustay_id": "BIGINT"}
_CODE = {"hadm_id": "BIGINT", "seq_num": "BIGINT", "icd9_code": "VARCHAR"}
_PERIOD = {
    **{"subject_id": "BIGINT", "hadm_id": "BIGINT", "icustay_id": "BIGINT", "itemid": "BIGINT"},
    **{"starttime": "TIMESTAMP", "endtime": "TIMESTAMP"},
}

COLUMNS: dict[str, dict[str, str]] = {
    "patients": {
        **{"subject_id": "BIGINT", "gender": "VARCHAR"},
        **{"dob": "TIMESTAMP", "dod": "TIMESTAMP"},
    },
    "admissions": {
        **{"subject_id": "BIGINT", "hadm_id": "BIGINT"},
        **dict.fromkeys(
            ("admittime", "dischtime", "deathtime", "edregtime", "edouttime"), "TIMESTAMP"
        ),
        **dict.fromkeys(
            (
                *("admission_type", "admission_location", "discharge_location", "insurance"),
                *("language", "religion", "marital_status", "ethnicity"),
            ),
            "VARCHAR",
        ),
    },
    "icustays": {
        **{"subject_id": "BIGINT", "hadm_id": "BIGINT", "icustay_id": "BIGINT"},
        **{"first_careunit": "VARCHAR", "last_careunit": "VARCHAR"},
        **{"first_wardid": "BIGINT", "last_wardid": "BIGINT"},
        **{"intime": "TIMESTAMP", "outtime": "TIMESTAMP", "los": "VARCHAR"},
    },
    "transfers": {
        **{"subject_id": "BIGINT", "hadm_id": "BIGINT", "icustay_id": "BIGINT"},
        **{"eventtype": "VARCHAR", "curr_careunit": "VARCHAR", "curr_wardid": "BIGINT"},
        **{"intime": "TIMESTAMP"},
    },
    "diagnoses_icd": _CODE,
    "procedures_icd": _CODE,
    "drgcodes": {
        **{"hadm_id": "BIGINT", "drg_type": "VARCHAR", "drg_code": "VARCHAR"},
        **{"description": "VARCHAR"},
    },
    "labevents": {**_ITEM, **_VALUE},
    "chartevents": {**_ITEM, **_VALUE, **_STAY},
    "outputevents": {**_ITEM, **_STAY, "value": "DOUBLE", "valueuom": "VARCHAR"},
    "inputevents_mv": {
        **_PERIOD,
        **{"rate": "DOUBLE", "rateuom": "VARCHAR", "amount": "DOUBLE", "amountuom": "VARCHAR"},
        **{"patientweight": "DOUBLE"},
    },
    "inputevents_cv": {
        **_ITEM,
        **_STAY,
        **{"rate": "DOUBLE", "rateuom": "VARCHAR", "amount": "DOUBLE", "amountuom": "VARCHAR"},
    },
    "procedureevents_mv": _PERIOD,
    "prescriptions": {
        **{"subject_id": "BIGINT", "hadm_id": "BIGINT", "icustay_id": "BIGINT"},
        **{"startdate": "TIMESTAMP", "enddate": "TIMESTAMP", "drug": "VARCHAR"},
    },
    "d_items": {"itemid": "BIGINT", "label": "VARCHAR"},
    "d_labitems": {"itemid": "BIGINT", "label": "VARCHAR", "loinc_code": "VARCHAR"},
    "d_icd_diagnoses": {"icd9_code": "VARCHAR", "long_title": "VARCHAR"},
    "d_icd_procedures": {"icd9_code": "VARCHAR", "long_title": "VARCHAR"},
}
NEEDED = ("patients", "admissions")
OPTIONAL = tuple(name for name in COLUMNS if name not in NEEDED)
RELEASE = Release("MIMIC-III", "v1.4", COLUMNS, text=("value", "icd9_code"))


@dataclass(frozen=True)
class Event:
    """One kind of event of a raw table, as SQL over its columns. Rows without a code have none.

    Attributes:
        table: the raw table.
        code, time, number, text: of the event.
        columns: columns of its own, by name.
        of_admission: whether the raw rows know only the admission, whose patient and time of
            discharge they get.
        static: whether it has no time; of others those without one are left out.
    """

    table: str
    code: str
    time: str = "NULL"
    number: str = "NULL"
    text: str = "NULL"
    columns: tuple[tuple[str, str], ...] = ()
    of_admission: bool = False
    static: bool = False


def _code(first: str, *parts: str) -> str:
    """The SQL of a code; a part that is followed by a question mark may be unknown."""
    spelt = [f"'{first}'"]
    for part in parts:
        column = part.rstrip("?")
        spelt.append(f"coalesce({column}::VARCHAR, 'UNK')" if part != column else column)
    return " || '//' || ".join(spelt)


_HADM = (("hadm_id", "hadm_id"),)
_UNIT_STAY = (*_HADM, ("icustay_id", "icustay_id"))
_LISTED = (*_HADM, ("seq_num", "seq_num"))


def _demographic(name: str, column: str) -> Event:
    return Event("admissions", _code(name, column), "admittime", columns=_HADM)


# In the order in which those of the same time stand.
EVENTS = (
    Event("patients", _code("GENDER", "upper(trim(gender))"), static=True),
    Event("patients", "'MEDS_BIRTH'", "dob"),
    Event("admissions", "'ED_REGISTRATION'", "edregtime"),
    Event(
        "admissions",
        _code("HOSPITAL_ADMISSION", "admission_type?", "admission_location?"),
        "admittime",
        columns=_HADM,
    ),
    _demographic("INSURANCE", "insurance"),
    _demographic("LANGUAGE", "language"),
    _demographic("RELIGION", "religion"),
    _demographic("MARITAL_STATUS", "marital_status"),
    _demographic("RACE", "ethnicity"),
    Event("admissions", "'ED_OUT'", "edouttime"),
    Event(
        "transfers",
        _code("TRANSFER_TO", "eventtype", "curr_careunit?"),
        "intime",
        columns=(*_UNIT_STAY, ("wardid", "curr_wardid")),
    ),
    Event(
        "icustays",
        _code("ICU_ADMISSION", "first_careunit"),
        "intime",
        columns=(*_UNIT_STAY, ("wardid", "first_wardid")),
    ),
    Event(
        "chartevents",
        _code("LAB", "itemid", "valueuom?"),
        "charttime",
        "valuenum",
        "value",
        _UNIT_STAY,
    ),
    Event(
        "labevents", _code("LAB", "itemid", "valueuom?"), "charttime", "valuenum", "value", _HADM
    ),
    Event(
        "outputevents",
        _code("SUBJECT_FLUID_OUTPUT", "itemid", "valueuom?"),
        "charttime",
        "value",
        columns=_UNIT_STAY,
    ),
    Event(
        "inputevents_mv",
        _code("INFUSION_START", "itemid"),
        "starttime",
        "rate",
        columns=(*_UNIT_STAY, ("unit", "rateuom")),
    ),
    Event(
        "inputevents_mv",
        _code("INFUSION_END", "itemid"),
        "endtime",
        "amount",
        columns=(*_UNIT_STAY, ("unit", "amountuom")),
    ),
    Event(
        "inputevents_mv",
        "CASE WHEN patientweight IS NOT NULL THEN 'SUBJECT_WEIGHT_AT_INFUSION//KG' END",
        "starttime",
        "patientweight",
    ),
    # CareVue charts rates and amounts at moments, without beginning and end.
    Event(
        "inputevents_cv",
        f"CASE WHEN rate IS NOT NULL THEN {_code('INFUSION_START', 'itemid')} END",
        "charttime",
        "rate",
        columns=(*_UNIT_STAY, ("unit", "rateuom")),
    ),
    Event(
        "inputevents_cv",
        f"CASE WHEN amount IS NOT NULL THEN {_code('INFUSION_END', 'itemid')} END",
        "charttime",
        "amount",
        columns=(*_UNIT_STAY, ("unit", "amountuom")),
    ),
    Event(
        "procedureevents_mv", _code("PROCEDURE//START", "itemid"), "starttime", columns=_UNIT_STAY
    ),
    Event("procedureevents_mv", _code("PROCEDURE//END", "itemid"), "endtime", columns=_UNIT_STAY),
    Event("prescriptions", _code("MEDICATION//START", "drug?"), "startdate", columns=_UNIT_STAY),
    Event("prescriptions", _code("MEDICATION//STOP", "drug?"), "enddate", columns=_UNIT_STAY),
    # The value is the length of the stay in days, as MIMIC rounds it.
    Event(
        "icustays",
        _code("ICU_DISCHARGE", "last_careunit"),
        "outtime",
        "TRY_CAST(los AS DOUBLE)",
        "los",
        (*_UNIT_STAY, ("wardid", "last_wardid")),
    ),
    Event(
        "diagnoses_icd",
        _code("DIAGNOSIS//ICD//9", "nullif(trim(icd9_code), '')"),
        "dischtime",
        columns=_LISTED,
        of_admission=True,
    ),
    Event(
        "procedures_icd",
        _code("PROCEDURE//ICD//9", "nullif(trim(icd9_code), '')"),
        "dischtime",
        columns=_LISTED,
        of_admission=True,
    ),
    Event(
        "drgcodes",
        _code("DRG", "drg_type", "drg_code", "description?"),
        "dischtime",
        columns=_HADM,
        of_admission=True,
    ),
    Event(
        "admissions",
        _code("HOSPITAL_DISCHARGE", "discharge_location?"),
        "dischtime",
        columns=_HADM,
    ),
    # The moment of a death in hospital, else the day that is known.
    Event("deaths", "'MEDS_DEATH'", "coalesce(deathtime, dod)"),
)
