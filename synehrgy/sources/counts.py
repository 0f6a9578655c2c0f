"""Counts of an extraction, added up and put into words."""

import textwrap

import pyarrow as pa
import pyarrow.compute as pc


def tally(counts: dict[str, int], names: pa.ChunkedArray) -> None:
    """Add how often each name occurs."""
    for row in pc.value_counts(names).to_pylist():
        counts[row["values"]] = counts.get(row["values"], 0) + row["counts"]


def line(title: str, counts: dict[str, int]) -> str:
    """A line of names and counts below a title, wrapped."""
    # A name and its count stay on one line: no-break spaces until the text is wrapped.
    entries = (f"{name} {n:,}".replace(" ", "\xa0") for name, n in counts.items())
    text = textwrap.fill(
        ", ".join(entries) or "none",
        width=98,
        initial_indent=f"  {title:<14}",
        subsequent_indent=" " * 16,
        break_on_hyphens=False,
    )
    return text.replace("\xa0", " ")
