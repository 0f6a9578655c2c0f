"""From the values of all files to one per stay, time and series, a bucket of patients at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import duckdb

from synehrgy.sources.tables.declaration import Declaration
from synehrgy.sources.tables.problems import SHOWN_LINES, Problems
from synehrgy.sources.tables.raw import RawTable

# Values that are ordered and written at once: some 200 MB.
BUCKET_ROWS = 2_000_000

# A number that orders the values of all files: by file, row and column.
_ID = "(((CAST(listing AS BIGINT) << 36) + row) << 14) + nth"


def buckets(connection: duckdb.DuckDBPyConnection) -> list[tuple[int, int]]:
    """First and last place of consecutive buckets of whole patients, some BUCKET_ROWS rows each."""
    return connection.execute(
        """
        WITH counted AS (
            SELECT place, count(*) AS n FROM measured WHERE fault IS NULL GROUP BY place
        ),
        patients AS (
            SELECT min(place) AS low, max(place) AS high, coalesce(sum(n), 0) + count(*) AS n
            FROM stays LEFT JOIN counted USING (place) GROUP BY subject_id
        )
        SELECT min(low), max(high)
        FROM (SELECT *, (sum(n) OVER (ORDER BY low) - n) // ? AS bucket FROM patients)
        GROUP BY bucket ORDER BY bucket
        """,
        [BUCKET_ROWS],
    ).fetchall()


@dataclass
class Repeats:
    """Values of a series at a time that has one already.

    Attributes:
        same: how many say the same again.
        others: of those that say something else, how many, the first rows and the stay of the first
            of them, by the number of the file.
    """

    same: int = 0
    others: dict[int, tuple[int, list[int], str]] = field(default_factory=dict)

    def refused(self, declared: Declaration) -> bool:
        """Whether there are any that may not be left out."""
        return any("duplicate" not in declared.measurements[i].drop for i in self.others)

    def tell(
        self,
        tables: Sequence[RawTable],
        declared: Declaration,
        problems: Problems,
        dropped: dict[str, int],
    ) -> None:
        """Add them to problems, or count what is left out."""
        if self.same:
            dropped["values that stand in the tables twice"] = self.same
        for listing, (n, lines, what) in sorted(self.others.items()):
            table, form = tables[listing], declared.measurements[listing]
            if "duplicate" in form.drop:
                dropped[f"rows of {table.file.name} of times that had another value before"] = n
                continue
            advice = "Correct it, or keep the first: drop: [duplicate] in measurements."
            column = form.value or form.hours or str(form.time)
            problems.add(table, column, lines, n, what, advice)


def load_bucket(
    connection: duckdb.DuckDBPyConnection, first: int, last: int, repeats: Repeats
) -> None:
    """Create the table ``bucket`` of some stays' values: the first of each series and time.

    Args:
        connection: of the database.
        first, last: places of the stays, both included.
        repeats: counts the other values.
    """
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE bucket AS
        SELECT place, hours, variable, arg_min(number, {_ID}) AS number, count(*) AS n,
            min({_ID}) AS id, min(number) <> max(number) AS differ
        FROM measured WHERE fault IS NULL AND place BETWEEN ? AND ?
        GROUP BY place, hours, variable
        """,
        [first, last],
    )
    same, differ = connection.execute(
        "SELECT sum(n - 1) FILTER (NOT differ), count(*) FILTER (differ) FROM bucket"
    ).fetchall()[0]
    repeats.same += int(same or 0)
    if not differ:
        return
    found = connection.execute(
        f"""
        SELECT listing, count(*), min(row, {SHOWN_LINES}), arg_min(
            name || ' of the stay ' || key || ' has another value at this time already', row
        )
        FROM measured JOIN bucket USING (place, hours, variable)
            JOIN variables USING (variable) JOIN (SELECT place, key FROM stays) USING (place)
        WHERE fault IS NULL AND differ AND {_ID} <> id
        GROUP BY listing
        """
    ).fetchall()
    for listing, n, lines, what in found:
        before = repeats.others.get(listing, (0, [], ""))
        merged = sorted([*before[1], *lines])[:SHOWN_LINES]
        # The first line is shown with what is wrong with it.
        what = before[2] if before[1][:1] == merged[:1] else what
        repeats.others[listing] = (before[0] + n, merged, what)


MEASUREMENTS = """
    SELECT stay_id, hours, name AS variable, CASE WHEN NOT has_levels THEN number END AS value,
        level
    FROM bucket JOIN (SELECT place, stay_id FROM stays) USING (place)
        JOIN variables USING (variable)
        LEFT JOIN (SELECT DISTINCT variable, rank, level FROM levels) AS known
            ON known.variable = bucket.variable AND rank = number
    ORDER BY place, hours, bucket.variable
"""
