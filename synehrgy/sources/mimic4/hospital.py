"""Which stays of MIMIC-IV enter the cohort, and where their codes and events are.

The rules are those of MIMIC-III, with what the releases state in another way: there are no wards,
an age in years at an anchor year instead of a date of birth, and codes of two ICD versions.
"""

from synehrgy.sources.extraction import Hospital
from synehrgy.sources.mimic4.tables import RELEASE

# One query per rule: what it leaves, and for what reason the others are dropped.
STEPS = {
    "unmoved": (
        "moved between units",
        "SELECT * FROM icustays WHERE first_careunit = last_careunit",
    ),
    "admitted": (
        "no admission or no patient to it",
        """
        SELECT unmoved.*, admittime, dischtime, deathtime, gender, anchor_age, anchor_year, dod
        FROM unmoved JOIN admissions USING (subject_id, hadm_id) JOIN patients USING (subject_id)
        """,
    ),
    "alone": (
        "not the only stay of its admission",
        "SELECT * FROM admitted QUALIFY count(*) OVER (PARTITION BY hadm_id) = 1",
    ),
    # Patients over 89 have an anchor age of 91.
    "adult": (
        "younger than 18, or of unknown age",
        """
        SELECT *, CASE WHEN years > 90 THEN 90 ELSE years END AS age
        FROM (SELECT *, anchor_age + year(intime) - anchor_year AS years FROM alone)
        WHERE age >= 18
        """,
    ),
}

# The date of death has no time, so that it comes before the admission of the day; deaths in
# hospital have a time of death.
STAYS = """
    SELECT CAST(row_number() OVER (ORDER BY subject_id, intime, stay_id) AS INTEGER) AS place,
        subject_id, stay_id, hadm_id,
        subject_id AS timeline, hadm_id AS admission,
        epoch(intime) AS starts, epoch(outtime) AS ends,
        round(los * 24, 6) AS los_hours, CAST(age AS DOUBLE) AS age, upper(trim(gender)) AS gender,
        CAST(coalesce(dod BETWEEN admittime AND dischtime, false)
            OR coalesce(deathtime BETWEEN admittime AND dischtime, false) AS TINYINT)
            AS in_hospital_mortality
    FROM adult
"""

CODES = """
    SELECT stay_id, 'icd' || icd_version || '_diagnosis' AS system, seq_num AS rank,
        trim(icd_code) AS code
    FROM diagnoses_icd JOIN stays USING (hadm_id)
    UNION ALL
    SELECT stay_id, 'icd' || icd_version || '_procedure', seq_num, trim(icd_code)
    FROM procedures_icd JOIN stays USING (hadm_id)
"""

# Of ICD-9 those with a description define labels, as published; of ICD-10 all that occur.
DIAGNOSES = """
    SELECT 'icd' || icd_version || '_diagnosis' AS system, trim(icd_code) AS code
    FROM d_icd_diagnoses
    UNION SELECT system, code FROM codes WHERE system = 'icd10_diagnosis'
"""

CHARTED = """
    SELECT subject_id AS timeline, hadm_id AS admission, stay_id,
        itemid AS item, epoch(charttime) AS time, value, valueuom
    FROM {table}
"""

# De-identification put "___" in the place of many a result, but left its number.
LABS = """
    SELECT subject_id AS timeline, hadm_id AS admission, NULL AS stay_id,
        itemid AS item, epoch(charttime) AS time,
        CASE WHEN trim(value) = '___' THEN valuenum ELSE value END AS value, valueuom
    FROM {table}
"""

MIMIC4 = Hospital(
    name="mimic4",
    package="synehrgy.sources.mimic4",
    release=RELEASE,
    stay_tables=(
        "patients",
        "admissions",
        "icustays",
        "diagnoses_icd",
        "procedures_icd",
        "d_icd_diagnoses",
    ),
    listed="icustays",
    steps=STEPS,
    stays=STAYS,
    code_systems={
        "icd9_diagnosis": "ICD-9-CM diagnoses",
        "icd10_diagnosis": "ICD-10-CM diagnoses",
        "icd9_procedure": "ICD-9-CM procedures",
        "icd10_procedure": "ICD-10-PCS procedures",
    },
    codes=CODES,
    diagnoses=DIAGNOSES,
    events={"chartevents": CHARTED, "labevents": LABS},
)
