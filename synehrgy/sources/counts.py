"""Counts of an extraction, added up and put into words."""

import textwrap
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from synehrgy.cohort import SPLITS


@dataclass(kw_only=True)
class CohortCounts:
    """How much of what a cohort has.

    Attributes:
        stays, patients: number of each in every split.
        time_points: distinct times of a stay with a value.
        values: number of values of each series.
        codes: number of codes in each system.
        positives: stays with each label.
        seconds: time taken.
    """

    stays: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    patients: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    time_points: int = 0
    values: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    positives: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def n_stays(self) -> int:
        """Stays kept."""
        return sum(self.stays.values())

    @property
    def n_patients(self) -> int:
        """Patients kept."""
        return sum(self.patients.values())

    @property
    def n_values(self) -> int:
        """Values of all series."""
        return sum(self.values.values())

    def add(self, stays: pa.Table, codes: pa.Table, measurements: pa.Table) -> None:
        """Count a chunk of the cohort's tables; a patient's stays are in one chunk."""
        tally(self.stays, stays["split"])
        tally(self.patients, stays.filter(pc.equal(stays["stay_index"], 0))["split"])
        tally(self.codes, codes["system"])
        tally(self.values, measurements["variable"])
        for label in self.positives:
            self.positives[label] += pc.sum(stays[label]).as_py() or 0

    def lines(self) -> list[str]:
        """What there is in each split, of each code system, label and series."""
        return [
            line("  stays", self.stays),
            line("  patients", self.patients),
            line("codes", self.codes),
            line("labels", self.positives),
            f"  values        {self.n_values:,} at {self.time_points:,} time points",
            line("", self.values),
        ]


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
