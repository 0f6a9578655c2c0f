"""From tables of codes to those of the stays, and to the labels that they define."""

from collections.abc import Iterable, Sequence

import duckdb
import pyarrow as pa

from synehrgy.cohort import is_icd, parents
from synehrgy.sources.reading import sql_text
from synehrgy.sources.tables.declaration import CodesTable, Declaration
from synehrgy.sources.tables.problems import Fault, Problems
from synehrgy.sources.tables.raw import RawTable, number_sql, reading
from synehrgy.sources.tables.stays import level_sql
from synehrgy.sources.tables.summary import TablesSummary


def load_codes(
    connection: duckdb.DuckDBPyConnection,
    tables: Sequence[RawTable],
    declared: Declaration,
    problems: Problems,
    summary: TablesSummary,
) -> None:
    """Create the table ``codes`` of the stays' codes, each once, in the order of listing.

    ICD codes are written in capitals and without their point. What is left out or written in
    another way is counted in ``summary``.

    Raises:
        UserError: a column that a file does not have, or a file that cannot be read.
    """
    connection.execute(
        """
        CREATE TABLE coded (
            listing INTEGER, row BIGINT, place INTEGER, system VARCHAR, code VARCHAR,
            rank DOUBLE, fault VARCHAR, text VARCHAR
        )
        """
    )
    for listing, (table, form) in enumerate(zip(tables, declared.codes, strict=True)):
        _load(connection, listing, table, form, declared)
        rows = f"FROM coded WHERE listing = {listing}"
        faults = _faults(form, declared)
        problems.of_rows(connection, table, rows, faults, "codes", form.drop, summary.dropped)
        n, n_empty = connection.execute(
            f"SELECT count(*), count(*) FILTER (fault = 'empty') FROM ({rows})"
        ).fetchall()[0]
        summary.rows[table.file.name] = n
        summary.dropped[f"rows of {table.file.name} without a code"] = n_empty
    icd = ", ".join(sql_text(name) for name in declared.systems if is_icd(name)) or "NULL"
    connection.execute(
        f"""
        CREATE TABLE found AS
        SELECT * REPLACE (
            CASE WHEN system IN ({icd}) THEN upper(replace(code, '.', '')) ELSE code END AS code
        ), code AS written
        FROM coded WHERE fault IS NULL
        """
    )
    connection.execute(
        """
        CREATE TABLE codes AS
        SELECT place, system, code, CAST(row_number() OVER listed - 1 AS INTEGER) AS position
        FROM (
            FROM found QUALIFY row_number() OVER (
                PARTITION BY place, system, code ORDER BY listing, rank NULLS LAST, row
            ) = 1
        )
        WINDOW listed AS (PARTITION BY place ORDER BY listing, rank NULLS LAST, row)
        """
    )
    changed, repeated = connection.execute(
        """
        SELECT count(*) FILTER (code <> written), count(*) - (SELECT count(*) FROM codes)
        FROM found
        """
    ).fetchall()[0]
    summary.dropped["codes that a stay has twice"] = int(repeated)
    if changed:
        summary.notes.append(f"{changed:,} ICD codes are written without their point, in capitals")


def define_labels(
    connection: duckdb.DuckDBPyConnection, declared: Declaration, problems: Problems
) -> dict[str, list[str]]:
    """Add a column 0 or 1 to ``stays`` for each label that codes define.

    One that no code defines is a problem.

    Returns:
        The codes that define each of these labels, by its column: those of the table, and what is
        above them in the hierarchy of ICD as far as it is meant, too.
    """
    listed = connection.execute("SELECT DISTINCT system, code FROM codes ORDER BY ALL").fetchall()
    defining = {}
    for i, (column, rule) in enumerate(declared.labels.items()):
        if not rule.codes:
            continue
        system = str(rule.system)
        wanted = [w.replace(".", "").upper() if is_icd(system) else w for w in rule.codes]
        known = {code for of, code in listed if of == system}
        known |= {above for code in known for above in parents(system, code)}
        codes = sorted(code for code in known if _is_meant(code, wanted))
        if not codes:
            problems.found.append(
                f"labels.{column}: no stay has one of the codes {', '.join(rule.codes)} of "
                f"{system}. Correct them, or remove the label."
            )
        defining[column] = codes
        connection.register("defining", pa.table({"code": pa.array(codes, pa.string())}))
        connection.execute(f"ALTER TABLE stays ADD COLUMN y{i} TINYINT DEFAULT 0")
        connection.execute(
            f"""
            UPDATE stays SET y{i} = 1 WHERE place IN (
                SELECT place FROM codes JOIN defining USING (code) WHERE system = {sql_text(system)}
            )
            """
        )
        connection.unregister("defining")
    return defining


def _is_meant(code: str, wanted: Iterable[str]) -> bool:
    return any(code.startswith(w[:-1]) if w.endswith("*") else code == w for w in wanted)


def _faults(form: CodesTable, declared: Declaration) -> dict[str, Fault]:
    return {
        "unknown_stay": Fault(
            form.stay,
            f"{{}} is no stay of {declared.stays.file}",
            "of unknown stays",
            "Add the stay",
        ),
        "unknown_system": Fault(
            str(form.system_column),
            f"{{}} is no code system ({', '.join(form.systems)})",
            "of unknown code systems",
            "Add it to codes.systems in tables.yaml",
            of_texts=True,
        ),
        "unreadable_position": Fault(
            str(form.position), "{} is no number", "without a position", "Correct it"
        ),
    }


def _load(
    connection: duckdb.DuckDBPyConnection,
    listing: int,
    table: RawTable,
    form: CodesTable,
    declared: Declaration,
) -> None:
    """Add the rows of a file to ``coded``, with what is wrong with each."""
    if form.system_column is None:
        kind, system = "''", sql_text(form.system)
    else:
        kind = table.text(form.system_column, "codes.system_column")
        system = level_sql("kind", form.systems)
    # A point alone is how SAS writes that there is none.
    icd = [name for name in [form.system, *form.systems] if name is not None and is_icd(name)]
    names = ", ".join(map(sql_text, icd)) or "NULL"
    nothing = f"(coalesce(system IN ({names}), false) AND replace(code, '.', '') = '')"
    rank_text = "NULL::VARCHAR"
    if form.position is not None:
        rank_text = table.text(form.position, "codes.position")
    with reading(table):
        connection.execute(
            f"""
            INSERT INTO coded
            SELECT {listing}, row, place, system, code, rank, fault, CASE fault
                WHEN 'unknown_stay' THEN key WHEN 'unknown_system' THEN kind
                WHEN 'unreadable_position' THEN rank_text END AS text
            FROM (
                SELECT *, CASE
                    WHEN code IS NULL OR {nothing} THEN 'empty'
                    WHEN place IS NULL THEN 'unknown_stay'
                    WHEN system IS NULL THEN 'unknown_system'
                    WHEN rank IS NULL AND rank_text IS NOT NULL THEN 'unreadable_position'
                    END AS fault
                FROM (
                    SELECT row, {table.key(form.stay, "codes.stay")} AS key,
                        {table.text(form.code, "codes.code", codes=True)} AS code,
                        {kind} AS kind, {system} AS system, {rank_text} AS rank_text,
                        {number_sql("rank_text", declared)} AS rank
                    FROM {table.source}
                ) AS cells LEFT JOIN (SELECT key, place FROM stays) AS known USING (key)
            )
            """
        )
