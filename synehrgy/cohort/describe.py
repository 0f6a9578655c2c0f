"""What is in a cohort folder: counts, distributions, and what looks odd about them."""

import glob
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from synehrgy.cohort.io import read_schema, read_stays
from synehrgy.cohort.schema import Label, Schema
from synehrgy.cohort.tables import TABLES

# Numbers that stand for "unknown" in many tables.
SENTINELS = (-9999.0, -999.0, -99.0, -9.0, -1.0, 99.0, 999.0, 9999.0, 99999.0)

# Bars of a histogram.
N_BINS = 40

# What a database of the summaries may hold in memory.
_MEMORY = "2GB"

# The lowest and highest values of a quantity that a living person can have, several if its unit is
# not one only.
Limits = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Description:
    """What is in a cohort.

    Attributes:
        path: the cohort folder.
        schema: the declared columns.
        stays: the stays table.
        codes: a row per code system: ``n``, ``n_codes`` (different ones), ``n_stays``, ``n_rare``
            (different ones that occur less than 6 times), ``n_pointed``, ``n_repeated`` (more than
            once in a stay), ``commonest``.
        numbers: a row per continuous series with values: ``n``, ``lowest``, ``low`` (1 %),
            ``quarter``, ``median``, ``three_quarters``, ``high`` (99 %), ``highest``,
            ``n_impossible`` (outside the limits; NaN where none are known).
        levels: a row per level of a categorical series: ``variable``, ``level``, ``n``.
        stays_of: number of stays with a value of each series.
        histograms: ``variable``, ``bin`` (of N_BINS between ``low`` and ``high``), ``n``.
        sentinels: ``variable``, ``value``, ``n`` of values of ``SENTINELS``.
        n_points: time points.
        n_measured: stays with a measurement.
        n_late: measurements after the end of their stay.
        disagreeing: stays whose label is not what its codes say, by label of those with codes.
    """

    path: Path
    schema: Schema
    stays: pd.DataFrame
    codes: pd.DataFrame
    numbers: pd.DataFrame
    levels: pd.DataFrame
    stays_of: pd.Series
    histograms: pd.DataFrame
    sentinels: pd.DataFrame
    n_points: int
    n_measured: int
    n_late: int
    disagreeing: pd.Series


def describe(path: Path, limits: Mapping[str, Limits] | None = None) -> Description:
    """Summarise a cohort folder that keeps the rules; memory grows with the number of stays only.

    Args:
        path: the cohort folder.
        limits: possible values of series, by their name in the schema.

    Raises:
        UserError: no cohort there, or stays that cannot be read.
    """
    path = Path(path)
    schema, _ = read_schema(path)
    stays = read_stays(path)
    known = [(name, *ends) for name, pairs in (limits or {}).items() for ends in pairs]
    with (
        tempfile.TemporaryDirectory() as folder,
        duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": folder}) as connection,
    ):
        connection.register("limits", pd.DataFrame(known, columns=["variable", "low", "high"]))
        for name in TABLES:
            # A name of a file is a pattern for DuckDB.
            file = glob.escape(str(path / f"{name}.parquet"))
            connection.read_parquet(file).create_view(name)
        connection.execute(f"CREATE TABLE numbers AS {_NUMBERS}")
        found = {name: connection.sql(sql).df() for name, sql in _QUERIES.items()}
        disagreeing = {
            label.column: _n_disagreeing(connection, label)
            for label in schema.labels
            if label.definition
        }
    numbers = found["numbers"].merge(found["impossible"], "left", on="variable")
    limited = numbers["variable"].isin(list(limits or {}))
    numbers.loc[limited & numbers["n_impossible"].isna(), "n_impossible"] = 0
    totals = found["totals"].iloc[0].astype(int)
    return Description(
        path=path,
        schema=schema,
        stays=stays,
        codes=found["codes"].set_index("system"),
        numbers=numbers.set_index("variable"),
        levels=found["levels"],
        stays_of=found["stays_of"].set_index("variable")["n"],
        histograms=found["histograms"],
        sentinels=found["sentinels"],
        n_points=totals["n_points"],
        n_measured=totals["n_measured"],
        n_late=totals["n_late"],
        disagreeing=pd.Series(disagreeing, dtype="int64"),
    )


