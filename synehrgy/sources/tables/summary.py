"""What was read of a hospital's tables, and what was left out."""

from dataclasses import dataclass, field

from synehrgy.sources.counts import CohortCounts, line


@dataclass
class TablesSummary(CohortCounts):
    """Counts of an extraction, besides those of the cohort.

    Attributes:
        path: folder of the cohort.
        split_rule: how patients were split.
        rows: rows of each file.
        unused: columns that were not read, by file.
        dropped: rows or values that were left out, by reason.
        notes: what else there is to say.
    """

    path: str
    split_rule: str
    rows: dict[str, int] = field(default_factory=dict)
    unused: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def render(self) -> str:
        """The counts as compact text."""
        unused = [f"  not read      {file}: {', '.join(c)}" for file, c in self.unused.items() if c]
        lines = [
            f"Cohort {self.path} ({self.seconds:.1f} s)",
            line("rows read", self.rows),
            *(["  left out"] if any(self.dropped.values()) else []),
            *(f"    {n:>10,}  {reason}" for reason, n in self.dropped.items() if n),
            *unused,
            f"  stays         {self.n_stays:,} of {self.n_patients:,} patients",
            f"  splits        {self.split_rule}",
            *self.lines(),
            *(f"  note          {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()
