"""What an extraction read, kept and dropped."""

import textwrap
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from synehrgy.cohort import SPLITS


@dataclass
class ExtractionSummary:
    """Counts of an extraction.

    Attributes:
        path: folder of the cohort.
        profile: ``paper`` or ``clinical``.
        split_rule: how patients were split.
        rows: rows read of each raw event table.
        stays_listed: stays in the raw table.
        dropped: stays dropped, by reason, in the order of the rules.
        stays, patients: number of each in every split.
        time_points: distinct times of a stay with a value.
        values: number of values of each series.
        unreadable: rows in a stay whose text is no value of its series, by series.
        impossible: rows in a stay outside the range of possible values, by series.
        codes: number of codes in each system.
        positives: stays with each label.
        seconds: time taken.
    """

    path: str
    profile: str
    split_rule: str
    stays_listed: int
    dropped: dict[str, int]
    rows: dict[str, int] = field(default_factory=dict)
    stays: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    patients: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    time_points: int = 0
    values: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)
    impossible: dict[str, int] = field(default_factory=dict)
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
        _tally(self.stays, stays["split"])
        _tally(self.patients, stays.filter(pc.equal(stays["stay_index"], 0))["split"])
        _tally(self.codes, codes["system"])
        _tally(self.values, measurements["variable"])
        for label in self.positives:
            self.positives[label] += pc.sum(stays[label]).as_py() or 0

    def add_rejected(self, rows: list[tuple[str, int, int]]) -> None:
        """Add rows of a series' name, its unreadable and its impossible rows."""
        for name, unreadable, impossible in rows:
            for counts, n in ((self.unreadable, unreadable), (self.impossible, impossible)):
                if n:
                    counts[name] = counts.get(name, 0) + n

    def render(self) -> str:
        """The counts as compact text."""
        lines = [
            f"Cohort {self.path} ({self.profile} profile, {self.seconds:.1f} s)",
            _line("rows read", {name.upper(): n for name, n in self.rows.items()}),
            f"  stays listed  {self.stays_listed:,}",
            *(f"    {-n:>8,}    {reason}" for reason, n in self.dropped.items()),
            f"  stays kept    {self.n_stays:,} of {self.n_patients:,} patients",
            f"  splits        {self.split_rule}",
            _line("  stays", self.stays),
            _line("  patients", self.patients),
            _line("codes", self.codes),
            _line("labels", self.positives),
            f"  values        {self.n_values:,} at {self.time_points:,} time points",
            _line("", self.values),
            _line("unreadable", dict(sorted(self.unreadable.items()))),
            _line("impossible", dict(sorted(self.impossible.items()))),
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


def _tally(counts: dict[str, int], names: pa.ChunkedArray) -> None:
    for row in pc.value_counts(names).to_pylist():
        counts[row["values"]] = counts.get(row["values"], 0) + row["counts"]


def _line(title: str, counts: dict[str, int]) -> str:
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
