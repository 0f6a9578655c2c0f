"""What is wrong with a hospital's tables: all of it, with file, line and column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb

from synehrgy.errors import UserError
from synehrgy.sources.reading import sql_text
from synehrgy.sources.tables.raw import RawTable

# Rows, and different texts, that a message shows.
SHOWN_LINES, SHOWN_TEXTS = 3, 8


@dataclass(frozen=True)
class Fault:
    """What can be wrong with a row of a table of codes or measurements.

    Attributes:
        column: name of the column that it is about.
        what: what is wrong; ``{}`` stands for the text of the cell.
        counted: what rows are called that were left out for it.
        advice: what to do, besides leaving them out.
        of_texts: whether it is the text that is wrong, so that all such texts are of interest.
    """

    column: str
    what: str
    counted: str
    advice: str
    of_texts: bool = False


@dataclass
class Problems:
    """Collects what is wrong, so that one run tells all of it."""

    found: list[str] = field(default_factory=list)

    def add(
        self,
        table: RawTable,
        column: str,
        lines: Sequence[int],
        n: int,
        what: str,
        advice: str,
    ) -> None:
        """Add what is wrong with some rows.

        Args:
            table: the file.
            column: name of the column.
            lines: numbers of the first of the rows.
            n: how many rows there are.
            what: what is wrong with the first of them.
            advice: what to do.
        """
        shown = ", ".join(table.line(line) for line in lines[:SHOWN_LINES])
        more = f" and {n - SHOWN_LINES:,} more" if n > SHOWN_LINES else ""
        several = "s" if n > 1 else ""
        where = f"{table.what_line}{several} {shown}{more}"
        self.found.append(f"{table.file}, {where}, column {column!r}: {what}. {advice}")

    def find(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: RawTable,
        column: str,
        *,
        rows: str,
        condition: str,
        text: str,
        what: str,
        advice: str,
        of_texts: bool = False,
    ) -> None:
        """Add the rows of a query's result that meet a condition, if there are any.

        Args:
            connection: of the database.
            table: the file that they come from.
            column: name of the column there.
            rows: a table with the number of the row in the file as ``row``.
            condition: what is wrong, in SQL.
            text: what the cell says, in SQL.
            what: what is wrong; ``{}`` stands for the text.
            advice: what to do.
            of_texts: whether to show what else such cells say.
        """
        n, lines, example = connection.execute(
            f"""
            SELECT count(*), min(row, {SHOWN_LINES}), arg_min({text}, row)
            FROM {rows} WHERE {condition}
            """
        ).fetchall()[0]
        if not n:
            return
        if of_texts:
            query = f"SELECT {text} AS text FROM {rows} WHERE {condition}"
            advice += _also(connection, query, example)
        self.add(table, column, lines, n, what.replace("{}", _quoted(example), 1), advice)

    def of_rows(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: RawTable,
        rows: str,
        faults: Mapping[str, Fault],
        key: str,
        drop: Sequence[str],
        dropped: dict[str, int],
    ) -> None:
        """Add rows that were marked as faulty, or count them where they may be left out.

        Args:
            connection: of the database.
            table: the file that they come from.
            rows: a query with ``row``, ``fault`` (null where nothing is wrong) and ``text``.
            faults: what each ``fault`` means; others are not looked at.
            key: the key of ``tables.yaml`` that may name faults to leave out.
            drop: those that it names.
            dropped: counts of rows that are left out, by reason.
        """
        known = ", ".join(map(sql_text, faults))
        marked = connection.execute(
            f"""
            SELECT fault, count(*), min(row, {SHOWN_LINES}), arg_min(text, row)
            FROM (
                SELECT fault, row, min(text) AS text FROM ({rows}) WHERE fault IN ({known})
                GROUP BY fault, row
            )
            GROUP BY fault ORDER BY min(row), fault
            """
        ).fetchall()
        for name, n, lines, text in marked:
            fault = faults[name]
            # A fault of values has the number of its series behind it.
            kind = name.partition(":")[0]
            if kind in drop:
                reason = f"rows of {table.file.name} {fault.counted}"
                dropped[reason] = dropped.get(reason, 0) + n
                continue
            advice = f"{fault.advice}, or leave such rows out: drop: [{kind}] in {key}."
            if fault.of_texts:
                query = f"SELECT text FROM ({rows}) WHERE fault = {sql_text(name)}"
                advice += _also(connection, query, text)
            self.add(
                table, fault.column, lines, n, fault.what.replace("{}", _quoted(text), 1), advice
            )

    def refuse(self) -> None:
        """Raise what was found.

        Raises:
            UserError: if anything was.
        """
        if len(self.found) == 1:
            raise UserError(self.found[0])
        if self.found:
            listed = "\n".join(f"  {problem}" for problem in self.found)
            raise UserError(f"{len(self.found)} things are wrong with the tables:\n{listed}")


def _also(connection: duckdb.DuckDBPyConnection, query: str, first: str | None) -> str:
    """What else cells say that have the same fault as the first, the commonest before."""
    found = connection.execute(
        f"SELECT text, count(*) FROM ({query}) GROUP BY text ORDER BY count(*) DESC, text LIMIT 100"
    ).fetchall()
    others = [f"{text!r} ({n:,})" for text, n in found if text not in (first, None)]
    if not others:
        return ""
    more = f" and {len(others) - SHOWN_TEXTS} more" if len(others) > SHOWN_TEXTS else ""
    return f" Others: {', '.join(others[:SHOWN_TEXTS])}{more}."


def _quoted(text: str | None) -> str:
    return "an empty cell" if text is None else repr(text)
