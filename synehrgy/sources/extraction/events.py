"""From raw event rows to one value per series and time, in bounded memory.

The raw tables are read once, and the rows of the profile's items, about a sixth, are kept on disk.
These are then cleaned and grouped a bucket of patients at a time.
"""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from synehrgy.sources.extraction.cleaning import DUPLICATES, cleaned
from synehrgy.sources.extraction.hospital import Hospital
from synehrgy.sources.extraction.resources import Item, ItemSet, Profile
from synehrgy.sources.extraction.tables import RawTable
from synehrgy.sources.reading import blame, sql_text

# Rows that are cleaned and grouped at once: some 300 MB.
BUCKET_ROWS = 2_000_000


def load_item_sets(connection: duckdb.DuckDBPyConnection, profile: Profile) -> None:
    """Create the tables ``variables``, ``levels`` and ``items``.

    A variable's number is its place in alphabetical order, which is the order of measurements.
    """
    numbered = list(enumerate(profile.item_sets))
    _create(
        connection,
        "variables",
        {"variable": pa.uint16(), "name": pa.string(), "kind": pa.string()},
        [(number, item_set.name, item_set.kind) for number, item_set in numbered],
    )
    _create(
        connection,
        "levels",
        {
            "variable": pa.uint16(),
            "position": pa.float64(),
            "level": pa.string(),
            "spelling": pa.string(),
        },
        [
            (number, position, level, spelling)
            for number, item_set in numbered
            for position, (level, spellings) in enumerate(item_set.levels.items())
            for spelling in spellings
        ],
    )
    items = [
        (
            profile.numbers(table)[item],
            number,
            # Items of the first choice, then the others; one choice if none is preferred.
            int(bool(item_set.preferred) and item not in item_set.preferred),
            item_set.units.get(item),
            *item_set.range,
        )
        for number, item_set in numbered
        for table, labels in item_set.items.items()
        for item in labels
    ]
    _create(
        connection,
        "items",
        {
            "itemid": pa.int64(),
            "variable": pa.uint16(),
            "choice": pa.uint8(),
            "item_unit": pa.string(),
            "lowest": pa.float64(),
            "highest": pa.float64(),
        },
        items,
    )


