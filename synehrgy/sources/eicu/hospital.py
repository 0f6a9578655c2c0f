"""Which unit stays of eICU-CRD enter the cohort, and where their codes and events are.

A row of ``patient`` is a stay in one unit, and all times are minutes since admission to it. Nothing
but the year of discharge relates the hospital stays of a patient to each other.
"""

from synehrgy.sources.eicu.tables import RELEASE
from synehrgy.sources.extraction import Hospital

# One query per rule: what it leaves, and for what reason the others are dropped.
STEPS = {
    # "002-34851" becomes 2034851: two patients cannot get the same number, which is below those of
    # synthetic patients.
    "numbered": (
        "patient without a number such as 002-34851",
        """
        SELECT *, CAST(split_part(uniquepid, '-', 1) AS BIGINT) * 1000000
            + CAST(split_part(uniquepid, '-', 2) AS BIGINT) AS subject_id
        FROM patient WHERE regexp_full_match(uniquepid, '[0-9]{3}-[1-9][0-9]{0,5}')
        """,
    ),
    "intensive": (
        "in a step-down unit",
        "SELECT * FROM numbered WHERE lower(unitstaytype) IS DISTINCT FROM 'stepdown/other'",
    ),
    "alone": (
        "not the only stay of its admission",
        """
        SELECT * FROM intensive
        QUALIFY count(*) OVER (PARTITION BY patienthealthsystemstayid) = 1
        """,
    ),
    "unmoved": (
        "moved from another unit",
        "SELECT * FROM alone WHERE lower(unitstaytype) IS DISTINCT FROM 'transfer'",
    ),
    "adult": (
        "younger than 18, or of unknown age",
        """
        SELECT * EXCLUDE (age, years), CASE WHEN years > 90 THEN 90 ELSE years END AS age
        FROM (SELECT *, TRY_CAST(replace(age, '> 89', '90') AS DOUBLE) AS years FROM unmoved)
        WHERE years >= 18
        """,
    ),
    "known": (
        "not known whether the patient left the hospital alive",
        "SELECT * FROM adult WHERE hospitaldischargestatus IN ('Alive', 'Expired')",
    ),
}

# Numbers of stays tell nothing of their order, but a death is the last.
#
# The length in hours is computed as the times of events are, so that what is measured in the last
# minute belongs to the stay.
STAYS = """
    SELECT CAST(row_number() OVER (
            ORDER BY subject_id, age, hospitaldischargeyear,
                hospitaldischargestatus = 'Expired', patientunitstayid
        ) AS INTEGER) AS place,
        subject_id, patientunitstayid AS stay_id, patienthealthsystemstayid AS hadm_id,
        patientunitstayid AS timeline, CAST(NULL AS BIGINT) AS admission,
        0 AS starts, CAST(unitdischargeoffset AS DOUBLE) * 60 AS ends,
        ends / 3600 AS los_hours, age,
        CASE gender WHEN 'Female' THEN 'F' WHEN 'Male' THEN 'M' END AS gender,
        CAST(hospitaldischargestatus = 'Expired' AS TINYINT) AS in_hospital_mortality
    FROM known
"""

# ICD-9 and ICD-10 codes of an entry stand in one text, "518.81, J96.00". The codes of external
# causes (E) and of other reasons (V) of ICD-9 are told from those of ICD-10 by their digits.
ICD9 = "([0-9]{3}|V[0-9]{2}|E[0-9]{3})([.][0-9]{1,2})?"
ICD10 = "[A-Z][0-9][0-9A-Z]([.][0-9A-Z]{1,4})?"

# An entry is repeated as long as it holds; its first place counts.
CODES = f"""
    WITH entries AS (
        SELECT patientunitstayid AS stay_id, string_split(upper(icd9code), ',') AS texts,
            list_position(['Primary', 'Major'], diagnosispriority) AS priority,
            row_number() OVER (ORDER BY priority NULLS LAST, diagnosisoffset, diagnosisid) AS entry
        FROM diagnosis
    ),
    listed AS (
        SELECT stay_id, entry, trim(unnest(texts)) AS text, generate_subscripts(texts, 1) AS place
        FROM entries
    ),
    told AS (
        SELECT stay_id, replace(text, '.', '') AS code, 100 * entry + place AS rank,
            CASE WHEN regexp_full_match(text, '{ICD9}') THEN 'icd9_diagnosis'
                WHEN regexp_full_match(text, '{ICD10}') THEN 'icd10_diagnosis' END AS system
        FROM listed
    )
    SELECT stay_id, system, min(rank) AS rank, code FROM told GROUP BY stay_id, system, code
"""

CHARTED = """
    SELECT patientunitstayid AS timeline, NULL AS admission, NULL AS stay_id,
        {item} AS item, CAST({offset} AS DOUBLE) * 60 AS time,
        rtrim({value}, ' %') AS value,
        CASE WHEN ends_with(trim({value}), '%') THEN '%' END AS valueuom
    FROM {table}
"""

LABS = """
    SELECT patientunitstayid AS timeline, NULL AS admission, NULL AS stay_id,
        labname AS item, CAST(labresultoffset AS DOUBLE) * 60 AS time,
        CAST(labresult AS VARCHAR) AS value, labmeasurenamesystem AS valueuom
    FROM {table}
"""

# A column each. Monitors send a value every five minutes; in MIMIC nurses note one about every
# hour, so that the row of the first five minutes of every hour is taken, too.
VITALS = """
    SELECT patientunitstayid AS timeline, NULL AS admission, NULL AS stay_id,
        item, CAST(observationoffset AS DOUBLE) * 60 AS time,
        CAST(value AS VARCHAR) AS value, NULL AS valueuom
    FROM (
        UNPIVOT (FROM {{table}} WHERE {rows})
        ON COLUMNS(* EXCLUDE (patientunitstayid, observationoffset)) INTO NAME item VALUE value
    )
"""

EICU = Hospital(
    name="eicu",
    package="synehrgy.sources.eicu",
    release=RELEASE,
    stay_tables=("patient", "diagnosis"),
    listed="patient",
    steps=STEPS,
    stays=STAYS,
    code_systems={
        "icd9_diagnosis": "ICD-9-CM diagnoses",
        "icd10_diagnosis": "ICD-10-CM diagnoses",
    },
    codes=CODES,
    # There is no list of all diagnoses.
    diagnoses="SELECT system, code FROM codes",
    events={
        "lab": LABS,
        "nursecharting": CHARTED.format(
            item="nursingchartcelltypevallabel || '|' || nursingchartcelltypevalname",
            offset="nursingchartoffset",
            value="nursingchartvalue",
            table="{table}",
        ),
        "respiratorycharting": CHARTED.format(
            item="respchartvaluelabel",
            offset="respchartoffset",
            value="respchartvalue",
            table="{table}",
        ),
        "vitalperiodic": VITALS.format(rows="observationoffset % 60 BETWEEN 0 AND 4"),
        "vitalaperiodic": VITALS.format(rows="true"),
    },
)