def _n_disagreeing(connection: duckdb.DuckDBPyConnection, label: Label) -> int:
    """Stays whose label is not what its codes say."""
    pairs = [(system, code) for system, codes in label.definition.items() for code in codes]
    connection.register("defining", pd.DataFrame(pairs, columns=["system", "code"]))
    column = '"' + label.column.replace('"', '""') + '"'
    rows = connection.sql(
        f"""
        SELECT count(*) FROM stays WHERE ({column} = 1) <> (stay_id IN (
            SELECT stay_id FROM codes SEMI JOIN defining
                ON codes.system = defining.system AND codes.code = defining.code
        ))
        """
    ).fetchall()
    return int(rows[0][0])


_NUMBERS = """
    SELECT variable, count(*) AS n, min(value) AS lowest, max(value) AS highest,
        approx_quantile(value, 0.01) AS low, approx_quantile(value, 0.25) AS quarter,
        approx_quantile(value, 0.5) AS median, approx_quantile(value, 0.75) AS three_quarters,
        approx_quantile(value, 0.99) AS high
    FROM measurements WHERE value IS NOT NULL GROUP BY variable ORDER BY variable
"""

_QUERIES = {
    "numbers": "FROM numbers",
    "impossible": """
        SELECT variable, count(*) AS n_impossible FROM measurements
        WHERE variable IN (SELECT variable FROM limits) AND value IS NOT NULL AND NOT EXISTS (
            FROM limits WHERE limits.variable = measurements.variable AND value BETWEEN low AND high
        )
        GROUP BY variable
    """,
    "histograms": f"""
        SELECT variable, n, CAST(bin AS INTEGER) AS bin FROM (
            SELECT variable, count(*) AS n, least(
                floor((value - low) / (high - low) * {N_BINS}), {N_BINS - 1}
            ) AS bin
            FROM measurements JOIN (SELECT variable, low, high FROM numbers) USING (variable)
            WHERE low < high AND value BETWEEN low AND high GROUP BY ALL
        )
        ORDER BY variable, bin
    """,
    "sentinels": f"""
        SELECT variable, value, count(*) AS n FROM measurements
        WHERE value IN {SENTINELS} GROUP BY ALL ORDER BY ALL
    """,
    "levels": """
        SELECT variable, level, count(*) AS n FROM measurements
        WHERE level IS NOT NULL GROUP BY ALL ORDER BY ALL
    """,
    "stays_of": """
        SELECT variable, count(DISTINCT stay_id) AS n FROM measurements GROUP BY variable
    """,
    "codes": """
        WITH counted AS (
            SELECT system, code, count(*) AS n, n - count(DISTINCT stay_id) AS n_repeated
            FROM codes GROUP BY ALL
        )
        SELECT system, sum(n) AS n, count(*) AS n_codes, sum(n_repeated) AS n_repeated,
            count(*) FILTER (n < 6) AS n_rare, count(*) FILTER (code LIKE '%.%') AS n_pointed,
            (SELECT count(DISTINCT stay_id) FROM codes WHERE codes.system = counted.system)
                AS n_stays,
            max_by(code || ' ' || n, n, 12) AS commonest
        FROM counted GROUP BY system
    """,
    "totals": """
        SELECT coalesce(sum(n), 0) AS n_points, count(*) AS n_measured,
            coalesce(sum(n_after), 0) AS n_late
        FROM (
            SELECT stay_id, count(DISTINCT hours) AS n,
                count(*) FILTER (hours > los_hours + 1.0 / 60) AS n_after
            FROM measurements LEFT JOIN (SELECT stay_id, los_hours FROM stays) USING (stay_id)
            GROUP BY stay_id
        )
    """,
}