def create_charted(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the table ``charted`` of the rows of the profile's items, empty."""
    connection.execute(
        """
        CREATE TABLE charted (
            timeline BIGINT, admission BIGINT, stay_id BIGINT, itemid BIGINT,
            time DOUBLE, value VARCHAR, valueuom VARCHAR
        )
        """
    )


def load_charted(
    connection: duckdb.DuckDBPyConnection, hospital: Hospital, table: RawTable, profile: Profile
) -> None:
    """Read a raw event table and add the rows of the profile's items to ``charted``.

    Nothing is joined here: DuckDB keeps the rows that go through a join in memory, and these are
    as many as the file is long.

    Raises:
        UserError: a row that cannot be read.
    """
    numbers = profile.numbers(table.name)
    items = _tuple([*numbers])
    empty = ", ".join(map(sql_text, ["", *profile.empty]))
    events = hospital.events[table.name].format(table=table.sql)
    with blame(table.file):
        connection.execute(
            f"""
            INSERT INTO charted
            SELECT timeline, admission, stay_id, {_number("item", numbers)}, time, value, valueuom
            FROM ({events}) WHERE item IN {items} AND value NOT IN ({empty})
            """
        )


def buckets(connection: duckdb.DuckDBPyConnection) -> list[tuple[int, int]]:
    """First and last subject of consecutive buckets of patients, some BUCKET_ROWS rows each."""
    return connection.execute(
        """
        WITH lines AS (SELECT timeline, count(*) AS n FROM charted GROUP BY timeline),
        patients AS (
            SELECT subject_id, sum(n) AS n
            FROM (SELECT DISTINCT subject_id, timeline FROM stays) JOIN lines USING (timeline)
            GROUP BY subject_id
        ),
        filled AS (
            SELECT subject_id, (sum(n) OVER (ORDER BY subject_id) - n) // ? AS bucket FROM patients
        )
        SELECT min(subject_id), max(subject_id) FROM filled GROUP BY bucket ORDER BY bucket
        """,
        [BUCKET_ROWS],
    ).fetchall()


# Rows of admissions that have a stay, but those that name another stay; each at its time in every
# stay of its timeline that it falls into. The parameters are the first and the last patient.
TIMED = """
    WITH here AS (SELECT * FROM stays WHERE subject_id BETWEEN ? AND ?),
    admitted AS (
        SELECT timeline, here.stay_id AS own_stay, itemid, time, value, valueuom
        FROM charted JOIN here USING (timeline)
        WHERE charted.admission IS NOT DISTINCT FROM here.admission
            AND coalesce(charted.stay_id, here.stay_id) = here.stay_id
    )
    SELECT place, (time - starts) / 3600 AS hours,
        own_stay = stay_id OR time BETWEEN starts AND ends AS belongs,
        itemid, value, valueuom
    FROM admitted JOIN here USING (timeline)
    WHERE hours >= 0 AND hours <= los_hours
"""


def load_events(
    connection: duckdb.DuckDBPyConnection,
    item_sets: Sequence[ItemSet],
    first: int,
    last: int,
    timed: str = TIMED,
) -> None:
    """Create the table ``events`` of the cleaned rows of a bucket's patients.

    A row that can be in a stay's record is there with its time in that stay (``hours``), its
    cleaned ``number`` (null if the text cannot be read or the number is ``impossible``), the raw
    ``text`` where the choice among duplicates needs it, and whether the row itself ``belongs`` to
    the stay: a row of another stay of the patient may take part in the choice among duplicates.
    ``timed`` is the query that finds these rows; its parameters are the first and last patient.
    """
    texts = [n for n, s in enumerate(item_sets) if s.duplicates == "greatest_text"]
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE events AS
        WITH timed AS ({timed}),
        parsed AS (
            SELECT timed.*, items.* EXCLUDE (itemid), position,
                CASE WHEN isfinite(TRY_CAST(value AS DOUBLE)) THEN TRY_CAST(value AS DOUBLE) END
                    AS parsed
            FROM timed JOIN items USING (itemid) LEFT JOIN levels ON
                levels.variable = items.variable
                AND spelling = regexp_replace(lower(trim(value)), '\\.0*$', '')
        ),
        cleaned AS (SELECT *, {_by_rule(list(map(cleaned, item_sets)))} AS number FROM parsed)
        SELECT place, hours, variable, choice, belongs,
            CASE WHEN number BETWEEN lowest AND highest THEN number END AS number,
            CASE WHEN variable IN {_tuple(texts)} THEN value END AS text,
            number NOT BETWEEN lowest AND highest AS impossible
        FROM cleaned
        """,
        [first, last],
    )


# Rows in a stay whose text cannot be read, and rows with an impossible number, of each series.
REJECTED = """
    SELECT name, count(*) FILTER (impossible IS NULL), count(*) FILTER (impossible)
    FROM events JOIN variables USING (variable)
    WHERE number IS NULL GROUP BY name ORDER BY name
"""


def load_records(connection: duckdb.DuckDBPyConnection, item_sets: Sequence[ItemSet]) -> None:
    """Create the table ``records`` of a bucket: one number per stay, time and variable."""
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE records AS
        WITH per_choice AS (
            SELECT place, hours, variable, choice, bool_or(belongs) AS belongs,
                {_by_rule([DUPLICATES[item_set.duplicates] for item_set in item_sets])} AS number
            FROM events GROUP BY place, hours, variable, choice
        )
        SELECT place, hours, variable, arg_min(number, choice) AS number
        FROM per_choice GROUP BY place, hours, variable
        HAVING bool_or(belongs) AND arg_min(number, choice) IS NOT NULL
        """
    )


MEASUREMENTS = """
    SELECT stay_id, hours, name AS variable,
        CASE WHEN kind = 'continuous' THEN number END AS value, level
    FROM records JOIN stays USING (place) JOIN variables USING (variable)
        LEFT JOIN (SELECT DISTINCT variable, position, level FROM levels) AS levels
        ON levels.variable = records.variable AND position = number
    ORDER BY place, hours, records.variable
"""


def _by_rule(rules: Sequence[str]) -> str:
    """A CASE over ``variable`` of the SQL of each variable's rule."""
    numbers: dict[str, list[int]] = {}
    for number, rule in enumerate(rules):
        numbers.setdefault(rule, []).append(number)
    cases = [f"WHEN variable IN {_tuple(of)} THEN {rule}" for rule, of in numbers.items()]
    return f"CASE {' '.join(cases)} END" if cases else "NULL::DOUBLE"


def _number(item: str, numbers: dict[Item, int]) -> str:
    """The number of an item: a number is its own, names have consecutive ones."""
    if all(isinstance(known, int) for known in numbers):
        return item
    names = ", ".join(map(sql_text, numbers))
    return f"{min(numbers.values()) - 1} + list_position([{names}], {item})"


def _tuple(values: Sequence[Item]) -> str:
    written = (str(v) if isinstance(v, int) else sql_text(v) for v in values)
    return f"({', '.join(written) or 'NULL'})"


def _create(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    columns: dict[str, pa.DataType],
    rows: Sequence[tuple[object, ...]],
) -> None:
    arrays = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(columns.values())]
    connection.register("given", pa.table(arrays, names=list(columns)))
    connection.execute(f"CREATE TABLE {name} AS FROM given")
    connection.unregister("given")
