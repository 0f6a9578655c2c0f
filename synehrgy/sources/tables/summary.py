"""What was read of a hospital's tables, and what was left out."""

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from synehrgy.cohort import SPLITS
from synehrgy.sources.counts import line, tally


@dataclass
class TablesSummary:
    """Counts of an extraction.

    Attributes:
        path: folder of the cohort.
        split_rule: how patients were split.
        rows: rows of each file.
        unused: columns that were not read, by file.
        dropped: rows or values that were left out, by reason.
        stays, patients: number of each in every split.
        time_points: distinct times of a stay with a value.
        values: number of values of each series.
        codes: number of codes in each system.
        positives: stays with each label.
        notes: what else there is to say.
        seconds: time taken.
    """

    path: str
    split_rule: str
    rows: dict[str, int] = field(default_factory=dict)
    unused: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    stays: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    patients: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    time_points: int = 0
    values: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    positives: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, stays: pa.Table, codes: pa.Table, measurements: pa.Table) -> None:
        """Count a chunk of the cohort's tables; a patient's stays are in one chunk."""
        tally(self.stays, stays["split"])
        tally(self.patients, stays.filter(pc.equal(stays["stay_index"], 0))["split"])
        tally(self.codes, codes["system"])
        tally(self.values, measurements["variable"])
        for label in self.positives:
            self.positives[label] += pc.sum(stays[label]).as_py() or 0

    def render(self) -> str:
        """The counts as compact text."""
        n_stays, n_patients = sum(self.stays.values()), sum(self.patients.values())
        unused = [f"  not read      {file}: {', '.join(c)}" for file, c in self.unused.items() if c]
        lines = [
            f"Cohort {self.path} ({self.seconds:.1f} s)",
            line("rows read", self.rows),
            *(["  left out"] if any(self.dropped.values()) else []),
            *(f"    {n:>10,}  {reason}" for reason, n in self.dropped.items() if n),
            *unused,
            f"  stays         {n_stays:,} of {n_patients:,} patients",
            f"  splits        {self.split_rule}",
            line("  stays", self.stays),
            line("  patients", self.patients),
            line("codes", self.codes),
            line("labels", self.positives),
            f"  values        {sum(self.values.values()):,} at {self.time_points:,} time points",
            line("", self.values),
            *(f"  note          {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()
