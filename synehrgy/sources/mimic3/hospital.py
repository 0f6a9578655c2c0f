"""Which stays of MIMIC-III enter the cohort, and where their codes and events are."""

from synehrgy.sources.extraction import Hospital
from synehrgy.sources.mimic3.tables import RELEASE

# One query per rule: what it leaves, and for what reason the others are dropped.
STEPS = {
    "unmoved": (
        "moved between units or wards",
        """
        SELECT * FROM icustays
        WHERE first_careunit = last_careunit AND first_wardid = last_wardid
        """,
    ),
    "admitted": (
        "no admission or no patient to it",
        """
        SELECT unmoved.*, admittime, dischtime, deathtime, gender, dob, dod
        FROM unmoved JOIN admissions USING (subject_id, hadm_id) JOIN patients USING (subject_id)
        """,
    ),
    "alone": (
        "not the only stay of its admission",
        "SELECT * FROM admitted QUALIFY count(*) OVER (PARTITION BY hadm_id) = 1",
    ),
    # Dates of birth of patients over 89 are shifted, so that they come out at about 300 or, where
    # a program cannot count so far, below zero.
    "adult": (
        "younger than 18, or of unknown age",
        """
        SELECT *, CASE WHEN years BETWEEN 0 AND 90 THEN years WHEN years IS NOT NULL THEN 90 END
            AS age
        FROM (SELECT *, (epoch(intime) - epoch(dob)) / (365 * 86400) AS years FROM alone)
        WHERE age >= 18
        """,
    ),
}

# Rounded, because LOS * 24 of the 4 decimals in the file may fall below the true product by a
# rounding error of the last bit, and with it a measurement at the very end of the stay.
STAYS = """
    SELECT CAST(row_number() OVER (ORDER BY subject_id, intime, icustay_id) AS INTEGER) AS place,
        subject_id, icustay_id AS stay_id, hadm_id,
        subject_id AS timeline, hadm_id AS admission,
        epoch(intime) AS starts, epoch(outtime) AS ends,
        round(los * 24, 6) AS los_hours, age, upper(trim(gender)) AS gender,
        CAST(coalesce(dod BETWEEN admittime AND dischtime, false)
            OR coalesce(deathtime BETWEEN admittime AND dischtime, false) AS TINYINT)
            AS in_hospital_mortality
    FROM adult
"""

CODES = """
    SELECT stay_id, 'icd9_diagnosis' AS system, seq_num AS rank, trim(icd9_code) AS code
    FROM diagnoses_icd JOIN stays USING (hadm_id)
    UNION ALL
    SELECT stay_id, 'icd9_procedure', seq_num, trim(icd9_code)
    FROM procedures_icd JOIN stays USING (hadm_id)
"""

EVENTS = """
    SELECT subject_id AS timeline, hadm_id AS admission, {stay} AS stay_id,
        itemid AS item, epoch(charttime) AS time, value, valueuom
    FROM {table}
"""

MIMIC3 = Hospital(
    name="mimic3",
    package="synehrgy.sources.mimic3",
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
        "icd9_procedure": "ICD-9-CM procedures",
    },
    codes=CODES,
    diagnoses="SELECT 'icd9_diagnosis' AS system, trim(icd9_code) AS code FROM d_icd_diagnoses",
    events={
        "chartevents": EVENTS.format(stay="icustay_id", table="{table}"),
        "labevents": EVENTS.format(stay="NULL", table="{table}"),
    },
)
